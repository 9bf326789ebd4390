"""Hold a conversation with the model: it may call tools, whose results it is told, and the user may say more."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from runner.adapters import Formatted, ParseError, conversation_of
from runner.answers import ending_of, without_thinking
from runner.cache import encoded_params, request_key
from runner.solvers.solved import Bounds, Solved
from runner.solvers.steps import Unanswered
from runner.tools import ToolCall
from runner.types import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.adapters import Adapter
    from runner.solvers.steps import Steps
    from runner.solvers.user import User
    from runner.tools import Toolbox
    from runner.types import Choice, Message, Row

_MORE = 16
"""Requests beyond those of all turns, for answers that have to be corrected."""


class Conversation:
    """Fill in the prompt and ask, until the model calls no more tools; then say each further turn of the user, and ask again.

    Each request is a step, with its own key. The results of tools are recorded before the model is told them. A turn of the user
    that takes more than `Toolbox.max_turns` requests ends there: the sample is ``truncated``.

    Args:
        adapter: makes the first messages, and reads the last answer.
        tools: what the model may call; None: nothing.
        tool_choice: whether it has to (``auto``, ``none``, ``required`` or the name of a tool). A model that has to call a tool
            is free to answer once it has done so: it could never end otherwise.
        user: says what comes after each answer; None: the first answer is the last.
    """

    is_code = False

    def __init__(
        self, adapter: Adapter, tools: Toolbox | None = None, *, tool_choice: str | None = None, user: User | None = None
    ) -> None:
        self.tools = tools
        self._adapter = adapter
        self._attaching = conversation_of(adapter)
        self._choice = tool_choice
        self._patterns: dict[tuple[int, str | None], tuple[Request, bytes]] = {}
        self._user = user
        most = tools.max_turns if tools is not None else 1
        self.bounds = Bounds(requests=(most + 1) * (1 + (user.turns if user is not None else 0)) + _MORE)

    async def solve(self, row: Row, steps: Steps) -> Solved:
        """Hold the conversation of a row. Raises as `Solver.solve`."""
        if self._attaching is not None:
            await asyncio.to_thread(self._attaching.prepare, [row])
        talk = _Talk(self, row, steps, self._adapter.format(row).messages or [])
        choices = await talk.answer(self._choice)
        for turn in range(self._user.turns if self._user is not None else 0):
            if ending_of(choices[0].finish_reason) in ("cut", "refused"):
                return Solved(choices=choices, messages=talk.messages)
            assert self._user is not None
            said = _said(choices[0])
            if (more := await self._user.says(row, steps, [*talk.messages, said], turn)) is None:
                break
            talk.messages += [said, {"role": "user", "content": more}]
            choices = await talk.answer(self._choice)
        return await self._corrected(talk, choices)

    def pattern(self, steps: Steps, offered: list[dict[str, Any]], choice: str | None) -> tuple[Request, bytes]:
        """Return a request without messages, and its encoded parameters. Rows that are offered the same share it."""
        same = self.tools is None or not self.tools.by_row
        found = self._patterns.get((steps.repeat, choice)) if same else None
        if found is None:
            more: dict[str, Any] = {"tools": offered} if offered else {}
            if offered and choice is not None:
                free = choice in ("auto", "none", "required")
                more["tool_choice"] = choice if free else {"type": "function", "function": {"name": choice}}
            request = steps.lm.request(messages=[], **self._adapter.params(), **more)
            found = request, encoded_params(request.params)
            if same:
                self._patterns[steps.repeat, choice] = found
        return found

    async def _corrected(self, talk: _Talk, choices: list[Choice]) -> Solved:
        """Ask again for an answer that does not have the form that the adapter wants, as often as that does."""
        corrections = 0
        while True:
            try:
                self._adapter.parse(choices[0].text or "")
            except ParseError as error:
                formatted = Formatted(talk.messages, corrections=corrections)
                again = self._adapter.reask(formatted, choices[0].text or "", error)
                if again is not None and ending_of(choices[0].finish_reason) not in ("cut", "refused"):
                    talk.messages, corrections = list(again.messages or []), again.corrections
                    choices = await talk.answer(None)
                    continue
            return Solved(choices=choices, messages=talk.messages)


class _Talk:
    """One conversation: its messages so far, and how the next answer is got."""

    def __init__(self, whole: Conversation, row: Row, steps: Steps, messages: list[Message]) -> None:
        self.messages = list(messages)
        self._row = row
        self._steps = steps
        self._whole = whole
        self._tools = whole.tools
        self._asked = 0
        self._offered = whole.tools.definitions(row) if whole.tools is not None else []

    async def answer(self, choice: str | None) -> list[Choice]:
        """Ask until the model calls no more tools, and return its answer, which is not among the messages yet."""
        most = self._tools.max_turns if self._tools is not None else 1
        choices: list[Choice] = []
        for number in range(most):
            choices = await self._ask(choice if number == 0 or choice in ("auto", "none") else None)
            calls = choices[0].tool_calls
            cut = ending_of(choices[0].finish_reason) in ("cut", "refused")
            if not calls or cut or self._tools is None or not self._tools.answers:
                return choices
            if number < most - 1:
                await self._tell(choices[0], calls)
        return [msgspec.structs.replace(choices[0], finish_reason="max_turns"), *choices[1:]]

    async def _ask(self, choice: str | None) -> list[Choice]:
        steps, lm = self._steps, self._steps.lm
        pattern, encoded = self._whole.pattern(steps, self._offered, choice)
        request = Request(
            model=pattern.model,
            model_type=pattern.model_type,
            endpoint=pattern.endpoint,
            messages=self.messages.copy(),
            params=pattern.params,
            rollout=pattern.rollout,
        )
        response = (await steps.take(lm, request, request_key(request, encoded), {})).response
        self._asked += 1
        return (without_thinking(response) if lm.split_thinking else response).choices

    async def _tell(self, choice: Choice, calls: list[dict[str, Any]]) -> None:
        """Add the calls of an answer and their results to the conversation. The tools run at the same time."""
        named = _calls(calls)
        results = await asyncio.gather(*[self._result(call) for call in named])
        self.messages.append(_said(choice, named))
        self.messages += [
            {"role": "tool", "tool_call_id": call.id, "content": result} for call, result in zip(named, results, strict=True)
        ]

    async def _result(self, call: ToolCall) -> str:
        assert self._tools is not None
        slot = self._row.id, self._steps.repeat, self._asked - 1
        found = await self._tools.result(self._row, slot, call, look=self._steps.looks)
        if found is None:
            raise Unanswered(f"the result of {call.name} is not known")
        return found


def _calls(asked: list[dict[str, Any]]) -> list[ToolCall]:
    """Return the calls of one answer."""
    same: Counter[tuple[str, str]] = Counter()
    found: list[ToolCall] = []
    for number, call in enumerate(asked):
        function = call.get("function") or {}
        what = str(function.get("name")), str(function.get("arguments") or "")
        found.append(ToolCall(str(call.get("id") or f"call_{number}"), *what, same[what]))
        same[what] += 1
    return found


def _said(choice: Choice, calls: Sequence[ToolCall] = ()) -> Message:
    """Return an answer as a message of the conversation that goes on."""
    message: Message = {"role": "assistant", "content": choice.text if choice.text is not None or calls else ""}
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}
            for call in calls
        ]
    return message
