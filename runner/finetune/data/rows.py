"""One row of training data: its problems, its questions and its length. Formats are OpenAI's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from runner.finetune.data.formats import TrainDataFormat
from runner.scoring.normal import folded
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Row = dict[str, Any]

_KEYS = {
    TrainDataFormat.CHAT: {"messages", "tools", "parallel_tool_calls", "functions"},
    TrainDataFormat.COMPLETION: {"prompt", "completion"},
    TrainDataFormat.PREFERENCE: {"input", "preferred_output", "non_preferred_output"},
}
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_CONTROL = re.compile(r"<\|[a-z_]{2,30}\|>|</?s>|\[/?INST\]")
COUNTED_BY = "estimate (one token for three bytes)"
"""How `tokens` counts, in words."""

_AROUND_TURN, _AROUND_ROW = 4, 4
"""Tokens that a chat template adds per turn and per conversation (as OpenAI counts them)."""


def problems(row: Row, form: TrainDataFormat) -> Iterator[str]:
    """Yield everything that is wrong with a row."""
    allowed = _KEYS[form]
    for key in row:
        if key not in allowed:
            yield f"unknown key '{key}'{suggest(key, allowed) or f'; a {form} row has {_listed(allowed)}'}"
    match form:
        case TrainDataFormat.COMPLETION:
            for key in ("prompt", "completion"):
                yield from _text_problems(row.get(key), key)
        case TrainDataFormat.PREFERENCE:
            yield from _preference_problems(row)
        case _:
            yield from _chat_problems(row.get("messages"), "messages", answered=True)


def unspoken(row: Row) -> Iterator[str]:
    """Yield the parts of a chat that are not text, and so would be lost on a trainer of text: tools, their calls, images."""
    for key in ("tools", "functions"):
        if row.get(key):
            yield f"'{key}' cannot be learned on this machine; only text can"
    for number, turn in enumerate(_turns(row)):
        for key in ("tool_calls", "function_call"):
            if turn.get(key):
                yield f"messages[{number}]: '{key}' cannot be learned on this machine; only text can"
        content = turn.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type", "text") != "text":
                yield f"messages[{number}]: {part['type']} cannot be learned on this machine; only text can"


def remarks(row: Row) -> Iterator[str]:
    """Yield what is allowed in a row, but probably not intended."""
    for text in texts(row):
        if found := _CONTROL.search(text):
            yield f"{found[0]} is in the text: a chat template reads it as a control token"
            return


def texts(row: Row) -> Iterator[str]:
    """Yield every text in a row that the model sees."""
    for turn in _turns(row):
        content = turn.get("content")
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            yield from (str(part.get("text", "")) for part in content if isinstance(part, dict))


def questions(row: Row) -> list[str]:
    """Return the questions of a row, normalised: every user turn, or the prompt. All answers of a conversation are learned."""
    return [normalised(text) for turn in _turns(row) if turn.get("role") == "user" for text in texts({"messages": [turn]})]


def prompt_of(row: Row) -> str:
    """Return everything before the answer, normalised. Rows with the same prompt and different answers contradict each other."""
    turns = [turn for turn in _turns(row) if not turn.get("answer")]
    return "\x00".join(normalised(text) for turn in turns for text in texts({"messages": [turn]}))


def tokens(row: Row) -> int:
    """Estimate the tokens of a row, the chat template's included: cautiously, since English has about four bytes per token."""
    return sum(-(-len(text.encode()) // 3) for text in texts(row)) + _AROUND_TURN * len(list(_turns(row))) + _AROUND_ROW


def normalised(text: str) -> str:
    """Normalise text for comparison, in the form in which scorers compare words: case, white space, quotes make no difference."""
    return folded(text)


def _turns(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the turns of a row of any format; those that are learned are marked with ``answer``."""
    if isinstance(prompt := row.get("prompt"), str):
        yield {"role": "user", "content": prompt}
        yield {"role": "assistant", "content": row.get("completion"), "answer": True}
        return
    given = row.get("input")
    messages = given.get("messages", []) if isinstance(given, dict) else row.get("messages", [])
    turns = [turn for turn in messages if isinstance(turn, dict)] if isinstance(messages, list) else []
    last = len(turns) - 1 if "messages" in row else len(turns)
    yield from ({**turn, "answer": True} if number == last else turn for number, turn in enumerate(turns))
    for key in ("preferred_output", "non_preferred_output"):
        if isinstance(answer := row.get(key), list):
            yield from ({**turn, "answer": True} for turn in answer if isinstance(turn, dict))


def _text_problems(value: Any, key: str) -> Iterator[str]:
    if value is None:
        yield f"'{key}' is missing"
    elif not isinstance(value, str):
        yield f"{key} is {_kind(value)}, not a string"
    elif not value.strip():
        yield f"{key} is empty"


def _chat_problems(messages: Any, where: str, *, answered: bool) -> Iterator[str]:
    if messages is None:
        yield f"'{where}' is missing"
        return
    if not isinstance(messages, list) or not messages:
        yield f"{where} is {_kind(messages)}, where a list of turns is needed"
        return
    for number, turn in enumerate(messages):
        yield from _turn_problems(turn, f"{where}[{number}]")
    last = messages[-1].get("role") if isinstance(messages[-1], dict) else None
    if answered and last != "assistant" and last in _ROLES:
        yield f"the last turn is the {last}'s; it must be the assistant's, which is what is learned"
    elif answered and len(messages) == 1 and last == "assistant":
        yield "there is no prompt: no turn comes before the assistant's"
    elif not answered and last == "assistant":
        yield f"{where} ends with an assistant's turn; the answers belong in preferred_output and non_preferred_output"


def _turn_problems(turn: Any, where: str) -> Iterator[str]:
    if not isinstance(turn, dict):
        yield f"{where} is {_kind(turn)}, not a turn such as {{'role': 'user', 'content': '...'}}"
        return
    role, content = turn.get("role"), turn.get("content")
    if role not in _ROLES:
        yield f"{where}: unknown role {role!r}{suggest(str(role), _ROLES) or f'; roles are {_listed(_ROLES)}'}"
    if content is None and role == "assistant" and (turn.get("tool_calls") or turn.get("function_call")):
        return
    if content is None:
        yield f"{where} has no content"
    elif isinstance(content, str):
        if not content.strip():
            yield f"{where} ({role}) is empty"
    elif not isinstance(content, list):
        yield f"{where}: content is {_kind(content)}, not a string"


def _preference_problems(row: Row) -> Iterator[str]:
    given = row.get("input")
    yield from _chat_problems(given.get("messages") if isinstance(given, dict) else None, "input.messages", answered=False)
    answers = []
    for key in ("preferred_output", "non_preferred_output"):
        answer = row.get(key)
        if not isinstance(answer, list) or not answer:
            yield f"'{key}' is {'missing' if answer is None else _kind(answer)}, where a list with the assistant's turn is needed"
            continue
        for number, turn in enumerate(answer):
            yield from _turn_problems(turn, f"{key}[{number}]")
            if isinstance(turn, dict) and turn.get("role") in _ROLES and turn["role"] != "assistant":
                yield f"{key}[{number}] is the {turn['role']}'s; it must be the assistant's"
        answers.append(answer)
    if len(answers) == 2 and answers[0] == answers[1]:  # noqa: PLR2004
        yield "the preferred answer and the other one are the same"


def _kind(value: Any) -> str:
    if value in ([], {}):
        return "empty"
    return {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(
        type(value), "a number"
    )


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
