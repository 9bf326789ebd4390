"""Part an answer from thinking that stands in its text, by the marks that models put around it.

Servers with a reasoning parser do this themselves, and send the thinking in a field of its own. Others, and those that are
started without one, leave it in the text: ``<think>Let me see.</think>42``.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from runner.answers.endings import ending_of

if TYPE_CHECKING:
    from runner.types import Choice, Response


class Marks(NamedTuple):
    """The marks around thinking, as regular expressions.

    Attributes:
        opening: where thinking begins.
        closing: where it ends, and the answer begins.
        models: which models write them.
        source: where that is documented.
        prefilled: the chat template of some of these models ends with the opening mark, so that the text lacks it.
        alone: the opening mark shows thinking even if no closing one follows: it was cut off.
        after: what may end the answer, and is not part of it.
    """

    opening: str
    closing: str
    models: str
    source: str
    prefilled: bool = True
    alone: bool = True
    after: str = ""


_VLLM = "github.com/vllm-project/vllm, vllm/reasoning/"
MARKS = (
    Marks(
        "<think>",
        "</think>",
        "DeepSeek R1 and V3, Qwen3, QwQ, GLM 4.5, MiniMax M2, Nemotron, Olmo 3, Phi-4, ERNIE 4.5, Hunyuan, Step, Kimi K2, MiMo",
        f"{_VLLM}deepseek_r1_reasoning_parser.py and others",
    ),
    Marks("<thinking>", "</thinking>", "Claude when prompted so, Reflection", "docs.claude.com, chain of thought prompting"),
    Marks("<reasoning>", "</reasoning>", "Reka Flash 3, models trained with GRPO", "huggingface.co/RekaAI/reka-flash-3"),
    Marks("<thought>", "</thought>", "EXAONE Deep, Gemini's OpenAI endpoint", "huggingface.co/LGAI-EXAONE/EXAONE-Deep-32B"),
    Marks(r"\[THINK\]", r"\[/THINK\]", "Magistral", f"{_VLLM}mistral_reasoning_parser.py"),
    Marks("<seed:think>", "</seed:think>", "Seed-OSS", f"{_VLLM}seedoss_reasoning_parser.py"),
    Marks("<longcat_think>", "</longcat_think>", "LongCat Flash Thinking", f"{_VLLM}longcat_reasoning_parser.py"),
    Marks("◁think▷", "◁/think▷", "Kimi-VL Thinking", "huggingface.co/moonshotai/Kimi-VL-A3B-Thinking"),
    Marks(
        r"<\|START_THINKING\|>",
        r"<\|END_THINKING\|>(?:\s*<\|START_(?:RESPONSE|TEXT)\|>)?",
        "Command A Reasoning",
        f"{_VLLM}cohere_command_reasoning_parser.py",
        after=r"<\|END_(?:RESPONSE|TEXT)\|>",
    ),
    Marks(
        r"<\|channel>thought\n?",
        r"<channel\|>",
        "Gemma 4",
        f"{_VLLM}gemma4_reasoning_parser.py",
    ),
    Marks(
        r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)<\|message\|>",
        r"(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>final(?: <\|constrain\|>\w+)?<\|message\|>",
        "gpt-oss",
        "github.com/openai/harmony, docs/format.md",
        after=r"<\|(?:return|end)\|>",
    ),
    Marks(
        "analysis(?=[A-Z])",
        "assistantfinal",
        "gpt-oss, its special tokens left out",
        "github.com/openai/harmony, docs/format.md",
        prefilled=False,
        alone=False,
    ),
    Marks(r"<\|inner_prefix\|>", r"<\|inner_suffix\|>", "Apertus", f"{_VLLM}apertus_reasoning_parser.py", prefilled=False),
    Marks(
        r"Here(?:'s| is) my thought process:",
        r"Here(?:'s| is) my response:",
        "Granite 3.2",
        f"{_VLLM}granite_reasoning_parser.py",
        prefilled=False,
        alone=False,
    ),
)
"""The marks of thinking, as of 2026-11. The first row that fits a text counts."""

_QUOTES = "`'\"“‘"
"""A closing mark right after one of these is talked about, and ends nothing."""

_Patterns = list[tuple[Marks, re.Pattern[str], re.Pattern[str]]]
"""Marks, and the expressions of the opening and of the closing one."""


@functools.cache  # most runs meet no thinking, and the expressions take 15 ms to compile
def _opened() -> _Patterns:
    return [(marks, re.compile(rf"\s*(?:{marks.opening})", re.DOTALL), re.compile(marks.closing)) for marks in MARKS]


@functools.cache
def _prefilled() -> _Patterns:
    return [
        (marks, re.compile(marks.opening), re.compile(rf"(?<![{_QUOTES}])(?:{marks.closing})"))
        for marks in MARKS
        if marks.prefilled
    ]


class Parts(NamedTuple):
    """The parts of a text: the answer (None if thinking was cut off), and the thinking (None without any)."""

    text: str | None
    thinking: str | None


def split(text: str) -> Parts:
    """Part a text into its answer and its thinking.

    Thinking begins the text, with or without its opening mark, and ends with the closing mark. Marks elsewhere are part of the
    answer, such as those in an answer about them. White space around the answer's beginning goes with the thinking.
    """
    thoughts: list[str] = []
    rest: str | None = text
    while rest is not None and (found := _leading(rest) or _unopened(rest)) is not None:
        thought, rest = found
        thoughts.append(thought.strip())
    if not thoughts:
        return Parts(text, None)
    return Parts(rest if rest is None else rest.lstrip(), "\n\n".join(filter(None, thoughts)) or None)


def spoken(text: str) -> str:
    """Return the answer in a text, without its thinking; an empty text if thinking is all there is."""
    return (split(text).text or "") if _may_think(text) else text


def parted(choice: Choice) -> Choice:
    """Return an answer with the thinking in its text moved to `reasoning`.

    If thinking was cut off, there is no text (None), and the answer counts as cut off (``length``) whatever the server said: a
    stop text may have ended it.
    """
    if choice.text is None or not _may_think(choice.text):
        return choice
    text, thinking = split(choice.text)
    if text is choice.text:
        return choice
    finish = "length" if text is None and ending_of(choice.finish_reason) == "complete" else choice.finish_reason
    reasoning = "\n\n".join(filter(None, (choice.reasoning, thinking))) or None
    return msgspec.structs.replace(choice, text=text, reasoning=reasoning, finish_reason=finish)


def without_thinking(response: Response) -> Response:
    """Return a response with each of its answers `parted`; the same object if no text has thinking in it."""
    for choice in response.choices:
        if choice.text is not None and _may_think(choice.text):
            break
    else:
        return response
    choices = [parted(choice) for choice in response.choices]
    if all(new is old for new, old in zip(choices, response.choices, strict=True)):
        return response
    return msgspec.structs.replace(response, choices=choices)


def _may_think(text: str) -> bool:
    """Return False for a text without any mark: a check that costs a hundredth of the expressions, and most texts end here."""
    if ">" in text and (
        "think>" in text
        or "thinking>" in text
        or "reasoning>" in text
        or "thought" in text
        or "THINKING|>" in text
        or "channel" in text
        or "inner_" in text
    ):
        return True
    return "THINK]" in text or "think▷" in text or "assistantfinal" in text or "my thought process:" in text


def _leading(text: str) -> tuple[str, str | None] | None:
    """Return the thinking that begins a text with its opening mark, and the rest (None if it was cut off)."""
    for marks, opening, closing in _opened():
        if (begun := opening.match(text)) is not None:
            ended = closing.search(text, begun.end())
            if ended is not None:
                return text[begun.end() : ended.start()], _ended(text[ended.end() :], marks)
            if marks.alone:
                return text[begun.end() :], None
    return None


def _unopened(text: str) -> tuple[str, str | None] | None:
    """Return the thinking of a text whose opening mark is in the prompt, and the rest."""
    for marks, opening, closing in _prefilled():
        ended = closing.search(text)
        if ended is not None and opening.search(text, 0, ended.start()) is None:
            return text[: ended.start()], _ended(text[ended.end() :], marks)
    return None


def _ended(answer: str, marks: Marks) -> str:
    return re.sub(rf"(?:{marks.after})\s*$", "", answer) if marks.after else answer
