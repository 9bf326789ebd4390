"""Conversations with tools: what is offered, where results come from, what is recorded, and how trajectories are scored."""

import json
import sys
from pathlib import Path

import pytest

import runner
from runner.config.load import load
from runner.errors import ConfigError, DataError
from runner.experiment.prepared import prepare
from runner.scoring import Calls, Measure
from runner.tools import Functions, checked
from runner.tools import server as tools_server
from runner.types import Sample, Step
from tests.support.command import ostinato
from tests.support.server import Reply, Server
from tests.support.shop import PYTHON, a_call

pytestmark = pytest.mark.usefixtures("in_tmp")

TOOL = {
    "type": "function",
    "function": {"name": "price", "parameters": {"type": "object", "properties": {"item": {"type": "string"}}}},
}


def shop(call):
    """Asks for the price of what the user names, then says it."""
    last = call.body["messages"][-1]
    if last["role"] == "user":
        return Reply(None, "tool_calls", tool_calls=[a_call(last["content"])])
    return Reply(f"It costs {last['content']}.")


def overrides(server, *more, rows=({"id": "a", "question": "tea"},)):
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        *("prompt=default", "model=server", f"model.api_base={server.url}", "data=jsonl", "data.path=rows.jsonl", "data.id=id"),
        *("scoring=none", "execution.orchestrator=none", *more),
    ]


def samples(run):
    return list(runner.load(run.folder).samples())


@pytest.fixture
def tools():
    Path("tools.py").write_text(PYTHON)
    return "prompt.tools=tools.py"


def test_typed_functions_are_definitions(tools):
    (tool,) = Functions("tools.py", "prompt.tools").definitions
    assert tool["function"]["description"] == "Return the price of an item."
    parameters = tool["function"]["parameters"]
    assert parameters["required"] == ["item"]
    assert parameters["additionalProperties"] is False
    assert parameters["properties"]["item"] == {"type": "string", "description": "its name."}
    assert parameters["properties"]["currency"]["enum"] == ["eur", "usd"]
    assert checked([tool]) == [tool]


@pytest.mark.parametrize(
    ("code", "place", "told"),
    [
        ("def f(x): ...", "t.py", "the parameter 'x' of f has no type"),
        ("def f(x: complex): ...", "t.py", "the types of f are not those of JSON"),
        ("def f(*x: int): ...", "t.py", "a tool has named parameters only"),
        ("def f(x: int): ...", "t.py:g", "has no function 'g'"),
        ("1 / 0", "t.py", "cannot be run: ZeroDivisionError"),
        ("x = 1", "t.py", "has no functions"),
        (None, "t.py", "cannot be read"),
    ],
)
def test_functions_that_are_no_tools_are_refused(code, place, told):
    if code is not None:
        Path("t.py").write_text(code)
    with pytest.raises(ConfigError) as refused:
        Functions(place, "prompt.tools")
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("x", "it is text, and not the JSON of a list"),
        ({}, "it is {}, and not a list of tools"),
        ([{"name": "f"}], "tool 1: {'name': 'f'} is not of the form"),
        ([TOOL, TOOL], "two tools have the name 'price'"),
        ([{"type": "function", "function": {"name": "a b"}}], "the name 'a b' is not one"),
        ([{"type": "function", "function": {"name": "f", "parameters": []}}], "are not a JSON Schema"),
    ],
)
def test_malformed_tools_are_refused_where_they_stand(value, told):
    with pytest.raises(DataError) as refused:
        checked(value)
    assert told in str(refused.value)
    Path("rows.jsonl").write_text(
        json.dumps({"question": "?", "tools": [TOOL]}) + "\n" + json.dumps({"question": "?", "tools": value})
    )
    config = {"model": {"kind": "fake"}, "scoring": {"kind": "none"}, "data": {"kind": "jsonl", "path": "rows.jsonl"}}
    with pytest.raises(DataError, match=r"rows.jsonl, line 2: row .*prompt.tools"):
        prepare(load({**config, "prompt": {"tools": "{{ tools }}"}})).parts()


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ({"tool_choice": "auto"}, "tool_choice is given, and there are no tools"),
        ({"tools": []}, "tools is empty"),
        ({"tools": "weather"}, "give a column, '{{ tools }}', or a Python file"),
        ({"tools": "tools.py", "max_turns": 0}, "max_turns"),
        ({"tool_server": {"command": []}}, "command"),
    ],
)
def test_a_config_of_tools_that_says_nothing_is_refused(prompt, told):
    with pytest.raises(ConfigError, match="prompt") as refused:
        load({"prompt": prompt})
    assert told in str(refused.value)


