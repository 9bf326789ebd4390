"""Shells complete verbs, options, groups, keys, values and runs; asked as a shell asks, and in real shells if there are any."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import REPOSITORY, ostinato

PROGRAM = f'#!/bin/sh\nexec {sys.executable} -m runner "$@"\n'


@pytest.fixture
def project(in_tmp):
    """A folder with runs and an option of its own."""
    for run in ("capitals/20260101-000000-aaaaaa", "capitals/20260102-000000-bbbbbb", "sums/20260103-000000-cccccc"):
        (Path("runs") / run).mkdir(parents=True)
    Path("runs/capitals/latest").symlink_to("20260102-000000-bbbbbb")
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/mine.yaml").write_text("defaults: [server]\n")
    Path("bin").mkdir()
    Path("bin/ostinato").write_text(PROGRAM)
    Path("bin/ostinato").chmod(0o755)
    return in_tmp


def environment(**more):
    return {**os.environ, "PATH": f"{Path('bin').absolute()}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY), **more}


def completed(line):
    """Return what a shell is told, in a process of its own, as it would start one."""
    answer = Path("answer")
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line}
    asked |= {"COMP_POINT": str(len(line)), "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    subprocess.run(["bin/ostinato"], env=environment(**asked), check=True)
    return answer.read_text().split("\n")


LINES = [
    ("ostinato sc", ["schema", "score", "schedule"]),
    ("ostinato run cache.mod", ["cache.mode="]),
    ("ostinato run cache.mode=re", ["cache.mode=read", "cache.mode=refresh", "cache.mode=replay"]),
    ("ostinato run model=mi", ["model=mine"]),
    ("ostinato run 'prompt.user=a b' x=1 --json +sampling.te", ["+sampling.temperature="]),
    ("ostinato run model.price.co", ["model.price.completion="]),
    ("ostinato run --disp", ["--display"]),
    ("ostinato show 2026010", ["20260101-000000-aaaaaa", "20260102-000000-bbbbbb", "20260103-000000-cccccc"]),
    ("ostinato resume cap", ["capitals"]),
    ("ostinato config show model/li", ["model/litellm"]),
    ("ostinato ft run finetune=da", ["finetune=databricks"]),
    ("ostinato cache cl", ["clear"]),
]


@pytest.mark.slow
def test_a_shell_is_told_what_may_come(project):
    assert [(line, completed(line)) for line, _ in LINES] == LINES


def test_an_answer_loads_neither_hydra_nor_structs(project):
    code = "import sys, argparse, runner.cli.run; from runner.cli.completion import overrides\n"
    code += "overrides('cache.mode=', argparse.Namespace()); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True).stdout
    assert not re.search(r"\b(hydra|omegaconf|msgspec|yaml|prefect|litellm|rich)\b", loaded)


@pytest.mark.slow
def test_bash_completes(project):
    line = "ostinato run cache.mode=ref"
    script = f"""
eval "$(ostinato completion bash)"
COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=(ostinato run cache.mode = ref) COMP_CWORD=4 COMP_TYPE=9
_python_argcomplete ostinato
echo "${{COMPREPLY[@]}}"
"""
    bash = [shutil.which("bash"), "--norc", "-c", script]
    done = subprocess.run(bash, env=environment(), capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("refresh", "")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish on PATH")
def test_fish_completes(project):
    script = "ostinato completion fish | source; complete -C 'ostinato run cache.mode=ref'; complete -C 'ostinato sc'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], env=environment(HOME="."), capture_output=True, text=True, check=True
    )
    assert {"schema", "score", "schedule"} <= {line.split("\t")[0] for line in done.stdout.splitlines()}
    assert "cache.mode=refresh" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh on PATH")
def test_zsh_takes_its_script(project):
    script = 'autoload -Uz compinit; compinit -u; eval "$(ostinato completion zsh)"; print ${_comps[ostinato]}'
    done = subprocess.run(["zsh", "-f", "-c", script], env=environment(HOME="."), capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("_python_argcomplete", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell):
    done = ostinato("completion", shell)
    assert (done.code, "ostinato" in done.out) == (0, True)
    assert f"ostinato completion {shell}" in ostinato("completion", "--help").out
