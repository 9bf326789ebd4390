"""Suggest the allowed name that the user most likely meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def closest(name: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed name closest to `name`, or None when none is close."""
    near = difflib.get_close_matches(name, list(allowed), n=1)
    return near[0] if near else None


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` when an allowed name is close to `name`, else an empty string."""
    near = closest(name, allowed)
    return f"; did you mean '{near}'?" if near else ""


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return the end of an error message about a wrong name: the closest allowed name, and all allowed ones."""
    allowed = sorted(allowed)
    return f"{suggest(name, allowed) or ';'} allowed: {', '.join(allowed)}"
