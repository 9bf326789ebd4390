"""The embedded model, served for real: asked over HTTP, shared, kept across commands, and gone when its parent is."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from runner.cli import kill, launch, ps
from runner.errors import ConfigError, LaunchError
from runner.models import weights
from runner.providers import local
from runner.providers.local import LocalProvider
from runner.servers import kept, listing
from runner.system import processes
from tests.support.clock import wait_until
from tests.support.command import ostinato

pytestmark = pytest.mark.model

PARENT = """
import sys, time
from types import SimpleNamespace
from runner.providers import local
lm = SimpleNamespace(model="local/smollm2", kwargs={}, launch_kwargs={"parallel": 1, "context": 256})
local.LocalProvider().launch(lm)
(shared,) = local._shared.values()
print(shared.server.process.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    for shared in list(local._shared.values()):
        shared.stop()
    local._shared.clear()
    for known in kept.listed():
        kept.kill(known.name)


def launched_lm(model="local/smollm2", **launch_kwargs):
    return SimpleNamespace(model=model, kwargs={}, launch_kwargs={"parallel": 1, "context": 256, **launch_kwargs})


def ask(api_base, api_key, **body):
    message = {"role": "user", "content": "What is the capital of France? Answer with one word."}
    defaults = {"model": "smollm2", "messages": [message], "temperature": 0, "max_tokens": 16, "seed": 1}
    request = urllib.request.Request(
        f"{api_base}/chat/completions",
        json.dumps({**defaults, **body}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {api_key}"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def verb(module, *argv):
    parser = argparse.ArgumentParser()
    module.configure(parser)
    return module.main(parser.parse_args(argv))


def gone(pid):
    wait_until(lambda: processes.process_started(pid) is None, f"the end of process {pid}")


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_server_is_launched_used_shared_and_killed(with_weights):
    provider, one, two = LocalProvider(), launched_lm(), launched_lm()
    provider.launch(one)
    provider.launch(two)
    assert one.kwargs == two.kwargs
    reply = ask(**one.kwargs)
    assert reply["model"] == "smollm2"
    named = listing.weights_of(one.kwargs["api_base"], "smollm2", {"Authorization": f"Bearer {one.kwargs['api_key']}"})
    assert named is not None
    assert named.facts.keys() == {"n_params", "size", "model_path", "build_info"}
    assert reply["choices"][0]["message"]["content"]
    assert reply["choices"][0]["message"] == ask(**two.kwargs)["choices"][0]["message"]
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        ask(one.kwargs["api_base"], "wrong")
    refused.value.close()
    (shared,) = local._shared.values()
    pid = shared.server.process.pid
    api_key = one.kwargs["api_key"]
    for child in [pid, *children(pid)]:
        assert api_key not in Path(f"/proc/{child}/cmdline").read_text()
    provider.kill(one)
    assert ask(**two.kwargs)
    provider.kill(two)
    provider.kill(two)
    gone(pid)


def test_answers_do_not_depend_on_earlier_requests(with_weights):
    lm = launched_lm()
    LocalProvider().launch(lm)

    def answer(text):
        messages = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": text}]
        return ask(**lm.kwargs, messages=messages, logprobs=True)["choices"][0]["logprobs"]

    first = answer("Name a colour of the sky.")
    answer("Name a colour of the grass.")
    assert answer("Name a colour of the sky.") == first


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_parent_leaves_no_server(with_weights):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    try:
        supervisor = int(parent.stdout.readline())
        (serving,) = children(supervisor)
        os.kill(parent.pid, signal.SIGKILL)
        gone(supervisor)
        gone(serving)
    finally:
        parent.kill()
        parent.communicate()


def test_a_server_starts_beside_a_folder_called_runner(with_weights, in_tmp):
    (in_tmp / "runner").mkdir()
    (in_tmp / "runner" / "__init__.py").write_text("raise SystemExit('the wrong runner')")
    LocalProvider().launch(launched_lm())


def test_a_file_that_is_not_weights_shows_the_reason(with_weights, tmp_path):
    wrong = tmp_path / "wrong.gguf"
    wrong.write_text("these are no weights")
    with pytest.raises(LaunchError) as caught:
        LocalProvider().launch(launched_lm(f"local/{wrong}"))
    text = str(caught.value)
    assert "the server ended while it was starting" in text
    assert "invalid magic" in text
    assert f"llama.cpp could not serve {wrong}" in text


def test_weights_at_a_path_are_served_under_their_name(with_weights):
    lm = launched_lm(f"local/{weights.find('smollm2')}")
    provider = LocalProvider()
    assert provider.endpoint(lm) == provider.endpoint(launched_lm())
    provider.launch(lm)
    assert ask(**lm.kwargs, model="x")["model"] == "SmolLM2-135M-Instruct.Q4_1"


def test_a_kept_server_serves_several_commands(with_weights, capsys):
    assert verb(launch, "--context", "256", "--parallel", "2") == 0
    captured = capsys.readouterr()
    api_base = captured.out.strip()
    assert api_base.startswith("http://127.0.0.1:")
    assert f"model=server model.name=smollm2 model.api_base={api_base}" in captured.err
    assert "model=smollm2 uses it" in captured.err

    assert verb(launch, "--context", "256", "--parallel", "2", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["api_base"], shown["started"]) == (api_base, False)

    assert verb(ps, "--json") == 0
    out = capsys.readouterr().out
    (row,) = json.loads(out)["servers"]
    assert (row["name"], row["api_base"], row["context"]) == ("smollm2", api_base, 256)
    assert verb(ps) == 0
    name, backend, pid, _up, url = capsys.readouterr().out.splitlines()[1].split()
    assert (name, backend, int(pid), url) == ("smollm2", "llamacpp", row["pid"], api_base)
    assert verb(ps, "--key", "smollm2") == 0
    api_key = capsys.readouterr().out.strip()
    assert api_key not in out
    assert ask(api_base, api_key)

    # Another process uses it, and dies, and it goes on.
    subprocess.run([sys.executable, "-c", PARENT.replace("time.sleep(600)", "")], check=True, stdout=subprocess.DEVNULL)
    lm = launched_lm()
    LocalProvider().launch(lm)
    assert lm.kwargs == {"api_base": api_base, "api_key": api_key}

    assert verb(kill, "smollm2") == 0
    assert capsys.readouterr().out == "smollm2\n"
    gone(row["pid"])
    assert verb(kill, "smollm2", "--all") == 0
    assert verb(kill, "smollm2") == 0
    assert capsys.readouterr().err == "there is no server 'smollm2'\n"
    assert verb(ps) == 0
    assert capsys.readouterr().out == "no servers are running\n"


def test_kept_servers_verbs_refuse_wrong_names(with_weights):
    with pytest.raises(ConfigError, match="no server is named"):
        verb(kill)
    with pytest.raises(ConfigError, match="there is no server 'x'"):
        verb(ps, "--key", "x")
    with pytest.raises(ConfigError, match=r"did you mean 'smollm2'\?"):
        verb(launch, "smolm2")
    done = ostinato("launch", "smollm2", "--", "--extra")
    assert (done.code, "llamacpp takes none" in done.err) == (2, True)
