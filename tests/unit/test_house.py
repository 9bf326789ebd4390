"""The budgets of the house: short functions, and rooms that say what they hold."""

from __future__ import annotations

import ast

import pytest

from tests.support.command import REPOSITORY

LINES = 60
ROOMS = sorted(init.parent for top in ("runner", "flows") for init in (REPOSITORY / top).rglob("__init__.py"))
MODULES = {
    str(file.relative_to(REPOSITORY)): ast.parse(file.read_text("utf-8"))
    for top in ("runner", "flows")
    for file in sorted((REPOSITORY / top).rglob("*.py"))
}
LOOSE = {"__init__", "__main__", "errors", "secrets", "types"}


def definitions(module):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node for node in ast.walk(module) if isinstance(node, kinds)]


def test_only_the_words_that_every_module_uses_stand_outside_a_room():
    assert {file.stem for file in (REPOSITORY / "runner").glob("*.py")} == LOOSE


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(REPOSITORY)))
def test_a_room_says_what_it_holds(room):
    docstring = ast.get_docstring(MODULES[str((room / "__init__.py").relative_to(REPOSITORY))])
    assert docstring
    assert docstring.split("\n\n")[0].endswith(".")


def test_functions_are_short():
    long = [
        f"{file}:{node.lineno} {node.name}: {lines} lines"
        for file, module in MODULES.items()
        for node in definitions(module)
        if not isinstance(node, ast.ClassDef) and (lines := node.end_lineno - node.lineno + 1) > LINES
    ]
    assert long == []


OPENERS = ("What ", "Who ", "Whose ", "Whether ", "Those ", "That which ", "Of what ")


def test_docstrings_open_with_a_verb_or_a_noun():
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        f"{file}: {docstring.splitlines()[0]}"
        for file, module in MODULES.items()
        for node in ast.walk(module)
        if isinstance(node, documented) and (docstring := ast.get_docstring(node)) and docstring.startswith(OPENERS)
    ]
    assert found == []
