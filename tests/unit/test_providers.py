"""Providers: who owns which model, the launch settings, and servers that are started, shared, kept and ended.

The servers here are real processes that speak just enough HTTP; a program called ``vllm`` on the PATH stands for vLLM.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from runner.errors import ConfigError, FinetuneError, LaunchError
from runner.finetune.data.formats import TrainDataFormat
from runner.finetune.jobs.future import TrainingJob
from runner.finetune.jobs.status import TrainingStatus
from runner.providers import local, registry
from runner.providers.base import Provider
from runner.providers.local import LocalProvider
from runner.providers.openai import OpenAIProvider
from runner.servers import kept, server
from runner.system import processes

VLLM = """
import http.server, json, os, sys
print("arguments:", *sys.argv[1:], flush=True)
if "--break" in sys.argv:
    sys.exit("CUDA is out of memory; key " + os.environ["VLLM_API_KEY"])
if "--hang" in sys.argv:
    import time; time.sleep(600)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = self.headers["Authorization"] == "Bearer " + os.environ["VLLM_API_KEY"] and self.path == "/v1/models"
        body = json.dumps({"data": [{"id": sys.argv[2]}]}).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def launched_lm(model="local/org/model", **launch_kwargs):
    return SimpleNamespace(model=model, kwargs={}, launch_kwargs={"backend": "vllm", "timeout_s": 20, **launch_kwargs})


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """A program called vllm on the PATH; nothing of it runs on after the test."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{VLLM}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    yield program
    for shared in list(local._shared.values()):
        shared.stop()
    local._shared.clear()
    for known in kept.listed():
        kept.kill(known.name)


@pytest.mark.parametrize(
    "model",
    [
        *("gpt-4o-mini", "openai/gpt-5", "chatgpt-4o-latest", "codex-mini-latest", "o1", "o3-mini", "openai/o4-mini"),
        *("ft:gpt-4o-mini-2024-07-18:org::id", "text-completion-openai/gpt-3.5-turbo-instruct"),
        *("babbage-002", "davinci-002", "text-embedding-3-small"),
    ],
)
def test_openai_owns_its_own_models(model):
    assert isinstance(registry.infer(model), OpenAIProvider)


@pytest.mark.parametrize(
    "model",
    [
        "openai/smollm2",
        "gpt-oss-20b",
        "gpt2",
        "gpt-neox-20b",
        "azure/gpt-4o",
        "openrouter/openai/gpt-4o",
        "ft:llama:x",
        "oxford",
        "",
    ],
)
def test_openai_does_not_own_other_models(model):
    assert type(registry.infer(model)) is Provider


def test_the_local_provider_owns_local_models():
    assert isinstance(registry.infer("local/smollm2"), LocalProvider)
    assert registry.infer("local/smollm2") is registry.get("local")
    assert not LocalProvider.is_provider_model("locals/x")


def test_an_unknown_provider_gets_a_suggestion():
    with pytest.raises(ConfigError, match=r"unknown provider 'opneai'; did you mean 'openai'\?"):
        registry.get("opneai")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package that brings the given entry points."""

    def install(code, *entries):
        (tmp_path / "theirs.py").write_text(code)
        info = tmp_path / "theirs-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("\n".join(["[ostinato.providers]", *entries]))
        monkeypatch.syspath_prepend(str(tmp_path))

    for cached in (registry._others, registry._other):
        cached.cache_clear()
    yield install
    sys.modules.pop("theirs", None)
    for cached in (registry._others, registry._other):
        cached.cache_clear()


def test_another_package_can_add_a_provider(installed):
    installed(
        "from runner.providers.base import Provider\n"
        "class Mine(Provider):\n"
        "    @staticmethod\n"
        "    def is_provider_model(model): return model.startswith('mine/')\n",
        "mine = theirs:Mine",
        "openai = theirs:Mine",  # the name of a built-in one is not theirs to take
    )
    assert "mine" in registry.names()
    assert registry.names().count("openai") == 1
    assert type(registry.infer("mine/x")).__name__ == "Mine"
    assert isinstance(registry.get("openai"), OpenAIProvider)


def test_a_broken_provider_of_another_package_is_named_and_spares_built_in_models(installed):
    installed("raise RuntimeError('boom')", "broken = theirs:Nothing")
    assert isinstance(registry.infer("gpt-4o"), OpenAIProvider)
    with pytest.raises(ConfigError, match=r"'broken' \(theirs:Nothing, from theirs\) cannot be loaded: RuntimeError: boom"):
        registry.get("broken")


def test_an_entry_point_that_is_not_a_provider_is_refused(installed):
    installed("class Wrong: pass", "wrong = theirs:Wrong")
    with pytest.raises(ConfigError, match="is not a subclass"):
        registry.get("wrong")


def test_a_provider_that_cannot_train_says_so():
    provider = Provider()
    assert not provider.finetunable
    assert not provider.reinforceable
    job = provider.TrainingJob(model="m")
    with pytest.raises(FinetuneError, match=rf"{type(provider).__name__} cannot fine-tune 'm'"):
        provider.finetune(job, "m", [], TrainDataFormat.CHAT)


