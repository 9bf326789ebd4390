"""One endpoint and key: everything that is known about it, shared by all event loops and threads of the process that ask it."""

from __future__ import annotations

import hashlib
import math
import threading
import time
import weakref
from typing import TYPE_CHECKING

from runner.limits.gate import Gate
from runner.limits.headers import REQUESTS, TOKENS, told
from runner.limits.lane import Lane, Pass
from runner.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.errors import LMError
    from runner.limits.lane import Waiter

UNREACHED = 3
"""Failures to connect, one after another, after which an address that has never answered counts as wrong."""
WHOLE_ENDPOINT = ("authentication", "quota")
"""Codes of errors that every request with this key would meet; the others may be about the model that a limiter asks for."""


class Endpoint:
    """What is known about one endpoint and key. Thread-safe. Made by `endpoint_of`; used through a `Limiter`.

    Args:
        address: for messages.
        clock: seconds that never go backwards.
        wall: seconds since 1970.
    """

    def __init__(
        self, address: str, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self.address = redact(address)
        self.clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
        self._queued: list[Lane] = []
        self._tickets = 0
        self._armed: tuple[Waiter, float] | None = None
        self._users = 0
        self._gate = Gate(self.address)
        self._closed_by: LMError | None = None
        self._worked = False
        self._unreached = 0
        self._troubled = False  # something has failed since it was last unused

    # --- users

    def join(self) -> None:
        """Count one more user; pair it with `leave`."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """Count one user less. With the last one, what closed or paused the endpoint is forgotten."""
        with self._lock:
            self._users -= 1
            self._fit()
            self._forget_if_unused()

    def add(self, lane: Lane, rpm: float | None, tpm: float | None) -> None:
        """Take in a limiter, with its settings; the latest rpm and tpm that are not None count."""
        with self._lock:
            now = self.clock()
            self._lanes.add(lane)
            self._fit()
            self._gate.tell(rpm, tpm, now)
            if lane.adaptive:
                self._gate.meet()
            self._dispatch(now)

    def _fit(self) -> None:
        bounds = [lane.bound for lane in self._lanes if lane.adaptive]
        if bounds:
            self._gate.window.fit(max(bounds))

    def _forget_if_unused(self) -> None:
        if self._users or self._gate.in_flight or self._queued:
            return
        self._worked = False
        if self._troubled and not any(lane.sleepers for lane in self._lanes):
            self._forget()

    def _forget(self) -> None:
        self._troubled = False
        self._closed_by = None
        self._gate.forget()
        self._unreached = 0
        for lane in self._lanes:
            if not lane.for_good:
                lane.closed_by = None

    # --- the way in

    def enter(self, lane: Lane, tokens: int) -> Pass | LMError | None:
        """A pass at once, the error that closed the way, or None: then `queue` for one."""
        with self._lock:
            if (cause := self._closed_by or lane.closed_by) is not None:
                return cause
            if self._queued:
                return None
            now, gate = self.clock(), self._gate
            if lane.in_flight < lane.bound and (
                (gate.free and (gate.in_flight < gate.window.size or not lane.adaptive)) or gate.open_at(lane, tokens, now) <= now
            ):
                return self._admit(lane, tokens, now)
            return None

    def queue(self, lane: Lane, waiter: Waiter) -> None:
        """Have `waiter` wait for its turn."""
        with self._lock:
            if (cause := self._closed_by or lane.closed_by) is not None:
                waiter.refused_by = cause
                waiter.wake()
                return
            self._tickets += 1
            waiter.ticket = self._tickets
            if not lane.queue:
                self._queued.append(lane)
            lane.queue.append(waiter)
            self._dispatch(self.clock())

    def withdraw(self, lane: Lane, waiter: Waiter) -> None:
        """`waiter` waits no more: it was cancelled. A pass that it was given meanwhile goes to the next one."""
        with self._lock:
            if waiter.pass_ is not None:
                self._take_back(waiter.pass_)
            elif waiter in lane.queue:
                lane.queue.remove(waiter)
                if not lane.queue:
                    self._queued.remove(lane)
            self._dispatch(self.clock())
            self._forget_if_unused()

    def sleep(self, lane: Lane, waiter: Waiter, seconds: float) -> None:
        """Have `waiter` be woken after so many seconds, or when the way is closed."""
        with self._lock:
            lane.sleepers.add(waiter)
            if (cause := self._closed_by or lane.closed_by) is not None:
                waiter.refused_by = cause
                waiter.wake()
            else:
                waiter.arm(seconds)

    def wake_up(self, lane: Lane, waiter: Waiter) -> None:
        """`waiter` sleeps no more."""
        with self._lock:
            lane.sleepers.discard(waiter)
            self._forget_if_unused()

    def ring(self) -> None:
        """A time has come: see who may go."""
        with self._lock:
            self._armed = None
            self._dispatch(self.clock())

    def _admit(self, lane: Lane, tokens: int, now: float) -> Pass:
        gate = self._gate
        pass_ = Pass(self, lane, tokens, now, gate.sent, gate.tokens_sent)
        lane.in_flight += 1
        gate.admit(pass_, now)
        return pass_

    def _dispatch(self, now: float) -> None:
        """Let in whoever may go, in the order of arrival; a limiter at its own bound does not keep the others waiting."""
        while self._queued:
            ready = [lane for lane in self._queued if lane.in_flight < lane.bound]
            if not ready:
                return
            lane = min(ready, key=lambda lane: lane.queue[0].ticket) if len(ready) > 1 else ready[0]
            waiter = lane.queue[0]
            at = self._gate.open_at(lane, waiter.tokens, now)
            if at > now:
                if at == math.inf or self._arm(waiter, at, now):
                    return
            else:
                waiter.pass_ = self._admit(lane, waiter.tokens, now)
                if not waiter.wake():
                    self._take_back(waiter.pass_)
            lane.queue.popleft()
            if not lane.queue:
                self._queued.remove(lane)

    def _arm(self, waiter: Waiter, at: float, now: float) -> bool:
        """Have the first who waits ring at `at`. An earlier order stands: it will find out and order anew."""
        if self._armed is not None and self._armed[0] is waiter and now < self._armed[1] <= at:
            return True
        self._armed = (waiter, at)
        return waiter.arm(at - now)

    # --- the way out

    def succeeded(self, pass_: Pass, tokens_used: int | None, seconds: float) -> None:
        """An answer came."""
        with self._lock:
            now = self.clock()
            lane = pass_.lane
            self._worked = lane.worked = True
            self._unreached = 0
            self._gate.succeeded(pass_, tokens_used, seconds, now)
            self._end(pass_, now)

    def failed(self, pass_: Pass, error: LMError) -> None:
        """No answer came, because of `error`."""
        with self._lock:
            now = self.clock()
            self._troubled = True
            never_reached, never_worked = not self._worked, not pass_.lane.worked
            self._unreached = self._unreached + 1 if error.code == "transport" else 0
            if error.code == "transport":
                if never_reached and self._unreached >= UNREACHED:
                    self._close(error)
            elif error.code == "bad_request":
                if never_worked:
                    self._close_lane(pass_.lane, error)
            elif error.code in WHOLE_ENDPOINT:
                self._close(error)
            elif error.disposition == "stop":
                self._close_lane(pass_.lane, error)
            if pass_.lane.adaptive and (over := self._gate.failed(pass_, error, now)) is not None:
                self._close(over)
            self._end(pass_, now)

    def abandoned(self, pass_: Pass) -> None:
        """The request was given up on this side."""
        with self._lock:
            self._end(pass_, self.clock())

    def _end(self, pass_: Pass, now: float) -> None:
        self._release(pass_)
        if self._queued:
            self._dispatch(now)
        if not self._gate.in_flight:
            self._forget_if_unused()

    def _release(self, pass_: Pass) -> None:
        pass_.lane.in_flight -= 1
        self._gate.release(pass_)

    def _take_back(self, pass_: Pass) -> None:
        """A pass that nobody lives to use: nothing was sent."""
        self._gate.refund(pass_, self.clock())
        self._release(pass_)

    # --- closing

    def close(self, lane: Lane, cause: LMError) -> None:
        """Send nothing more for this limiter."""
        with self._lock:
            lane.for_good = True
            self._close_lane(lane, cause)
            self._dispatch(self.clock())

    def _close(self, cause: LMError) -> None:
        self._closed_by = self._closed_by or cause
        for lane in list(self._lanes):
            self._refuse(lane, self._closed_by)

    def _close_lane(self, lane: Lane, cause: LMError) -> None:
        lane.closed_by = lane.closed_by or cause
        self._refuse(lane, lane.closed_by)

    def _refuse(self, lane: Lane, cause: LMError) -> None:
        if lane.queue:
            self._queued.remove(lane)
        for waiter in [*lane.queue, *lane.sleepers]:
            waiter.refused_by = cause
            waiter.wake()
        lane.queue.clear()

    # --- what servers say, and what people want to know

    def hear(self, headers: Mapping[str, str], pass_: Pass | None = None) -> None:
        """Learn from headers (names in lower case): of what came back for `pass_`, or for nobody knows which request."""
        requests = told(headers, REQUESTS, self._wall())
        tokens = told(headers, TOKENS, self._wall())
        if requests is None and tokens is None:
            return
        with self._lock:
            self._gate.hear(requests, tokens, pass_, self.clock())

    def live(self, lane: Lane) -> dict[str, object]:
        """The numbers of the moment; see `Live`."""
        with self._lock:
            found = self._gate.live(lane, self.clock())
            found["waiting"] = sum(len(queued.queue) for queued in self._queued)
            if (cause := self._closed_by or lane.closed_by) is not None:
                found |= {"state": "closed", "reason": cause.code}
            return found


_endpoints: weakref.WeakValueDictionary[tuple[str, str | None], Endpoint] = weakref.WeakValueDictionary()
_endpoints_lock = threading.Lock()


def endpoint_of(address: str, key: str | None) -> Endpoint:
    """The endpoint at `address` for `key`: the same object for as long as anybody holds it.

    Args:
        address: as requests are sent to it, for example ``https://api.openai.com/v1``.
        key: the secret that requests carry; only its SHA-256 is kept.
    """
    name = (address, hashlib.sha256(key.encode()).hexdigest() if key else None)
    with _endpoints_lock:
        endpoint = _endpoints.get(name)
        if endpoint is None:
            endpoint = _endpoints[name] = Endpoint(address)
        return endpoint
