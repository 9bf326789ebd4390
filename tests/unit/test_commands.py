"""``solver: {kind: command}``: a program in any language answers rows, is recorded, resumed and replayed, and fails well."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

import runner
from runner.cli import main
from runner.errors import ConfigError, RecordError
from runner.records import RunFolder
from runner.reproduction.pack import pack
from runner.reproduction.replay import replay
from runner.system import programs
from runner.system.processes import process_started
from tests.support.clock import wait_until
from tests.support.command import Running
from tests.support.server import Hang, Reply, Server, Status

pytestmark = pytest.mark.usefixtures("in_tmp")

ROWS = ["data=inline", "data.rows=[{id: a, q: one}, {id: b, q: two}]", "data.id=id"]
ASKING = """
import json, os, sys, urllib.request

def ask(text, path="/chat/completions", **more):
    said = {"prompt": text} if path == "/completions" else {"messages": [{"role": "user", "content": text}]}
    body = json.dumps({"model": os.environ["OPENAI_MODEL"], **said, **more}).encode()
    headers = {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "content-type": "application/json"}
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + path, body, headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]
"""
FLOW = """
import json, sys
from asking import ask
row = json.load(sys.stdin)
print(ask("again " + ask(row["q"])))
"""
NODE = """
let text = ''
for await (const part of process.stdin) text += part
const { OPENAI_BASE_URL, OPENAI_API_KEY, OPENAI_MODEL } = process.env
const asked = await fetch(OPENAI_BASE_URL + '/chat/completions', {
  method: 'POST',
  headers: { authorization: `Bearer ${OPENAI_API_KEY}`, 'content-type': 'application/json' },
  body: JSON.stringify({ model: OPENAI_MODEL, messages: [{ role: 'user', content: JSON.parse(text).q }] }),
})
const said = (await asked.json()).choices[0].message.content
console.log(JSON.stringify({ output: { said, by: 'node' } }))
"""


def echo(call):
    return Reply(f"echo {call.question}")


def settings(server, *argv):
    model = ["model=server", f"model.api_base={server.url}"] if server else ["model=fake", "model.reply=fine"]
    base = ["execution.orchestrator=none", "prompt=default", "scoring=none", "limits.max_attempts=1", *ROWS]
    return [*model, *base, "solver=command", f"solver.argv=[{', '.join(argv)}]"]


def played(*argv, server=None, more=()):
    done = runner.run(overrides=[*settings(server, *argv), *more])
    return {sample.id: sample for sample in RunFolder.open(done.folder).samples()}, done


def write_flow():
    Path("asking.py").write_text(ASKING)
    Path("flow.py").write_text(FLOW)


@pytest.mark.slow
def test_a_killed_run_is_resumed_from_its_steps_packed_and_replayed_elsewhere(tmp_path, monkeypatch):
    write_flow()

    def stuck(call):
        return Hang() if call.question.startswith("again") and server.blocked else echo(call)

    with Server(stuck) as server:
        server.blocked = True
        with Running("run", *settings(server, "python3", "flow.py")) as command:
            wait_until(lambda: sum(call.question.startswith("again") for call in server.calls) == 2, "the second steps")
            command.process.send_signal(signal.SIGKILL)
            command.process.wait()
        server.blocked = False
        asked = len(server.calls)
        (folder,) = Path("runs").glob("*/2*")
        runner.resume(folder)
        assert sorted(call.question for call in server.calls[asked:]) == ["again echo one", "again echo two"]
        samples = {sample.id: sample for sample in RunFolder.open(folder).samples()}
        assert samples["a"].output == "echo again echo one"
        assert [step.added[0]["content"] for step in samples["a"].steps] == ["one", "again echo one"]
        assert set(RunFolder.open(folder).manifest()["files"]) == {"solver/argv1/flow.py", "solver/argv1/asking.py"}
    capsule = pack(folder, "it.ostinato").file.resolve()
    folder = folder.resolve()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    monkeypatch.setenv("OSTINATO_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(RecordError, match="a program inside it; --trust-code runs it"):
        replay(capsule)
    again = replay(capsule, trust_code=True)
    assert (again.outputs, again.different, again.missing) == (2, 0, 0)
    assert main(["reproduce", str(folder), "--replay"]) == 0
    (folder.parents[2] / "asking.py").write_text(ASKING + "\n")
    with pytest.raises(RecordError, match="asking"):
        runner.resume(folder)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_a_program_in_node_answers_with_data():
    Path("flow.mjs").write_text(NODE)
    with Server(echo) as server:
        samples, done = played("node", "flow.mjs", server=server)
    assert samples["a"].parsed == {"said": "echo one", "by": "node"}
    assert (samples["a"].usage is not None, done.summary.requests) == (True, 2)


@pytest.mark.slow
def test_an_executable_file_is_part_of_the_capsule():
    Path("flow.sh").write_text('#!/bin/sh\ncat > /dev/null\necho \'{"output": "fixed"}\'\n')
    Path("flow.sh").chmod(0o755)
    samples, done = played("./flow.sh")
    assert samples["a"].output == "fixed"
    assert replay(pack(done.folder, "it.ostinato").file, trust_code=True).outputs == 2


BAD = {
    "fails": ("sys.stderr.write('no luck')\nsys.exit(3)", "the program 'python3' ended with status 3: no luck"),
    "raises": ("1 / 0", "ended with status 1: Traceback"),
    "is killed": ("os.kill(os.getpid(), 9)", "was ended by SIGKILL; it said nothing on stderr"),
    "says nothing": ("print(' ')", "wrote nothing to stdout"),
    "says null": ("print('{\"output\": null}')", "wrote nothing to stdout"),
    "writes bytes": ("sys.stdout.buffer.write(b'\\xff')", "is not UTF-8 to stdout: invalid start byte at byte 0"),
    "writes without end": ("while True: sys.stdout.write('x' * 2**16)", "was ended: it wrote more than 16 MiB to stdout"),
    "complains without end": ("while True: print('no', file=sys.stderr)", "took longer than solver.timeout_s=1 seconds"),
    "hangs": ("import time; print('x', flush=True); time.sleep(600)", "took longer than solver.timeout_s=1 seconds"),
    "asks too often": ("for n in range(9): ask(str(n))", "asked more than 3 times for one row"),
    "tells a secret": ("sys.exit('sk-proj-abcdefghijklmnop1234')", "ended with status 1: ***"),
    "tells its key": ("sys.exit(os.environ['OPENAI_API_KEY'])", "ended with status 1: ***"),
    "asks another": ("os.environ['OPENAI_MODEL'] = 'gpt-9'; ask('hi')", "HTTP Error 404"),
    "has no key": ("os.environ['OPENAI_API_KEY'] = 'x'; ask('hi')", "HTTP Error 401"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_program_is_an_error_of_its_rows(case):
    body, told = BAD[case]
    Path("flow.py").write_text(f"{ASKING}\n{body}\n")
    more = ["solver.max_requests=3", *(["solver.timeout_s=1"] if "timeout_s=1" in told else []), "data.limit=1"]
    samples, _ = played("python3", "flow.py", more=more)
    assert (samples["a"].status, samples["a"].error.code) == ("error", "solver")
    assert told in samples["a"].error.message
    written = "".join(path.read_text() for path in Path("runs").rglob("*.json*"))
    assert "sk-proj" not in written


async def test_what_a_program_writes_is_read_up_to_its_end():
    code = "import sys\nsys.stdin.read()\nsys.stderr.write('x' * 100_000 + 'end')\nsys.stdout.write('y' * 1_000_000)\nsys.exit(3)"
    ended = await programs.run([sys.executable, "-c", code], stdin=b"?", env=os.environ)
    assert (ended.code, ended.stdout, ended.stderr[-4:]) == (3, b"y" * 1_000_000, b"xend")
    assert len(ended.stderr) < 100_000


async def test_a_process_that_a_program_leaves_behind_keeps_nobody_waiting():
    code = "import subprocess\nprint(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"
    ended = await programs.run([sys.executable, "-c", code], stdin=b"", env=os.environ)
    os.kill(int(ended.stdout), signal.SIGKILL)  # it was alive, with our pipes
    assert ended.code == 0


def test_errors_of_requests_are_said_and_those_of_every_row_stop_the_run():
    Path("flow.py").write_text(f"{ASKING}\nask('hi')\n")
    with Server(lambda call: Status(400, "too odd")) as server:
        samples, _ = played("python3", "flow.py", server=server)
        assert "ended with status 1 after a request had failed (" in samples["a"].error.message
        assert "too odd" in samples["a"].error.message
    with Server(lambda call: Status(401, "who are you")) as server:
        samples, done = played("python3", "flow.py", server=server)
    assert (samples, done.summary.owed) == ({}, 2)


@pytest.mark.parametrize(
    ("argv", "told"),
    [("no-such-program", "no-such-program is not found"), ("./flow.py", "./flow.py is not a program: it cannot be executed")],
)
def test_a_program_that_cannot_be_run_is_refused_before_anything_is_made(argv, told):
    Path("flow.py").write_text("")
    with pytest.raises(ConfigError, match=told):
        played(argv)
    assert not Path("runs").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_programs_and_what_they_start_die_with_the_run():
    Path("flow.py").write_text(
        "import os, subprocess, time\nchild = subprocess.Popen(['sleep', '600'])\n"
        "open(f'{os.getpid()}.new', 'w').write(f'{os.getpid()} {child.pid}')\n"
        "os.rename(f'{os.getpid()}.new', f'{os.getpid()}.pids')\ntime.sleep(600)\n"
    )
    with Running("run", *settings(None, "python3", "flow.py")) as command:
        wait_until(lambda: list(Path().glob("*.pids")), "the program")
        pids = [int(pid) for path in Path().glob("*.pids") for pid in path.read_text().split()]
        os.kill(command.process.pid, signal.SIGKILL)
        command.process.wait()
    wait_until(lambda: all(process_started(pid) is None for pid in pids), "the end of both")
