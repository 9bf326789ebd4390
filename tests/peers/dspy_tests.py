"""Run dspy's own tests of its LM on ours: those of a checkout of its repository that look at a `dspy.LM` from outside.

    python -m tests.peers.dspy_tests CHECKOUT    in an environment with dspy of the checkout's version, litellm and pytest-asyncio

The tests are copied into a temporary folder, with a plugin that puts `runner.dspy.LM` in place of `dspy.LM`, and a server on
loopback in place of litellm's. Each test is printed with what became of it. Tests that replace functions of litellm or of dspy
are left out, with the reason; `OTHERWISE` has those that expect what is not so here. Exit status 1: another test has failed, or
one of these has passed. Outside CI.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from tests.support.server import Reply, Server

if TYPE_CHECKING:
    from tests.support.loopback import Request, Script

ROOT = Path(__file__).parents[2]

FILES = {"tests/clients/test_lm.py": "Hi!", "tests/streaming/test_streaming.py": '{"output_text": "Hello!"}'}
"""The files with tests of LMs, and what the server answers to all of their requests."""

LEFT_OUT = {
    r"patch(\.object)?\(|setattr\(": "replaces functions of litellm or of dspy",
    r"_wrap_litellm_exception": "calls a private function of dspy's LM",
    r"dspy\.cache|configure_cache": "looks into dspy's cache, which is not asked",
    r"lm_for_test": "needs a model",
    r"^(?![\s\S]*dspy\.LM\()": "makes no dspy.LM",
}
"""Why a test is left out, by a pattern of its source. The last: what it does not contain."""

OTHERWISE = {
    "test_lm_supports_reasoning_with_litellm_capability_api": "litellm 1.110 does not know that model any more",
    "test_reasoning_model_requirements": "a parameter that a model does not take is left out and said, not refused",
    "test_dump_state": "the state names this class, and has cache_in_memory",
    "test_dump_state_ignores_internal_class_marker_kwarg": "the state names this class",
    "test_reasoning_model_load_state_round_trips_canonical_state": "dspy loads a class that is not its own only if it may",
}
"""Tests that expect what is not so here, and why."""

PLUGIN = """
import inspect, json, os, re
import dspy, pytest
from runner.dspy import LM, lm as ours

ours._defaults()
dspy.LM = LM


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("OSTINATO_HOME", str(tmp_path / "home"))


def pytest_collection_modifyitems(items):
    for item in items:
        source = inspect.getsource(item.function)
        for pattern, why in json.loads(os.environ["LEFT_OUT"]).items():
            if re.search(pattern, source):
                item.add_marker(pytest.mark.skip(reason=why))
                break
"""
CONFTEST = """
import os, pytest


@pytest.fixture
def litellm_test_server():
    return os.environ["ADDRESS"], None
"""


class TheirServer(Server):
    """The paths of every provider that dspy's tests name, as those of OpenAI."""

    async def route(self, request: Request) -> Script:
        """Answer by the end of the path."""
        kind = next((kind for kind in ("chat/completions", "completions", "responses") if kind in request.path), "unknown")
        return await super().route(type(request)(request.method, f"/v1/{kind}", request.headers, request.body))


def outcomes(checkout: Path, file: str, answer: str) -> dict[str, tuple[str, str]]:
    """Run one file. Return what became of each test, and why."""
    with tempfile.TemporaryDirectory() as name, TheirServer(Reply(answer)) as server:
        folder = Path(name)
        shutil.copytree(checkout / "tests", folder / "tests")
        (folder / "ours_in_place.py").write_text(PLUGIN, "utf-8")
        (folder / file).with_name("conftest.py").write_text(CONFTEST, "utf-8")
        environment = {**os.environ, "ADDRESS": server.address, "LEFT_OUT": json.dumps(LEFT_OUT)}
        environment |= {"PYTHONPATH": f"{folder}:{ROOT}", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        asked = [sys.executable, "-m", "pytest", "-q", "-p", "ours_in_place", "-p", "no:cacheprovider", "--rootdir", name]
        done = subprocess.run(
            [*asked, "--junitxml=found.xml", file], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if not (folder / "found.xml").exists():
            raise SystemExit(f"{file} could not be run:\n{done.stdout}{done.stderr}")
        return {case.attrib["name"]: _outcome(case) for case in ElementTree.parse(folder / "found.xml").iter("testcase")}


def _outcome(case: ElementTree.Element) -> tuple[str, str]:
    for kind in ("failure", "error", "skipped"):
        if (found := case.find(kind)) is not None:
            return {"skipped": "left out"}.get(kind, "failed"), " ".join(found.attrib.get("message", "").split())[:160]
    return "passed", ""


def _judged(test: str, outcome: str, why: str) -> tuple[str, str]:
    known = OTHERWISE.get(test.partition("[")[0])
    if known is None or outcome == "left out":
        return outcome, why
    return ("otherwise", known) if outcome == "failed" else ("failed", "it passes; take it out of OTHERWISE")


def main() -> int:
    """Print a line for each test, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    checkout = parser.parse_args().checkout
    sums: Counter[str] = Counter()
    for file, answer in FILES.items():
        for test, found in outcomes(checkout, file, answer).items():
            outcome, why = _judged(test, *found)
            sums[outcome] += 1
            sys.stdout.write(f"{outcome:9} {test}{f': {why}' if why else ''}\n")
    sys.stdout.write(", ".join(f"{count} {outcome}" for outcome, count in sums.most_common()) + "\n")
    return 1 if sums["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
