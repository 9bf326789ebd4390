"""Transports, through the LM, against a real server: classes of failures, and attempts."""

import email.utils
import socket
import time

import pytest

from runner import errors
from runner.lm.lm import LM
from runner.network.retry import RetryPolicy, without_sleeping
from runner.network.said import said
from tests.support.refusals import REFUSALS
from tests.support.server import Hang, Raw, Reset, Status
from tests.support.transports import KEY, QUIET, served_lm

pytestmark = QUIET


# --- failures: each with its class, each after one request

FAILURES = [
    (Status(400, "'foo' is not a parameter"), errors.BadRequestError, 400),
    (Status(400, "This model's maximum context length is 4096 tokens."), errors.ContextWindowError, 400),
    (Status(400, "Too long.", error_code="context_length_exceeded"), errors.ContextWindowError, 400),
    (Status(413, "the request exceeds the available context size"), errors.ContextWindowError, 413),
    (Status(400, "The response was filtered.", error_code="content_filter"), errors.ContentFilterError, 400),
    (Status(400, "Rejected by our content policy."), errors.ContentFilterError, 400),
    (Status(400, "Your credit balance is too low to access the API."), errors.QuotaError, 400),
    (Status(401, "Incorrect API key provided", error_code="invalid_api_key"), errors.AuthenticationError, 401),
    (Status(402, "Insufficient balance"), errors.QuotaError, 402),
    (Status(403, "Country not supported"), errors.PermissionDeniedError, 403),
    (Status(404, "The model does not exist", error_code="model_not_found"), errors.NotFoundError, 404),
    (Status(405, "Method not allowed"), errors.NotFoundError, 405),
    (Status(408, "Request timeout"), errors.LMTimeoutError, 408),
    (Status(422, "Unprocessable"), errors.BadRequestError, 422),
    (Status(429, "Rate limit reached for requests per min (RPM): Limit 3"), errors.RateLimitError, 429),
    (
        Status(429, "Rate limit reached. Add a payment method at https://platform.openai.com/account/billing to increase it."),
        errors.RateLimitError,
        429,
    ),
    (Status(429, "You exceeded your current quota: GenerateRequestsPerMinutePerProject"), errors.RateLimitError, 429),
    (
        Status(429, "You exceeded your current quota, please check your plan.", error_code="insufficient_quota"),
        errors.QuotaError,
        429,
    ),
    (Status(429, "Rate limit reached on tokens per day (TPD)"), errors.QuotaError, 429),
    (Status(500, "The server had an error"), errors.ServerError, 500),
    (Status(502, body=b"<html>Bad gateway: connection refused</html>"), errors.ServerError, 502),
    (Status(503, "Overloaded"), errors.ServerError, 503),
    (Status(504, "Gateway timeout"), errors.LMTimeoutError, 504),
    (Status(529, "Overloaded"), errors.ServerError, 529),
    (Status(418, "A teapot"), errors.BadRequestError, 418),
    (Reset(), errors.ConnectionLostError, None),
    (Reset(after=40), errors.ConnectionLostError, None),
    (Raw(b"this is not JSON"), errors.MalformedError, None),
    (Raw(b'{"choices": [{"mess'), errors.MalformedError, None),
    (Raw(b""), errors.MalformedError, None),
    (Raw(b"{}"), errors.MalformedError, None),
    (Raw(b"[]"), errors.MalformedError, None),
    (Raw(b"null"), errors.MalformedError, None),
    (Raw(b'{"choices": []}'), errors.MalformedError, None),
    (Raw(b'{"error": {"message": "overloaded"}}'), errors.MalformedError, None),
    (Raw(b"<html>Welcome to our portal</html>", content_type="text/html"), errors.MalformedError, None),
]


@pytest.mark.parametrize(("behaviour", "cls", "status"), FAILURES, ids=lambda value: str(value)[:60])
def test_failures_have_their_class_and_are_sent_once(server, ask, model_type, behaviour, cls, status):
    server.script(behaviour)
    with pytest.raises(errors.LMError) as caught:
        ask(served_lm(server, model_type=model_type), "hi")
    error = caught.value
    assert type(error) is cls, error
    assert (error.status, error.model, error.provider, error.attempts) == (status, "openai/any", "openai", 1)
    assert server.count == 1
    assert "litellm" not in str(error).lower()
    assert "\n" not in str(error)
    if isinstance(behaviour, Status) and behaviour.body is None:
        assert behaviour.message in str(error)
        assert server.url in str(error)


def test_real_refusals_are_judged_by_their_words_and_say_how_long_to_wait(server, ask):
    """Send some of the table through each transport; test_refusals judges all of them."""
    for seen in {seen.vendor: seen for seen in REFUSALS}.values():
        server.script(Status(seen.status, body=seen.sent))
        with pytest.raises(errors.LMError) as caught:
            ask(served_lm(server), "hi")
        error = caught.value
        assert (type(error), error.status, error.retry_after) == (seen.kind, seen.status, seen.wait_s), seen
        assert seen.told in str(error)
        assert " ".join(said(seen.sent).message.split())[:300] in str(error)


@pytest.mark.parametrize(
    ("body", "cls", "status"),
    [
        (b'{"error": {"message": "slow down", "code": 429}}', errors.RateLimitError, 429),
        (b'{"error": {"message": "slow down", "code": "429"}, "choices": []}', errors.RateLimitError, 429),
        (b'{"error": {"message": "Content Exists Risk", "code": "invalid_request_error"}}', errors.ContentFilterError, 200),
        (b'{"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}', errors.QuotaError, 200),
    ],
)
def test_a_refusal_that_comes_with_200_is_a_refusal(server, ask, body, cls, status):
    server.script(Raw(body))
    with pytest.raises(errors.LMError) as caught:
        ask(served_lm(server), "hi")
    assert (type(caught.value), caught.value.status, server.count) == (cls, status, 1)


