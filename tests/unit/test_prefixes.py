"""What is sent to llama.cpp when requests share the beginnings of their prompts: a scripted llama.cpp, no model."""

import asyncio
import json
import sys

import pytest

from runner.servers import prefixes
from runner.servers.server import share
from tests.support.loopback import Loopback, Request, Script, response

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="states are memory files")
KEY = "k" * 20


class Llama(Loopback):
    """Answers as llama.cpp does: a token per word, and a template that says who speaks."""

    def __init__(self):
        super().__init__()
        self.told: list[tuple[str, dict]] = []
        self.saved: dict[str, list[str]] = {}
        self.holds: dict[int, list[str]] = {}

    async def route(self, request: Request) -> Script:
        body = json.loads(request.body or b"{}")
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return Script((response(b'{"error": "key"}', 401),), "close")
        path, _, query = request.path.partition("?")
        self.told.append((request.path, body))
        return Script((response(json.dumps(self.reply(path, query, body)).encode()),), "close")

    def reply(self, path, query, body):
        if path == "/apply-template":
            said = " ".join(f"{one['role']}: {one['content']} ." for one in body["messages"])
            return {"prompt": " ".join([said, *(str(body[name]) for name in prefixes.FORM if name in body), "assistant:"])}
        if path == "/tokenize":
            return {"tokens": [sum(word.encode()) * 1000 + len(word) for word in body["content"].split()]}
        if path.startswith("/slots/"):
            slot, name = int(path.split("/")[2]), body["filename"]
            if query == "action=restore":
                self.holds[slot] = self.saved[name]
            else:
                self.saved[name] = self.holds[slot]
            return {"n_written": 100}
        if path == "/completion":
            self.holds[body["id_slot"]] = body["prompt"]
            return {}
        held = self.holds.get(body.get("id_slot"), [])
        return {"slot": body.get("id_slot"), "held": len(held) if body.get("cache_prompt") else 0, "body": body}


@pytest.fixture
def llama():
    with Llama() as started:
        yield started


def asked(country, *turns):
    said = [
        {"role": "assistant" if at % 2 else "user", "content": text}
        for at, text in enumerate((f"capital of {country} ?", *turns))
    ]
    return {"messages": [{"role": "system", "content": "You answer in one short sentence ."}, *said], "max_tokens": 5}


async def post(port, path, body, key=KEY):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent
    )
    head, _, data = (await reader.read(-1)).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(data or b"null")


def with_front(llama, use, slots=2):
    async def main():
        front = prefixes.Front(llama.port, KEY, slots)
        listening = await front.start(0)
        async with listening:
            await use(front, listening.sockets[0].getsockname()[1])
        for state in [*front._held]:
            assert not state.users

    asyncio.run(main())


def restored(llama):
    return [path for path, _ in llama.told if path.endswith("restore")]


def test_what_all_prompts_begin_with_is_evaluated_once_and_restored_before_each_request(llama):
    async def use(front, port):
        rows = [{**asked(name), "lora": [{"id": 0, "scale": 1.0}]} for name in ("Chad", "Peru", "Fiji")]
        told = await asyncio.to_thread(share, f"http://127.0.0.1:{port}/v1", KEY, rows)
        again = await asyncio.to_thread(share, f"http://127.0.0.1:{port}/v1", KEY, rows)
        evaluated = [body for path, body in llama.told if path == "/completion"]
        assert told == again
        assert [(len(one["prompt"]), one["n_predict"], one["lora"]) for one in evaluated] == [(12, 0, rows[0]["lora"])]
        before = len(restored(llama))
        replies = await asyncio.gather(*(post(port, "/v1/chat/completions", {**row, prefixes.FIELD: told}) for row in rows * 3))
        assert [(status, one["held"]) for status, one in replies] == [(200, 12)] * 9
        assert all(prefixes.FIELD not in one["body"] and one["body"]["max_tokens"] == 5 for _, one in replies)
        assert {one["slot"] for _, one in replies} == {0, 1}
        assert len(restored(llama)) == before + 9
        _, alone = await post(port, "/v1/chat/completions", rows[0])  # it names no prefix
        assert alone["held"] == 0

    with_front(llama, use)


