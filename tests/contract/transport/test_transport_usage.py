"""Both transports read usage and costs alike, whatever the provider calls them."""

import asyncio

import pytest

from runner.types import Connection, Request
from tests.support.server import Reply, Server
from tests.support.transports import KEY, QUIET
from tests.unit.test_usage import FORMS, NAMED

pytestmark = QUIET

REQUEST = Request(model="openai/any", messages=[{"role": "user", "content": "hi"}])


def read(transport, replies):
    """Return the response to each reply."""

    async def ask():
        found = []
        with Server() as server:
            connection = Connection(api_base=server.url, api_key=KEY, timeout_s=20)
            for reply in replies:
                server.script(reply)
                found.append(await transport.acomplete(REQUEST, connection))
        await transport.aclose()
        return found

    return asyncio.run(ask())


def test_usage_is_read_as_its_provider_means_it(transport):
    found = read(transport, [Reply(usage=given) for given, _ in FORMS.values()])
    counted = {name: one.usage for name, one in zip(FORMS, found, strict=True)}
    assert counted == {name: meant for name, (_, meant) in FORMS.items()}


def test_costs_that_answers_name_are_read(transport):
    counts = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    forms = {name: form for name, form in NAMED.items() if name != "not finite"}  # JSON has no such numbers
    found = read(transport, [Reply(usage=counts | given, headers=headers) for given, headers, _ in forms.values()])
    named = {name: (one.cost_usd, one.cost_from) for name, one in zip(forms, found, strict=True)}
    assert named == {name: meant or (None, None) for name, (_, _, meant) in forms.items()}


@pytest.mark.parametrize("counts", [None, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}])
def test_usage_that_is_missing_is_unknown(transport, counts):
    """Litellm makes zeros of missing usage, and so does its proxy."""
    assert read(transport, [Reply(usage=counts)])[0].usage is None
