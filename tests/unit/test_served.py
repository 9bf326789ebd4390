"""The weights behind an address and a name may be others tomorrow: what the server says of them is part of the cache key."""

import functools
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import runner
from runner.cache import Cache
from runner.cache.served import LastServed
from runner.config.compose import compose
from runner.errors import CacheError, RecordError
from runner.experiment.run import resume
from runner.network import client
from runner.records import RunFolder
from runner.reproduction.pack import pack
from runner.reproduction.replay import replay
from runner.reproduction.reproduce import reproduce
from runner.servers.listing import PAID, SOFTWARE, Weights, is_own, is_paid, weights_of
from runner.system.paths import home
from tests.support.command import ostinato
from tests.support.server import Hang, Raw, Reply, Reset, Server, Status

pytestmark = pytest.mark.usefixtures("in_tmp")


@pytest.fixture(scope="module")
def asked():
    with Server() as running:
        yield running


@pytest.fixture
def server():
    with Server() as running:
        yield running


def listing(**entry):
    return {"object": "list", "data": [{"id": "m", "object": "model", **entry}]}


def vllm(root, parent=None):
    return {"/v1/models": listing(owned_by="vllm", root=root, parent=parent, max_model_len=4096, created=1)}


def llamacpp(path="/w/a.gguf", size=96576768, build="b9010-abc"):
    meta = {"vocab_type": 2, "n_vocab": 49152, "n_ctx": 256, "n_params": 134515008, "size": size, "ftype": "Q4_1"}
    return {
        "/v1/models": {"models": [{"name": "m", "digest": ""}], **listing(owned_by="llamacpp", meta=meta, created=1)},
        "/props": {"model_path": path, "build_info": build, "total_slots": 4, "media_marker": "changes with each start"},
    }


def ollama(digest="sha256:aa", name="m:latest"):
    told = [{"name": "other", "digest": "sha256:00"}, {"name": name, "digest": digest, "size": 3, "modified_at": "2026-11-30"}]
    return {
        "/v1/models": {"data": [{"id": "other", "owned_by": "library"}, {"id": name, "owned_by": "library", "created": 1}]},
        "/api/tags": {"models": told},
    }


def sglang(path="/w/a", version="default"):
    told = {"model_path": path, "weight_version": version, "is_generation": True}
    return {"/v1/models": listing(owned_by="sglang", root="m", max_model_len=4096), "/get_model_info": told}


def lmstudio(quantization="Q4_K_M"):
    told = {"id": "m", "publisher": "p", "arch": "llama", "quantization": quantization, "state": "loaded"}
    return {"/v1/models": listing(owned_by="organization_owner"), "/api/v0/models": {"data": [{"id": "x"}, told]}}


def tgi(sha="1f", name="org/a"):
    told = {"model_id": name, "model_sha": sha, "model_dtype": "float16", "max_concurrent_requests": 128}
    return {"/v1/models": {"data": [{"id": name, "owned_by": name, "created": 0}]}, "/info": told}


def llama_cpp_python(path="/w/a.gguf"):
    return {"/v1/models": {"data": [{"id": path, "object": "model", "owned_by": "me", "permissions": []}]}}


NAMED = [
    ("vLLM", vllm("/w/a"), {"root": "/w/a"}),
    ("vLLM", vllm("/w/lora", "base"), {"root": "/w/lora", "parent": "base"}),
    (
        "llama.cpp",
        llamacpp(),
        {"n_params": 134515008, "size": 96576768, "model_path": "/w/a.gguf", "build_info": "b9010-abc"},
    ),
    ("Ollama", ollama(), {"digest": "sha256:aa"}),
    ("SGLang", sglang(), {"model_path": "/w/a", "weight_version": "default"}),
    ("LM Studio", lmstudio(), {"publisher": "p", "arch": "llama", "quantization": "Q4_K_M"}),
    ("text-generation-inference", tgi(), {"id": "org/a", "model_id": "org/a", "model_sha": "1f", "model_dtype": "float16"}),
    ("llama-cpp-python", llama_cpp_python(), {"id": "/w/a.gguf"}),
]

