"""The benchmarks still run: the fastest of them, in their smoke mode and without peers. What they measure is not judged here."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import islice

import numpy as np
import pytest

from tests.bench import coverage, growth, harness, judged, judging
from tests.bench.harness import Column, interleaved, ours, output, table
from tests.bench.server import Server

BODY = {"model": "bench", "messages": [{"role": "user", "content": "What is 1 + 1?"}]}


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


def ask(server, method, path, body=None):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://").removesuffix("/v1"))
    connection.request(method, path, body=None if body is None else json.dumps(body))
    response = connection.getresponse()
    answered = response.status, json.loads(response.read())
    connection.close()
    return answered


def test_the_server_answers_chat_and_text_the_same_each_time_and_counts(server):
    before = server.count()
    status, chat = ask(server, "POST", "/v1/chat/completions", BODY | {"n": 2})
    assert status == 200
    assert [choice["message"]["role"] for choice in chat["choices"]] == ["assistant"] * 2
    assert chat["usage"]["total_tokens"] == chat["usage"]["prompt_tokens"] + chat["usage"]["completion_tokens"]
    assert ask(server, "POST", "/v1/chat/completions", BODY | {"n": 2})[1] == chat
    _, text = ask(server, "POST", "/v1/completions", {"model": "bench", "prompt": "What is 1 + 1?"})
    assert text["choices"][0]["text"].strip() == chat["choices"][0]["message"]["content"]
    assert server.count() == before + 3


def test_the_server_refuses_what_it_does_not_do(server):
    before = server.count()
    assert ask(server, "POST", "/v1/chat/completions", BODY | {"stream": True})[0] == 400
    assert ask(server, "POST", "/v1/chat/completions", ["no", "request"])[0] == 400
    assert ask(server, "POST", "/v1/embeddings", BODY)[0] == 404
    assert server.count() == before


def test_the_server_cuts_requests_that_come_in_pieces_or_several_at_once(server):
    body = json.dumps(BODY).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\ncontent-LENGTH: %d\r\n\r\n" % len(body)
    last = b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n"
    whole = head + body
    host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")
    before = server.count()
    with socket.create_connection((host, int(port))) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (whole[:30], whole[30 : len(head) + 5], whole[len(head) + 5 :] + whole + whole[:-3], whole[-3:] + last):
            client.sendall(piece)
        answered = b"".join(iter(lambda: client.recv(65536), b""))
    assert answered.count(b"HTTP/1.1 200 OK") == 4
    assert server.count() == before + 3


def test_the_server_ends_with_its_parent():
    with Server() as server:
        process = server._process
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.mark.parametrize("script", ["calls", "hits"])
def test_a_smoke_run_prints_its_table(script, monkeypatch):
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{script}", "--quick", "--own", *(("--rows", "300") if script == "hits" else ())],
        cwd=harness.REPOSITORY,
        env=harness.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| Ostinato")]
    assert {"calls": "| Ostinato, engine", "hits": "| Ostinato, LM disk hit"}[script] in {row[0] for row in rows}
    assert all(float(row[1].replace(",", "")) > 0 for row in rows)


def test_a_measurement_of_something_else_is_refused(server, tmp_path):
    with pytest.raises(RuntimeError, match="0 from the cache: not what is to be measured"):
        output(ours("engine", "--url", server.url, "--rows", 3, "--folder", tmp_path, "--expect", "hits"))


def test_what_is_recorded_names_versions_and_no_paths(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "RESULTS.md")
    args = harness.parser("Doc").parse_args(["--record", "--peer-python", sys.executable])
    for title in ("First", "Second"):
        harness.publish(args, title, "| a table |")
    recorded = (tmp_path / "RESULTS.md").read_text()
    assert recorded.index("## First") < recorded.index("| a table |") < recorded.index("## Second")
    assert recorded.count(f"msgspec {harness.versions()['msgspec']}") == 4  # ours and a peer's, twice
    assert sys.prefix not in recorded
    assert capsys.readouterr().out.count("| a table |") == 2


def test_a_table_has_medians_extremes_and_ratios():
    class Fixed(harness.Contender):
        def run(self):
            return {"s": next(self.command)}

    contenders = [Fixed("a", iter([2.0, 4.0, 3.0])), Fixed("b", iter([6.0, 6.0, 6.0]))]
    results = interleaved(contenders, 3)
    seconds = Column("s", lambda one: one["s"], digits=1)
    lines = table(results, [seconds], ratio=seconds, references=["a"], cost=True).splitlines()
    assert lines[0] == "|  | s | s: times a's (less is better) |"
    assert lines[2:] == ["| a | 3.0 (2.0–4.0) | 1 |", "| b | 6.0 (6.0–6.0) | 2 |"]


@pytest.mark.finetune
def test_training_is_measured_beside_a_bare_loop(tmp_path):
    pytest.importorskip("torch", reason="the extra finetune is not installed")
    from tests.finetune import tiny

    weights = tiny.write(tmp_path / "tiny.gguf")
    command = [sys.executable, "-m", "tests.bench.train", "--steps", "1", "--gguf", str(weights), "--layers", "0-1"]
    done = subprocess.run(command, cwd=harness.REPOSITORY, env=harness.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| bare torch + peft |" in done.stdout


@pytest.mark.parametrize("draw", [*coverage.KINDS, coverage.pairs, coverage.clustered_pairs], ids=lambda draw: draw.__name__)
def test_coverage_is_that_of_the_shipped_formulas(draw):
    check = coverage._check_scores if draw in coverage.KINDS else coverage._check_differences
    for cell in islice(draw(np.random.default_rng(1), 12), 0, None, 37):
        check(cell)


def test_judged_scores_are_simulated_with_the_shipped_formulas():
    for draw, formulas in judged.KINDS.values():
        for cell in islice(draw(np.random.default_rng(1), 4), 0, None, 53):
            judged.check(cell, next(iter(formulas.values())))
    for cell in islice(judged.graded(np.random.default_rng(1), 4), 0, None, 9):
        judged.check_graded(cell)


def test_a_judged_run_is_measured(server):
    found = judging.played("both", 12, server.url, server.url)
    assert found["cpu_s"] > 0
    assert server.count() >= 24


def test_growth_is_told_by_slopes_and_drawn():
    assert growth.tens(1000, 1_000_000) == [1000, 10_000, 100_000, 1_000_000]
    found = {
        size: {"cpu_s": 1 + size / 100_000, "rss_mb": 50 + size / 100_000, "disk": 600.0} for size in growth.tens(1000, 1_000_000)
    }
    lines = growth.table("uncached", found, "row").splitlines()
    assert lines[2].startswith("| rows | CPU, s | CPU per further row, µs | of the slope at 100,000 |")
    assert lines[4] == "| 1,000 | 1.01 | - | - | 50 | 0.98 | 600 |"
    assert lines[-1] == "| 1,000,000 | 11.00 | 10.0 | 1.00 | 60 | 1.18 | 600 |"
    picture = growth.drawn({"uncached": {size: one["cpu_s"] for size, one in found.items()}})
    assert ET.fromstring(picture).tag.endswith("svg")
    assert picture.count("<circle") == 4


def test_a_record_is_cut_as_a_kill_would_have_left_it(tmp_path):
    home = tmp_path / "home"
    words = ("prompt=capitals", "name=one", "data=capitals", "data.limit=5", "scoring=contains", f"runs_dir={home / 'runs'}")
    used = growth.measured(home, "run", *growth.NONE, *words)
    assert used["cpu_s"] > 0
    (run,) = (home / "runs" / "one").glob("2*")
    growth._cut(run, 2)
    assert len((run / "samples.jsonl").read_text().splitlines()) == 3
    growth.measured(home, "resume", str(run), "--display", "none")
    assert len((run / "samples.jsonl").read_text().splitlines()) == 5