def test_tools_and_turns_are_refused_beside_a_solver_that_asks_in_its_own_way(tools):
    Path("solve.py").write_text("async def answer(row, lm):\n    return 'x'\n")
    Path("rows.jsonl").write_text('{"question": "tea"}\n')
    config = {"model": {"kind": "fake"}, "scoring": {"kind": "none"}, "data": {"kind": "jsonl", "path": "rows.jsonl"}}
    config |= {"solver": {"kind": "python", "function": "solve.py:answer"}}
    for prompt in ({"tools": "tools.py"}, {"turns": ["sure?"]}):
        with pytest.raises(ConfigError, match=r"asked by the plain solver, and solver=python asks in its own way; keep one"):
            prepare(load({**config, "prompt": prompt})).parts()


@pytest.mark.parametrize(
    ("results", "hits", "requests"), [("tools.py", 0, 6), ("{{ results }}", 2, 0)], ids=["functions", "table"]
)
def test_a_sweep_foretells_conversations_and_runs_no_tools(tools, results, hits, requests):
    rows = [{"id": name, "question": name, "results": {"price": "2"}} for name in ("tea", "ale")]
    with Server(shop) as server:
        asked = overrides(
            server, tools, f"prompt.tool_results={results}", "prompt.max_turns=3", "sampling.max_tokens=10", rows=rows
        )
        swept = ["run", "-m", "--dry-run", "--json", "sampling.temperature=0,1", *asked]
        cells = ostinato(*swept).json["cells"]
        assert [(cell["samples"], cell["requests"]) for cell in cells] == [(2, 2 * 3), (2, 2 * 3)]
        assert (server.count, Path("calls.txt").exists()) == (0, False)
        runner.run(overrides=[*asked, "sampling.temperature=0"])
        Path("calls.txt").unlink(missing_ok=True)
        cells = ostinato(*swept).json["cells"]
        assert [(cell["cache_hits"], cell["requests"]) for cell in cells] == [(hits, requests), (0, 6)]
        assert (server.count, Path("calls.txt").exists()) == (4, False)


def test_calls_are_answered_until_the_model_answers(tools):
    with Server(shop) as server:
        run = runner.run(overrides=overrides(server, tools, "prompt.tool_choice=required"))
        (sample,) = samples(run)
        assert (sample.status, sample.output, len(sample.steps)) == ("ok", "It costs 1.5.", 2)
        assert sample.messages[-1] == {"role": "tool", "tool_call_id": "c1", "content": "1.5"}
        assert sample.steps[1].after == 0
        assert [message["role"] for message in sample.steps[1].added] == ["tool", "assistant"]
        assert (sample.usage.total_tokens, sample.steps[0].usage.total_tokens) == (20, 10)
        assert [call.body.get("tool_choice") for call in server.calls] == ["required", None]
        assert [call.body["tools"][0]["function"]["name"] for call in server.calls] == ["price", "price"]
        recorded = [json.loads(line) for line in (run.folder / "tools.jsonl").read_text().splitlines()]
        assert recorded == [{"id": "a", "repeat": 0, "step": 0, "name": "price", "arguments": '{"item": "tea"}', "result": "1.5"}]

        again = runner.run(overrides=overrides(server, tools, "prompt.tool_choice=required"))
        assert (again.summary.cache_hits, server.count) == (1, 2)


