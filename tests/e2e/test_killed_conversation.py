"""A conversation with an image and a tool: killed, resumed, packed, and replayed where nothing of it is left."""

import json
import signal
from pathlib import Path

import pytest

from tests.support.clock import wait_until
from tests.support.command import Running, ostinato
from tests.support.server import Hang, Reply, Server
from tests.support.shop import PNG, PYTHON, REFERENCE, TEXT, a_call

pytestmark = pytest.mark.usefixtures("in_tmp")


@pytest.mark.slow
def test_a_conversation_is_killed_resumed_packed_and_replayed():
    Path("tools.py").write_text(PYTHON)
    Path("data").mkdir()
    Path("data/a.png").write_bytes(PNG)
    rows = [{"id": f"r{n}", "question": f"tea {n}", "picture": "a.png", "calls": ["price"]} for n in range(3)]
    Path("data/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def shop(call):
        last, asked = call.body["messages"][-1], call.body["messages"][0]["content"][0]["text"]
        if last["role"] == "user":
            return Reply(None, "tool_calls", tool_calls=[a_call(asked)])
        if asked == "tea 1" and sum(one.body["messages"][-1]["role"] == "tool" for one in server.calls) == 2:
            return Hang()
        return Reply(f"It costs {last['content']}.")

    with Server(shop) as server:
        asked = [
            *("model=server", f"model.api_base={server.url}", "data=jsonl", "data.path=data/rows.jsonl", "data.id=id"),
            *("data.target=calls", "scoring=tools", "prompt=default", "prompt.tools=tools.py", "limits.max_concurrency=1"),
            "prompt.messages=[{role: user, content: [{text: '{{ question }}'}, {image: '{{ picture }}'}]}]",
            "execution.orchestrator=none",
        ]
        with Running("run", *asked) as running:
            server.wait_for(4)
            wait_until(lambda: any(Path("runs").glob("rows/2*/tools.jsonl")), "the results")
            running.signal(signal.SIGKILL)
            assert running.process.wait() == -signal.SIGKILL
        (folder,) = Path("runs/rows").glob("2*")
        assert Path("calls.txt").read_text() == "tea 0\ntea 1\n"
        Path("data/a.png").unlink()  # the record has it

        done = ostinato("resume", str(folder), "--json")
        assert (done.code, done.json["ok"], done.json["scores"]["tools"]["mean"]) == (0, 3, 1.0), done.err
        assert Path("calls.txt").read_text() == "tea 0\ntea 1\ntea 2\n"
        assert server.count == 7
        assert TEXT in json.dumps(server.last.body)
    record = (folder / "samples.jsonl").read_text()
    assert REFERENCE in record
    assert TEXT not in record

    shown = ostinato("show", str(folder), "--rows", "1").out
    assert 'calls price({"item": "tea 0"})' in shown
    assert f"[image {REFERENCE.partition(':')[2][:12]}" in shown

    assert ostinato("pack", str(folder), "-o", "it.ostinato").code == 0
    for path in ("tools.py", "data/rows.jsonl", "calls.txt"):
        Path(path).unlink()
    replayed = ostinato("reproduce", "it.ostinato", "--json")
    assert (replayed.code, replayed.json["outputs"], replayed.json["scores"]) == (0, 3, 3), replayed.err
    assert not Path("calls.txt").exists()
