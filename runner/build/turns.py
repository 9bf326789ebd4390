"""Build what holds the conversation of a row: its turns and its tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.adapters.conversation import Cell
from runner.adapters.templates import Template
from runner.config.schema.request import CODE, RECORDED
from runner.errors import ConfigError, DataError
from runner.solvers.conversation import Conversation
from runner.solvers.user import Script, SimulatedUser, User
from runner.system.paths import expanded
from runner.tools import Functions, Toolbox, ToolServer, checked

if TYPE_CHECKING:
    from runner.adapters import Adapter
    from runner.config import schema


def conversing(config: schema.RunConfig, chosen: Adapter) -> Conversation:
    """Build what holds the conversation of a row.

    Raises:
        ConfigError: the tools cannot be used, or there is nothing to converse in.
    """
    prompt = config.prompt
    box = _toolbox(prompt)
    simulated = prompt.simulated_user
    if (kind := config.solver.__struct_config__.tag) != "plain":
        raise ConfigError(
            f"prompt: turns and tools are asked by the plain solver, and solver={kind} asks in its own way; keep one"
        )
    if config.model.model_type == "text":
        raise ConfigError("prompt: turns and tools are for chat models; use model.model_type=chat")
    turns = [Template(text, where=f"prompt.turns[{number}]") for number, text in enumerate(prompt.turns)]
    user: User = Script(turns)
    if simulated is not None:
        told = Template(simulated.prompt, where="prompt.simulated_user.prompt")
        user = SimulatedUser(told, turns=simulated.turns, stop=simulated.stop)
    return Conversation(chosen, box, tool_choice=prompt.tool_choice, user=user)


def _toolbox(prompt: schema.request.Prompt) -> Toolbox | None:
    server = prompt.tool_server
    if prompt.tools is None and server is None:
        return None
    given: list[dict[str, Any]] | Cell | None = None
    functions = None
    if isinstance(prompt.tools, list):
        try:
            given = checked(prompt.tools)
        except DataError as error:
            raise ConfigError(f"prompt.tools: {error}") from None
    elif prompt.tools is not None and CODE.fullmatch(prompt.tools):
        functions = Functions(prompt.tools, "prompt.tools")
    elif prompt.tools is not None:
        given = Cell(prompt.tools, "prompt.tools")
    results, table = prompt.tool_results, None
    if results is not None and CODE.fullmatch(results):
        functions, given = Functions(results, "prompt.tool_results"), functions.definitions if functions else given
    elif results is not None and results != RECORDED:
        table = Cell(results, "prompt.tool_results")
    return Toolbox(
        given,
        table=table,
        functions=functions,
        server=ToolServer(
            server.command,
            env=server.env,
            timeout_s=prompt.tool_timeout_s,
            cwd=None if server.cwd is None else expanded(server.cwd),
        )
        if server is not None
        else None,
        timeout_s=prompt.tool_timeout_s,
        max_turns=prompt.max_turns,
        recorded_only=results == RECORDED,
    )
