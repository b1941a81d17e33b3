"""One call while it runs: its time limits, and the way to wake whoever is blocked in it.

A blocking read cannot be stopped from outside but by its socket. So a call knows the socket that serves it, and
`Call.cancel()` or the watchdog (one daemon thread a process, asleep until the earliest limit of all calls) shuts that
socket down: the reader wakes within a millisecond, finds out from the call why, and closes what it holds. No socket
timeouts are used: they restart with every byte, and cost a system call each.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, Literal, Protocol, TypeVar

from llmbridge._locks import Signal
from llmbridge.errors import Cancelled, Clock, ClockExpired, LLMBridgeError, TransportError, place_of
from llmbridge.options import Timeout

__all__ = ["Call", "WouldWait", "current_call", "serving", "unwatch", "watch"]

T = TypeVar("T")
Step = Literal["reach", "proxy", "tls"]
"""What connecting is about: an address, the proxy before the service, TLS with the service itself."""
_NEVER = float("inf")
_log = logging.getLogger("llmbridge")
_PAUSE = 0.1  # seconds, after an error in the watchdog
_ABORTIVE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # linger for 0 s


class WouldWait(BaseException):
    """What is sent at once has come to where it would have to wait: nothing counts of it. Stays in the transport."""


class Call:
    """The life of one call, over all its attempts. Only `cancel` and `expire` are for other threads.

    Args:
        timeout: Its limits; the total starts now.
        total_at: `time.monotonic()` of the end of the total, where that began before, with an earlier call.
    """

    def __init__(self, timeout: Timeout, total_at: float | None = None) -> None:
        self._timeout = timeout
        self._pid = os.getpid()
        self._lock = threading.RLock()  # a signal handler may cancel while its own thread is in here
        self._woken = Signal()
        self._socket: socket.socket | None = None
        self._guard: socket.socket | None = None
        self._held: socket.socket | None = None  # what `end` closes if nobody has done so before
        self._clock: Clock = "connect"
        self.step: Step = "reach"
        self._since: float | None = None
        self._ends_at = _NEVER
        if total_at is None:
            total_at = monotonic() + (_NEVER if timeout.total is None else timeout.total)
        self._total_at = self._deadline = total_at
        self.cancelled = False
        self._left_behind = False
        self.expired: Clock | None = None
        self.reused_connection: bool | None = None  # None: there is no connection that reports
        self.takes_new = False  # no kept connection will do
        self.answers_later = False  # an event loop waits for the answer's headers, no thread
        self.at_once = False  # it is the event loop that sends, which must not wait
        self._listener: Callable[[], object] | None = None
        self._left: tuple[float, Callable[[], object]] | None = None
        _watchdog.watch(self)

    @property
    def connecting(self) -> bool:
        """Whether the present attempt has no connection yet."""
        return self._clock == "connect"

    # -- time --------------------------------------------------------------------------------------------------

    def start(self, clock: Clock) -> None:
        """A new stretch of time begins, measured by `clock`."""
        self._clock, self._since, self._ends_at = clock, None, _NEVER
        self.wait_begins()

    def content(self) -> None:
        """Content has come: from the next wait on, the idle clock counts."""
        self._clock, self._since = "idle", None

    def wait_begins(self) -> None:
        """The caller is about to wait for the server."""
        if self._since is None:
            self._since = monotonic()
        limit: float | None = getattr(self._timeout, self._clock)
        self._expect(min(self._total_at, self._ends_at, _NEVER if limit is None else self._since + limit))

    def wait_ends(self) -> None:
        """The server has sent something: what the caller does with it takes the time it takes."""
        self._deadline = _NEVER

    def _expect(self, deadline: float) -> None:
        self._deadline = deadline
        if deadline < _watchdog.wakes_at:
            _watchdog.poke()

    @property
    def deadline(self) -> float:
        """See `Expiring`."""
        left = self._left
        return self._deadline if left is None else min(self._deadline, left[0])

    def expire(self, now: float) -> None:
        """Ends the call if a limit has run out by `now`, or if nobody has come back to it."""
        if self.deadline > now:
            return
        with self._lock:
            give_up = None
            if self._left is not None and self._left[0] <= now:
                (_, give_up), self._left, self.cancelled = self._left, None, True
            elif self.expired is None and not self.cancelled:
                self.expired = "total" if now >= self._total_at else self._clock
            self._deadline = _NEVER
        try:
            self._wake()
        except BaseException:
            self._deadline = now  # whoever is blocked in it still waits to be woken
            raise
        if give_up is not None:
            give_up()

    def leave(self, seconds: float, give_up: Callable[[], object]) -> None:
        """Nobody waits for the call any more. If nobody has come back within that time, it ends.

        Args:
            seconds: How long it goes on.
            give_up: Called then, by the watchdog's thread.
        """
        self._left = monotonic() + seconds, give_up
        if self.deadline < _watchdog.wakes_at:
            _watchdog.poke()

    @property
    def is_left(self) -> bool:
        """Whether nobody waits for it."""
        return self._left is not None

    def come_back(self) -> None:
        """Somebody waits for it again; if it is too late, the call has been cancelled."""
        with self._lock:
            self._left = None

    def check(self) -> None:
        """Raises what ended the call, if something has.

        Raises:
            Cancelled: `cancel()` was called.
            ClockExpired: A limit has run out.
        """
        if self._deadline is _NEVER and monotonic() >= self._total_at:
            self.expired = self.expired or "total"
        if error := self.reason():
            raise error

    def reason(self) -> LLMBridgeError | None:
        """What ended the call, or None while nothing has."""
        if self.cancelled:
            if self._left_behind:
                return TransportError("this answer is the parent process's: a forked child would take pieces from it")
            return Cancelled("the call was cancelled")
        if self.expired is None:
            return None
        limit = getattr(self._timeout, self.expired)
        return ClockExpired(f"{_EXPIRED[self.expired]} within {limit:g} s", clock=self.expired)

    @property
    def left(self) -> float:
        """Seconds until the total limit; infinite without one."""
        return self._total_at - monotonic()

    def leaves(self, seconds: float) -> bool:
        """Whether that much of the total limit is left."""
        return seconds < self.left

    def rest(self, seconds: float | None) -> None:
        """Waits that long (None: without end), or until somebody calls `wake`, or the call ends."""
        self._woken.wait(seconds)

    def only_total_runs(self) -> None:
        """What the call waits for now is not the service: the total limit alone counts."""
        self._clock = "total"
        self._expect(self._total_at)

    def wake(self) -> None:
        """Ends a `rest`, from any thread."""
        self._woken.set()
        if (listener := self._listener) is not None:
            listener()

    def listen(self, listener: Callable[[], object] | None) -> None:
        """Has a function called in place of a `rest`: whenever that would end, at once if it would not begin.

        Args:
            listener: Called from any thread, so it may do no more than set a flag; None for no more calls.
        """
        self._listener = listener
        if listener is not None and self._woken.is_set:
            self._woken.clear()
            listener()

    # -- the socket --------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Ends the call from any thread; whoever is blocked in it wakes at once."""
        self.cancelled = True
        self._wake()

    def leave_behind(self) -> None:
        """Leaves the answer to the parent, in a forked child: of what comes, each byte reaches one of the two only."""
        self._lock = threading.RLock()  # a thread that is not here may have held the other one
        self._left_behind = self.cancelled = True

    def attach(self, sock: Any) -> None:
        """This socket serves the call from now on. One that comes too late is shut down at once."""
        while sock is not None and not isinstance(sock, socket.socket):
            sock = getattr(sock, "socket", None)  # TLS within TLS wraps the socket of the proxy
        with self._lock:
            self._socket = sock
            self._held = sock
            self._drop_guard()
        if self.cancelled or self.expired is not None:
            self._wake()

    def adopt(self, sock: Any) -> None:
        """Like `attach`, for a connection that did not report by itself."""
        if self._socket is None:
            self.attach(sock)

    def let_go(self) -> None:
        """The connection was closed, or belongs to others from now on."""
        self._held = None

    def ends_within(self, seconds: float) -> None:
        """Lets everything that is still to be read of this answer take no longer than that."""
        self._ends_at = monotonic() + seconds
        self._expect(min(self._total_at, self._ends_at))

    def renew(self) -> None:
        """Another attempt may be made after one that took too long, as long as the total limit lasts."""
        with self._lock:
            if self.expired != "total":
                self.expired = None
                self._woken.clear()

    @property
    def connect_limit(self) -> float | None:
        """Seconds that connecting may take."""
        return self._timeout.connect

    def socket_timeouts(self) -> tuple[float | None, float | None]:
        """Limits for a connection and for a read, in the way of requests."""
        limits = [at for at in (self._timeout.first_content, self._timeout.total) if at is not None]
        return self._timeout.connect, min(limits, default=None)

    def guard(self, sock: socket.socket) -> None:
        """Like `attach` for a socket about to be wrapped for TLS, which would leave this one without its file."""
        with self._lock:
            self._guard = sock.dup()

    def detach(self, abort: bool = False) -> bool:
        """The socket is no longer the call's. True if nobody had shut it down, so that it may serve others.

        Args:
            abort: Let its closing reset the connection. A server that waits for room to send into would not see the
                plain end of a client that has emptied its buffers but announced no room any more, for up to a minute.
        """
        with self._lock:
            if abort and self._socket is not None and self._pid == os.getpid():
                with contextlib.suppress(OSError):  # it is closed already
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTIVE)
            self._socket = None
            self._drop_guard()
            return not (self.cancelled or self.expired is not None)

    def end(self) -> None:
        """The call is over: no clock runs any more, and what a Ctrl-C has kept from being given back is closed."""
        self._left = self._listener = None
        self.detach()
        held, self._held = self._held, None
        if held is not None and held.fileno() >= 0:
            with contextlib.suppress(OSError):
                socket.close(held.detach())  # its own `close` would wait for that of the answer's file
        _watchdog.forget(self)

    def _drop_guard(self) -> None:
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def _wake(self) -> None:
        self.wake()
        if self._pid != os.getpid():
            return  # a forked child shares the parent's connection, and may close but not end it
        with self._lock:
            for sock in (self._socket, self._guard):
                if sock is None:
                    continue
                try:
                    # Not SSLSocket.shutdown: it takes the TLS layer away, and the reader would get cipher text.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except OSError:
                    continue  # not connected (any more): then nobody is blocked in it

    def run(self, function: Callable[[], T]) -> T:
        """The result of a function that cannot be interrupted, as a name lookup, unless the call ends before.

        Raises:
            Cancelled, ClockExpired: It has; the function's thread is left to itself.
            TransportError: The system gives no thread.
            BaseException: The function's own.
        """
        results: list[T] = []
        failures: list[BaseException] = []

        def target() -> None:
            try:
                results.append(function())
            except BaseException as error:  # noqa: BLE001 - carried over to the thread that waits
                failures.append(error)
            self._woken.set()

        try:
            threading.Thread(target=target, name="llmbridge-lookup", daemon=True).start()
        except RuntimeError as error:
            raise TransportError(f"no thread can be started for a step of the call that blocks: {error}") from None
        while not (results or failures):
            self._woken.wait(None)
            self.check()
        if failures:
            raise failures.pop()  # no frame keeps it, or it would keep the frame
        return results[0]

    def search(self, function: Callable[[], T], stop: Callable[[], None]) -> T:
        """The result of a function that asks others before the request can be made; the total limit alone counts.

        Args:
            function: Runs in a thread.
            stop: Ends it, if the call ends before; called by this thread.

        Raises:
            Cancelled, ClockExpired: The call has ended.
            TransportError: The system gives no thread.
            Exception: The function's own.
        """
        self.only_total_runs()
        self.check()
        try:
            return self.run(function)
        except BaseException:
            stop()
            raise