UNNAMED = [
    vllm("m"),  # the root is the name that was asked for: it is in the key already
    {"/v1/models": listing()},
    {"/v1/models": listing(owned_by="openai")},
    {"/v1/models": {"data": [{"id": "x", "owned_by": "vllm", "root": "/x"}, {"id": "y", "owned_by": "vllm", "root": "/y"}]}},
    {"/v1/models": {"data": []}},
    {"/v1/models": {"data": "m"}},
    {"/v1/models": {"data": [3, {"id": 3}]}},
    {"/v1/models": [1]},
    {"/v1/models": listing(owned_by="vllm", root=None, parent={"a": 1})},
    {"/v1/models": Status(404)},
    {"/v1/models": Raw(b"<html>")},
    {"/v1/models": Raw(b"\xff")},
]

NO_ANSWER = [Status(401), Status(503), Reset(), Hang()]


@pytest.mark.parametrize(("software", "told", "facts"), NAMED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_each_server_says_of_its_weights_is_read(asked, software, told, facts):
    asked.told = told
    assert weights_of(asked.url, "m", {}) == Weights(facts)


def test_every_row_of_the_table_is_tried():
    assert {software for software, _, _ in NAMED} == {row.name for row in SOFTWARE}


@pytest.mark.parametrize("told", UNNAMED, ids=str)
def test_a_server_that_does_not_tell_weights_apart_leaves_the_endpoint_as_it_is(asked, told):
    asked.told = told
    weights = weights_of(asked.url, "m", {})
    assert weights == Weights({})
    assert weights.at(asked.url) == asked.url


@pytest.mark.parametrize("told", NO_ANSWER, ids=str)
def test_a_server_that_cannot_be_asked_is_no_error(asked, told):
    asked.told = {"/v1/models": told}
    assert weights_of(asked.url, "m", {}, timeout_s=0.05) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["m", "vllm", "llamacpp", "library"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "models", "id", "name", "owned_by", "root", "meta", "size", "digest"]), inner)
    ),
    max_leaves=12,
)


@given(listed=JSON, more=JSON)
def test_no_answer_of_a_server_is_an_error(listed, more):
    def request(method, url, **_):
        told = {"data": [listed]} if isinstance(listed, dict) and "id" in listed else listed
        return client.Reply(200, "OK", None, json.dumps(told if url.endswith("/v1/models") else more).encode())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runner.servers.listing.request", request)
        weights = weights_of("http://a/v1", "m", {})
        assert weights is not None
        assert weights.at("http://a/v1").startswith("http://a/v1")


def test_an_answer_nested_without_end_says_nothing(asked):
    asked.told = {"/v1/models": Raw(b'{"data":' * 5000)}
    assert weights_of(asked.url, "m", {}) == Weights({})


def test_nobody_there_is_no_error():
    assert weights_of("http://127.0.0.1:9/v1", "m", {}) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (vllm("/w/a"), vllm("/w/b")),
        (vllm("/w/lora", "a"), vllm("/w/lora", "b")),
        (llamacpp(), llamacpp(path="/w/b.gguf")),
        (llamacpp(), llamacpp(size=1)),
        (llamacpp(), llamacpp(build="b9011-def")),
        (ollama(), ollama("sha256:bb")),
        (sglang(), sglang("/w/b")),
        (sglang(), sglang(version="step 2")),
        (lmstudio(), lmstudio("Q8_0")),
        (tgi(), tgi("2e")),
        (llama_cpp_python(), llama_cpp_python("/w/b.gguf")),
    ],
    ids=lambda told: str(told)[-60:],
)
def test_other_weights_are_another_endpoint(asked, one, other):
    ends = []
    for told in (one, other, one):
        asked.told = told
        ends.append(weights_of(asked.url, "m", {}).at("http://here/v1"))
    assert ends[0] == ends[2] != ends[1]
    assert all("/w" not in end and " " not in end for end in ends)  # no folder of a machine goes into a capsule


