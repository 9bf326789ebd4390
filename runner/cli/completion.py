"""Run `ostinato completion`: print the script that teaches a shell to complete. The only module that imports argcomplete.

The script asks `ostinato` itself at each Tab: `complete` answers. Keys and their values come from the JSON Schema of conf,
which is read in a few milliseconds; Hydra and the Structs are not imported.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SHELLS = {
    "bash": 'eval "$(ostinato completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(ostinato completion zsh)"   # in ~/.zshrc, after compinit',
    "fish": "ostinato completion fish > ~/.config/fish/completions/ostinato.fish",
}
"""How each shell takes its script."""

_WHOLE_OVERRIDE = re.compile(
    r"""(?<=\s)(?:'[+~]*[\w.@/]+=[^']*'|"[+~]*[\w.@/]+=[^"]*"|[+~]*[\w.@/]+=(?:'[^']*'|"[^"]*"|[^\s'"])*)\s+"""
)
"""An override with the space behind it, as it is typed: in quotes, with quotes in it, or without."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = "Print the script that completes verbs, options, groups, keys and runs. To use it:"
    parser.epilog = "\n".join(f"  {how}" for how in SHELLS.values())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("shell", choices=SHELLS)


def main(args: argparse.Namespace) -> int:
    """Print the script. Return 0."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["ostinato"], shell=args.shell))
    return 0


def complete(verbs: Mapping[str, tuple[str, str]]) -> None:
    """Answer a shell that asks for completions, as its environment says, and end the process."""
    import argcomplete

    _forget_overrides()
    parser = argparse.ArgumentParser(prog="ostinato")
    known = parser.add_subparsers(dest="verb")
    said = os.environ.get("COMP_LINE", "").split()
    for verb, (target, summary) in verbs.items():
        one = known.add_parser(verb, help=summary, description=summary)
        if len(said) > 1 and said[1] == verb:
            importlib.import_module(target).configure(one)
            _teach(one)
    argcomplete.autocomplete(parser, always_complete_options=False)


def _forget_overrides() -> None:
    """Take the overrides that stand before the cursor's word from the line: argparse would take no more after an option."""
    line, at = os.environ.get("COMP_LINE", ""), int(os.environ.get("COMP_POINT", "0"))
    before = _WHOLE_OVERRIDE.sub("", line[:at])
    os.environ.update(COMP_LINE=before + line[at:], COMP_POINT=str(len(before)))


def _teach(parser: argparse.ArgumentParser) -> None:
    """Give the arguments of a verb, and of its actions, their completers."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to them, and argcomplete takes it as well
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for inner in action.choices.values():
                _teach(inner)
        elif completer := _COMPLETERS.get(str(action.metavar)):
            action.completer = completer  # type: ignore[attr-defined]


def overrides(prefix: str, parsed_args: argparse.Namespace, **_more: object) -> dict[str, str]:
    """Return the overrides that begin with `prefix`, each with what it means: ``group=option``, ``key=value``, ``key=``."""
    sign = prefix[: len(prefix) - len(prefix.lstrip("+~"))]
    key, equals, _ = prefix.removeprefix(sign).partition("=")
    schema = _schema()
    if equals:
        values = _options(key, getattr(parsed_args, "config_dir", None)) or _values(_at(schema, key))
        return {f"{sign}{key}={value}": "" for value in values}
    group, dot, _ = key.partition(".")
    properties: dict[str, Any] = schema["properties"]
    if dot:
        return {f"{sign}{path}=": said for path, said in _keys(schema, properties.get(group, {}), group).items()}
    found: dict[str, str] = {}
    for name, node in properties.items():
        if "allOf" in node:
            found |= {f"{sign}{name}=": node.get("description", ""), f"{sign}{name}.": f"the keys of {name}"}
        elif name not in ("defaults", "hydra"):
            found[f"{sign}{name}="] = node.get("description", "")
    return {**found, f"{sign}experiment=": "a whole named experiment"}


def groups(prefix: str, parsed_args: argparse.Namespace, **_more: object) -> list[str]:
    """Return the groups, or after a slash the options of one."""
    group, slash, _ = prefix.partition("/")
    if slash:
        return [f"{group}/{option}" for option in _options(group, getattr(parsed_args, "config_dir", None))]
    return [*(name for name, node in _schema()["properties"].items() if "allOf" in node), "experiment"]


def runs(prefix: str, parsed_args: argparse.Namespace, **_more: object) -> list[str]:
    """Return what may stand for a run: ``latest``, the names of experiments, the stamps of runs."""
    from pathlib import Path

    folder = getattr(parsed_args, "runs_dir", None) or Path("runs")
    experiments = _folders(folder)
    stamps = [run.name for experiment in experiments for run in _folders(experiment)] if prefix[:1].isdigit() else []
    return ["latest", *(experiment.name for experiment in experiments), *stamps]


def run_or_overrides(prefix: str, parsed_args: argparse.Namespace, **more: object) -> dict[str, str]:
    """Return runs and overrides."""
    return dict.fromkeys(runs(prefix, parsed_args, **more), "a run") | overrides(prefix, parsed_args, **more)


_COMPLETERS = {
    "key=value": overrides,
    "[RUN] [key=value]": run_or_overrides,
    "...": overrides,  # of `ostinato ft run`
    "GROUP": groups,
    "GROUP[/OPTION]": groups,
    **dict.fromkeys(("RUN", "RUN_A", "RUN_B"), runs),
}
"""The completer of an argument, by its metavar."""


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()) if folder.is_dir() else []


def _options(group: str, config_dir: str | None) -> list[str]:
    """Return the options of a group in all folders of configs."""
    from pathlib import Path

    from runner.system.paths import shipped_conf

    places = [Path(place) / group for place in (config_dir or "conf", "conf", shipped_conf())]
    return sorted({file.stem for place in places for file in place.glob("*.yaml")}) if group.isidentifier() else []


def _schema() -> dict[str, Any]:
    from runner.system.paths import shipped_conf

    schema: dict[str, Any] = json.loads((shipped_conf() / "schema.json").read_text("utf-8"))
    return schema


def _keys(schema: dict[str, Any], node: dict[str, Any], above: str) -> dict[str, str]:
    """Return the paths of all keys below a node, with their descriptions."""
    found = {}
    for name, inner in _properties(schema, node).items():
        path = f"{above}.{name}"
        found[path] = inner.get("description", "")
        found |= _keys(schema, inner, path) if "properties" in inner else {}
    return found


def _at(schema: dict[str, Any], path: str) -> dict[str, Any]:
    node = schema
    for name in path.split("."):
        node = _properties(schema, node).get(name, {})
    return node


def _properties(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a node of the schema; of a group with kinds, those of all kinds."""
    for part in node.get("allOf", ()):
        if reference := part.get("$ref") or part.get("else", {}).get("$ref"):
            return _properties(schema, schema["definitions"][reference.rpartition("/")[2]])
    properties: dict[str, Any] = node.get("properties", {})
    return properties


def _values(node: dict[str, Any]) -> list[str]:
    """Return the values that a key may have, as they are written in an override."""
    variants = [node, *node.get("anyOf", ())]
    found = [value for variant in variants for value in variant.get("enum", ())]
    types = str([variant.get("type") for variant in variants])
    found += ["true", "false"] if "boolean" in types else []
    found += ["null"] if "null" in types else []
    return list(dict.fromkeys(map(str, found)))
