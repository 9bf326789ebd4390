"""Make the files in tests/unit/foreign with the real tools: inspect_ai, lm-evaluation-harness and promptfoo.

    python -m tests.peers.foreign [--env FOLDER] [--to FOLDER] [inspect] [lm_eval] [promptfoo]

It makes an environment for each in FOLDER (minutes; promptfoo brings a Node of its own), and has each tool ask the same twelve
sums of a server on loopback, which gets some of them wrong. Names of this machine are taken out of what is written. Outside CI.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.server import Reply, Server, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.server import Behaviour, Call

FOLDER = Path(__file__).parents[1] / "unit" / "foreign"
INSPECT = ["inspect_ai==0.3.285", "openai"]
LM_EVAL = ["lm_eval[api]==0.4.13"]
PROMPTFOO = ["node@22", "promptfoo@0.121.20"]
ROWS = [{"id": f"sum-{n:02}", "question": f"What is {n} + {n + 1}?", "target": str(2 * n + 1)} for n in range(12)]

INSPECT_TASK = """
import json
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes, match
from inspect_ai.solver import generate, system_message

ROWS = json.load(open("rows.json"))


@task
def sums():
    samples = [Sample(id=row["id"], input=row["question"], target=row["target"], metadata={"kind": "sum"}) for row in ROWS]
    solver = [system_message("Answer with a number."), generate()]
    return Task(dataset=samples, solver=solver, scorer=[match(numeric=True), includes()], epochs=2)
"""

LM_EVAL_TASK = """
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{target}}"
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 64, temperature: 0.0}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
filter_list:
  - name: strict
    filter: [{function: take_first}]
  - name: flexible
    filter: [{function: regex, regex_pattern: "(-?[0-9]+)"}, {function: take_first}]
metadata: {version: 1.0}
"""


def answer(call: Call) -> Behaviour:
    """Answer a sum: every fifth wrongly, every third in a sentence, and that of 7 and 8 not at all."""
    found = re.search(r"What is (\d+) \+ (\d+)", json.dumps(call.body))
    if found is None:
        return Reply("I do not know.")
    n = int(found[1])
    if n == 7:
        return Status(400, "the server does not like sevens")
    value = n + int(found[2]) + (n % 5 == 4)
    return Reply(f"The sum is {value}." if n % 3 == 0 else str(value), usage=_usage(n))


def _usage(n: int) -> dict[str, int]:
    return {"prompt_tokens": 20 + n, "completion_tokens": 3, "total_tokens": 23 + n}


def pip(env: Path, packages: list[str]) -> Path:
    """Make an environment with these packages, unless it is there. Return its folder of commands."""
    if not (env / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", env], check=True)
        subprocess.run([env / "bin" / "pip", "install", "-q", *packages], check=True)
    return env / "bin"


def npm(env: Path, packages: list[str]) -> Path:
    """Make a folder of Node packages, unless it is there. Return its folder of commands."""
    env.mkdir(parents=True, exist_ok=True)
    if not (env / "node_modules" / ".bin" / "promptfoo").exists():
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", env, *packages], check=True)
    return env / "node_modules" / ".bin"


def run(*command: str | Path, cwd: Path, **variables: str) -> None:
    """Run a command of a tool in `cwd`; its exit code is of no account, since failed rows may set it."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HOME": str(cwd), **variables}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    (cwd / "log.txt").write_text(done.stdout + done.stderr)


def inspect(env: Path, url: str, cwd: Path, to: Path) -> None:
    """Have inspect_ai write an .eval log."""
    (cwd / "sums.py").write_text(INSPECT_TASK)
    (cwd / "rows.json").write_text(json.dumps(ROWS))
    model = ["--model", "openai-api/local/test", "--temperature", "0", "--max-tokens", "64", "--no-fail-on-error"]
    rest = ["--log-dir", "logs", "--log-format", "eval", "--display", "none", "--max-retries", "0"]
    keys = {"LOCAL_API_KEY": "none", "LOCAL_BASE_URL": url}
    run(pip(env, INSPECT) / "inspect", "eval", "sums.py", *model, *rest, cwd=cwd, **keys)
    (log,) = (cwd / "logs").glob("*.eval")
    repack(log, to / "sums.eval", cwd, url)


