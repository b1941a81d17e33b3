"""Ctrl-C, timeouts and cancelling at a moment of the test's choice, however slow the machine is."""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from llmbridge._transport import Exchange
from llmbridge._transport.call import Call


def interrupted(function: Callable[[], object], moment: int) -> bool:
    """Runs a function with a Ctrl-C at that moment; whether there was one.

    The moments are those at which the interpreter runs a signal's handler: when a function of Python begins, and when
    one of C has ended. Garbage is not collected meanwhile: a finalizer would take the Ctrl-C, and nobody would get it.
    """
    seen = -1

    def strike(frame: Any, kind: str, _: object) -> None:
        nonlocal seen
        if kind not in ("call", "c_return") or frame.f_code in (interrupted.__code__, strike.__code__):
            return
        seen += 1
        if seen == moment:
            raise KeyboardInterrupt

    before, collecting = sys.getprofile(), gc.isenabled()
    gc.disable()
    sys.setprofile(strike)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(before)
        if collecting:
            gc.enable()
    return False


def when_bytes_come(monkeypatch: pytest.MonkeyPatch, act: Callable[[Call], object]) -> None:
    """Calls a function as soon as bytes of an answer's body were read, before anything is made of them."""
    read = Exchange.read

    def watched(exchange: Exchange) -> bytes | None:
        data = read(exchange)
        if data:
            act(exchange._call)
        return data

    monkeypatch.setattr(Exchange, "read", watched)


def waits_no_more(call: Call) -> None:
    """The next wait for the server ends with a timeout, whichever runs then."""
    call._ends_at = 0.0


def waits_no_more_in_total(call: Call) -> None:
    """The next wait for the server ends with the total timeout."""
    call._total_at = 0.0


async def cancelled_when(happened: Callable[[], object], function: Callable[[], Awaitable[object]]) -> None:
    """Runs an async function, and cancels it once something has happened."""
    async with anyio.create_task_group() as group:
        group.start_soon(function)
        while not happened():  # noqa: ASYNC110 - threads of the server make it happen
            await anyio.sleep(0.005)
        group.cancel_scope.cancel()
