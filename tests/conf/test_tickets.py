"""The shipped tickets: evaluation data shares no wording with training data, and both use the same prompt."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from runner import build
from runner.config.compose import compose
from runner.experiment.prepared import prepare
from runner.system.paths import in_conf

WORDS = 5
"""Consecutive words that two texts must share to count as the same wording."""


@pytest.fixture
def config(in_tmp):
    return compose(["experiment=tickets_finetune"]).config()


@pytest.fixture
def learned(config):
    return [json.loads(line)["messages"] for line in Path(in_conf(config.finetune.data.path)).read_text("utf-8").splitlines()]


def wordings(text):
    words = re.findall(r"[a-z0-9']+", text.lower())
    return {tuple(words[at : at + WORDS]) for at in range(len(words) - WORDS + 1)}


def test_evaluation_tickets_share_no_wording_with_training_tickets(config, learned):
    known = {wording for messages in learned for wording in wordings(messages[1]["content"])}
    assert len(known) > 500
    assert [row.fields["text"] for row in build.dataset(config) if wordings(row.fields["text"]) & known] == []


def test_both_files_are_balanced_and_have_no_duplicates(config, learned):
    rows = list(build.dataset(config))
    assert set(Counter(messages[2]["content"] for messages in learned).values()) == {60}
    assert set(Counter(row.target for row in rows).values()) == {20}
    assert set(Counter(row.fields["form"] for row in rows).values()) == {4}
    assert len({messages[1]["content"] for messages in learned}) == len(learned) == 360
    assert len({row.fields["text"] for row in rows}) == len(rows) == 120


def test_both_files_use_the_same_prompt(config, learned):
    adapter = build.adapter(config)
    (system,) = {messages[0]["content"] for messages in learned}
    assert {adapter.format(row).messages[0]["content"] for row in build.dataset(config)} == {system}


def test_the_training_tickets_are_valid_training_data(config):
    prepared = prepare(config).training
    assert (len(prepared.train), prepared.valid, prepared.remarks, prepared.estimate.steps) == (360, [], [], 90)