def test_a_late_answer_is_a_timeout(server, ask, model_type):
    for behaviour in (Hang(), Hang(after=40)):
        server.reset()
        server.script(behaviour)
        with pytest.raises(errors.LMTimeoutError, match=r"no answer within 0\.3 s"):
            ask(served_lm(server, model_type=model_type, timeout=0.3), "hi")
        assert server.count == 1


def test_a_refused_connection_is_a_transport_error(ask, model_type):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nothing else gets the port, and connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        lm = LM("openai/any", model_type, api_base=url, api_key=KEY, cache=False, num_retries=0, timeout=20)
        with pytest.raises(errors.TransportError, match="nothing answers there; check that the server runs"):
            ask(lm, "hi")


def test_an_unknown_host_is_a_transport_error(ask):
    lm = LM("openai/any", api_base="http://no-such-host.invalid/v1", api_key=KEY, cache=False, num_retries=0, timeout=20)
    with pytest.raises(errors.TransportError):
        ask(lm, "hi")


def test_an_unknown_path_is_not_found(server, ask):
    with pytest.raises(errors.NotFoundError, match=r"check model\.name and model\.api_base"):
        ask(served_lm(server, api_base=server.url.replace("/v1", "/v2/x")), "hi")


def test_an_unknown_provider_is_a_bad_request(ask):
    with pytest.raises(errors.BadRequestError) as caught:
        ask(LM("nobody/any", api_key=KEY, cache=False, num_retries=0), "hi")
    assert "nobody" in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "Retry-After": "2"}, 1.5),
        ({"llm_provider-retry-after": "4"}, 4.0),
        ({"Retry-After": "-1"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Mon, 99 Foo 2026"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_parsed(server, ask, headers, seconds):
    for status in (429, 503):
        server.script(Status(status, headers=headers))
        with pytest.raises(errors.LMError) as caught:
            ask(served_lm(server), "hi")
        assert caught.value.retry_after == seconds
    assert server.count == 2


def test_retry_after_may_be_a_date(server, ask):
    for after, least, most in ((100, 90, 100), (-100, 0, 0)):
        date = email.utils.formatdate(time.time() + after, usegmt=True)
        server.script(Status(429, retry_after=date))
        with pytest.raises(errors.RateLimitError) as caught:
            ask(served_lm(server), "hi")
        assert least <= caught.value.retry_after <= most


@pytest.mark.parametrize("header", ["x-request-id", "request-id"])
def test_errors_hold_the_request_id(server, ask, model_type, header):
    server.script(Status(500, headers={header: "req_42"}))
    with pytest.raises(errors.ServerError) as caught:
        ask(served_lm(server, model_type=model_type), "hi")
    assert caught.value.request_id == "req_42"


@pytest.mark.parametrize("key", [KEY, "sk-abcdefghijklmnopqrstuvwx"])
def test_no_message_shows_the_key(server, ask, model_type, key):
    for behaviour in (
        Status(401, f"Incorrect API key provided: {key}."),
        Status(500, f"{key} failed"),
        Raw(f"echo {key}".encode()),
    ):
        server.script(behaviour)
        lm = served_lm(server, model_type=model_type, api_key=key, headers={"X-Auth-Token": "token-of-the-house-987"})
        with pytest.raises(errors.LMError) as caught:
            ask(lm, "hi")
        assert key not in str(caught.value)
    server.script(Status(403, "token-of-the-house-987 may not"))
    with pytest.raises(errors.PermissionDeniedError, match=r"\*\*\* may not"):
        ask(lm, "hi")


def test_no_message_shows_a_key_from_the_environment(server, ask, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key-in-the-environment-5")
    server.script(Status(401, "bad key: key-in-the-environment-5"))
    with pytest.raises(errors.AuthenticationError) as caught:
        ask(served_lm(server, api_key=None), "hi")
    assert server.last.headers["authorization"] == "Bearer key-in-the-environment-5"
    assert "bad key: ***" in str(caught.value)


def test_a_missing_key_is_an_error_before_anything_is_sent(server, ask):
    with pytest.raises(errors.AuthenticationError, match=r"model\.api_key_env"):
        ask(served_lm(server, api_key=None), "hi")
    assert server.count == 0


# --- attempts


def test_only_the_retry_policy_retries(server, ask, model_type):
    lm = served_lm(server, model_type=model_type, num_retries=3)
    server.script(Raw(b"junk"), Status(429, retry_after=0), Status(503))
    with without_sleeping():
        assert ask(lm, "hi") == ["ok"]
    assert server.count == 4
    server.script(*[Status(500)] * 9)
    with without_sleeping(), pytest.raises(errors.ServerError) as caught:
        ask(lm, "hi")
    assert server.count == 8
    assert caught.value.attempts == 4


def test_retry_after_delays_the_next_attempt(server, ask):
    lm = served_lm(server)
    lm.retry = RetryPolicy(base_s=0, cap_s=0)
    server.script(Status(429, headers={"retry-after-ms": "300"}))
    began = time.monotonic()
    assert ask(lm, "hi") == ["ok"]
    assert time.monotonic() - began >= 0.3
    assert server.count == 2


def test_every_attempt_sends_the_same_request(server, ask):
    server.script(Status(503), Status(503))
    with without_sleeping():
        ask(served_lm(server, num_retries=2), "hi")
    assert server.calls[0].body == server.calls[1].body == server.calls[2].body
