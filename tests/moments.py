"""Ctrl-C at a moment of the test's choice: all of them, one after the other."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any


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