@pytest.mark.parametrize(
    ("item", "name", "told"),
    [
        ("nothing", "price", "Error: LookupError: no such item"),
        ("slow", "price", "Error: no result within 0.2 s"),
        ("tea", "cost", "Error: there is no tool 'cost'; there are: price"),
        (3, "price", "Error: Expected `str`, got `int`"),
    ],
)
def test_a_tool_that_fails_is_told_to_the_model(tools, item, name, told):
    with Server() as server:
        server.script(Reply(None, "tool_calls", tool_calls=[a_call(item, name)]), Reply("sorry"))
        (sample,) = samples(runner.run(overrides=overrides(server, tools, "prompt.tool_timeout_s=0.2")))
    assert (sample.status, sample.output) == ("ok", "sorry")
    assert sample.messages[-1]["content"].startswith(told)


def test_calls_that_are_the_same_have_results_of_their_own():
    Path("dice.py").write_text("thrown = []\n\ndef throw(sides: int) -> int:\n    thrown.append(sides)\n    return len(thrown)\n")
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "throw", "arguments": '{"sides": 6}'}} for n in (1, 2)]
    with Server() as server:
        server.script(Reply(None, "tool_calls", tool_calls=calls), Reply("done"))
        run = runner.run(overrides=overrides(server, "prompt.tools=dice.py"))
    (sample,) = samples(run)
    assert sorted(message["content"] for message in sample.messages[-2:]) == ["1", "2"]
    assert runner.replay(runner.pack(run.folder, "dice.ostinato").file).identical
    exported = ostinato("export", str(run.folder), "--to", "openai-batch")
    assert (exported.code, "one request for each row" in exported.err) == (2, True)


def test_results_come_from_a_table_in_the_row():
    table = [
        {"name": "price", "arguments": {"item": "tea"}, "result": {"usd": 2}},
        {"name": "price", "arguments": {"item": "ale"}, "result": "3"},
    ]
    rows = [
        {"id": "a", "question": "tea", "results": table, "tools": [TOOL]},
        {"id": "b", "question": "ale", "results": {"price": "4"}, "tools": [TOOL]},
        {"id": "c", "question": "rum", "results": table, "tools": [TOOL]},
    ]
    with Server(shop) as server:
        asked = overrides(server, "prompt.tools={{ tools }}", "prompt.tool_results={{ results }}", rows=rows)
        found = sorted((sample.id, sample.output) for sample in samples(runner.run(overrides=asked)))
    assert found == [
        ("a", 'It costs {"usd":2}.'),
        ("b", "It costs 4."),
        ("c", "It costs Error: there is no result of price for these arguments."),
    ]


def test_without_results_the_calls_are_the_answer():
    with Server(shop) as server:
        target = [{"name": "price", "arguments": {"item": "tea"}}]
        rows = [{"id": "a", "question": "tea", "calls": target}, {"id": "b", "question": "ale", "calls": target}]
        run = runner.run(
            overrides=overrides(server, f"prompt.tools=[{json.dumps(TOOL)}]", "scoring=tools", "data.target=calls", rows=rows)
        )
        assert (run.summary.scores["tools"].mean, server.count) == (0.5, 2)


def test_a_model_that_never_answers_is_stopped(tools):
    with Server(lambda call: Reply(None, "tool_calls", tool_calls=[a_call(str(len(call.body["messages"])))])) as server:
        (sample,) = samples(runner.run(overrides=overrides(server, tools, "prompt.max_turns=3")))
        assert (sample.status, sample.finish_reason, len(sample.steps), server.count) == ("truncated", "max_turns", 3, 3)
    assert Path("calls.txt").read_text() == "1\n3\n"


def test_the_user_goes_on_by_a_script():
    with Server(lambda call: Reply(f"answer {len(call.body['messages'])}")) as server:
        run = runner.run(overrides=overrides(server, "prompt.turns=['and {{ question }} with milk?', 'sure?']"))
        (sample,) = samples(run)
        assert [message["content"] for message in sample.messages] == [
            "tea",
            "answer 1",
            "and tea with milk?",
            "answer 3",
            "sure?",
        ]
        assert (sample.output, len(sample.steps), server.count) == ("answer 5", 3, 3)
        assert [len(step.added) for step in sample.steps] == [2, 2, 2]


