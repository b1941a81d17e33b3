"""Locks that survive forks and signals, a flag that any code may set while a thread waits for it, and a clock."""

from __future__ import annotations

import _imp
import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from time import sleep
from types import FrameType
from typing import Any

__all__ = ["Signal", "imports_may_go_on", "keep_lock_free", "monotonic", "wait_for_imports"]

# A partial, which freezegun does not find: with a frozen clock, waits and timeouts would never end.
monotonic: Callable[[], float] = partial(getattr(sys.modules.get("freezegun.api"), "real_monotonic", time.monotonic))
"""`time.monotonic`, even if a test has frozen it."""

_LONGEST_IMPORT = 10.0  # seconds
_LOOKS = 0.001  # seconds between two checks

_owners: weakref.WeakSet[Any] = weakref.WeakSet()


def keep_lock_free(owner: Any) -> None:
    """Gives `owner._lock` a new lock now, and another one in every child process.

    Another thread of the parent may hold the old one during the fork, and does not exist in the child.
    """
    owner._lock = threading.Lock()
    _owners.add(owner)


def _after_fork() -> None:
    for owner in list(_owners):
        owner._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


_forking: int | None = None  # the thread that keeps others from beginning an import


def wait_for_imports() -> None:
    """Waits for the imports that llmbridge has begun in other threads, and holds back new ones, during a fork.

    A module that is being imported has a lock. Its thread does not exist in the child, where the first call would wait
    for that lock forever. Call `imports_may_go_on` afterwards, in the parent and in the child.
    """
    global _forking
    end = monotonic() + _LONGEST_IMPORT
    with _without_logs_lock():
        while True:
            _imp.acquire_lock()  # each import takes it for a moment, before it locks its module
            if monotonic() >= end or not any(map(_imports, _others())):
                break
            _imp.release_lock()
            sleep(_LOOKS)
    _forking = threading.get_ident()


def imports_may_go_on() -> None:
    """Ends `wait_for_imports` after the fork."""
    global _forking
    if _forking == threading.get_ident():
        _forking = None
        _imp.release_lock()


def _others() -> list[FrameType]:
    """The current frames of the other threads."""
    return [frame for thread, frame in sys._current_frames().items() if thread != threading.get_ident()]


def _imports(frame: FrameType | None) -> bool:
    """Whether a thread imports llmbridge, or a module that llmbridge has begun to import, even indirectly."""
    importing = False
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            importing = True
            if frame.f_code.co_name == "_find_and_load" and _is_ours(frame.f_locals.get("name")):
                return True
        elif importing and _is_ours(frame.f_globals.get("__name__")):
            return True
        frame = frame.f_back
    return False


def _is_ours(module: Any) -> bool:
    return str(module).partition(".")[0] == "llmbridge"


@contextlib.contextmanager
def _without_logs_lock() -> Iterator[None]:
    """Releases the lock that logging takes for a fork: the modules being imported need it for their loggers.

    If logging itself is imported meanwhile, its lock is taken in its place: it releases the lock after the fork.
    """
    before = _logs_lock()
    owned = before is not None and before._is_owned()
    took_part = hasattr(sys.modules.get("logging"), "LogRecord")  # defined after logging's fork hooks are registered
    if owned:
        before.release()
    try:
        yield
    finally:
        if owned or not (took_part or _logs_lock() is None):
            _logs_lock().acquire()


def _logs_lock() -> Any:
    return getattr(sys.modules.get("logging"), "_lock", None)


class Signal:
    """A flag to wait for. One thread waits for it; any code may set it, even inside that thread's own `wait`.

    An Event or a Condition would fail: they are written in Python around a lock, so that a Ctrl-C between two of
    their lines leaves the lock taken forever, and setting one inside its own `wait` blocks.
    Example:
        >>> signal = Signal()
        >>> signal.set()
        >>> signal.wait(None)
        >>> signal.is_set
        False
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    @property
    def is_set(self) -> bool:
        """Whether the next `wait` would return at once."""
        return not self._lock.locked()

    def set(self) -> None:
        """Wakes the thread that waits, or lets the next `wait` return at once."""
        with contextlib.suppress(RuntimeError):  # it is already set
            self._lock.release()

    def clear(self) -> None:
        """Resets it."""
        self._lock.acquire(blocking=False)

    def wait(self, seconds: float | None) -> None:
        """Waits until it is set, at most that long, and resets it."""

        self._lock.acquire(timeout=-1 if seconds is None else min(max(0.0, seconds), threading.TIMEOUT_MAX))