@pytest.mark.parametrize("provider", [Provider(), OpenAIProvider()])
def test_launch_and_kill_do_nothing_for_models_that_are_always_up(provider):
    lm = launched_lm("gpt-4o")
    for call in (provider.kill, provider.launch, provider.launch, provider.kill, provider.kill):
        call(lm)
    assert lm.kwargs == {}
    assert provider.endpoint(lm) is None


def test_a_training_job_is_a_future_with_a_status():
    job = TrainingJob(model="m", train_data=[{}], train_data_format="chat")
    assert (job.train_data_format, job.train_kwargs, job.status()) == (TrainDataFormat.CHAT, {}, TrainingStatus.not_started)
    job.thread = threading.Thread()
    assert job.status() == "pending"
    job.set_running_or_notify_cancel()
    assert job.status() == "running"
    assert not job.cancel()
    job.set_result("an LM")
    assert (job.status(), job.result()) == ("succeeded", "an LM")


def test_a_training_job_fails_or_is_cancelled():
    failed, cancelled = TrainingJob(), TrainingJob()
    failed.set_exception(FinetuneError("no"))
    assert failed.status() is TrainingStatus.failed
    assert cancelled.cancel()
    assert cancelled.status() is TrainingStatus.cancelled


@pytest.mark.parametrize(
    ("launch_kwargs", "message"),
    [
        ({"contxt": 1}, r"unknown key 'contxt'; did you mean 'context'\?"),
        ({"context": "2048"}, r"Expected `int`, got `str` - at `\$.context`"),
        ({"context": 0}, ">= 1"),
        ({"port": 70000}, "<= 65535"),
        ({"backend": "ollama"}, "Invalid enum value 'ollama'"),
        ({"args": ["--x"]}, "llamacpp takes none"),
    ],
)
def test_wrong_launch_settings_are_refused(launch_kwargs, message):
    lm = SimpleNamespace(model="local/smollm2", kwargs={}, launch_kwargs=launch_kwargs)
    with pytest.raises(ConfigError, match=message):
        LocalProvider().launch(lm)
    assert lm.kwargs == {}


@pytest.mark.parametrize("model", ["gpt-4o", "local/"])
def test_the_local_provider_serves_only_local_names(model):
    with pytest.raises(ConfigError, match="local/NAME"):
        LocalProvider().endpoint(launched_lm(model))


def test_the_endpoint_is_the_identity_of_the_weights_and_needs_no_launch():
    provider = LocalProvider()
    pinned = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert provider.endpoint(launched_lm("local/smollm2", backend="llamacpp")) == pinned
    assert provider.endpoint(launched_lm("local/org/model")) == "vllm:org/model"


@pytest.mark.parametrize(
    ("backend", "advice"),
    [("vllm", "pip install vllm"), ("sglang", r"pip install 'sglang\[all\]'"), ("llamacpp", r"pip install 'ostinato\[local\]'")],
)
def test_a_missing_backend_says_how_to_install_it(backend, advice, monkeypatch):
    real = server.importlib.util.find_spec
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None if name in {"xllamacpp", "sglang"} else real(name))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LaunchError, match=advice):
        LocalProvider().launch(launched_lm("local/smollm2", backend=backend))
    assert not local._shared


def test_launch_points_the_lm_to_a_server_that_requires_its_key(vllm):
    lm = launched_lm(context=512, parallel=2, args=["--extra", "1"])
    LocalProvider().launch(lm)
    assert server.answers(lm.kwargs["api_base"], lm.kwargs["api_key"])
    assert not server.answers(lm.kwargs["api_base"], "wrong")
    (shared,) = local._shared.values()
    said = shared.server.process.log_tail()
    assert said.startswith("arguments: serve org/model --served-model-name org/model --host 127.0.0.1 --port ")
    assert said.endswith("--max-model-len 512 --max-num-seqs 2 --extra 1")
    assert lm.kwargs["api_key"] not in said + repr(shared)


def test_lms_share_a_server_and_the_last_kill_ends_it(vllm):
    provider, one, two = LocalProvider(), launched_lm(), launched_lm(timeout_s=30)
    provider.launch(one)
    provider.launch(one)
    provider.launch(two)
    assert one.kwargs == two.kwargs
    process = next(iter(local._shared.values())).server.process
    provider.kill(one)
    assert one.kwargs == {}
    assert process.alive()
    provider.kill(one)
    assert process.alive()
    provider.kill(two)
    assert not process.alive()
    assert not process.log.parent.exists()
    provider.kill(two)
    assert not local._shared


def test_other_settings_start_another_server_and_relaunching_moves_the_lm(vllm):
    provider, lm = LocalProvider(), launched_lm()
    provider.launch(lm)
    first = lm.kwargs["api_base"]
    provider.launch(lm, {"context": 1024})
    assert lm.kwargs["api_base"] != first
    assert len(local._shared) == 1


def test_many_threads_start_one_server(vllm):
    provider, lms = LocalProvider(), [launched_lm() for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(provider.launch, lms))
    assert len({lm.kwargs["api_base"] for lm in lms}) == 1
    process = next(iter(local._shared.values())).server.process
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(provider.kill, lms))
    assert not process.alive()