def lm_eval(env: Path, url: str, cwd: Path, to: Path) -> None:
    """Have lm-eval write samples and results."""
    (cwd / "sums.yaml").write_text(LM_EVAL_TASK)
    (cwd / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS if row["id"] != "sum-07"))
    model = ["--model", "local-chat-completions", "--model_args", f"model=test,base_url={url}/chat/completions,max_retries=1"]
    rest = ["--tasks", "sums", "--include_path", ".", "--apply_chat_template", "--output_path", "out", "--log_samples"]
    run(pip(env, LM_EVAL) / "lm_eval", *model, *rest, cwd=cwd, OPENAI_API_KEY="none")
    for file in (cwd / "out").rglob("*.json*"):
        (to / file.name).write_text(cleaned(file.read_text(), cwd, url))


def promptfoo(env: Path, url: str, cwd: Path, to: Path) -> None:
    """Have promptfoo write results of two prompts."""
    config = {
        "description": "sums",
        "prompts": ["Answer with a number. {{question}}", "{{question}}"],
        "providers": [{"id": "openai:chat:test", "config": {"apiBaseUrl": url, "apiKey": "none", "temperature": 0}}],
        "tests": [
            {"vars": {"id": row["id"], "question": row["question"]}, "assert": [{"type": "equals", "value": row["target"]}]}
            for row in ROWS
        ],
    }
    (cwd / "promptfooconfig.json").write_text(json.dumps(config))
    commands = npm(env, PROMPTFOO)
    quiet = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1", "PROMPTFOO_DISABLE_SHARING": "1"}
    path = {"PATH": f"{commands}:{os.environ['PATH']}", "PROMPTFOO_CONFIG_DIR": str(cwd / "home")}
    words = ["eval", "-c", "promptfooconfig.json", "-o", "results.json", "--no-cache", "--no-progress-bar", "-j", "1"]
    run(commands / "promptfoo", *words, cwd=cwd, **quiet, **path)
    (to / "promptfoo.json").write_text(cleaned((cwd / "results.json").read_text(), cwd, url))


def repack(log: Path, to: Path, cwd: Path, url: str) -> None:
    """Copy a log with its members cleaned: tracebacks name the folders of this machine."""
    from backports.zstd import zipfile

    with zipfile.ZipFile(log) as old, zipfile.ZipFile(to, "w", zipfile.ZIP_ZSTANDARD) as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), cleaned(old.read(name).decode(), cwd, url), zipfile.ZIP_ZSTANDARD)


def cleaned(text: str, cwd: Path, url: str) -> str:
    """Take out what is of this machine: folders, the port, the processor and the packages that `pretty_env_info` lists."""
    text = text.replace(str(cwd), "/home/somebody").replace(url, "http://127.0.0.1:8000/v1")
    text = re.sub(r"(?:/[\w.-]+)+/(site-packages|lib/python3)", r"/home/somebody/\1", text)
    return re.sub(r'"pretty_env_info": "(?:[^"\\]|\\.)*"', '"pretty_env_info": ""', text)


MAKERS: dict[str, Callable[[Path, str, Path, Path], None]] = {"inspect": inspect, "lm_eval": lm_eval, "promptfoo": promptfoo}


def main() -> None:
    """Make the files that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tools", nargs="*", help=f"of {', '.join(MAKERS)} (default: all)")
    parser.add_argument("--env", type=Path, default=Path(tempfile.gettempdir()) / "ostinato-foreign")
    parser.add_argument("--to", type=Path, default=FOLDER)
    args = parser.parse_args()
    args.to.mkdir(parents=True, exist_ok=True)
    for tool in args.tools or MAKERS:
        with Server(answer) as server, tempfile.TemporaryDirectory() as place:
            MAKERS[tool]((args.env / tool).absolute(), server.url, Path(place), args.to)
            print(f"{tool}: {server.count} requests")  # noqa: T201 - a command


if __name__ == "__main__":
    main()
