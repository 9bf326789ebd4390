"""The tools of a run: what the model is offered for a row, and the results of what it calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner.errors import DataError
from runner.secrets import redact
from runner.tools.definitions import ToolError, checked
from runner.tools.record import ToolRecord

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.adapters.conversation import Cell
    from runner.tools.functions import Functions
    from runner.tools.server import ToolServer
    from runner.types import Row

FAILED = "Error: "
"""Begins a result that says why there is none; the model may correct itself."""


class ToolCall(NamedTuple):
    """A call that the model asks for: its id, the tool's name, and the arguments as JSON text, as they were sent.

    `nth` counts the same calls before it in one answer: each has a result of its own.
    """

    id: str
    name: str
    arguments: str
    nth: int = 0


class Toolbox:
    """Offers tools, and finds the results of calls: in the record first, then where the config says.

    Args:
        tools: the definitions; a column that holds them; or None: those of `functions` or `server`.
        table: the column with the results: ``[{name, arguments, result}, ...]`` (without arguments: for any), or
            ``{name: result}``.
        functions: of a Python file.
        server: of tools.
        timeout_s: seconds that a function may take.
        max_turns: the most requests of one turn of the user.
        recorded_only: take results from the record alone, as in a capsule.

    Attributes:
        record: what tools have returned.
    """

    def __init__(
        self,
        tools: Sequence[dict[str, Any]] | Cell | None,
        *,
        table: Cell | None = None,
        functions: Functions | None = None,
        server: ToolServer | None = None,
        timeout_s: float = 30.0,
        max_turns: int = 10,
        recorded_only: bool = False,
    ) -> None:
        self.record = ToolRecord()
        self.max_turns = max_turns
        self.recorded_only = recorded_only
        self._given = tools
        self._table = table
        self._functions = functions
        self._server = server
        self._timeout_s = timeout_s
        self._offered: list[dict[str, Any]] | None = None

    @property
    def runs_code(self) -> bool:
        """True if results come from code, which is not run to look something up."""
        return self._functions is not None or self._server is not None

    @property
    def answers(self) -> bool:
        """True if there are results at all; if not, the calls of the model are its answer."""
        return self._table is not None or self.runs_code or self.recorded_only

    @property
    def by_row(self) -> bool:
        """True if a row has tools or results of its own."""
        return self._table is not None or not (self._given is None or isinstance(self._given, list))

    def check(self, row: Row) -> None:
        """Read the tools and the results that a row has of its own. Raises DataError."""
        if self._given is not None and not isinstance(self._given, list):
            self.definitions(row)
        if self._table is not None:
            self._rows(row)

    def keep(self, folder: Path) -> None:
        """Keep definitions and results in the folder of a record, and use those that it has. Raises RecordError."""
        self.record.keep(folder)
        self._offered = self.record.definitions()

    def close(self) -> None:
        """End the server, if one was started."""
        if self._server is not None:
            self._server.close()

    def open(self) -> None:
        """Find out which tools are offered, and write that down. May start the server, and blocks. Raises ConfigError."""
        if self._offered is None and (offered := self._of_run()) is not None:
            self._offered = offered
            self.record.offer(offered)

    def definitions(self, row: Row) -> list[dict[str, Any]]:
        """Return the tools that the model is offered for a row. Raises DataError."""
        if self._offered is None:
            self._offered = self._of_run()
        if self._offered is not None:
            return self._offered
        assert self._given is not None
        assert not isinstance(self._given, list)
        try:
            return checked(self._given.of(row))  # type: ignore[union-attr]
        except DataError as error:
            raise DataError(f"row {row.id!r}: prompt.tools: {error}") from None

    async def result(self, row: Row, slot: tuple[str, int, int], call: ToolCall, *, look: bool) -> str | None:
        """Return the result of a call as the model sees it, also of one that has failed, and record it.

        Args:
            row: the row.
            slot: its id, the repeat and the step: where it is recorded.
            call: what the model asks for.
            look: take what is known, and run no code: None if that is not enough.

        Raises:
            DataError: the row's table of results is malformed.
            EndpointClosedError: the server of tools cannot be used, and so by no row.
        """
        known = self.record.get(slot, call.name, call.arguments, call.nth)
        if known is not None or self.recorded_only:
            return known
        if look and self.runs_code and not self._is_in_table(row, call):
            return None
        try:
            found = await self._found(row, call)
        except ToolError as error:
            found = f"{FAILED}{error}"
        found = redact(found)
        if self.runs_code:
            self.record.put(slot, call.name, call.arguments, call.nth, found)
        return found

    def _of_run(self) -> list[dict[str, Any]] | None:
        """Return the tools that are the same for all rows; None if each row has its own."""
        if isinstance(self._given, list):
            return self._given
        if self._given is not None:
            return None
        return self._functions.definitions if self._functions is not None else self._server.definitions() if self._server else []

    def _is_in_table(self, row: Row, call: ToolCall) -> bool:
        return self._table is not None and _of_table(self._rows(row), call) is not None

    def _rows(self, row: Row) -> list[dict[str, Any]]:
        assert self._table is not None
        try:
            return _table(self._table.of(row))
        except DataError as error:
            raise DataError(f"row {row.id!r}: prompt.tool_results: {error}") from None

    async def _found(self, row: Row, call: ToolCall) -> str:
        if self._table is not None and (found := _of_table(self._rows(row), call)) is not None:
            return found
        try:
            arguments = msgspec.json.decode(call.arguments or "{}")
        except (msgspec.DecodeError, RecursionError) as error:
            raise ToolError(f"the arguments are not JSON: {error}") from None
        if not isinstance(arguments, dict):
            raise ToolError("the arguments are not a JSON object")
        if self._functions is not None and call.name in self._functions:
            return await self._functions.call(call.name, arguments, self._timeout_s)
        if self._server is not None and call.name in self._names(row):
            return await self._server.call(call.name, arguments)
        if self._table is not None and call.name in self._names(row):
            raise ToolError(f"there is no result of {call.name} for these arguments")
        raise ToolError(f"there is no tool {call.name!r}; there are: {', '.join(self._names(row))}")

    def _names(self, row: Row) -> list[str]:
        return [tool["function"]["name"] for tool in self.definitions(row)]


def _table(value: Any) -> list[dict[str, Any]]:
    """Return a table of results as rows with name, result and perhaps arguments. Raises DataError."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise DataError(f"it is text, and not the JSON of a table: {error}") from None
    if isinstance(value, dict):
        return [{"name": name, "result": result} for name, result in value.items()]
    if not isinstance(value, list) or not all(isinstance(one, dict) and {"name", "result"} <= one.keys() for one in value):
        raise DataError("it is neither [{name, arguments, result}, ...] nor {name: result}")
    return value


def _of_table(rows: list[dict[str, Any]], call: ToolCall) -> str | None:
    """Return the result of the first row that fits a call."""
    given = _plain(call.arguments)
    for one in rows:
        wanted = one.get("arguments")
        if one["name"] == call.name and (wanted is None or _plain(wanted) == given):
            result = one["result"]
            return result if isinstance(result, str) else msgspec.json.encode(result).decode()
    return None


def _plain(arguments: Any) -> Any:
    """Return arguments as data, so that the order of keys and spaces do not matter."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        return arguments
