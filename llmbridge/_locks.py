"""Locks for hard places: one that survives a fork, and a flag that any code may set while a thread waits for it."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import Any

__all__ = ["Signal", "keep_lock_free"]

_owners: weakref.WeakSet[Any] = weakref.WeakSet()


def keep_lock_free(owner: Any) -> None:
    """Gives `owner._lock` a new lock now, and another one in every child process.

    Another thread of the parent may hold the old one at the moment of the fork, and is not in the child.
    """
    owner._lock = threading.Lock()
    _owners.add(owner)


def _after_fork() -> None:
    for owner in list(_owners):
        owner._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Signal:
    """A flag to wait for. One thread waits for it; any code may set it, also inside that thread's own `wait`.

    An Event or a Condition would not do: they are written in Python around a lock, so that a Ctrl-C between two of
    their lines leaves the lock taken for ever, and setting one inside its own `wait` blocks.

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
        """Wakes whoever waits, or the next who does."""
        with contextlib.suppress(RuntimeError):  # it is set already
            self._lock.release()

    def clear(self) -> None:
        """Takes it back."""
        self._lock.acquire(blocking=False)

    def wait(self, seconds: float | None) -> None:
        """Waits until it is set, at most that long, and takes it back."""
        self._lock.acquire(timeout=-1 if seconds is None else min(max(0.0, seconds), threading.TIMEOUT_MAX))