def test_a_model_plays_the_user():
    def both(call):
        last, model = call.body["messages"][-1]["content"], call.body["model"]
        return Reply(f"{model} after {last}" if len(call.body["messages"]) < 6 else "DONE")

    with Server(both) as server:
        model = f"{{kind: server, name: human, api_base: {server.url!r}}}"
        user = f"{{model: {model}, prompt: 'You like {{{{ question }}}}.', turns: 3}}"
        run = runner.run(overrides=overrides(server, f"prompt.simulated_user={user}"))
        (sample,) = samples(run)
        said = [message["content"] for message in sample.messages]
        assert said == ["tea", "default after tea", "human after default after tea"]
        assert sample.output == f"default after {said[-1]}"
        asked = [call.body for call in server.calls if call.body["model"] == "human"]
        assert asked[0]["messages"][0] == {"role": "system", "content": "You like tea."}
        assert [message["role"] for message in asked[1]["messages"]] == [
            "system",
            "user",
            "assistant",
            "user",
            "assistant",
            "user",
        ]
        assert [step.model for step in sample.steps] == [None, "openai/human", None, "openai/human"]
        assert runner.run(overrides=overrides(server, f"prompt.simulated_user={user}")).summary.cache_hits == 1
        assert server.count == 4
    packed = runner.pack(run.folder, "it.ostinato")
    assert runner.replay(packed.file).identical


SERVER = '''
import os, sys
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("shop")
with open("starts.txt", "a") as file:
    file.write("x")

@server.tool()
def price(item: str) -> str:
    """Return the price of an item."""
    if item == "die" and len(open("starts.txt").read()) == 1:
        os._exit(1)
    if item == "nothing":
        raise ToolError("no such item")
    if item == "raises":
        raise LookupError("a secret of the server")
    return "7" + os.environ.get("UNIT", "?") + os.environ.get("OTHER", "?")

server.run("stdio")
'''


@pytest.mark.slow
def test_a_server_of_tools_is_kept_and_started_again_once(monkeypatch):
    pytest.importorskip("mcp")
    Path("server.py").write_text(SERVER)
    monkeypatch.setenv("UNIT", "eur")
    monkeypatch.setenv("OTHER", "unseen")
    rows = [{"id": name, "question": name} for name in ("tea", "nothing", "raises", "die", "ale")]
    with Server(shop) as server:
        command = f"prompt.tool_server={{command: [{sys.executable}, server.py], env: [UNIT]}}"
        run = runner.run(overrides=overrides(server, command, "limits.max_concurrency=1", rows=rows))
        found = {sample.id: sample.output for sample in samples(run)}
        assert server.calls[0].body["tools"][0]["function"]["description"] == "Return the price of an item."
    assert Path("starts.txt").read_text() == "xx"
    assert {found[name] for name in ("tea", "die", "ale")} == {"It costs 7eur?."}
    assert "no such item" in found["nothing"]
    assert found["raises"].startswith("It costs Error: ")
    assert "secret" not in found["raises"]


WIRE = """
import json, sys

with open("starts.txt", "a") as file:
    file.write("x")

def say(id, **rest):
    print(json.dumps({"jsonrpc": "2.0", "id": id, **rest}), flush=True)

for line in sys.stdin:
    asked = json.loads(line)
    method, id = asked["method"], asked.get("id")
    if method in sys.argv:
        continue
    if method == "initialize":
        about = {"capabilities": {"tools": {}}, "serverInfo": {"name": "shop", "version": "1"}}
        say(id, result={"protocolVersion": asked["params"]["protocolVersion"], **about})
    elif method == "tools/list":
        say(id, result={"tools": [{"name": "price", "inputSchema": {"type": "object"}}]})
    elif method == "tools/call":
        item = asked["params"]["arguments"]["item"]
        if item == "die":
            sys.exit("no more tea")
        if item != "never":
            say(id, result={"content": [{"type": "text", "text": "7"}]})
    elif id is not None:
        say(id, error={"code": -32601, "message": "unknown"})
"""
"""A server without the SDK: it is up at once, and is silent about the methods in its arguments."""


