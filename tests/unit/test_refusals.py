"""What servers' refusals mean: each of a table of real ones is judged rightly, and how long they ask to wait is read."""

import email.utils
import json
import time

import pytest

from runner import errors
from runner.network.delay import in_field, in_words, retry_after
from runner.network.refusal import classify, judge
from runner.network.said import LONGEST, said
from runner.network.words import RULES
from runner.transport.base import refused
from runner.types import Connection, Request
from tests.support.refusals import REFUSALS

REQUEST = Request(model="openai/m", messages=[{"role": "user", "content": "hi"}])


def error_of(seen, headers=None):
    return refused(seen.status, said(seen.sent), headers or {}, request=REQUEST, connection=Connection())


def fitting(seen):
    return [rule for rule in RULES if rule.fits(seen.status, said(seen.sent).words)]


def test_the_table_has_a_hundred_refusals_of_25_vendors():
    assert len(REFUSALS) >= 100
    assert len({seen.vendor for seen in REFUSALS}) >= 25
    assert all(seen.source for seen in REFUSALS)


@pytest.mark.parametrize("seen", REFUSALS, ids=lambda seen: f"{seen.vendor}-{seen.status}-{seen.kind.code}")
def test_a_refusal_has_its_class_its_wait_and_its_remedy(seen):
    error = error_of(seen)
    assert type(error) is seen.kind, error
    assert error.retry_after == seen.wait_s
    assert error.status == seen.status
    assert seen.told in str(error)


def test_every_rule_is_needed_by_a_refusal_of_the_table():
    first = {id(rules[0]) for seen in REFUSALS if (rules := fitting(seen))}
    assert [rule for rule in RULES if id(rule) not in first] == []


def test_every_alternative_of_a_rule_is_at_least_a_word_long():
    for rule in RULES:
        assert rule.vendor
        assert rule.source
        assert not rule.pattern.search("")


def test_a_refusal_means_the_same_behind_a_gateway_that_quotes_its_message():
    """litellm's proxy and others put the message of the server into one of their own."""
    for seen in REFUSALS:
        message = said(seen.sent).message
        quoted = json.dumps({"error": {"message": f"litellm.Error: {message} Received Model Group=m", "code": str(seen.status)}})
        assert classify(seen.status, said(quoted).words) is classify(seen.status, message)


# --- whose fault: the row's, the moment's or the endpoint's


@pytest.mark.parametrize(
    ("whose", "kinds"),
    [
        ("row", ("BadRequestError", "ContextWindowError", "ContentFilterError")),
        ("retry", ("RateLimitError", "ServerError", "LMTimeoutError", "MalformedError", "TransportError", "ConnectionLostError")),
        ("stop", ("AuthenticationError", "PermissionDeniedError", "NotFoundError", "QuotaError")),
    ],
)
def test_a_class_says_whose_fault_it_is(whose, kinds):
    assert {getattr(errors, kind).disposition for kind in kinds} == {whose}


# --- what the body says


def test_the_words_of_the_prompt_do_not_count():
    echoed = b'{"detail": [{"msg": "Field required", "loc": ["body", "x"], "input": "context length, content filter, per day"}]}'
    assert classify(422, said(echoed).words) is errors.BadRequestError
    assert said(echoed).message == "body.x: Field required"


@pytest.mark.parametrize(
    "body", [b"", b"null", b"3", b'"words"', b"[]", b"{}", b'{"error": null}', b"[" * 5000, b"\xff\xfe", b"x" * 10**6]
)
def test_any_body_is_read(body):
    found = said(body)
    assert len(found.words) <= LONGEST
    assert found.wait_s is None
    assert judge(500, found.words).kind is errors.ServerError


@pytest.mark.parametrize(
    "body", [b'{"error": {"message": 5}}', b'{"error": ["a", {"message": "b"}]}', b'{"message": {"error": "deep"}}']
)
def test_odd_bodies_have_a_message(body):
    assert said(body).message in ("5", "a; b", "deep")


# --- how long to wait


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 1.2s.", 1.2),
        ("try again in 1m3s", 63.0),
        ("Please try again in 340ms. Visit a page", 0.34),
        ("Please retry in 29.03s.", 29.03),
        ("Please retry after 9 seconds.", 9.0),
        ("try again in 6h0m0s", 21600.0),
        ("Please wait 2 minutes before retrying", 120.0),
        ("wait 1 minute and 20 seconds", 80.0),
        ("please try again after 1 seconds", 1.0),
        ("Retry-After: 5", 5.0),
        ("retry after 2026-01-01", None),
        ("try again later", None),
        ("the limit is 3 per day", None),
        ("a model of 3 days", None),
        ("try again in 3 moments", None),
    ],
)
def test_a_wait_is_read_from_a_message(text, seconds):
    assert in_words(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        ("retryDelay", "29s", 29.0),
        ("retryDelay", "0.5s", 0.5),
        ("retry_after", 3, 3.0),
        ("retry-after", "4", 4.0),
        ("retry_after_ms", 1500, 1.5),
        ("estimated_time", 20.5, 20.5),
        ("retry_after", True, None),
        ("retry_after", "soon", None),
        ("retry_after", float("inf"), None),
        ("retry_after", -1, 0.0),
        ("created", 17, None),
    ],
)
def test_a_wait_is_read_from_a_field(name, value, seconds):
    assert in_field(name, value) == seconds


@pytest.mark.parametrize("header", ["retry-after", "llm_provider-retry-after"])
def test_a_header_goes_before_the_body(header):
    (seen,) = [seen for seen in REFUSALS if seen.wait_s == 0.12]
    assert error_of(seen, {header: "7"}).retry_after == 7.0
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert 90 <= retry_after({header: date}) <= 100


def test_headers_in_milliseconds():
    for header in ("retry-after-ms", "x-ms-retry-after-ms", "llm_provider-retry-after-ms"):
        assert retry_after({header: "1500", "retry-after": "2"}) == 1.5
    assert retry_after({"retry-after": "nan"}) is None
