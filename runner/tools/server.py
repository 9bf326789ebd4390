"""A server of tools that speaks MCP over its standard input and output: started once for a run, and once more if it dies.

The only module that imports `mcp` (the extra ``mcp``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
from typing import TYPE_CHECKING, Any, TextIO, cast

from runner.errors import ConfigError, EndpointClosedError
from runner.secrets import redact
from runner.tools.definitions import ToolError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

_CLOSED, _TIMED_OUT = -32000, -32001
"""Codes of `mcp.MCPError`: the connection is gone, the answer did not come in time (mcp 2.0 to 2.3)."""
_START_S = 60.0
"""Seconds that a server may take to start; importing mcp alone takes 1.5."""


class ToolServer:
    """One server, in an event loop of its own thread. Thread-safe; calls run at the same time.

    Args:
        command: the program and its arguments. It gets HOME, PATH and a few others of the environment, and what `env` names.
        env: names of environment variables that it gets besides.
        timeout_s: seconds that one call may take.
        cwd: the folder that it runs in.
    """

    def __init__(
        self, command: Sequence[str], *, env: Sequence[str] = (), timeout_s: float = 30.0, cwd: Path | None = None
    ) -> None:
        self._command = list(command)
        self._env = list(env)
        self._timeout_s = timeout_s
        self._cwd = cwd
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: Any = None
        self._stop: asyncio.Event | None = None
        self._host: asyncio.Task[None] | None = None
        self._starting: asyncio.Lock | None = None
        self._starts = 0
        self._guard = threading.Lock()
        self._errors: TextIO | None = None

    def definitions(self) -> list[dict[str, Any]]:
        """Start the server if need be, and return its tools in OpenAI's form. Blocks. Raises ConfigError."""
        try:
            found: list[dict[str, Any]] = self._run(self._listed())
        except EndpointClosedError as error:
            raise ConfigError(f"prompt.tool_server: {error}") from None
        if not found:
            raise ConfigError(f"prompt.tool_server: {self._shown} has no tools")
        return found

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Call a tool and return its result as text.

        Raises:
            ToolError: the tool has failed, or took too long; the model is told.
            EndpointClosedError: the server has died twice, or cannot be started.
        """
        return await asyncio.wrap_future(self._submit(self._called(name, arguments)))

    def close(self) -> None:
        """End the server and the thread. A second call does nothing."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._run(self._end())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        self._loop = self._thread = None
        if self._errors is not None:
            self._errors.close()

    # --- in the thread of the server

    async def _listed(self) -> list[dict[str, Any]]:
        client = await self._started()
        from mcp import MCPError

        found, cursor = [], None
        while True:
            try:
                page = await client.list_tools(cursor=cursor) if cursor else await client.list_tools()
            except MCPError as error:
                why = f"{redact(str(error))}{self._last_words()}"
                raise EndpointClosedError(f"{self._shown} does not list its tools: {why}") from None
            found += [_definition(tool) for tool in page.tools]
            cursor = page.next_cursor
            if not cursor:
                return found

    async def _called(self, name: str, arguments: dict[str, Any]) -> str:
        from mcp import MCPError

        for _ in range(2):
            client = await self._started()
            try:
                result = await client.call_tool(name, arguments, read_timeout_seconds=self._timeout_s)
            except MCPError as error:
                if error.code == _TIMED_OUT:
                    raise ToolError(f"no result within {self._timeout_s:g} s") from None
                if error.code != _CLOSED:
                    raise ToolError(redact(str(error))) from None
                await self._gone(client)
                continue
            except RuntimeError as error:  # a result that does not follow the schema which the server itself gives
                raise ToolError(redact(str(error))) from None
            text = _text(result)
            if result.is_error:
                raise ToolError(redact(text or "it failed, and does not say why"))
            return text
        raise EndpointClosedError(f"{self._shown} has died twice while {name} was called{self._last_words()}")

    async def _started(self) -> Any:
        if self._starting is None:
            self._starting = asyncio.Lock()
        async with self._starting:
            if self._client is None:
                if self._starts > 1:
                    raise EndpointClosedError(
                        f"{self._shown} has died again, and is not started a third time{self._last_words()}"
                    )
                await self._start()
            return self._client

    async def _start(self) -> None:
        self._starts += 1
        ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._host = asyncio.create_task(self._hosted(ready, self._stop))
        try:
            self._client = await asyncio.wait_for(ready, _START_S)
        except TimeoutError:
            self._host.cancel()
            raise EndpointClosedError(f"{self._shown} did not answer within {_START_S:g} s{self._last_words()}") from None

    async def _hosted(self, ready: asyncio.Future[Any], stop: asyncio.Event) -> None:
        """Hold the connection open until `stop` is set: it has to be closed by the task that opened it."""
        try:
            from mcp import Client, StdioServerParameters, stdio_client
        except ImportError:
            ready.set_exception(EndpointClosedError("it needs a package that is not installed: pip install 'ostinato[mcp]'"))
            return
        if self._errors is None:
            self._errors = cast("TextIO", tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))  # noqa: SIM115
        env = {name: os.environ[name] for name in self._env if name in os.environ}
        asked = StdioServerParameters(command=self._command[0], args=self._command[1:], env=env, cwd=self._cwd)
        try:
            async with Client(stdio_client(asked, errlog=self._errors), read_timeout_seconds=self._timeout_s) as client:
                ready.set_result(client)
                await stop.wait()
        except Exception as error:  # noqa: BLE001 - boundary: the SDK wraps what went wrong into groups
            if not ready.done():
                why = redact(str(_innermost(error)))
                ready.set_exception(EndpointClosedError(f"{self._shown} cannot be started: {why}{self._last_words()}"))

    async def _gone(self, client: Any) -> None:
        """Give a server up that has closed its connection, unless another call has done so."""
        if self._client is client:
            self._client = None
            await self._end()

    async def _end(self) -> None:
        self._client = None
        if self._host is not None and self._stop is not None:
            self._stop.set()
            with contextlib.suppress(asyncio.CancelledError):
                await self._host
            self._host = None

    # --- the thread

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._submit(work).result()

    def _submit(self, work: Coroutine[Any, Any, Any]) -> Any:
        with self._guard:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="ostinato tools", daemon=True)
                self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    @property
    def _shown(self) -> str:
        return f"the server of tools ({redact(' '.join(self._command))})"

    def _last_words(self) -> str:
        """Return the end of what the server has written to stderr."""
        if self._errors is None:
            return ""
        self._errors.seek(0)
        said = self._errors.read().strip()
        return f"; it said: {redact(said)[-400:]}" if said else ""


def _definition(tool: Any) -> dict[str, Any]:
    about = {"description": tool.description} if tool.description else {}
    return {"type": "function", "function": {"name": tool.name, **about, "parameters": tool.input_schema}}


def _text(result: Any) -> str:
    """Return a result as the model sees it: its texts; without any, its structured content as JSON."""
    import json

    texts = [part.text for part in result.content if part.type == "text"]
    if texts or result.structured_content is None:
        others = [f"[{part.type}]" for part in result.content if part.type != "text"]
        return "\n".join([*texts, *others])
    return json.dumps(result.structured_content, ensure_ascii=False)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
