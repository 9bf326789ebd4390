"""Who uses what all transports of an event loop have in common, so that the last to leave closes it, and nobody before."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any


class Users:
    """The users of one common thing, by event loop. A user that is dropped without leaving counts no more."""

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()

    def join(self, user: Any) -> None:
        """Count `user` among those of the running loop."""
        self._of.setdefault(asyncio.get_running_loop(), weakref.WeakSet()).add(user)

    def leave(self, user: Any) -> bool:
        """Count `user` no more. Returns whether nobody in the running loop is left."""
        users = self._of.get(asyncio.get_running_loop())
        if users is None:
            return True
        users.discard(user)
        return not users
