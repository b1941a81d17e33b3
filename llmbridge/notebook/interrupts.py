"""The stop button of a notebook: what it finds running ends within a moment, wherever it runs.

ipykernel turns the interrupt of an `await` into a callback of the event loop, and does not wake the loop for it: a loop
that waits for a silent model would not notice before the next piece comes. And an interrupt reaches the main thread
alone: calls in the threads of a pool would go on, and the block of the pool waits for them.

So while a cell runs, its signal handler has one of ours around it, which wakes the loop, and cancels the answers that
other threads have begun to read in this cell. Nothing runs, and no timer ticks, until the signal comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmbridge.notebook.live import kernel_shell

if TYPE_CHECKING:
    from types import FrameType

    from llmbridge._call.reading import Reading

__all__ = ["install"]


class _Cell:
    """The cell that runs: which answers it has begun to read, and which threads were at it when it was stopped."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._readings: dict[weakref.ref[Reading], int] = {}  # and the threads that read them
        self._stopped: list[Reading] = []
        self._before: Any = None
        self._custom: tuple[Any, Any] | None = None
        self._ended: set[threading.Thread] = set()

    def begin(self, *_: object) -> None:
        """A cell is about to run: its handler of SIGINT stands."""
        self._readings = {}
        self._ended.clear()
        if threading.current_thread() is not threading.main_thread():
            return  # of a subshell, which no signal reaches
        before = signal.getsignal(signal.SIGINT)
        if callable(before) and before != self._interrupt:
            self._before = before
            signal.signal(signal.SIGINT, self._interrupt)

    def end(self, *_: object) -> None:
        """It is over."""
        self._ended.clear()
        self._stopped.clear()
        if self._custom is not None:
            (self._shell.custom_exceptions, self._shell.CustomTB), self._custom = self._custom, None
        if self._before is not None:
            before, self._before = self._before, None
            if threading.current_thread() is threading.main_thread() and self._stands:
                signal.signal(signal.SIGINT, before)

    @property
    def _stands(self) -> bool:
        return signal.getsignal(signal.SIGINT) == self._interrupt

    def reads(self, reading: Reading) -> None:
        """Somebody begins to read an answer."""
        if threading.current_thread() in self._ended:
            reading.source.cancel()
        readings = self._readings  # each change of it is one step: a signal may come in between
        readings[weakref.ref(reading, lambda gone: readings.pop(gone, None))] = threading.get_ident()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        known = [(known(), thread) for known, thread in list(self._readings.items())]
        readers = [(reading, thread) for reading, thread in known if reading is not None and not reading.over]
        stopped = [reading for reading, _ in readers]
        if stopped:
            self._stopped = stopped
            self._ended.update(threading.enumerate())
            self._ended.discard(threading.main_thread())
        self._show_interrupt()
        try:
            self._before(number, frame)
        finally:
            for reading, thread in readers:
                if thread != threading.get_ident():
                    reading.source.cancel()
            with contextlib.suppress(RuntimeError):  # the main thread is in no event loop
                asyncio.get_running_loop().call_soon_threadsafe(_nothing)

    def _show_interrupt(self) -> None:
        """Has the interrupt shown in our way, whichever exception it becomes until the cell ends."""
        if self._custom is None and not self._shell.custom_exceptions:
            self._custom = self._shell.custom_exceptions, self._shell.CustomTB
            self._shell.set_custom_exc((KeyboardInterrupt, asyncio.CancelledError), self._shown)

    def _shown(self, shell: Any, kind: type, error: Any, trace: Any, tb_offset: int | None = None) -> list[str]:
        """In a few lines where it has stopped an answer; else as ever, without the frame of `_interrupt`."""
        from llmbridge.notebook.tracebacks import brief, without_frame

        stopped = self._stopped
        if not stopped:
            shown = without_frame(trace, self._interrupt.__code__)
            shell.showtraceback((kind, error.with_traceback(shown), shown), tb_offset=tb_offset)
            return []
        models = ", ".join(sorted({f"{r.source.current.provider}:{r.source.current.model}" for r in stopped}))
        answers = "this answer" if len(stopped) == 1 else f"{len(stopped):,} answers"
        said = str(stopped[0].text) if len(stopped) == 1 else ""
        error._render_traceback_ = lambda: brief(error, [f"stopped {answers} of {models}"], said)
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
        return []


def _nothing() -> None:
    """Called by an event loop that was woken for other reasons."""


def install() -> Callable[[Reading], object] | None:
    """Has the stop button end what it finds; to be called once, where ipykernel is loaded.

    Returns:
        To be told of each answer that somebody begins to read; None if this is no kernel.
    """
    shell = kernel_shell()
    if shell is None:
        return None
    cell = _Cell(shell)
    shell.events.register("pre_run_cell", cell.begin)
    shell.events.register("post_run_cell", cell.end)
    cell.begin()  # the import is part of one
    return cell.reads
