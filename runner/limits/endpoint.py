"""Share the state of one endpoint and key between all event loops and threads of this process."""

from __future__ import annotations

import hashlib
import math
import threading
import time
import weakref
from typing import TYPE_CHECKING

from runner.limits.complaints import SEVERAL, Complaints
from runner.limits.gate import Gate
from runner.limits.headers import REMAINING, REQUESTS, TOKENS, told
from runner.limits.lane import Lane, Pass
from runner.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.errors import LMError
    from runner.limits.lane import Waiter

UNREACHED = 3
"""Consecutive failures to connect after which an address that has never answered is taken to be wrong."""
WHOLE_ENDPOINT = ("authentication", "quota")
"""Codes of errors that apply to every request with this key; the others may concern only the model of one limiter, or one row."""

DOUBTFUL = ("bad_request", "permission_denied")
"""Codes of errors that may concern one row or all of them."""


class Endpoint:
    """The state of one endpoint and key. Thread-safe. Made by `endpoint_of`; used through a `Limiter`.

    Args:
        address: shown in messages.
        clock: returns monotonic seconds.
        wall: returns seconds since 1970.
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
        self._troubled = False  # a request has failed since the endpoint was last unused

    # --- users

    def join(self) -> None:
        """Add a user. Pair it with `leave`."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """Remove a user. After the last one, forget what closed or paused the endpoint."""
        with self._lock:
            self._users -= 1
            self._fit()
            self._forget_if_unused()

    def add(self, lane: Lane, rpm: float | None, tpm: float | None) -> None:
        """Register a limiter and its settings. The latest rpm and tpm that are not None apply."""
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

    # --- before a request

    def enter(self, lane: Lane, tokens: int) -> Pass | LMError | None:
        """Return a pass, the error that closed the endpoint, or None if the request must `queue`."""
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
        """Add `waiter` to the queue."""
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
        """Remove a cancelled `waiter` from the queue. A pass that it already has goes to the next one."""
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
        """Wake `waiter` after `seconds`, or when the endpoint is closed."""
        with self._lock:
            lane.sleepers.add(waiter)
            if (cause := self._closed_by or lane.closed_by) is not None:
                waiter.refused_by = cause
                waiter.wake()
            else:
                waiter.arm(seconds)

    def wake_up(self, lane: Lane, waiter: Waiter) -> None:
        """Remove `waiter` from the sleepers."""
        with self._lock:
            lane.sleepers.discard(waiter)
            self._forget_if_unused()

    def ring(self) -> None:
        """Admit requests whose time has come. Called by the timer of a waiter."""
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
        """Admit queued requests in order of arrival. A limiter at its own bound does not block the others."""
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
        """Set the timer of the first waiter to `at`. An earlier timer stays; when it fires, the timer is set again."""
        if self._armed is not None and self._armed[0] is waiter and now < self._armed[1] <= at:
            return True
        self._armed = (waiter, at)
        return waiter.arm(at - now)

    # --- after a request

    def succeeded(self, pass_: Pass, tokens_used: int | None, seconds: float) -> None:
        """Record that the request of a pass was answered."""
        with self._lock:
            now = self.clock()
            lane = pass_.lane
            self._worked = lane.worked = True
            self._unreached = 0
            lane.complaints.answered()
            self._gate.succeeded(pass_, tokens_used, seconds, now)
            self._end(pass_, now)

    def failed(self, pass_: Pass, error: LMError, row: object = None) -> None:
        """Record that the request of a pass failed with `error`; see `Pass.failed`."""
        with self._lock:
            now, lane = self.clock(), pass_.lane
            self._troubled = True
            self._unreached = self._unreached + 1 if error.code == "transport" else 0
            if error.code in WHOLE_ENDPOINT or (self._unreached >= UNREACHED and not self._worked):
                self._close(error)
            elif error.code in DOUBTFUL:
                self._refused(lane, error, row)
            elif error.disposition == "stop":
                self._close_lane(lane, error)
            elif error.disposition == "row":  # the server takes requests of this kind
                lane.worked = True
                lane.complaints.answered()
            if lane.adaptive and (over := self._gate.failed(pass_, error, now, row)) is not None:
                self._close(over)
            self._end(pass_, now)

    def _refused(self, lane: Lane, error: LMError, row: object) -> None:
        """Close `lane` if every row would be refused; else the refusal is of its row alone.

        A bad request is a row's own, unless several rows are refused in the same words and no row is answered otherwise; one
        that is refused for a parameter, which all rows are sent with, closes at once if no row has been answered before. A
        key without permission stops at once, but while rows are answered, it takes several rows, too.
        """
        alike = lane.complaints.heard(error, row)
        if error.code == "bad_request":
            unsent = error.status is None
            of_all = unsent or error.parameter is not None
            closes = not lane.worked and (of_all or (alike >= SEVERAL and not lane.complaints.differ))
        else:
            closes = alike >= SEVERAL or not lane.worked
        if closes:
            if error.parameter is not None:
                error.disposition = "stop"
            self._close_lane(lane, error)
        else:
            error.disposition = "row"

    def abandoned(self, pass_: Pass) -> None:
        """Record that the request of a pass was cancelled."""
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
        """Take back a pass whose waiter is gone: nothing was sent."""
        self._gate.refund(pass_, self.clock())
        self._release(pass_)

    # --- closing

    def close(self, lane: Lane, cause: LMError) -> None:
        """Send no more requests for this limiter."""
        with self._lock:
            lane.for_good = True
            self._close_lane(lane, cause)
            self._dispatch(self.clock())

    def ask_anew(self, lane: Lane) -> None:
        """Have a limiter that bad requests have closed send again: with other parameters, they may be good ones."""
        with self._lock:
            if lane.closed_by is not None and lane.closed_by.code == "bad_request" and not lane.for_good:
                lane.closed_by, lane.complaints = None, Complaints()

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

    # --- headers and progress

    def hear(self, headers: Mapping[str, str], pass_: Pass | None = None) -> None:
        """Learn from response headers (names in lower case), of the request with `pass_` or of an unknown one."""
        if headers.keys().isdisjoint(REMAINING):
            return
        requests = told(headers, REQUESTS, self._wall())
        tokens = told(headers, TOKENS, self._wall())
        if requests is None and tokens is None:
            return
        with self._lock:
            self._gate.hear(requests, tokens, pass_, self.clock())

    def live(self, lane: Lane) -> dict[str, object]:
        """Return the current numbers; see `Live`."""
        with self._lock:
            found = self._gate.live(lane, self.clock())
            found["waiting"] = sum(len(queued.queue) for queued in self._queued)
            if (cause := self._closed_by or lane.closed_by) is not None:
                found |= {"state": "closed", "reason": cause.code}
            return found


_endpoints: weakref.WeakValueDictionary[tuple[str, str | None], Endpoint] = weakref.WeakValueDictionary()
_endpoints_lock = threading.Lock()


def endpoint_of(address: str, key: str | None) -> Endpoint:
    """Return the endpoint at `address` for `key`: the same object for as long as it is in use.

    Args:
        address: the base URL of the requests, for example ``https://api.openai.com/v1``.
        key: the secret that requests carry; only its SHA-256 is kept.
    """
    name = (address, hashlib.sha256(key.encode()).hexdigest() if key else None)
    with _endpoints_lock:
        endpoint = _endpoints.get(name)
        if endpoint is None:
            endpoint = _endpoints[name] = Endpoint(address)
        return endpoint