def test_the_address_of_a_paid_provider_is_known():
    assert all(is_paid(f"https://api.{domain}/v1") and is_paid(f"https://{domain}") for domain in PAID)
    assert not is_paid("https://notopenai.com/v1")
    own = [
        "http://127.0.0.1:1/v1",
        "http://localhost/v1",
        "http://10.0.0.2/v1",
        "http://[::1]:1/v1",
        "http://gpu:1",
        "http://a.lan",
    ]
    assert all(map(is_own, own))
    assert not any(map(is_own, ["https://api.openai.com/v1", "http://8.8.8.8/v1", "http://"]))


def test_the_last_endpoint_is_remembered_until_the_server_names_none():
    known = LastServed(Path("cache"))
    assert known.get("m", "a") is None
    known.set("m", "a", "a#1")
    known.set("n", "a", "a#2")
    assert (known.get("m", "a"), known.get("n", "a"), known.get("m", "b")) == ("a#1", "a#2", None)
    known.set("m", "a", "a")
    assert (known.get("m", "a"), known.get("n", "a")) == (None, "a#2")


# --- runs


@functools.cache
def composed():
    model = ["model=server", "model.name=m", "execution.orchestrator=none", "scoring=exact"]
    data = [
        "data=jsonl",
        "data.path=rows.jsonl",
        "data.id=id",
        "data.target=answer",
        "prompt=default",
        "prompt.user={{ question }}",
    ]
    return compose([*model, *data]).config()


def play(server, rows=3, **cache):
    """Ask so many rows; the question of row n is "What is n?"."""
    lines = [json.dumps({"id": f"r{n}", "question": f"What is {n}?", "answer": "ok"}) + "\n" for n in range(rows)]
    Path("rows.jsonl").write_text("".join(lines))
    replace = msgspec.structs.replace
    config = composed()
    model, store = replace(config.model, api_base=server.url), replace(config.cache, **cache)
    return runner.run(replace(config, model=model, cache=store))


def endpoint(result):
    return RunFolder.open(result.folder).manifest()["model"]["endpoint"]


def test_swapped_weights_are_asked_and_the_first_ones_come_from_the_cache_again(server):
    requests = []
    for root in ("/w/a", "/w/b", "/w/a", "/w/b"):
        server.told = vllm(root)
        requests.append(play(server).summary.requests)
    assert requests == [3, 3, 0, 0]
    assert server.count == 6


def test_a_server_that_names_no_weights_keeps_its_keys(server):
    first = play(server)
    server.told = {"/v1/models": Status(404)}
    assert play(server).summary.cache_hits == 3
    assert endpoint(first) == server.url


def test_the_cache_answers_while_the_server_is_down():
    with Server() as server:
        server.told = vllm("/w/a")
        first = play(server)
    again = play(server)
    assert (again.summary.cache_hits, again.summary.status) == (3, "complete")
    assert endpoint(again) == endpoint(first) == f"{server.url}#a:{endpoint(first)[-12:]}"


def test_a_replay_asks_nothing(server):
    server.told = vllm("/w/a")
    play(server)
    server.told = {"/v1/models": Hang()}
    assert play(server, mode="replay").summary.cache_hits == 3


def test_a_dry_run_knows_the_answers_of_the_last_weights(server):
    server.told = vllm("/w/a")
    result = play(server)
    server.told = {"/v1/models": Hang()}
    told = ostinato("run", "-cd", str(result.folder), "-cn", "config", "--dry-run", "--json").json
    assert told["cache_hits"] == 3


def test_a_paid_provider_is_not_asked(monkeypatch, server):
    monkeypatch.setattr("runner.servers.listing.is_paid", lambda _: True)
    server.told = vllm("/w/a")
    assert endpoint(play(server)) == server.url


