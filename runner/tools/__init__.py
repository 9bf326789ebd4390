"""Tools that a model may call: what they are, where their results come from, and the record of these."""

from runner.tools.definitions import ToolError, checked
from runner.tools.functions import Functions
from runner.tools.record import Recorded, ToolRecord
from runner.tools.server import ToolServer
from runner.tools.toolbox import Toolbox, ToolCall

__all__ = ["Functions", "Recorded", "ToolCall", "ToolError", "ToolRecord", "ToolServer", "Toolbox", "checked"]
