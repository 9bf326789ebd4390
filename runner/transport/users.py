"""Count the users of what all transports of an event loop share, so that only the last one closes it."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any


class Users:
    """The users of one shared thing, by event loop. A user that is garbage collected no longer counts."""

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()

    def join(self, user: Any) -> None:
        """Add `user` to those of the running loop."""
        self._of.setdefault(asyncio.get_running_loop(), weakref.WeakSet()).add(user)

    def leave(self, user: Any) -> bool:
        """Remove `user`. Return whether the running loop has no users left."""
        users = self._of.get(asyncio.get_running_loop())
        if users is None:
            return True
        users.discard(user)
        return not users
