"""Name the roles that groups have in an experiment's identity."""

from __future__ import annotations

import enum
from typing import Annotated, TypeAlias, TypeVar


class Role(enum.Enum):
    """Say how a group of the config affects an experiment's identity."""

    identity = "changes answers, so another value is another experiment"
    adjustable = "may change when a run resumes: how fast, how much, served and orchestrated how"
    aside = "is not used by a single run: where it is recorded, what varies, when it runs, what follows from its scores"


T = TypeVar("T")
Identity: TypeAlias = Annotated[T, Role.identity]
Adjustable: TypeAlias = Annotated[T, Role.adjustable]
Aside: TypeAlias = Annotated[T, Role.aside]