_EXPIRED: dict[Clock, str] = {
    "connect": "no connection was made",
    "first_content": "the service sent no content",
    "idle": "the stream stalled: no further content came",
    "total": "the call did not end",
}


class Expiring(Protocol):
    """What the watchdog looks after: a call, or connections that are kept for a while."""

    @property
    def deadline(self) -> float:
        """The `time.monotonic()` at which it is to expire, as far as that is known."""

    def expire(self, now: float) -> None:
        """Ends what has to end by `now`; also called before the deadline, when another one's has come."""


class _Watchdog:
    """Expires calls, with one thread that sleeps until the earliest deadline it has seen.

    The clocks of the whole process hang on it: an error in here is logged, the first time, and the thread goes on.
    """

    def __init__(self) -> None:
        self.wakes_at = _NEVER
        self._calls: set[Expiring] = set()
        self._starting = threading.RLock()  # reentrant: a signal handler inside may begin another call
        self._poked = Signal()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._failed = False

    def watch(self, call: Expiring) -> None:
        self._calls.add(call)
        if not self._runs:
            with self._starting:
                if not self._runs:
                    self._thread = self._started()

    @property
    def _runs(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _started(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="llmbridge-watchdog", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise TransportError(f"no thread can be started to watch over the call's time limits: {error}") from None
        return thread

    def forget(self, call: Expiring) -> None:
        self._calls.discard(call)  # without the lock: a garbage collection may come here from anywhere

    def calls(self) -> list[Call]:
        """Those that are under way."""
        return [call for call in list(self._calls) if isinstance(call, Call)]

    def poke(self) -> None:
        self._poked.set()

    def stop(self) -> None:
        """Ends the thread, so that the interpreter's exit does not freeze it inside a call's lock."""
        self._stopped = True
        self.poke()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout=1)
        self._stopped = False

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._look()
            except BaseException as error:  # noqa: BLE001 - see the class
                self._went_wrong(error)
                sleep(_PAUSE)

    def _look(self) -> None:
        """Sleeps until a deadline, and expires the calls whose time is over."""
        self.wakes_at = _NEVER  # first, so that a deadline set from here on pokes, and none is overlooked
        self.wakes_at = min((call.deadline for call in list(self._calls)), default=_NEVER)
        wait = self.wakes_at - monotonic()
        if wait > 0 and not self._stopped:
            self._poked.wait(None if wait == _NEVER else wait)
        now, failure = monotonic(), None
        for call in list(self._calls):
            try:
                call.expire(now)
            except BaseException as error:  # noqa: BLE001 - raised once the other calls are looked after
                failure = error
        if failure is not None:
            raise failure

    def _went_wrong(self, error: BaseException) -> None:
        if self._failed:
            return
        self._failed = True
        with contextlib.suppress(Exception):  # a logging handler of the application's
            _log.warning(
                "%s%s in the thread that watches the time limits: it goes on, and calls may time out a little late",
                type(error).__name__,
                place_of(error),
            )


_watchdog = _Watchdog()


def watch(expiring: Expiring) -> None:
    """Has it expire at its deadline. May be repeated."""
    _watchdog.watch(expiring)
    if expiring.deadline < _watchdog.wakes_at:
        _watchdog.poke()


def unwatch(expiring: Expiring) -> None:
    """Lets it be."""
    _watchdog.forget(expiring)


@atexit.register
def _at_exit() -> None:
    _watchdog.stop()


def _after_fork() -> None:
    """Threads do not survive a fork, and a lock may have been held by one of them."""
    global _watchdog
    calls, _watchdog = _watchdog.calls(), _Watchdog()
    for call in calls:
        call.leave_behind()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


_local = threading.local()


def current_call() -> Call | None:
    """The call that the present thread is serving: a new connection learns from it whom to report to."""
    return getattr(_local, "call", None)


class serving:  # noqa: N801 - reads as a word of the with statement
    """`with serving(call):` the connections used by this thread are the call's."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> Call:
        _local.call = self._call
        return self._call

    def __exit__(self, *_: object) -> None:
        _local.call = None
