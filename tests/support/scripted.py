"""An LM whose transport answers as it is told."""

import asyncio

from runner.lm.lm import LM
from runner.types import Choice, Response, Usage

ASKED = [{"role": "user", "content": "hi"}]
KEY = "sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaa"


class Scripted:
    """A transport that answers (or fails) as it is told, and remembers what it was asked."""

    def __init__(self, *script):
        self.script = list(script)
        self.requests = []
        self.connections = []

    def prepare(self, request, connection):
        pass

    def complete(self, request, connection, hear=None):
        self.requests.append(request)
        self.connections.append(connection)
        step = self.script.pop(0) if self.script else "ok"
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, Response):
            return step
        return Response(choices=[Choice(step, "stop")], usage=Usage(5, 2, 7), model="served")

    async def acomplete(self, request, connection, hear=None):
        await asyncio.sleep(0)
        return self.complete(request, connection)

    async def aclose(self):
        pass


def an_lm(*script, model="fake/m", **arguments):
    lm = LM(model, **arguments)
    lm.transport = Scripted(*script)
    return lm
