"""The judge: a model scores each answer by a rubric, in a form that is checked."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from runner.answers import ending_of
from runner.answers.schema import Schema
from runner.answers.values import NOTHING, values
from runner.errors import ConfigError, DataError
from runner.scoring.fences import NOTICE, fenced
from runner.scoring.targets import Question, Verdict, texts, wanted
from runner.types import Judgement, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.scoring.targets import Asked, Models
    from runner.types import Completion, Sample

VERSION = 1
"""Version of the words around a rubric. Judges of other versions are other judges."""

Send = Literal["json_schema", "json_object", "none"]


class Example(NamedTuple):
    """An answer with its verdict, shown to the judge."""

    answer: str
    verdict: str | float
    question: str | None = None
    reason: str | None = None


class When(NamedTuple):
    """Bounds of another score between which the judge is asked."""

    score: str
    above: float | None = None
    below: float | None = None

    def decides(self, value: float) -> bool:
        """Return whether the other score decides, so that nobody is asked."""
        return (self.above is not None and value <= self.above) or (self.below is not None and value >= self.below)


class Shown(NamedTuple):
    """Parts that a judge is shown besides the answer.

    Attributes:
        question: fills in what was asked from a row; None: what the model was asked.
        reference: show the row's target.
        context: columns to show.
        reasoning: show the thinking of the judged model.
    """

    question: Callable[[Any], str] | None = None
    reference: bool = False
    context: tuple[str, ...] = ()
    reasoning: bool = False

    def parts(self, asked: Asked) -> list[str]:
        """Return the fenced parts, without the answer. Raises DataError for a column that is missing."""
        row, sample = asked.row, asked.sample
        parts = [fenced("question", self.question(row) if self.question else question_of(sample))]
        for column in self.context:
            if column not in row.fields:
                raise DataError(f"scoring.context: there is no column {column!r}; there are {', '.join(row.fields)}")
            parts.append(fenced("context", _text(row.fields[column])))
        if self.reference:
            options = wanted("judge", row.target)
            parts.append(fenced("reference", "\n".join(texts(option)[0] for option in options)))
        if self.reasoning and sample.reasoning:
            parts.append(fenced("reasoning", sample.reasoning))
        return parts


class Form:
    """The form of a verdict: a label, or a number of a scale; one, or one for each criterion; with or without a reason.

    Args:
        labels: the labels, each with its score.
        scale: the worst and the best number, in place of labels.
        criteria: the names of the criteria; none: one verdict.
        explain: ask for a reason before each verdict.
        send: how the form is sent to the server.
    """

    def __init__(
        self,
        labels: dict[str, float],
        scale: tuple[float, float] | None,
        criteria: Sequence[str] = (),
        *,
        explain: bool = True,
        send: Send = "json_schema",
    ) -> None:
        self.labels, self.scale, self.explain = labels, scale, explain
        self.criteria = tuple(criteria)
        self._known = {label.casefold(): label for label in labels}
        self._send = send
        verdict = self._verdict_schema()
        self._schema = _closed(dict.fromkeys(criteria, verdict)) if criteria else verdict
        self._follows = Schema(self._schema, "scoring")
        self._plain = send == "none" and not criteria
        self._line = re.compile(rf"^\W*{self._key}\W+(.+?)\W*$", re.IGNORECASE | re.MULTILINE)

    @property
    def _key(self) -> str:
        return "label" if self.scale is None else "score"

    def _verdict_schema(self) -> dict[str, Any]:
        if self.scale is None:
            verdict: dict[str, Any] = {"type": "string", "enum": list(self.labels)}
        else:
            whole = all(number.is_integer() for number in self.scale)
            low, high = (int(number) if whole else number for number in self.scale)
            verdict = {"type": "integer" if whole else "number", "minimum": low, "maximum": high}
        return _closed({**({"reason": {"type": "string"}} if self.explain else {}), self._key: verdict})

    @property
    def params(self) -> dict[str, Any]:
        """Return the request's ``response_format``, if any."""
        if self._send == "none":
            return {}
        if self._send == "json_object":
            return {"response_format": {"type": "json_object"}}
        sent = {"name": "verdict", "schema": self._schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": sent}}

    @property
    def wish(self) -> str:
        """Say in which form the judge has to answer."""
        what = f"one of {', '.join(map(_quoted, self.labels))}" if self.scale is None else _span(self.scale)
        reason = "your reason in one or two sentences" if self.explain else ""
        if self._plain:
            first = f"First write {reason}. Then end" if reason else "Answer"
            return f"{first} with a line of its own: {self._key}: followed by {what}."
        one = f'{{"reason": {reason}, "{self._key}": {what}}}' if reason else f'{{"{self._key}": {what}}}'
        if self.criteria:
            names = ", ".join(map(_quoted, self.criteria))
            return f"Answer with nothing but a JSON object that has the keys {names}, each with {one}."
        return f"Answer with nothing but JSON: {one}."

    def written(self, verdict: str | float, reason: str | None) -> str:
        """Write a verdict as the judge has to, for examples."""
        if self._plain:
            said = f"{reason}\n" if self.explain and reason else ""
            return f"{said}{self._key}: {verdict}"
        told = {"reason": reason or ""} if self.explain else {}
        return msgspec.json.encode({**told, self._key: verdict}).decode()

    def read(self, text: str) -> dict[str, tuple[float, str | None, str | None]] | str:
        """Return score, label and reason by criterion (an empty text: the only verdict), or what is wrong with the answer."""
        problem = "it is not in the form that was asked for"
        for part in reversed(values(text)):
            if part.value is NOTHING or not isinstance(part.value, dict):
                continue
            value = self._straight(part.value)
            parts = value if self.criteria else {"": value}
            if len(parts) == (len(self.criteria) or 1) and all(map(self._fits, parts.values())):
                return {name: self._scored(verdict[self._key], verdict.get("reason")) for name, verdict in parts.items()}
            problem = self._follows.errors(value) or problem
        if self.criteria:
            return problem
        lines = self._line.findall(text)
        verdict = self._of_text(lines[-1] if lines else text)
        if verdict is None:
            return problem
        return {"": self._scored(verdict, self._line.sub("", text).strip() or None if lines else None)}

    def _fits(self, verdict: Any) -> bool:
        """Return whether a verdict follows the schema: the same check in a fiftieth of its time."""
        if not isinstance(verdict, dict) or (self.explain and not isinstance(verdict.get("reason"), str)):
            return False
        value = verdict.get(self._key)
        if self.scale is None:
            return isinstance(value, str) and value in self.labels
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        whole = all(number.is_integer() for number in self.scale)
        return self.scale[0] <= value <= self.scale[1] and (not whole or float(value).is_integer())

    def _straight(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return an object with the keys that are read, and with labels in the case that the config has."""
        if self.criteria:
            parts = {name: value[name] for name in self.criteria if name in value}
            return {name: self._cased(one) if isinstance(one, dict) else one for name, one in parts.items()}
        return self._cased(value)

    def _cased(self, value: dict[str, Any]) -> dict[str, Any]:
        value = {key: value[key] for key in ("reason", self._key) if key in value and (self.explain or key != "reason")}
        label = value.get("label")
        known = self._known.get(label.strip().casefold()) if isinstance(label, str) else None
        return value if known is None else {**value, "label": known}

    def _of_text(self, text: str) -> str | float | None:
        found = text.strip().strip("*_`\"'. ")
        if self.scale is None:
            return self._known.get(found.casefold())
        try:
            number = float(found)
        except ValueError:
            return None
        return number if self.scale[0] <= number <= self.scale[1] else None

    def _scored(self, verdict: str | float, reason: str | None) -> tuple[float, str | None, str | None]:
        if self.scale is None:
            return self.labels[str(verdict)], str(verdict), reason
        low, high = self.scale
        return (float(verdict) - low) / (high - low), f"{float(verdict):g}", reason


class Judge(Question):
    """The verdict of a model on one answer, from 0 to 1 with a scale, else the score of the label that it chooses.

    The answer is fenced as data, and shown without the thinking of the model that gave it. A verdict that is not in the form that
    was asked for is asked for once more; after that it is an error of scoring, never a score.

    Args:
        rubric: what is judged, and how.
        form: the form of the verdict.
        shown: what else the judge sees.
        criteria: what is judged, by criterion; none: the rubric alone.
        examples: answers with their verdicts.
        when: ask only where another score does not decide.
        model: the run's name of the model.
    """

    name = "judge"

    def __init__(
        self,
        rubric: str,
        form: Form,
        shown: Shown,
        *,
        criteria: dict[str, str] | None = None,
        examples: Sequence[Example] = (),
        when: When | None = None,
        model: str = "judge",
    ) -> None:
        self.form, self.shown, self.when, self.model = form, shown, when, model
        told = "".join(f"\n- {name}: {what}" for name, what in (criteria or {}).items())
        self._rubric = f"{rubric}\nJudge each of these criteria by itself:{told}" if told else rubric
        self._head: list[Message] = [{"role": "system", "content": f"You judge answers. {NOTICE}"}]
        for example in examples:
            question = [fenced("question", example.question)] if example.question is not None else []
            self._head += [
                {"role": "user", "content": self._asking([*question, fenced("answer", example.answer)])},
                {"role": "assistant", "content": form.written(example.verdict, example.reason)},
            ]

    @property
    def names(self) -> tuple[str, ...] | None:
        """Return the criteria; an empty text where there are none."""
        return self.form.criteria or ("",)

    @property
    def identity(self) -> str:
        """Return a digest of what is asked: the words, and the form. The model is not in it."""
        asked = [VERSION, self._head, self._asking([]), self.form.params, self.shown[1:]]
        return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()

    def check(self, target: Any) -> None:
        """Raise DataError if the target is shown, and missing."""
        if self.shown.reference:
            wanted(self.name, target)

    async def judge(self, asked: Asked, models: Models) -> float | Verdict:
        """Ask the model, unless another score decides.

        Raises:
            DataError: the verdict cannot be used, asked twice; or a column is missing.
            LMError, BudgetExceeded, CacheError: the model does not answer.
        """
        if self.when is not None:
            value = asked.sample.scores.get(self.when.score)
            if value is not None and self.when.decides(value):
                return Verdict(dict.fromkeys(self.names or (), value))
        return await self.decide(self.messages(asked), models)

    def messages(self, asked: Asked) -> list[Message]:
        """Return what the judge is asked about an answer."""
        parts = [*self.shown.parts(asked), fenced("answer", asked.output)]
        return [*self._head, {"role": "user", "content": self._asking(parts)}]

    async def decide(self, messages: list[Message], models: Models) -> Verdict:
        """Ask for a verdict, and once more if it is not in the right form."""
        verdict, completion, cost = await verdict_of(self.form, messages, models(self.model))
        said = {
            name: Judgement(
                label=label, reason=reason, cost_usd=cost, request_key=completion.key, model=completion.response.model
            )
            for name, (_, label, reason) in verdict.items()
        }
        return Verdict({name: score for name, (score, _, _) in verdict.items()}, said)

    def _asking(self, parts: list[str]) -> str:
        return "\n\n".join([self._rubric, *parts, self.form.wish])


async def verdict_of(
    form: Form, messages: list[Message], lm: Any
) -> tuple[dict[str, tuple[float, str | None, str | None]], Completion, float | None]:
    """Ask a model for a verdict in this form, and once more if its answer does not fit.

    Returns:
        The verdict as from `Form.read`, the answer that it is from, and what all answers cost (None: unknown).

    Raises:
        DataError: the second answer does not fit either.
        LMError, BudgetExceeded, CacheError: there is no answer.
    """
    costs: list[float | None] = []
    problem = ""
    for attempt in range(2):
        completion: Completion = await lm.complete(messages, **form.params)
        costs.append(completion.cost_usd)
        choice = completion.response.choices[0]
        text = lm.spoken(completion)
        found = form.read(text)
        if not isinstance(found, str):
            return found, completion, None if None in costs else sum(cost or 0.0 for cost in costs)
        cut = ending_of(choice.finish_reason) == "cut"
        problem = "it was cut off: raise scoring.sampling.max_tokens" if cut else found
        if not attempt:
            wish = f"That verdict cannot be used: {problem}. {form.wish}"
            messages = [*messages, {"role": "assistant", "content": text or "-"}, {"role": "user", "content": wish}]
    raise DataError(f"the judge {lm.model} has given no usable verdict, asked twice: {problem}")


def question_of(sample: Sample) -> str:
    """Return what a model was asked, as text: the user's words, or the whole conversation if there is more to it."""
    if sample.messages is None:
        return sample.prompt or ""
    said = [message for message in sample.messages if message.get("role") != "system"]
    if len(said) == 1:
        return _text(said[0].get("content"))
    return "\n\n".join(f"{message.get('role')}: {_text(message.get('content'))}" for message in said)


def check_labels(labels: dict[str, float], key: str = "scoring.labels") -> None:
    """Raise ConfigError if two labels differ in case only."""
    if len({label.strip().casefold() for label in labels}) < len(labels):
        raise ConfigError(f"{key}: two labels differ in case only, and a judge may write either")


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):  # a message of several parts
        return "\n".join(str(part.get("text") or f"[{part.get('type', 'part')}]") for part in value)
    return msgspec.json.encode(value).decode()


def _quoted(text: str) -> str:
    return f'"{text}"'


def _span(scale: tuple[float, float]) -> str:
    kind = "a whole number" if all(number.is_integer() for number in scale) else "a number"
    return f"{kind} from {scale[0]:g} (worst) to {scale[1]:g} (best)"
