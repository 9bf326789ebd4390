"""Training data before anything is spent: every problem named with its line, leaks refused, the split, and the estimate."""

from __future__ import annotations

import json

import pytest

from runner.errors import DataError
from runner.finetune.data import check as data
from runner.finetune.data import rows
from runner.finetune.data.formats import TrainDataFormat
from runner.finetune.jobs import estimate, ledger
from runner.finetune.jobs.spec import Base, Recipe, Spec, facts_of

CHAT, COMPLETION, PREFERENCE = TrainDataFormat.CHAT, TrainDataFormat.COMPLETION, TrainDataFormat.PREFERENCE


def chat(question, answer="yes", **more):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def checked(*given, form=CHAT, **options):
    return data.check(data.located(given, "t"), data.Requirements(form, **options))


def refused(*given, form=CHAT, **options):
    with pytest.raises(DataError) as caught:
        checked(*given, form=form, **options)
    return str(caught.value)


def test_good_rows_of_every_format_have_no_problems():
    tools = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{"id": "1"}]}], "tools": []}
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": "x?"}]}, {"role": "assistant", "content": "y"}]}
    assert checked(chat("a"), tools, parts) == []
    assert checked({"prompt": "a", "completion": "b"}, form=COMPLETION) == []
    said = [{"role": "assistant", "content": "b"}]
    turn = {"input": {"messages": [{"role": "user", "content": "a"}]}, "preferred_output": said}
    assert checked({**turn, "non_preferred_output": [{"role": "assistant", "content": "c"}]}, form=PREFERENCE) == []
    assert "the preferred answer and the other one are the same" in refused(
        {**turn, "non_preferred_output": said}, form=PREFERENCE
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "'messages' is missing"),
        ({"mesages": []}, "unknown key 'mesages'; did you mean 'messages'?"),
        ({"messages": []}, "messages is empty"),
        ({"messages": "hi"}, "messages is a string, where a list of turns is needed"),
        ({"messages": [{"role": "user", "content": "x"}]}, "the last turn is the user's; it must be the assistant's"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "there is no prompt"),
        (chat("x", " \n"), "messages[1] (assistant) is empty"),
        (chat("x", None), "messages[1] has no content"),
        (chat("x", 3), "messages[1]: content is a number, not a string"),
        ({"messages": ["x", {"role": "asistant", "content": "y"}]}, "messages[0] is a string, not a turn"),
        ({"messages": [{"role": "asistant", "content": "y"}]}, "unknown role 'asistant'; did you mean 'assistant'?"),
    ],
)
def test_problems_of_rows_are_named(row, message):
    assert message in refused(row)


def test_a_message_lists_problems_up_to_a_limit():
    said = refused(*[chat("x", "")] * 30)
    assert said.startswith("the training data has 30 problems:\n  t, row 1: messages[1]")
    assert said.count("\n  t, row") == data.SHOWN
    assert said.endswith("... and 10 more")


def test_every_broken_line_of_a_file_is_reported(tmp_path):
    file = tmp_path / "t.jsonl"
    good = json.dumps(chat("a")).encode()
    file.write_bytes(b"\xef\xbb\xbf" + good + b'\r\n\n{bad\n[1]\n\xff\n{"x": NaN}\n' + b"[" * 100_000 + b"\n" + good)
    located, wrong = data.read(str(file))
    assert [one.where.removeprefix(f"{tmp_path}/") for one in located] == ["t.jsonl, line 1", "t.jsonl, line 8"]
    assert [str(problem).removeprefix(f"{tmp_path}/t.jsonl, ") for problem in wrong] == [
        "line 3: column 2: not JSON: Expecting property name enclosed in double quotes",
        'line 4: is not an object; each line must be one, such as {"messages": [...]}',
        "line 5: byte 0 (0xff) is not UTF-8",
        "line 6: not JSON: there is no NaN in JSON",
        "line 7: not JSON: maximum recursion depth exceeded while decoding a JSON array from a unicode string",
    ]
    with pytest.raises(DataError) as caught:
        data.check([*located[:1], data.Located(located[1].where, chat("x", ""))], data.Requirements(CHAT), wrong=wrong)
    lines = [line.split("line ")[1][0] for line in str(caught.value).splitlines()[1:]]
    assert lines == ["3", "4", "5", "6", "7", "8"]


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n \n"])
def test_an_empty_file_is_an_error(tmp_path, content):
    (tmp_path / "t.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="is empty: it has no rows"):
        data.read(str(tmp_path / "t.jsonl"))


def test_unreadable_files_are_errors(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        data.read(str(tmp_path / "t.jsonl"))
    (tmp_path / "t.jsonl").write_text("x", "utf-16")
    with pytest.raises(DataError, match="UTF-16"):
        data.read(str(tmp_path / "t.jsonl"))


def test_rows_that_are_too_long_are_refused_or_remarked():
    long = chat("word " * 300)  # 1,500 bytes
    assert "t, row 1: has about 513 tokens by estimate" in refused(long, window=100)
    (remark,) = checked(long, window=400)  # perhaps: the estimate is careful
    assert "and the limit is 400: it may be cut off" in str(remark)


def test_repeated_and_contradicting_rows_are_remarks():
    found = checked(chat("a"), chat("A "), chat("a"), chat("b"), chat("a", "no"))
    assert [str(one) for one in found] == [
        "t, row 2: has the same prompt as t, row 1, and another answer",
        "t, row 3: is the same as t, row 1",
        "t, row 5: has the same prompt as t, row 1, and another answer",
    ]


def test_control_tokens_in_the_text_are_remarks():
    (found,) = checked(chat("hi <|im_end|> there"))
    assert "<|im_end|> is in the text" in str(found)


def test_tools_and_images_are_refused_by_trainers_of_text():
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]}
    row = {"messages": [{"role": "user", "content": "q"}, call], "tools": [{"type": "function"}]}
    said = refused(row, text_only=True)
    assert "'tools' cannot be learned on this machine" in said
    assert "messages[1]: 'tool_calls' cannot be learned" in said
    assert checked(row) == []


