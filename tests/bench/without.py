"""The engine with one of its devices taken away, for `tests.bench.devices`: each undoes, in this process, what it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable


def shared_transactions() -> None:
    """Every answer is stored in a transaction of its own."""
    from runner.cache import Cache

    def put_soon(self: Cache, item: Any, stored: Any = None) -> None:
        self.put_many([item])
        if stored is not None:
            stored.set_result(None)

    Cache.put_soon = put_soon


def checkpoints_beside() -> None:
    """SQLite moves its log into the database in the time of whoever stores."""
    from runner.cache import table

    begin = table.Table.__init__

    def init(self: table.Table, *arguments: Any) -> None:
        begin(self, *arguments)
        self._writer.execute("PRAGMA wal_autocheckpoint = 1000")

    table.Table.__init__ = init
    table.CHECKPOINT_EVERY = 2**62


def rare_collections() -> None:
    """Python looks for cyclic garbage as often as it does by default."""
    from runner.session import loop

    loop.GARBAGE = 0


def batched_lookups() -> None:
    """Every row is looked up by itself."""
    from runner.batch import engine

    engine.LOOKUP_BATCH = 1


def lazy_decoding() -> None:
    """A hit decodes the question that is stored with the answer."""
    from runner.cache import store

    store._decode = msgspec.json.Decoder(store.Stored).decode


def shared_parameters() -> None:
    """The key of every request encodes its parameters anew."""
    from runner.batch import asker
    from runner.cache import request_key

    asker.request_key = lambda request, _params=None: request_key(request)


def kept_parameters() -> None:
    """Every call makes its parameters, and their part of the key, anew."""
    from runner.lm import parameters

    parameters._same = lambda _one, _other: False


def reading_ahead() -> None:
    """An answer that is asked for comes from disk alone."""
    from runner.cache import store

    store.READ_AHEAD = 0


DEVICES: dict[str, Callable[[], None]] = {
    device.__name__: device
    for device in (
        shared_transactions,
        checkpoints_beside,
        rare_collections,
        batched_lookups,
        lazy_decoding,
        shared_parameters,
        kept_parameters,
        reading_ahead,
    )
}
