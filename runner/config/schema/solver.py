"""Declare `solver`: what answers a row."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from msgspec import Meta

from runner.config.schema.base import Kind, Name, Positive, Seconds, Text
from runner.config.schema.model import Model


class PlainSolver(Kind, frozen=True, kw_only=True, tag="plain"):
    """Fill in the prompt and ask once; again only as the adapter wants."""


class PythonSolver(Kind, frozen=True, kw_only=True, tag="python"):
    """Answer by a function of your own: ``file.py:function``, called with (row, lm, **params), and with models."""

    function: Text
    params: dict[str, Any] = {}
    models: dict[Name, Model] = {}
    max_requests: Positive = 100


class DspySolver(Kind, frozen=True, kw_only=True, tag="dspy"):
    """Answer by a program of dspy: ``file.py:Class``, or ``dspy:Class`` for one of its own, called with the row's columns."""

    module: Text
    params: dict[str, Any] = {}
    program: str | None = None
    output: Text | None = None
    max_requests: Positive = 100


class CommandSolver(Kind, frozen=True, kw_only=True, tag="command"):
    """Answer by a program in any language, which asks through OpenAI's API at the address in OPENAI_BASE_URL."""

    argv: Annotated[list[Text], Meta(min_length=1)]
    timeout_s: Seconds = 600.0
    max_requests: Positive = 100


class PluginSolver(Kind, frozen=True, kw_only=True, tag="plugin"):
    """Answer by a function of an installed package (entry point group ``ostinato.solvers``)."""

    name: Text
    params: dict[str, Any] = {}
    max_requests: Positive = 100


Solver: TypeAlias = PlainSolver | PythonSolver | DspySolver | CommandSolver | PluginSolver