def on_the_wire(*silent):
    Path("server.py").write_text(WIRE)
    command = ", ".join([sys.executable, "server.py", *silent])
    return f"prompt.tool_server={{command: [{command}]}}"


def test_a_call_ends_after_its_timeout_and_the_server_lives_on():
    pytest.importorskip("mcp")
    rows = [{"id": name, "question": name} for name in ("never", "tea")]
    with Server(shop) as server:
        asked = overrides(server, on_the_wire(), "prompt.tool_timeout_s=0.3", "limits.max_concurrency=1", rows=rows)
        found = {sample.id: sample.output for sample in samples(runner.run(overrides=asked))}
    assert found == {"never": "It costs Error: no result within 0.3 s.", "tea": "It costs 7."}
    assert Path("starts.txt").read_text() == "x"


def test_a_server_that_dies_again_stops_the_run_which_can_be_resumed():
    pytest.importorskip("mcp")
    rows = [{"id": name, "question": name} for name in ("tea", "die", "ale")]
    with Server(shop) as server:
        asked = overrides(server, on_the_wire(), "limits.max_concurrency=1", "data.shuffle=false", rows=rows)
        stopped = ostinato("run", *asked)
        assert stopped.code == 3, stopped.err
        assert "has died twice while price was called; it said: no more tea" in stopped.out + stopped.err
        assert Path("starts.txt").read_text() == "xx"
        Path("server.py").write_text(WIRE.replace('"die"', '"dye"'))
        kept = next(iter(ostinato("ls", "--json").json["runs"]))["run"]
        assert ostinato("resume", kept).code == 0
    assert {sample.output for sample in runner.load(kept).samples()} == {"It costs 7."}


@pytest.mark.parametrize(
    ("method", "told"), [("initialize", "did not answer within 0.3 s"), ("tools/list", "does not list its tools")]
)
def test_a_server_that_is_silent_from_the_start_is_an_error(monkeypatch, method, told):
    pytest.importorskip("mcp")
    monkeypatch.setattr(tools_server, "_START_S", 0.3)
    with Server(shop) as server:
        with pytest.raises(ConfigError, match=rf"prompt.tool_server: the server of tools .* {told}"):
            runner.run(overrides=overrides(server, on_the_wire(method), "prompt.tool_timeout_s=0.3"))
        assert server.count == 0


def test_a_server_that_cannot_be_started_is_an_error_before_anything_is_sent():
    pytest.importorskip("mcp")
    with Server(shop) as server:
        done = ostinato("run", *overrides(server, "prompt.tool_server={command: [/no/such/program]}"))
        assert server.count == 0
    assert done.code == 2, done.err
    assert "prompt.tool_server: the server of tools (/no/such/program) cannot be started" in done.err


def a_sample(*calls, target):
    steps = [
        Step(request_key="k", added=[{"role": "assistant", "content": None, "tool_calls": [a_call(item, name)]}])
        for name, item in calls
    ]
    said = Step(request_key="k", added=[{"role": "assistant", "content": "done"}])
    return Sample(id="a", target=target, steps=[*steps, said])


@pytest.mark.parametrize(
    ("order", "target", "score"),
    [
        ("exact", ["price", "stock"], 1),
        ("exact", ["stock", "price"], 0),
        ("any", ["stock", "price"], 1),
        ("any", ["stock"], 0),
        ("subset", ["stock"], 1),
        ("subset", ["stock", "stock"], 0),
        ("subset", [{"name": "price", "arguments": {"item": "ale"}}], 0),
        ("subset", [{"name": "price", "arguments": '{"item": "tea"}'}], 1),
        ("exact", '[{"name": "price"}, "stock"]', 1),
        ("exact", [], 0),
    ],
)
def test_trajectories_are_scored_by_their_calls(order, target, score):
    sample = a_sample(("price", "tea"), ("stock", "tea"), target=target)
    assert Calls(order=order).measure(sample, "") == score
    assert (Measure("turns").measure(sample, ""), Measure("tool_calls").measure(sample, "")) == (3, 2)
    with pytest.raises(DataError, match="neither the name of a tool"):
        Calls().check([{"tool": "price"}])
