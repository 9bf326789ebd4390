"""`ostinato doctor`, and the names of code that are written as text: no import contract sees those."""

import json
import pkgutil
import re

import pytest

from tests.support.command import REPOSITORY, ostinato
from tests.support.loopback import Loopback, Script, response

TARGETS = sorted(
    {
        found
        for top in ("runner", "flows")
        for file in (REPOSITORY / top).rglob("*.py")
        for found in re.findall(r'"((?:runner|flows)[\w.]*:\w+)"', file.read_text("utf-8"))
    }
)


def test_there_are_names_of_code():
    assert len(TARGETS) > 10


@pytest.mark.parametrize("target", TARGETS)
def test_names_of_code_resolve(target):
    assert callable(pkgutil.resolve_name(target))


class Health(Loopback):
    """Prefect's health check, with the given reply."""

    def __init__(self, reply):
        super().__init__()
        self.reply = reply

    async def route(self, request):
        assert request.path == "/api/health"
        return Script((self.reply,), "close")


def prefect(url):
    done = ostinato("doctor", "--json", PREFECT_API_URL=url)
    (check,) = [check for check in json.loads(done.out)["checks"] if check["name"] == "prefect"]
    return done.code, check


def test_a_prefect_server_that_answers_is_fine():
    with Health(response(b"true")) as server:
        _, check = prefect(f"{server.address}/api")
    assert (check["state"], "answers at" in check["detail"]) == ("ok", True)


@pytest.mark.parametrize(
    "reply", [response(b"no", 500), response(b"no", 500, length=50), b"not http\r\n\r\n"], ids=["refuses", "cut off", "not HTTP"]
)
def test_a_prefect_server_that_fails_is_a_problem(reply):
    with Health(reply) as server:
        code, check = prefect(f"{server.address}/api")
    assert (code, check["state"]) == (1, "problem")
    assert "does not answer at" in check["detail"]
