"""`show --cite`: the appendix has every fact, and marks the missing ones."""

import json
import re
from pathlib import Path

import pytest

import runner
from runner.analysis.cite import cite
from runner.cli import main
from runner.records import RunFolder
from tests.support.server import Reply, Server

pytestmark = pytest.mark.usefixtures("in_tmp")


def cited(capsys, *words):
    assert main(["show", *words, "--cite"]) == 0
    text = capsys.readouterr().out
    return text, dict(re.findall(r"^\| (.+?) \| (.+) \|$", text, re.MULTILINE))


def test_the_appendix_of_a_run(capsys):
    rows = [{"id": f"r{n}", "question": f"q{n}", "answer": "odd" if n % 2 else "even"} for n in range(6)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("system.txt").write_text("Say odd or even.\n```\nlike so\n```\n")
    Path("grade.py").write_text("def grade(output, target, row):\n    return 1\n")
    with Server(Reply("odd", model="test-0613", fingerprint="fp_1")) as server:
        more = ["prompt.system_file=system.txt", "sampling.seed=7", "sampling.stop=['|']", "data.shuffle=true", "data.seed=3"]
        more += ["scoring=several", "scoring.scorers={e: {kind: exact}, g: {kind: python, function: 'grade.py:grade'}}"]
        price = ["model.price.prompt=10", "model.price.completion=20"]
        config = ["model=server", "model.name=test", f"model.api_base={server.url}", "execution.orchestrator=none", *more, *price]
        data = [
            "data=jsonl",
            "data.path=rows.jsonl",
            "data.id=id",
            "data.target=answer",
            "data.limit=5",
            "prompt.user={{ question }}?",
        ]
        result = runner.run(overrides=[*config, *data])
    text, facts = cited(capsys, "latest")
    manifest = RunFolder.open(result.folder).manifest()
    assert facts["Model requested"] == "`openai/test`"
    assert facts["Model served"] == "`test-0613`"
    assert facts["System fingerprint"] == "`fp_1`"
    assert facts["Endpoint"] == f"`{server.url}`"
    assert facts["Sampling"] == 'temperature = `0.0`, max_tokens = `1000`, seed = `7`, stop = `["\\|"]`, repeats = `1`'
    assert facts["Data"] == "`rows`: 5 rows, shuffled with seed 3, the first 5"
    assert facts["Data fingerprint"] == f"SHA-256 `{manifest['data']['fingerprint']}`"
    assert "`g`: kind = `python`, function = `grade.py:grade`, SHA-256" in facts["Scoring"]
    score = result.summary.scores["e"]
    low, high = score.interval
    told = f"{score.mean:.4f} [{low:.4f}, {high:.4f}] (95 % interval), standard error {score.stderr:.4f}, n = 5 rows"
    assert facts["Score `e`"] == told
    assert facts["Tokens"] == "35 prompt, 15 completion, in 5 requests"
    assert facts["Cost"] == "$0.00065 (US dollars)"
    assert facts["Ostinato"] == "0.1.0, cache keys of version 1"
    assert "msgspec" in facts["Packages"]
    assert "CPUs" in facts["Hardware"]
    assert facts["Seeds"] == "sampling = `7`, data = `3`, rule = `2`"
    assert "````text\nSay odd or even.\n```\nlike so\n```\n\n````" in text
    assert "Prompt, user:\n\n```text\n{{ question }}?\n```" in text
    assert f"ostinato reproduce rows/{result.folder.name}  #" in text
    assert "@software{ostinato,\n  title   = {Ostinato: " in text
    assert f"config {manifest['config_hash'][:12]}}}" in text


def test_missing_facts_are_marked_as_not_on_record():
    text = cite("x/y", {"format": 1}, None)
    assert "| Model requested | not on record |" in text
    assert "| Status | no summary yet |" in text
    assert "None" not in text
