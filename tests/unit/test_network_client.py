"""The one HTTP client for small requests, against a real server on this machine."""

import socket
import threading

import pytest

from runner.errors import BadRequestError, LMTimeoutError, MalformedError, RateLimitError, TransportError
from runner.network.client import request, send
from tests.support.loopback import Loopback, Script, response
from tests.support.server import Hang, Raw, Server, Status


@pytest.fixture
def server():
    with Server() as running:
        yield running


@pytest.fixture
def nobody():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def post(server, body, **arguments):
    return send("databricks", "POST", f"{server.url}/chat/completions", headers={"X-Kept": "yes"}, body=body, **arguments)


def test_a_request_is_sent_as_it_is_given(server):
    reply = request(
        "POST", f"{server.url}/chat/completions", headers={"X-Kept": "yes"}, body=b'{"messages": [{"content": "hi"}]}'
    )
    assert reply.ok
    assert reply.status == 200
    [call] = server.calls
    assert (call.method, call.headers["x-kept"], call.question) == ("POST", "yes", "hi")


def test_a_refusal_is_a_reply(server):
    server.script(Status(429, "slow down", retry_after=3))
    reply = request("POST", f"{server.url}/chat/completions", body=b"{}")
    assert (reply.ok, reply.status, reply.reason, reply.retry_after) == (False, 429, "Too Many Requests", "3")
    assert b"slow down" in reply.body


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/file", "host/path", ""])
def test_only_http_urls_are_requested(url):
    with pytest.raises(ValueError, match=r"is not an http\(s\) URL"):
        request("GET", url)


def test_a_server_that_is_not_there_is_an_os_error(nobody):
    with pytest.raises(OSError, match="refused"):
        request("GET", nobody)


def test_a_reply_that_is_not_http_is_an_os_error():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def nonsense():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"not http\r\n\r\n")

        thread = threading.Thread(target=nonsense)
        thread.start()
        with pytest.raises(OSError, match="not http"):
            request("GET", url)
        thread.join()


def test_proxies_are_used_unless_the_server_is_on_this_machine(server, nobody, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", nobody)
    with pytest.raises(OSError, match="refused"):
        request("GET", f"{server.url}/models")
    assert request("GET", f"{server.url}/models", proxies=False).ok


def test_json_and_bytes_are_sent_with_their_types(server):
    assert post(server, {"messages": [{"content": "hi"}]})["choices"][0]["message"]["content"] == "ok"
    assert server.calls[0].body == {"messages": [{"content": "hi"}]}
    post(server, b'{"messages": [{"content": "raw"}]}')
    assert [call.headers["content-type"] for call in server.calls] == ["application/json", "application/octet-stream"]
    assert {call.headers["x-kept"] for call in server.calls} == {"yes"}


def test_an_empty_reply_is_an_empty_object(server):
    server.script(Raw(b""))
    assert post(server, {}) == {}


@pytest.mark.parametrize(
    ("behaviour", "error", "message"),
    [
        (Status(429, "slow down", retry_after=3), RateLimitError, "slow down"),
        (Status(400, body=b"plain words"), BadRequestError, "plain words"),
        (Status(400, body=b""), BadRequestError, "Bad Request"),
        (Status(400, body=b'{"message": "said here"}'), BadRequestError, "said here"),
        (Status(400, body=b'["listed"]'), BadRequestError, "listed"),
        (Raw(b"<html>"), MalformedError, "not JSON"),
        (Raw(b"[1]"), MalformedError, "not a JSON object"),
    ],
)
def test_failures_of_a_server_are_our_errors(server, behaviour, error, message):
    server.script(behaviour)
    with pytest.raises(error, match=message) as caught:
        post(server, {})
    assert caught.value.provider == "databricks"
    assert caught.value.retry_after == (3.0 if error is RateLimitError else None)


def test_a_late_reply_is_a_timeout(server):
    server.script(Hang())
    with pytest.raises(LMTimeoutError, match=r"no answer within 0\.2 s"):
        post(server, {}, timeout_s=0.2)


def test_unreachable_and_malformed_addresses_are_our_errors(nobody):
    with pytest.raises(TransportError, match=r"no connection: .*refused"):
        send("databricks", "GET", nobody, headers={})
    with pytest.raises(BadRequestError, match=r"is not an http\(s\) URL"):
        send("databricks", "GET", "host/path", headers={})


class CutOff(Loopback):
    """A reply whose body ends before its Content-Length."""

    def __init__(self, status):
        super().__init__()
        self.status = status

    async def route(self, request):
        return Script((response(b"short", self.status, length=50),), "close")


@pytest.mark.parametrize("status", [200, 503])
def test_the_body_is_not_read_if_only_the_status_is_needed(status):
    with CutOff(status) as server:
        reply = request("GET", server.address, limit=0)
    assert (reply.status, reply.body) == (status, b"")


def test_a_refusal_whose_body_is_cut_off_is_a_reply():
    with CutOff(503) as server:
        assert request("GET", server.address).status == 503


def test_an_answer_whose_body_is_cut_off_is_an_os_error():
    with CutOff(200) as server, pytest.raises(OSError, match="IncompleteRead"):
        request("GET", server.address)
