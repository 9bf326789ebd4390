"""Reach workers through Dask: its scheduler knows them, and each is spoken to by handlers of ours. The door of `distributed`."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import uuid
import warnings
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError, LaunchError
from runner.workers.engine import Lost, UnfitError
from runner.workers.player import Player
from runner.workers.version import code_digest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Iterator, Mapping

CONNECT_S = 10.0
"""Seconds to reach a scheduler or a worker."""
POLL_S = 0.2
"""Seconds between two looks at which workers there are."""


class Dask:
    """A Dask cluster: see `runner.workers.engine.Engine`.

    Args:
        address: of a scheduler that runs; None starts workers on this machine, which end with this process.
        count: the workers to start.
        resources: what a worker has to have, by Dask's name of the resource.
    """

    def __init__(self, address: str | None, count: int, resources: Mapping[str, float]) -> None:
        self._address = address
        self._count = count
        self._resources = resources
        self._cluster: Any = None
        self._client: Any = None

    async def open(self) -> None:
        """Start the cluster, or connect to it."""
        try:
            import distributed
        except ImportError:
            raise ConfigError("execution.workers.kind=dask needs Dask: pip install 'ostinato[dask]'") from None
        for name in ("distributed", "distributed.worker", "distributed.scheduler", "distributed.nanny"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        place = self._address
        if place is not None and not _is_guarded(place):
            warnings.warn(
                f"execution.workers.address={place}: rows and answers travel in the clear, and whoever reaches this scheduler "
                "can run code on its workers; use tls:// or a network of their own",
                stacklevel=2,
            )
        if place is None:
            place = self._cluster = await distributed.LocalCluster(
                n_workers=self._count,
                threads_per_worker=1,
                processes=True,
                asynchronous=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                memory_limit=None,
                resources=dict(self._resources) or None,
            )
        try:
            self._client = await distributed.Client(place, asynchronous=True, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise LaunchError(
                f"execution.workers.address={self._address}: no Dask scheduler answers there ({error}); "
                "start one with `dask scheduler`, or leave the address out to start workers here"
            ) from None

    async def joined(self, known: Collection[str]) -> DaskLink:
        """Wait for a worker that has the resources."""
        while True:
            for address, facts in (await self._workers()).items():
                has = facts.get("resources") or {}
                if address not in known and all(has.get(name, 0) >= amount for name, amount in self._resources.items()):
                    return DaskLink(self._client, address, is_ours=self._cluster is not None)
            await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        """End the connection, and the workers that were started here."""
        for one in (self._client, self._cluster):
            if one is not None:
                await one.close()
        self._client = self._cluster = None

    async def _workers(self) -> dict[str, dict[str, Any]]:
        try:
            known: dict[str, dict[str, Any]] = (await self._client.scheduler.identity(n_workers=-1))["workers"]
        except OSError as error:
            raise LaunchError(f"the Dask scheduler at {self._client.scheduler.address} is gone ({error})") from None
        return known


class DaskLink:
    """One Dask worker: see `runner.workers.engine.Link`.

    Args:
        client: the connection to the cluster.
        address: of the worker.
        is_ours: whether it was started here, and ends with this process.
    """

    def __init__(self, client: Any, address: str, *, is_ours: bool) -> None:
        self.name = address
        self._is_ours = is_ours
        self._client = client
        self._session = uuid.uuid4().hex

    async def begin(self, packed: bytes) -> None:
        """Install the handlers, compare the code, and start a player."""
        try:
            facts = (await self._client.run(install, self._is_ours, workers=[self.name]))[self.name]
        except (ImportError, AttributeError) as error:
            raise UnfitError(
                f"{self.name} has no ostinato, or an older one ({error}); install the same version there, with its extra dask"
            ) from None
        except OSError as error:
            raise Lost(str(error)) from None
        if facts["code"] != code_digest():
            raise UnfitError(f"{self.name} has another version of ostinato's code than this process; install the same one there")
        await self._asked(self._rpc.ostinato_begin(session=self._session, packed=packed))

    async def listen(self) -> bytes:
        """Return the player's next messages."""
        messages: bytes = await self._asked(self._rpc.ostinato_listen(session=self._session))
        return messages

    async def tell(self, messages: bytes) -> None:
        """Hand messages to the player."""
        await self._asked(self._rpc.ostinato_tell(session=self._session, messages=messages))

    async def end(self) -> None:
        """End the player."""
        await self._asked(self._rpc.ostinato_end(session=self._session))

    @property
    def _rpc(self) -> Any:
        return self._client.rpc(self.name)

    async def _asked(self, call: Awaitable[Any]) -> Any:
        with _lost():
            answer = await call
        if answer.get("gone"):
            raise Lost("it has given up the run")
        return answer.get("messages", b"")


def _is_guarded(address: str) -> bool:
    """Return whether an address is encrypted, or on this machine."""
    scheme, _, place = address.rpartition("://")
    host = place.rpartition(":")[0].strip("[]")
    if scheme in ("tls", "wss", "inproc", "unix") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # boundary: what Dask or the worker's handler raises is the end of this worker alone
        raise Lost(str(error) or type(error).__name__) from error


# --- on the worker

_players: dict[str, Player] = {}
"""The players of this worker, by session."""


def install(is_ours: bool, dask_worker: Any) -> dict[str, str]:
    """Have a worker know our handlers. Return the digest of its code. Ctrl-C, which a terminal sends to all, is for the head."""
    if is_ours:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    dask_worker.handlers |= {
        "ostinato_begin": _begin,
        "ostinato_listen": _listen,
        "ostinato_tell": _tell,
        "ostinato_end": _end,
    }
    return {"code": code_digest()}


async def _begin(session: str, packed: bytes) -> dict[str, Any]:
    for name in [name for name, player in _players.items() if player.is_alone]:
        _players.pop(name).end()
    _players[session] = Player(packed)
    return {}


async def _listen(session: str) -> dict[str, Any]:
    player = _players.get(session)
    return {"gone": True} if player is None else {"messages": await player.listen()}


async def _tell(session: str, messages: bytes) -> dict[str, Any]:
    player = _players.get(session)
    if player is None:
        return {"gone": True}
    player.tell(messages)
    return {}


async def _end(session: str) -> dict[str, Any]:
    if (player := _players.pop(session, None)) is not None:
        player.end()
    return {}
