"""The client of the direct transport: what it sends, which answers it reads, and when it keeps a connection."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib

import pytest

from runner.errors import ConnectionLostError, LMError, TransportError
from runner.lm.lm import LM
from runner.network import http1
from runner.transport import DirectTransport
from tests.support.loopback import Loopback, Script, response

GOOD = json.dumps({"choices": [{"message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}).encode()
JSON = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Odd(Loopback):
    """A server that answers as its scripts say, and then well. It counts requests and connections."""

    def __init__(self, *scripts: Script) -> None:
        super().__init__()
        self.scripts = list(scripts)
        self.seen = []
        self.opened = set()

    async def route(self, request):
        self.seen.append(request)
        self.opened |= {writer.get_extra_info("peername") for writer in self.connections}
        return self.scripts.pop(0) if self.scripts else Script((response(GOOD),))


def lm_at(url, **more):
    lm = LM("openai/m", api_base=url, api_key="secret-key-1234", num_retries=0, cache=False, **more)
    lm.transport = DirectTransport()
    return lm


def ask(server, times=1, **more):
    """Ask so many times in one event loop, and return the answers."""

    async def calls():
        lm = lm_at(f"{server.address}/v1", **more)
        try:
            return [await lm.acall("hi") for _ in range(times)]
        finally:
            await lm.aclose()

    return asyncio.run(calls())


def chunked(body, parts=3):
    size = -(-len(body) // parts)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;note=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nTrailer: x\r\n\r\n"


def head(*lines):
    return (JSON + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode()


READ = {
    "a body with its length": response(GOOD),
    "chunks with extensions and a trailer": head("Transfer-Encoding: chunked") + chunked(GOOD),
    "an interim answer first": b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + response(GOOD),
    "gzip": response(gzip.compress(GOOD), Content_Encoding="gzip"),
    "deflate": response(zlib.compress(GOOD), Content_Encoding="deflate"),
    "gzip in chunks": head("Transfer-Encoding: chunked", "Content-Encoding: gzip") + chunked(gzip.compress(GOOD)),
    "names in other cases": response(GOOD).replace(b"Content-Length", b"cONTENT-lENGTH"),
}


@pytest.mark.parametrize("name", READ)
def test_answers_in_all_forms_are_read_and_the_connection_is_kept(name):
    with Odd(Script((READ[name],))) as server:
        assert ask(server, 3) == [["ok"]] * 3
    assert len(server.opened) == 1


def test_an_answer_cut_anywhere_is_put_together():
    data = READ["gzip in chunks"]
    with Odd(*(Script((data[:at], 0.0, data[at:])) for at in range(1, len(data), 9))) as server:
        times = len(server.scripts)
        assert ask(server, times) == [["ok"]] * times


CLOSED = {
    "a body until the end of the connection": Script((head("Connection: close") + GOOD,), "close"),
    "HTTP/1.0": Script((b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(GOOD), GOOD),)),
    "the server says that it closes": Script((response(GOOD, Connection="close"),)),
    "more than one answer": Script((response(GOOD) + response(GOOD),)),
    "junk after the answer": Script((response(GOOD) + b"junk",)),
}


@pytest.mark.parametrize("name", CLOSED)
def test_a_connection_that_cannot_be_used_again_is_not(name):
    with Odd(CLOSED[name]) as server:
        assert ask(server, 2) == [["ok"]] * 2
    assert len(server.opened) == 2


def test_a_connection_that_the_server_has_closed_is_not_used_again():
    with Odd(Script((response(GOOD),), "close")) as server:

        async def calls():
            lm = lm_at(f"{server.address}/v1")
            first = await lm.acall("hi")
            while server.connections:  # noqa: ASYNC110 - the server's, in another thread
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)
            return first, await lm.acall("hi")

        assert asyncio.run(calls()) == (["ok"], ["ok"])


BROKEN = {
    "nothing": (Script((), "close"), ConnectionLostError),
    "a reset": (Script((), "reset"), ConnectionLostError),
    "half a head": (Script((b"HTTP/1.1 200 OK\r\nContent",), "close"), ConnectionLostError),
    "half a body": (Script((response(GOOD)[:-5],), "close"), ConnectionLostError),
    "half a body in chunks": (Script((head("Transfer-Encoding: chunked") + chunked(GOOD)[:-20],), "close"), ConnectionLostError),
    "not HTTP": (Script((b"SSH-2.0-OpenSSH_9.9\r\n",)), TransportError),
    "broken gzip": (Script((response(b"no gzip", Content_Encoding="gzip"),)), TransportError),
    "an unknown coding": (Script((response(GOOD, Content_Encoding="sdch"),)), TransportError),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_an_error_and_the_next_request_is_answered(name):
    script, error = BROKEN[name]
    with Odd(script) as server:

        async def calls():
            lm = lm_at(f"{server.address}/v1")
            with pytest.raises(error):
                await lm.acall("hi")
            return await lm.acall("hi")

        assert asyncio.run(calls()) == ["ok"]
    assert len(server.seen) == 2


def test_a_request_has_the_headers_it_needs_and_those_of_the_config():
    with Odd() as server:
        ask(server, headers={"X-Mine": "für alle"})
    (request,) = server.seen
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["authorization"] == "Bearer secret-key-1234"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "gzip, deflate"
    assert int(request.headers["content-length"]) == len(request.body)
    assert request.headers["user-agent"] == "ostinato"
    assert request.path == "/v1/chat/completions"


def test_a_header_of_the_config_replaces_ours_whatever_its_case():
    head = http1.head_of("http://h/", {"Host": "other", "USER-AGENT": "mine"})
    assert head.lower().count(b"host:") == head.lower().count(b"user-agent:") == 1
    assert b"Host: other" in head


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b"])
def test_a_header_with_a_line_end_is_refused_before_anything_is_sent(value):
    with Odd() as server, pytest.raises(LMError, match="the header 'X-Mine' has a line end in it"):
        ask(server, headers={"X-Mine": value})
    assert not server.seen


def test_paths_are_escaped():
    assert http1.head_of("http://h/a b/ü?x=1", {}).startswith(b"POST /a%20b/%C3%BC?x=1 HTTP/1.1\r\nhost: h\r\n")


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_is_followed(status):
    with Odd() as target:
        moved = Script((response(b"", status, Location=f"{target.address}/v1/chat/completions"),))
        with Odd(moved, moved) as server:  # the general client asks again, and follows
            assert ask(server) == [["ok"]]
    assert (len(target.seen), len(server.seen)) == (1, 2)
    assert target.seen[0].body == server.seen[0].body


def test_a_proxy_of_the_environment_is_used_and_not_for_this_machine(monkeypatch):
    with Odd() as proxy, Odd() as server:
        monkeypatch.setenv("http_proxy", proxy.address)
        ask(server)
        assert (len(server.seen), len(proxy.seen)) == (1, 0)

        async def call():
            lm = lm_at("http://models.example/v1")
            try:
                return await lm.acall("hi")
            finally:
                await lm.aclose()

        assert asyncio.run(call()) == ["ok"]
        assert proxy.seen[0].path == "http://models.example/v1/chat/completions"


def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch):
    monkeypatch.setattr(http1, "IDLE_S", 0.0)
    with Odd() as server:
        assert ask(server, 2) == [["ok"]] * 2
    assert len(server.opened) == 2
