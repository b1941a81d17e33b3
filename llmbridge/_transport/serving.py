"""Which call the present thread is serving."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmbridge._transport.call import Call

__all__ = ["current_call", "serving"]

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