def test_a_server_that_died_is_started_again(vllm):
    provider, lm = LocalProvider(), launched_lm()
    provider.launch(lm)
    next(iter(local._shared.values())).server.process.stop()
    provider.launch(lm)
    assert server.answers(lm.kwargs["api_base"], lm.kwargs["api_key"])


def test_a_server_that_fails_shows_the_end_of_its_log_without_the_key(vllm):
    lm = launched_lm(args=["--break"])
    with pytest.raises(LaunchError) as caught:
        LocalProvider().launch(lm)
    text = str(caught.value)
    assert "cannot serve org/model with vllm: the server ended while it was starting" in text
    assert text.endswith("CUDA is out of memory; key ***")
    assert lm.kwargs == {}
    assert not local._shared


def test_a_server_that_never_answers_is_ended_after_the_timeout(vllm):
    with pytest.raises(LaunchError, match=r"no answer within 0.3 s \(timeout_s\)"):
        LocalProvider().launch(launched_lm(args=["--hang"], timeout_s=0.3))
    assert not local._shared


def test_servers_end_with_a_process_that_never_kills_them(vllm, tmp_path, monkeypatch):
    code = (
        "from types import SimpleNamespace; from runner.providers.local import LocalProvider\n"
        "lm = SimpleNamespace(model='local/m', kwargs={}, launch_kwargs={'backend': 'vllm', 'timeout_s': 20})\n"
        "LocalProvider().launch(lm); print(lm.kwargs['api_base'])"
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    assert list(temporary.iterdir()) == []


def test_a_taken_port_is_reported(vllm):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LaunchError, match=f"port {port} on 127.0.0.1 is taken"):
            LocalProvider().launch(launched_lm(port=port))


def test_a_given_port_is_used(vllm):
    lm = launched_lm(port=processes.free_port())
    LocalProvider().launch(lm)
    assert lm.kwargs["api_base"] == f"http://127.0.0.1:{lm.launch_kwargs['port']}/v1"


def settings(**fields):
    return server.Settings(backend="vllm", timeout_s=20, **fields)


def test_a_kept_server_is_recorded_privately_and_used_but_not_ended_by_lms(vllm):
    known, started = kept.keep("org/model", settings())
    assert started
    record = kept.record_of("org_model")
    assert record.stat().st_mode & 0o777 == 0o600
    assert record.parent.stat().st_mode & 0o777 == 0o700
    written = json.loads(record.read_text())
    assert (written["version"], written["pid"], written["api_key"]) == (1, known.pid, known.api_key)
    assert known.api_key not in repr(known)

    provider, lm = LocalProvider(), launched_lm(context=1024, parallel=1)
    provider.launch(lm)
    assert lm.kwargs == {"api_base": known.api_base, "api_key": known.api_key}
    provider.kill(lm)
    assert lm.kwargs == {}
    assert known.process().alive()

    larger = launched_lm(context=4096)
    provider.launch(larger)
    assert larger.kwargs["api_base"] != known.api_base


def test_keeping_a_server_twice_returns_it_and_other_settings_are_refused(vllm):
    known, _ = kept.keep("org/model", settings())
    assert kept.keep("org/model", settings()) == (known, False)
    with pytest.raises(LaunchError, match="ostinato kill org_model"):
        kept.keep("org/model", settings(context=64))


def test_killing_a_kept_server_is_idempotent_and_leaves_no_files(vllm):
    known, _ = kept.keep("org/model", settings())
    process = known.process()
    assert kept.kill("org_model")
    assert not process.alive()
    assert not kept.kill("org_model")
    assert not kept.kill("../org_model")
    assert kept.listed() == []
    assert [path.name for path in kept.folder().iterdir()] == [".org_model.lock"]


def test_records_of_dead_servers_and_unreadable_records_are_deleted(vllm):
    known, _ = kept.keep("org/model", settings())
    known.process().stop()
    (kept.folder() / "torn.json").write_text('{"name": "to')
    assert kept.listed() == []
    assert not list(kept.folder().glob("*.json"))


def test_another_process_that_has_the_recorded_pid_is_left_alone(vllm):
    known, _ = kept.keep("org/model", settings())
    record = kept.record_of("org_model")
    written = json.loads(record.read_text())
    record.write_text(json.dumps({**written, "pid_started": written["pid_started"] + 1}))
    assert not kept.kill("org_model")
    assert known.process().alive()
    known.process().stop()


def test_a_server_that_cannot_be_recorded_is_ended(vllm):
    with pytest.raises(LaunchError, match="CUDA"):
        kept.keep("org/model", settings(args=("--break",)))
    assert not list(kept.folder().glob("*.json"))


def test_an_unwritable_folder_is_reported(vllm, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OSTINATO_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(LaunchError, match="set OSTINATO_HOME to another folder"):
        kept.keep("org/model", settings())


def test_answers_is_false_for_a_server_that_does_not_speak_http():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def nonsense():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"not http\r\n\r\n")

        thread = threading.Thread(target=nonsense)
        thread.start()
        assert not server.answers(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", "key")
        thread.join()
