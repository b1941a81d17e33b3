"""One call while it runs: its timeouts, and the way to wake a thread that is blocked in it.

A blocking read can be interrupted only through its socket. So a call knows the socket that serves it, and
`Call.cancel()` or the watchdog (one daemon thread per process, asleep until the earliest deadline of all calls) shuts
that socket down: the reader wakes within a millisecond, asks the call for the reason, and closes what it holds. Socket
timeouts are not used: they restart with every byte, and cost a system call each.
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
from time import sleep
from typing import Any, Literal, Protocol, TypeVar

from llmbridge._locks import Signal, monotonic
from llmbridge.errors import Cancelled, Clock, ClockExpired, LLMBridgeError, TransportError, place_of
from llmbridge.options import Timeout

__all__ = ["Call", "WouldWait", "current_call", "serving", "unwatch", "watch"]

T = TypeVar("T")
Step = Literal["reach", "proxy", "tls"]
"""The current step of connecting: to an address, through the proxy, or TLS with the service itself."""
_NEVER = float("inf")
_log = logging.getLogger("llmbridge")
_PAUSE = 0.1  # seconds, after an error in the watchdog
_ABORTIVE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # linger for 0 s


class WouldWait(BaseException):
    """Sending at once would have to wait: the attempt is dropped, and does not count. Never leaves the transport."""


class Call:
    """The life of one call, over all its attempts. Other threads may call only `cancel`, `expire` and `wake`.

    Args:
        timeout: The timeouts; the total starts now.
        total_at: When the total timeout expires, as of `time.monotonic()`, if an earlier call has started it.
    """

    def __init__(self, timeout: Timeout, total_at: float | None = None) -> None:
        self._timeout = timeout
        self._pid = os.getpid()
        self._lock = threading.RLock()  # a signal handler may cancel while its own thread is in here
        self._woken = Signal()
        self._socket: socket.socket | None = None
        self._guard: socket.socket | None = None
        self._held: socket.socket | None = None  # `end` closes it, if it is still open
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
        self.reused_connection: bool | None = None  # None: no connection has reported
        self.takes_new = False  # only a new connection may be used
        self.answers_later = False  # an event loop waits for the answer's headers, not a thread
        self.unseen = False  # nothing else gets the response, so that it may be a `Later`
        self.at_once = False  # the event loop sends, and must not wait
        self._listener: Callable[[], object] | None = None
        self._left: tuple[float, Callable[[], object]] | None = None
        _watchdog.watch(self)

    @property
    def connecting(self) -> bool:
        """Whether the current attempt has no connection yet."""
        return self._clock == "connect"

    # -- time --------------------------------------------------------------------------------------------------

    def start(self, clock: Clock) -> None:
        """Starts the timeout `clock`."""
        self._clock, self._since, self._ends_at = clock, None, _NEVER
        self.wait_begins()

    def content(self) -> None:
        """Content has come: the idle timeout applies from the next wait on."""
        self._clock, self._since = "idle", None

    def wait_begins(self) -> None:
        """The reader is about to wait for the server: sets the deadline."""
        if self._since is None:
            self._since = monotonic()
        limit: float | None = getattr(self._timeout, self._clock)
        self._expect(min(self._total_at, self._ends_at, _NEVER if limit is None else self._since + limit))

    def wait_ends(self) -> None:
        """The server has sent something: no deadline while the reader works on it."""
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
        """Ends the call if a timeout has expired by `now`, or if it was left and nobody came back in time."""
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
            self._deadline = now  # the blocked reader has still to be woken
            raise
        if give_up is not None:
            give_up()

    def leave(self, seconds: float, give_up: Callable[[], object]) -> None:
        """Notes that nobody waits for the call any more, and ends it unless `come_back` is called in time.

        Args:
            seconds: How long the call continues without a reader.
            give_up: Called after that, in the watchdog's thread.
        """
        self._left = monotonic() + seconds, give_up
        if self.deadline < _watchdog.wakes_at:
            _watchdog.poke()

    @property
    def is_left(self) -> bool:
        """Whether nobody waits for the call."""
        return self._left is not None

    def come_back(self) -> None:
        """Notes that somebody waits again; if it is too late, the call is cancelled already."""
        with self._lock:
            self._left = None

    def check(self) -> None:
        """Raises the error that ended the call, if it has ended.

        Raises:
            Cancelled: `cancel()` was called.
            ClockExpired: A timeout has expired.
        """
        if self._deadline is _NEVER and monotonic() >= self._total_at:
            self.expired = self.expired or "total"
        if error := self.reason():
            raise error

    def reason(self) -> LLMBridgeError | None:
        """The error that ended the call; None while it runs."""
        if self.cancelled:
            if self._left_behind:
                return TransportError(
                    "this answer belongs to the parent process: make another call in the forked child"
                )
            return Cancelled("the call was cancelled")
        if self.expired is None:
            return None
        limit = getattr(self._timeout, self.expired)
        return ClockExpired(f"{_EXPIRED[self.expired]} within {limit:g} s", clock=self.expired)

    @property
    def left(self) -> float:
        """Seconds until the total timeout; infinite without one."""
        return self._total_at - monotonic()

    def leaves(self, seconds: float) -> bool:
        """Whether the total timeout leaves that many seconds."""
        return seconds < self.left

    def rest(self, seconds: float | None) -> None:
        """Waits that long (None: no limit), or until `wake` is called or the call ends."""
        self._woken.wait(seconds)

    def only_total_runs(self) -> None:
        """Applies only the total timeout: the call now waits for something other than the service."""
        self._clock = "total"
        self._expect(self._total_at)

    def wake(self) -> None:
        """Ends a `rest`, from any thread."""
        self._woken.set()
        if (listener := self._listener) is not None:
            listener()

    def listen(self, listener: Callable[[], object] | None) -> None:
        """Has a function called whenever a `rest` would end; at once if it would end immediately.

        Args:
            listener: Called from any thread, so it should only set a flag; None for no more calls.
        """
        self._listener = listener
        if listener is not None and self._woken.is_set:
            self._woken.clear()
            listener()

    # -- the socket --------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Ends the call from any thread; a reader that is blocked in it wakes at once."""
        self.cancelled = True
        self._wake()

    def leave_behind(self) -> None:
        """In a forked child, leaves the answer to the parent: each byte that arrives reaches only one of the two."""
        self._lock = threading.RLock()  # a thread that does not exist in the child may hold the old one
        self._left_behind = self.cancelled = True

    def attach(self, sock: Any) -> None:
        """Notes the socket that serves the call from now on; if the call has ended, shuts it down at once."""
        while sock is not None and not isinstance(sock, socket.socket):
            sock = getattr(sock, "socket", None)  # TLS within TLS wraps the socket of the proxy
        with self._lock:
            self._socket = sock
            self._held = sock
            self._drop_guard()
        if self.cancelled or self.expired is not None:
            self._wake()

    def adopt(self, sock: Any) -> None:
        """Like `attach`, for a connection that did not report itself."""
        if self._socket is None:
            self.attach(sock)

    def let_go(self) -> None:
        """Notes that the connection was closed, or returned to the pool."""
        self._held = None

    def ends_within(self, seconds: float) -> None:
        """Limits the time for reading the rest of this answer."""
        self._ends_at = monotonic() + seconds
        self._expect(min(self._total_at, self._ends_at))

    def renew(self) -> None:
        """Allows another attempt after one that timed out, unless the total timeout has expired."""
        with self._lock:
            if self.expired != "total":
                self.expired = None
                self._woken.clear()

    @property
    def connect_limit(self) -> float | None:
        """Seconds that connecting may take."""
        return self._timeout.connect

    def socket_timeouts(self) -> tuple[float | None, float | None]:
        """The timeouts for connecting and for a read, as requests takes them."""
        limits = [at for at in (self._timeout.first_content, self._timeout.total) if at is not None]
        return self._timeout.connect, min(limits, default=None)

    def guard(self, sock: socket.socket) -> None:
        """Like `attach`, for a socket that is about to be wrapped for TLS: wrapping detaches its file descriptor."""
        with self._lock:
            self._guard = sock.dup()

    def detach(self, abort: bool = False) -> bool:
        """Gives the socket up. Returns True if it was not shut down, so that it can be reused.

        Args:
            abort: Whether closing resets the connection. A server that is blocked in sending might not notice a plain
                close for up to a minute, if the client last announced that its buffers were full.
        """
        with self._lock:
            if abort and self._socket is not None and self._pid == os.getpid():
                with contextlib.suppress(OSError):  # it is closed already
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTIVE)
            self._socket = None
            self._drop_guard()
            return not (self.cancelled or self.expired is not None)

    def end(self) -> None:
        """Ends the timeouts, and closes a socket that a Ctrl-C has kept from being returned."""
        self._left = self._listener = None
        self.detach()
        held, self._held = self._held, None
        if held is not None and held.fileno() >= 0:
            with contextlib.suppress(OSError):
                socket.close(held.detach())  # its own `close` would wait until the answer's file is closed
        _watchdog.forget(self)

    def _drop_guard(self) -> None:
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def _wake(self) -> None:
        self.wake()
        if self._pid != os.getpid():
            return  # a forked child may close the connection that it shares with the parent, but not shut it down
        with self._lock:
            for sock in (self._socket, self._guard):
                if sock is None:
                    continue
                try:
                    # Not SSLSocket.shutdown: it takes the TLS layer away, and the reader would get cipher text.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except OSError:
                    continue  # not connected (any more): nobody is blocked in it

    def run(self, function: Callable[[], T]) -> T:
        """The result of a function that cannot be interrupted, like a name lookup. It runs in a thread of its own.

        Raises:
            Cancelled, ClockExpired: The call has ended first; the thread is left running.
            TransportError: No thread can be started.
            BaseException: As the function raises.
        """
        results: list[T] = []
        failures: list[BaseException] = []

        def target() -> None:
            try:
                results.append(function())
            except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
                failures.append(error)
            self._woken.set()

        try:
            threading.Thread(target=target, name="llmbridge-lookup", daemon=True).start()
        except RuntimeError as error:
            raise TransportError(f"cannot start a thread for a blocking step of the call: {error}") from None
        while not (results or failures):
            self._woken.wait(None)
            self.check()
        if failures:
            raise failures.pop()  # popped, so that no frame keeps it: the error keeps the frame
        return results[0]

    def search(self, function: Callable[[], T], stop: Callable[[], None]) -> T:
        """The result of a function that runs before the request, like a key function; only the total timeout applies.

        Args:
            function: Runs in a thread.
            stop: Ends it if the call ends first; called in this thread.

        Raises:
            Cancelled, ClockExpired: The call has ended.
            TransportError: No thread can be started.
            Exception: As the function raises.
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
    """Anything that the watchdog ends in time: a call, or connections that are kept for a while."""

    @property
    def deadline(self) -> float:
        """When it expires, as of `time.monotonic()`; infinite if that is not known yet."""

    def expire(self, now: float) -> None:
        """Ends whatever is due by `now`. May be called early, when the deadline of another one has come."""


class _Watchdog:
    """Expires calls, with one thread that sleeps until the earliest deadline it has seen.

    All timeouts of the process depend on it: the first error in here is logged, and the thread goes on.
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
            raise TransportError(f"cannot start the thread that watches the call's timeouts: {error}") from None
        return thread

    def forget(self, call: Expiring) -> None:
        self._calls.discard(call)  # without the lock: a garbage collection may call this at any point

    def calls(self) -> list[Call]:
        """The calls that are under way."""
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
        self.wakes_at = _NEVER  # first, so that a deadline set from here on pokes the thread
        self.wakes_at = min((call.deadline for call in list(self._calls)), default=_NEVER)
        wait = self.wakes_at - monotonic()
        if wait > 0 and not self._stopped:
            self._poked.wait(None if wait == _NEVER else wait)
        now, failure = monotonic(), None
        for call in list(self._calls):
            try:
                call.expire(now)
            except BaseException as error:  # noqa: BLE001 - raised after the other calls
                failure = error
        if failure is not None:
            raise failure

    def _went_wrong(self, error: BaseException) -> None:
        if self._failed:
            return
        self._failed = True
        with contextlib.suppress(Exception):  # raised by a logging handler of the application
            _log.warning(
                "%s%s in the thread that watches the timeouts: it goes on, but calls may time out a little late",
                type(error).__name__,
                place_of(error),
            )


_watchdog = _Watchdog()


def watch(expiring: Expiring) -> None:
    """Has the watchdog expire it at its deadline. May be repeated."""
    _watchdog.watch(expiring)
    if expiring.deadline < _watchdog.wakes_at:
        _watchdog.poke()


def unwatch(expiring: Expiring) -> None:
    """Undoes `watch`."""
    _watchdog.forget(expiring)


@atexit.register
def _at_exit() -> None:
    _watchdog.stop()


def _after_fork() -> None:
    """Starts anew in a forked child: threads do not survive a fork, and one of them may have held a lock."""
    global _watchdog
    calls, _watchdog = _watchdog.calls(), _Watchdog()
    for call in calls:
        call.leave_behind()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


_local = threading.local()


def current_call() -> Call | None:
    """The call that this thread is serving: a new connection reports to it."""
    return getattr(_local, "call", None)


class serving:  # noqa: N801 - reads as a word of the with statement
    """`with serving(call):` lets connections that this thread uses report to the call."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> Call:
        _local.call = self._call
        return self._call

    def __exit__(self, *_: object) -> None:
        _local.call = None