def test_a_record_with_weights_is_packed_replayed_and_reproduced(server):
    server.told = vllm("/w/a")
    first = play(server)
    server.told = vllm("/w/b")
    play(server)
    packed = pack(first.folder, "run.ostinato")
    assert (packed.facts.answers, packed.facts.from_record) == (3, 0)
    assert replay("run.ostinato").identical
    again = reproduce(first.folder, replay=True)
    assert again.to_dict()["identical"]
    assert not again.drifted
    now = reproduce(first.folder)
    assert [check.what for check in now.drifted] == ["served model"]
    assert any("#a:" in line and "#b:" in line for check in now.drifted for line in check.lines())


def interrupted(server, then):
    """A run of which two rows are answered and two are owed; the server then says of its weights what `then` is."""
    server.otherwise = lambda call: Reply() if call.question in ("What is 0?", "What is 1?") else Status(401)
    result = play(server, rows=4)
    assert result.summary.owed == 2
    server.otherwise, server.told = Reply(), then
    return result.folder


def test_a_run_is_not_finished_by_other_weights(server):
    server.told = vllm("/w/a")
    folder = interrupted(server, vllm("/w/b"))
    asked = server.count
    with pytest.raises(RecordError, match=r"serves other weights(.|\n)*was: a:(.|\n)*is:  b:.*root=/w/b(.|\n)*start a new run"):
        resume(folder)
    assert server.count == asked
    server.told = vllm("/w/a")
    assert resume(folder).summary.status == "complete"


@pytest.mark.parametrize("then", [vllm("/w/a"), {"/v1/models": Status(503)}], ids=["same", "cannot be asked"])
def test_a_run_goes_on_with_the_weights_that_it_began_with(server, then):
    server.told = vllm("/w/a")
    result = resume(interrupted(server, then))
    assert result.summary.status == "complete"
    assert "#a:" in endpoint(result)


def test_a_run_that_began_before_weights_were_named_keeps_its_keys(server):
    result = resume(interrupted(server, vllm("/w/b")))
    assert result.summary.status == "complete"
    assert endpoint(result) == server.url


def test_an_entry_says_by_which_model_it_was_made(server):
    server.told = vllm("/w/a")
    server.otherwise = Reply(model="m-2026", fingerprint="fp")
    play(server, rows=1)
    listed = ostinato("cache", "ls", "--json").json["entries"]
    served = ostinato("cache", "show", listed[0]["key"][:8]).json["served"]
    assert served == listed[0]["served"] == {"model": "m-2026", "fingerprint": "fp", "weights": served["weights"]}
    assert served["weights"].startswith("a:")
    assert Cache(home() / "cache").stats()["entries"] == 1


# --- models that only their answers name


def answering(server, model):
    """The server names no weights, and this model in its answers."""
    server.told, server.otherwise = {"/v1/models": Status(404)}, Reply(model, model=model)


def outputs(result):
    return {sample.id: sample.output for sample in result.samples}


def test_another_model_than_that_of_the_cached_answers_is_a_warning(server):
    answering(server, "one")
    play(server, rows=2)
    answering(server, "two")
    with pytest.warns(UserWarning, match=r"are by 'one'; now 'two' answers\. cache\.served=refuse") as warned:
        mixed = play(server, rows=4)
    assert len(warned) == 1
    assert sorted(outputs(mixed).values()) == ["one", "one", "two", "two"]
    assert "are by 'one'; now 'two' answers" in (mixed.folder / "run.log").read_text()


def test_another_model_in_mid_run_is_a_warning(server):
    answering(server, "one")
    folder = interrupted(server, {})
    answering(server, "two")
    with pytest.warns(UserWarning, match="now 'two' answers"):
        resume(folder)


