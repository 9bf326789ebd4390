"""Exceptions of a litellm call become ours by a table; the contract of the transports provokes them with a real server."""

import httpx
import pytest

from runner import errors
from runner.lm.lm import LM
from runner.transport.litellm_errors import BY_LITELLM, WITHOUT_ANSWER, mapped
from runner.types import Connection, Request
from tests.support.refusals import REFUSALS
from tests.support.server import Server, Status
from tests.support.transports import QUIET

pytestmark = QUIET

REQUEST = Request(model="openai/any", messages=[{"role": "user", "content": "hi"}])


def an_exception(name, *, module="litellm.exceptions", bases=(Exception,), message="litellm.Error: words", **attributes):
    return type(name, bases, {"__module__": module, **attributes})(message)


def wrapped(cause, **attributes):
    error = an_exception("InternalServerError", status_code=500, **attributes)
    error.__cause__ = cause
    return error


def refusal(status, **attributes):
    answer = httpx.Response(status, headers={"x-request-id": "req_1", "retry-after": "3"})
    return an_exception("APIStatusError", module="openai", response=answer, **attributes)


def test_every_row_has_its_own_class_and_reason():
    names = [row.name for row in BY_LITELLM + WITHOUT_ANSWER]
    assert len(set(names)) == len(names)
    assert all(row.why for row in BY_LITELLM + WITHOUT_ANSWER)


@pytest.mark.parametrize("row", BY_LITELLM, ids=lambda row: row.name)
def test_litellms_own_classes_are_believed(row):
    alone = mapped(an_exception(row.name, status_code=500), REQUEST, Connection(), None)
    assert (type(alone), alone.status) == (row.kind, None)
    beside_a_refusal = an_exception(row.name)
    beside_a_refusal.__cause__ = refusal(400)
    error = mapped(beside_a_refusal, REQUEST, Connection(), None)
    assert (type(error), error.status) == (row.kind, 400)


@pytest.mark.parametrize("row", WITHOUT_ANSWER, ids=lambda row: row.name)
def test_what_litellm_has_wrapped_says_why_there_is_no_answer(row):
    cause = an_exception(row.name, module="somewhere")
    error = mapped(wrapped(cause), REQUEST, Connection(), None)
    assert (type(error), error.status) == (row.kind, None)
    assert "words" in str(error)
    derived = an_exception("Derived", module="somewhere", bases=(type(cause),))
    assert type(mapped(wrapped(derived), REQUEST, Connection(), None)) is (errors.MalformedError if row.exactly else row.kind)


def test_a_timeout_names_the_limit():
    error = mapped(wrapped(TimeoutError()), REQUEST, Connection(timeout_s=0.3), None)
    assert "no answer within 0.3 s" in str(error)


def test_a_refusal_of_the_server_comes_before_litellms_status():
    told = []
    cause = refusal(429, body={"message": "slow down", "code": "c", "type": "t"})
    error = mapped(wrapped(cause), REQUEST, Connection(), lambda headers: told.append(headers["x-request-id"]))
    assert (type(error), error.status, error.request_id, error.retry_after) == (errors.RateLimitError, 429, "req_1", 3.0)
    assert "slow down" in str(error)
    assert told == ["req_1"]


@pytest.mark.parametrize(
    ("message", "body", "cls"),
    [
        ("words", {"message": "Too long.", "code": "context_length_exceeded"}, errors.ContextWindowError),
        ('{"error": {"message": "Too long.", "code": "context_length_exceeded"}}', None, errors.ContextWindowError),
        ("maximum context length", None, errors.ContextWindowError),
        ("{not JSON", None, errors.BadRequestError),
    ],
)
def test_the_code_of_a_refusal_counts_as_its_words(message, body, cls):
    assert type(mapped(wrapped(refusal(400, body=body), message=message), REQUEST, Connection(), None)) is cls


@pytest.mark.parametrize(
    ("error", "cls", "status"),
    [
        (an_exception("BadRequestError", status_code=400), errors.BadRequestError, 400),
        (an_exception("RateLimitError", status_code=429), errors.RateLimitError, 429),
        (an_exception("ServiceUnavailableError", status_code=503), errors.ServerError, 503),
        (an_exception("InternalServerError", status_code=500), errors.MalformedError, None),
        (an_exception("APIError", status_code=200), errors.MalformedError, None),
        (ValueError("no status"), errors.MalformedError, None),
    ],
    ids=lambda value: str(getattr(value, "status_code", value)),
)
def test_without_an_answer_litellms_status_counts_unless_it_is_500(error, cls, status):
    mine = mapped(error, REQUEST, Connection(), None)
    assert (type(mine), mine.status) == (cls, status)


def test_an_answer_that_holds_an_error_without_a_number_is_malformed():
    cause = Exception("overloaded")
    cause.status_code = 422
    error = an_exception("UnprocessableEntityError", status_code=422)
    error.__cause__ = cause
    assert type(mapped(error, REQUEST, Connection(), None)) is errors.MalformedError


@pytest.mark.parametrize("prefix", ["litellm.BadRequestError: ", "litellm.Timeout: ", "APIError: OpenAIException - ", ""])
def test_messages_lose_the_names_of_litellms_classes(prefix):
    error = mapped(an_exception("BadRequestError", status_code=400, message=f"{prefix}the words"), REQUEST, Connection(), None)
    assert error.message == "the words"


@pytest.mark.parametrize(
    ("vendor", "model", "path"),
    [
        ("Gemini", "gemini/gemini-2.0-flash", "/v1/models/m:generateContent"),
        ("Anthropic", "anthropic/claude-3-haiku-20240307", "/v1/messages"),
        ("Cohere", "cohere/command-r", "/v1/chat"),
        ("Mistral", "mistral/mistral-small", "/v1"),
    ],
)
def test_refusals_of_providers_with_a_format_of_their_own_are_judged_by_their_words(vendor, model, path):
    with Server() as server:
        lm = LM(model, api_base=server.address + path, api_key="none-of-your-business", cache=False, num_retries=0, timeout=20)
        for seen in [seen for seen in REFUSALS if seen.vendor == vendor]:
            server.script(Status(seen.status, body=seen.sent))
            with pytest.raises(errors.LMError) as caught:
                lm("hi")
            assert (type(caught.value), caught.value.retry_after) == (seen.kind, seen.wait_s), seen
            assert seen.told in str(caught.value)
