"""Locks that survive a fork: another thread of the parent may hold one at that moment, and is not in the child."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

__all__ = ["keep_lock_free"]

_owners: weakref.WeakSet[Any] = weakref.WeakSet()


def keep_lock_free(owner: Any) -> None:
    """Gives `owner._lock` a new lock now, and another one in every child process."""
    owner._lock = threading.Lock()
    _owners.add(owner)


def _after_fork() -> None:
    for owner in list(_owners):
        owner._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