@pytest.mark.parametrize("policy", ["warn", "refuse", "refresh"])
def test_models_that_take_turns_are_no_change_without_earlier_answers(server, policy):
    turns = iter("abcdefgh")
    server.otherwise = lambda call: Reply(model=next(turns))
    assert play(server, served=policy).summary.ok == 3


def test_refresh_asks_again_what_another_model_has_answered(server):
    answering(server, "one")
    play(server)
    again = play(server, served="refresh")
    assert (again.summary.requests, again.summary.cache_hits) == (1, 2)  # one row is asked to learn who answers
    answering(server, "two")
    now = play(server, served="refresh", rows=4)
    assert set(outputs(now).values()) == {"two"}
    assert (now.summary.requests, now.summary.cache_hits) == (4, 0)
    assert play(server, rows=4).summary.cache_hits == 4
    assert set(outputs(play(server, rows=4)).values()) == {"two"}


def test_a_cache_of_two_models_is_refreshed_row_by_row(server):
    answering(server, "one")
    play(server, rows=2)
    answering(server, "two")
    with pytest.warns(UserWarning, match="now 'two' answers"):
        play(server, rows=4)
    now = play(server, served="refresh", rows=4)
    assert set(outputs(now).values()) == {"two"}
    assert (now.summary.requests, now.summary.cache_hits) == (2, 2)


def test_refuse_stops_before_answers_are_mixed(server):
    answering(server, "one")
    play(server)
    assert play(server, served="refuse").summary.cache_hits == 2
    answering(server, "two")
    asked = server.count
    with pytest.raises(CacheError, match="are by 'one'; now 'two' answers; nothing more was sent"):
        play(server, served="refuse", rows=5)
    assert server.count == asked + 1
    answering(server, "one")
    assert set(outputs(play(server, rows=3)).values()) == {"one"}  # its entries are as they were


@pytest.mark.parametrize("policy", ["refuse", "refresh"])
def test_a_run_is_not_finished_by_another_model(server, policy):
    server.otherwise = lambda call: Reply(model="one") if call.question in ("What is 0?", "What is 1?") else Status(401)
    folder = play(server, rows=4, served=policy).folder
    answering(server, "two")
    with pytest.raises(RecordError, match="are by 'one'; now 'two' answers; start a new run"):
        resume(folder)
    assert RunFolder.open(folder).summary().owed


@pytest.mark.parametrize("policy", ["refuse", "refresh"])
def test_a_first_row_that_fails_or_does_not_name_a_model_decides_nothing(server, policy):
    answering(server, "one")
    play(server, rows=5)
    server.script(Status(400, "too long"))
    assert play(server, served=policy, rows=5).summary.cache_hits == 3
    server.script(Status(401))
    stopped = play(server, served=policy, rows=5)
    assert (stopped.summary.status, stopped.summary.ok) == ("failed", 0)
    assert resume(stopped.folder).summary.status == "complete"


@pytest.mark.parametrize("policy", ["refuse", "refresh"])
def test_no_row_is_asked_to_learn_who_answers_where_the_server_says_it(server, policy):
    server.told = vllm("/w/a")
    play(server)
    assert play(server, served=policy).summary.cache_hits == 3


def test_comparing_runs_shows_their_weights(server):
    folders = []
    for root in ("/w/a", "/w/b"):
        server.told = vllm(root)
        folders.append(play(server).folder)
    told = ostinato("compare", str(folders[0]), str(folders[1])).out
    assert "weights served" in told


def test_a_replay_does_not_ask_who_answers(server):
    answering(server, "one")
    play(server)
    answering(server, "two")
    assert play(server, served="refuse", mode="replay").summary.cache_hits == 3


def test_weights_that_change_while_they_are_asked_are_a_warning(server):
    def swap(call):
        server.told = vllm("/w/b")
        return Reply()

    server.told, server.otherwise = vllm("/w/a"), swap
    with pytest.warns(UserWarning, match=r"other weights(.|\n)*was: a:(.|\n)*by either"):
        play(server)