def test_a_turn_continues_from_the_prompt_of_the_turn_before(llama, monkeypatch):
    async def use(front, port):
        named = await asyncio.to_thread(share, f"http://127.0.0.1:{port}/v1", KEY, [asked("Chad"), asked("Peru")])
        _, third = await post(port, "/v1/chat/completions", {**asked("Chad", "Lima", "No", "Oslo", "No"), prefixes.FIELD: named})
        chain = [(len(body["prompt"]), body["cache_prompt"]) for path, body in llama.told if path == "/completion"]
        assert chain == [(12, False), (16, True), (22, True)]
        assert third["held"] == 22
        _, same = await post(port, "/v1/chat/completions", {**asked("Chad", "Lima", "No", "Oslo", "Yes"), prefixes.FIELD: named})
        assert same["held"] == 22
        assert len([path for path, _ in llama.told if path == "/completion"]) == 3
        monkeypatch.setattr(
            prefixes, "_MOST_BYTES", 250
        )  # each state has 100: the oldest is dropped, and evaluated again when needed
        _, other = await post(port, "/v1/chat/completions", {**asked("Peru", "Lima", "No"), prefixes.FIELD: named})
        assert (other["held"], len(front._held)) == (16, 2)

    with_front(llama, use)


@pytest.mark.parametrize("field", prefixes.FORM)
def test_turns_whose_prompts_differ_by_a_field_have_states_of_their_own(llama, field):
    async def use(_front, port):
        named = await asyncio.to_thread(share, f"http://127.0.0.1:{port}/v1", KEY, [asked("Chad"), asked("Peru")])
        plain = {**asked("Chad", "Lima", "No"), prefixes.FIELD: named}
        held = [(await post(port, "/v1/chat/completions", body))[1]["held"] for body in (plain, {**plain, field: "auto"}, plain)]
        assert held == [16, 17, 16]

    with_front(llama, use)


def test_turns_that_were_asked_for_longest_ago_are_forgotten(llama, monkeypatch):
    monkeypatch.setattr(prefixes, "_MOST_TURNS", 4)

    async def use(front, port):
        named = await asyncio.to_thread(share, f"http://127.0.0.1:{port}/v1", KEY, [asked("Chad"), asked("Peru")])
        for at in [*range(10), 0]:
            body = {**asked(f"X{at}", "Lima", "No", "Oslo", "No"), prefixes.FIELD: named}
            _, reply = await post(port, "/v1/chat/completions", body)
            assert reply["held"] == 22
        assert len(front._turns) == 4
        assert len(front._held) == 1 + 4  # the run's prefix is kept
        evaluated = [body for path, body in llama.told if path == "/completion"]
        assert len(evaluated) == 1 + 2 * 11  # the first conversation twice

    with_front(llama, use)


def test_all_else_is_passed_on_as_it_is(llama):
    async def use(front, port):
        assert (await post(port, "/v1/chat/completions", asked("Chad"), key="wrong"))[0] == 401
        assert (await post(port, prefixes.PATH, {"requests": []}, key="wrong"))[0] == 401
        for body in ({**asked("Chad"), "cache_prompt": True}, {**asked("Chad"), "n": 2}, {**asked("Chad"), "id_slot": 1}):
            assert (await post(port, "/v1/chat/completions", body))[1]["body"] == body
        short = await asyncio.to_thread(share, f"http://127.0.0.1:{port}/v1", KEY, [{"prompt": "a b"}, {"prompt": "a c"}])
        _, reply = await post(port, "/v1/completions", {"prompt": "a b", prefixes.FIELD: short})
        assert (reply["held"], "cache_prompt" in reply["body"]) == (0, False)
        assert not restored(llama)

    with_front(llama, use)


def test_a_client_that_leaves_frees_its_slot(llama):
    async def use(front, port):
        await front._slots.get()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = json.dumps(asked("Chad")).encode()
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(sent)}\r\n\r\n".encode()
            + sent
        )
        await writer.drain()
        writer.close()
        front._slots.put_nowait(0)
        assert (await post(port, "/v1/chat/completions", asked("Peru")))[1]["slot"] == 0

    with_front(llama, use, slots=1)
