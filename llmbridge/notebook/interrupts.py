"""A notebook's stop button: it ends every call of the running cell within a moment.

ipykernel turns the interrupt of an `await` into a callback of the event loop, but does not wake the loop: one that
waits for a silent model would notice only when the next piece comes (github.com/ipython/ipykernel/issues/881). And an
interrupt reaches only the main thread: calls in a thread pool go on, and the pool's `with` block waits for them.

So while a cell runs, a handler of ours wraps the kernel's handler of SIGINT. It wakes the loop, and cancels the answers
that other threads began to read in this cell. Until the signal comes nothing runs: no thread, no timer.
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
    from llmbridge.many.run import Run

__all__ = ["install"]


class _Cell:
    """The running cell: the answers it has begun to read, and the threads that were alive when it was stopped."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._readings: dict[weakref.ref[Reading], int] = {}  # and the threads that read them
        self._runs: weakref.WeakSet[Run] = weakref.WeakSet()
        self._stopped: list[Reading] = []
        self._before: Any = None
        self._custom: tuple[Any, Any] | None = None
        self._ended: set[threading.Thread] = set()

    def begin(self, *_: object) -> None:
        """A cell is about to run, and the kernel has set its handler."""
        self._readings = {}
        self._runs.clear()
        self._ended.clear()
        if threading.current_thread() is not threading.main_thread():
            return  # a subshell: no signal reaches it
        before = signal.getsignal(signal.SIGINT)
        if callable(before) and before != self._interrupt:
            self._before = before
            signal.signal(signal.SIGINT, self._interrupt)

    def end(self, *_: object) -> None:
        """The cell is over."""
        self._ended.clear()
        self._stopped.clear()
        if self._custom is not None:
            (self._shell.custom_exceptions, self._shell.CustomTB), self._custom = self._custom, None
        if self._before is not None:
            before, self._before = self._before, None
            main = threading.current_thread() is threading.main_thread()
            if main and signal.getsignal(signal.SIGINT) == self._interrupt:
                signal.signal(signal.SIGINT, before)

    def begins(self, begun: Any) -> None:
        """An answer begins, or a run of `map`, which has no source that ends it."""
        if hasattr(begun, "source"):
            self.reads(begun)
        else:
            self._runs.add(begun)

    def reads(self, reading: Reading) -> None:
        """A thread begins to read an answer."""
        if threading.current_thread() in self._ended:
            reading.source.cancel()
        readings = self._readings  # changed in single steps, since a signal may come at any moment
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
            for run in list(self._runs):
                run.cancel()
            for reading, thread in readers:
                if thread != threading.get_ident():
                    reading.source.cancel()
            with contextlib.suppress(RuntimeError):  # the main thread is in no event loop
                asyncio.get_running_loop().call_soon_threadsafe(_nothing)

    def _show_interrupt(self) -> None:
        """Lets `_shown` show the interrupt, whichever exception it becomes until the cell ends."""
        if self._custom is None and not self._shell.custom_exceptions:
            self._custom = self._shell.custom_exceptions, self._shell.CustomTB
            self._shell.set_custom_exc((KeyboardInterrupt, asyncio.CancelledError), self._shown)

    def _shown(self, shell: Any, kind: type, error: Any, trace: Any, tb_offset: int | None = None) -> list[str]:
        """A few lines if an answer was stopped; otherwise IPython's traceback, without the frame of `_interrupt`."""
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
    """For an event loop that only has to wake up."""


def install() -> Callable[[Any], object] | None:
    """Makes the stop button end calls; to be called once, if ipykernel is loaded.

    Returns:
        A function to call with each `Reading` and each `Run` that begins; None if this process is not a kernel.
    """
    shell = kernel_shell()
    if shell is None:
        return None
    cell = _Cell(shell)
    shell.events.register("pre_run_cell", cell.begin)
    shell.events.register("post_run_cell", cell.end)
    cell.begin()  # this import happens in one
    return cell.begins
