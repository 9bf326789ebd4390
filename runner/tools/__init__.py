"""Tools that a model may call: what they are, where their results come from, and the record of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.system.first_use import on_first_use

if TYPE_CHECKING:
    from runner.tools.definitions import ToolError, checked
    from runner.tools.functions import Functions
    from runner.tools.record import Recorded, ToolRecord
    from runner.tools.server import ToolServer
    from runner.tools.toolbox import Toolbox, ToolCall

_HOMES = {
    "checked": "definitions",
    "Functions": "functions",
    "Recorded": "record",
    "Toolbox": "toolbox",
    "ToolCall": "toolbox",
    "ToolError": "definitions",
    "ToolRecord": "record",
    "ToolServer": "server",
}

__all__ = ["Functions", "Recorded", "ToolCall", "ToolError", "ToolRecord", "ToolServer", "Toolbox", "checked"]

__getattr__ = on_first_use(__name__, _HOMES)
