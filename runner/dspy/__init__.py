"""Let dspy's programs and optimisers ask through `runner.LM`. The only room, besides users' own files, that imports dspy."""

from __future__ import annotations

from runner.dspy.lm import LM

__all__ = ["LM"]