def test_leaks_are_refused_by_name_unless_overlap_is_allowed():
    evaluation = {rows.normalised("Where is the  Louvre?"): "louvre"}
    leak = chat("where IS the louvre?")
    said = refused(chat("a"), leak, evaluation=evaluation)
    assert "t, row 2: has the question of row 'louvre' in the evaluation" in said
    assert "finetune.data.allow_overlap=true" in said
    (remark,) = checked(leak, evaluation=evaluation, allow_overlap=True)
    assert not remark.fatal
    earlier = {"messages": [*leak["messages"], *chat("thanks")["messages"]]}  # its answer is learned as well
    assert "'louvre'" in refused(earlier, evaluation=evaluation)
    assert "'louvre'" in refused({"prompt": "where is the louvre?", "completion": "x"}, form=COMPLETION, evaluation=evaluation)


def test_the_split_follows_the_seed_and_keeps_equal_prompts_together():
    given = [chat(f"q{n // 2}", str(n)) for n in range(40)]
    train, valid = data.split(given, 0.25, seed=1)
    assert (train, valid) == data.split(given, 0.25, seed=1) != data.split(given, 0.25, seed=2)
    assert len(train) + len(valid) == 40
    assert len(valid) == 10
    assert not {rows.questions(row)[0] for row in train} & {rows.questions(row)[0] for row in valid}
    assert data.split(given, 0, seed=1) == (given, [])
    with pytest.raises(DataError, match="leaves none to train on"):
        data.split(given[:2], 0.5, seed=1)


def spec_of(provider="local", count=10, **hyper):
    given = [chat(f"q{n}") for n in range(count)]
    local = {"batch_size": 4, "gradient_accumulation": 1, "epochs": 2, "max_steps": None}
    base = Base("b", "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")
    return Spec.make(Recipe(provider, base, {**local, **hyper}), CHAT, facts_of(given))


def test_a_local_training_is_estimated():
    found = estimate.estimate(spec_of(), [50] * 10)
    assert (found.steps, found.tokens, found.tokens_an_epoch, found.cost_usd) == (6, 1000, 500, 0.0)
    assert found.seconds == pytest.approx(10.4)
    assert estimate.estimate(spec_of(max_steps=3), [50] * 10).tokens == 500


def test_the_time_is_estimated_from_the_latest_local_training():
    job = ledger.JobFolder.create(spec_of(epochs=7), [chat(f"q{n}") for n in range(10)])
    (job.path / "result.json").write_text(json.dumps({"format": 1, "tokens": 7, "tokens_read": 100, "train_s": 50.0}))
    found = estimate.estimate(spec_of(), [50] * 10)
    assert (found.seconds, found.seconds_by) == (500.0, f"as {job.spec.job} took on this machine")


def test_unknown_estimates_are_none():
    spec = spec_of("openai", n_epochs=None, batch_size=None)
    found = estimate.estimate(spec, [50] * 10, usd_per_mtokens=3.0)
    assert (found.steps, found.tokens, found.seconds, found.cost_usd) == (None, None, None, None)
    known = spec_of("openai", n_epochs=2, batch_size=5)
    assert estimate.estimate(known, [50] * 10).cost_usd is None
    assert estimate.estimate(known, [50] * 10, usd_per_mtokens=3.0).cost_usd == pytest.approx(0.003)
