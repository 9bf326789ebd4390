"""How an answer ended, and which part of it is thinking: the tables, row by row, and what they must leave alone."""

from __future__ import annotations

import logging

import pytest

from runner.answers import ending_of, is_known, parted, warn_of_unknown, without_thinking
from runner.answers.endings import REASONS
from runner.answers.thinking import MARKS, split
from runner.types import Choice, Response

# --- endings


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.word)
def test_a_finish_reason_has_its_meaning_in_every_spelling(reason):
    for word in (reason.word, reason.word.upper(), reason.word.title()):
        assert ending_of(word) == reason.ending
        assert is_known(word)
    assert reason.vendor
    assert reason.source


def test_each_finish_reason_is_listed_once():
    assert len({reason.word for reason in REASONS}) == len(REASONS)
    assert all(reason.word == reason.word.lower() for reason in REASONS)


@pytest.mark.parametrize("word", [None, "a_new_reason", ""])
def test_without_a_known_reason_an_answer_is_complete(word):
    assert ending_of(word) == "complete"
    assert is_known(word) == (word is None)


def test_an_unknown_reason_is_said_once(caplog):
    warn_of_unknown.cache_clear()
    with caplog.at_level(logging.WARNING, "ostinato"):
        for word in ("one", "two", "one"):
            warn_of_unknown(word)
    assert [record.args for record in caplog.records] == [("one",), ("two",)]


# --- thinking

WRITTEN = {
    "<think>": ("<think>", "</think>"),
    "<thinking>": ("<thinking>", "</thinking>"),
    "<reasoning>": ("<reasoning>", "</reasoning>"),
    "<thought>": ("<thought>", "</thought>"),
    r"\[THINK\]": ("[THINK]", "[/THINK]"),
    "<seed:think>": ("<seed:think>", "</seed:think>"),
    "<longcat_think>": ("<longcat_think>", "</longcat_think>"),
    "◁think▷": ("◁think▷", "◁/think▷"),
    r"<\|START_THINKING\|>": ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    r"<\|channel>thought\n?": ("<|channel>thought\n", "<channel|>"),
    r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)<\|message\|>": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    "analysis(?=[A-Z])": ("analysis", "assistantfinal"),
    r"<\|inner_prefix\|>": ("<|inner_prefix|>", "<|inner_suffix|>"),
    r"Here(?:'s| is) my thought process:": ("Here is my thought process:", "Here is my response:"),
}
"""The marks as models write them, by the expression of the opening one."""

THOUGHT = "Let me see.\nIt is 2 + 2, so < 5."
EACH = pytest.mark.parametrize("marks", MARKS, ids=lambda marks: marks.models.partition(",")[0])


@EACH
@pytest.mark.parametrize("gap", ["", "\n\n"])
def test_thinking_is_parted_from_the_answer(marks, gap):
    opening, closing = WRITTEN[marks.opening]
    assert split(f"{gap}{opening}{THOUGHT}{gap}{closing}{gap}4 < 5\n") == ("4 < 5\n", THOUGHT)
    assert marks.source


@EACH
def test_thinking_lacks_its_opening_mark_where_the_prompt_has_it(marks):
    _, closing = WRITTEN[marks.opening]
    text = f"{THOUGHT}{closing}4"
    assert split(text) == (("4", THOUGHT) if marks.prefilled else (text, None))


@EACH
def test_thinking_without_an_end_was_cut_off(marks):
    opening, _ = WRITTEN[marks.opening]
    text = f"{opening}{THOUGHT}"
    assert split(text) == ((None, THOUGHT) if marks.alone else (text, None))


@pytest.mark.parametrize(
    ("text", "answer", "thinking"),
    [
        ("<think></think>4", "4", None),
        ("<think>\n\n</think>\n\n4", "4", None),
        ("<think>a</think>\n<think>b</think>4", "4", "a\n\nb"),
        ("<think>a</think>4 <think>b</think>", "4 <think>b</think>", "a"),
        ("</think>4", "4", None),
        ("<think>a</think>b</think>4", "4", "a\n\nb"),
        ("<think>a</think>", "", "a"),
        ("<think>", None, None),
        ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>4<|END_RESPONSE|>", "4", "a"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>", "4", "a"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>{}", "{}", "a"),
    ],
)
def test_special_cases_of_thinking(text, answer, thinking):
    assert split(text) == (answer, thinking)


@pytest.mark.parametrize(
    "text",
    [
        "4",
        "",
        "I think that 4 < 5.",
        "Use <think> and </think> around it.",
        "The mark `</think>` ends thinking.",
        'It writes "</think>" at the end.',
        "First 4, then <think>5</think>",
        "<answer>4</answer>",
        "[THINKING] 4",
        "analysis: 4",
        "analysisResult = 4",
        "Here is my thought process: I add.",
        "<thinker>4</thinker>",
    ],
)
def test_other_texts_are_left_alone(text):
    assert split(text) == (text, None)
    choice = Choice(text, "stop")
    assert parted(choice) is choice


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice("<think>a</think>4", "stop"), Choice("4", "stop", reasoning="a")),
        (Choice("<think>a</think>4", "stop", reasoning="b"), Choice("4", "stop", reasoning="b\n\na")),
        (Choice("<think>a", "length"), Choice(None, "length", reasoning="a")),
        (Choice("<think>a", "MAX_TOKENS"), Choice(None, "MAX_TOKENS", reasoning="a")),
        (Choice("<think>a", "stop"), Choice(None, "length", reasoning="a")),
        (Choice("<think>a", None), Choice(None, "length", reasoning="a")),
        (Choice("<think>a", "content_filter"), Choice(None, "content_filter", reasoning="a")),
        (Choice(None, "tool_calls", tool_calls=[{}]), Choice(None, "tool_calls", tool_calls=[{}])),
        (
            Choice("<think>a</think>", "tool_calls", {"x": 1}, [{}]),
            Choice("", "tool_calls", {"x": 1}, [{}], "a"),
        ),
    ],
)
def test_an_answer_keeps_everything_but_the_thinking_in_its_text(choice, expected):
    assert parted(choice) == expected
    assert without_thinking(Response(choices=[Choice("5", "stop"), choice])).choices == [Choice("5", "stop"), expected]


def test_a_response_without_thinking_is_the_same_object():
    response = Response(choices=[Choice("4", "stop"), Choice(None, "length")])
    assert without_thinking(response) is response


@EACH
def test_the_quick_check_lets_every_mark_pass(marks):
    opening, closing = WRITTEN[marks.opening]
    whole = Choice(f"{opening}{THOUGHT}{closing}4", "stop")
    assert parted(whole) == Choice("4", "stop", reasoning=THOUGHT)
    assert parted(Choice(f"{THOUGHT}{closing}4", "stop")).text == ("4" if marks.prefilled else f"{THOUGHT}{closing}4")
    assert parted(Choice(f"{opening}{THOUGHT}", "stop")).text == (None if marks.alone else f"{opening}{THOUGHT}")
