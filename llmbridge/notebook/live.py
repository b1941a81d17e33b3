"""Shows an answer live in a cell: one display, repainted at most ten times a second.

A thread of its own repaints. So the reading loop does nothing else, and the last piece appears within a moment even if
the model then falls silent, or a tool takes its time.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from llmbridge.notebook.markdown import small
from llmbridge.notebook.views import of_stream

if TYPE_CHECKING:
    from llmbridge.completion import Completion
    from llmbridge.messages import Parsed
    from llmbridge.stream import ChatStream

__all__ = ["display", "is_shown", "kernel_shell", "line_painter", "painter", "show", "show_async"]

_REPAINT_SECONDS = 0.1  # between two repaints, at least
_MOST_SECONDS = 1.0
_SECONDS_FOR_CHARACTER = 4e-5  # on top: each repaint sends and lays out the whole answer
Paint = Callable[[dict[str, Any]], object]


def show(stream: ChatStream[Parsed]) -> Completion[Parsed]:
    """See `ChatStream.show`."""
    with _Live(stream) as live:
        if not stream._reading.done:
            for event in stream if stream._reading.taken else stream.events():
                live.changed(event)
        answer = stream.complete()
        live.answer = answer
    return answer


async def show_async(stream: ChatStream[Parsed]) -> Completion[Parsed]:
    """See `ChatStream.show_async`."""
    with _Live(stream) as live:
        if not stream._reading.done:
            async for event in stream.events():
                live.changed(event)
        answer = await stream.acomplete()
        live.answer = answer
    return answer


def display(stream: ChatStream[Any]) -> None:
    """Shows a stream that is the last value of a cell: its answer, or what came so far if it is read elsewhere."""
    if stream._reading.taken and not stream._reading.done:
        paint = painter()
        if paint is not None:
            paint(of_stream(stream))
        else:
            _print(f"{stream!r}\n")
        return
    try:
        show(stream)
    except Exception:
        shell = kernel_shell()
        if shell is None:
            raise
        shell.showtraceback()  # as IPython would, which would then go on to show the stream as well


def is_shown(answer: Completion[Any]) -> bool:
    """Whether this cell has just shown the answer: as the cell's last value it is not shown again."""
    shell = kernel_shell()
    shown, _shown[:] = [*_shown], []
    return shell is not None and any(one is answer and count == shell.execution_count for one, count in shown)


_shown: list[tuple[Completion[Any], int]] = []


class _Live:
    """The display of an answer, from start to end."""

    def __init__(self, stream: ChatStream[Any]) -> None:
        self._stream = stream
        self._paint = painter()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._dirty = self._printed = False
        self._began = time.monotonic()
        self.answer: Completion[Any] | None = None

    def changed(self, event: object) -> None:
        """An event or piece has come."""
        self._dirty = True
        if self._paint is None and (isinstance(event, str) or type(event).__name__ in ("Text", "Refusal")):
            self._printed = True
            _print(str(event))

    def __enter__(self) -> _Live:
        if self._paint is not None:
            self._paint(of_stream(self._stream, "waiting …"))
            kind: Any = threading.Thread if kernel_shell() is not None else sys.modules["marimo"].Thread
            self._thread = kind(  # with the context, which knows to which cell the display belongs
                target=copy_context().run, args=(self._repaint, self._paint), name="llmbridge-display", daemon=True
            )
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._over.set()
        if self._paint is None:
            if self.answer is not None:
                _print("\n" if self._printed else f"{self.answer.text}\n")
            return
        if self._thread is not None:
            self._thread.join()
        if self.answer is not None:
            self._paint(self.answer._repr_mimebundle_())
            if (shell := kernel_shell()) is not None:
                _shown[:] = [(self.answer, shell.execution_count)]
        else:
            if error is not None:
                error.__dict__["_llmbridge_on_screen"] = True  # so the traceback need not repeat the text
            how = "interrupted" if kind is not None and not issubclass(kind, Exception) else "broken off"
            self._paint(of_stream(self._stream, f"{how} after {time.monotonic() - self._began:.1f} s"))

    def _repaint(self, paint: Paint) -> None:
        pause = _REPAINT_SECONDS
        while not self._over.wait(pause):
            if self._dirty:
                self._dirty = False
                took = f"{time.monotonic() - self._began:.1f} s …"
                try:
                    shown = of_stream(self._stream, took, images=False)
                except RuntimeError:  # the answer grew meanwhile
                    self._dirty = True
                    continue
                paint(shown)
                pause = min(_MOST_SECONDS, _REPAINT_SECONDS + _SECONDS_FOR_CHARACTER * len(shown["text/markdown"]))


def kernel_shell() -> Any:
    """The shell of this process if it is a Jupyter kernel, else None."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = get_ipython() if get_ipython is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


def painter() -> Paint | None:
    """A function that puts a MIME bundle into the cell's output, each time in the same place; None without a cell."""
    shell = kernel_shell()
    if shell is not None:
        return _in_kernel(shell)
    marimo = sys.modules.get("marimo")
    if marimo is not None and marimo.running_in_notebook():
        return _in_marimo(marimo)
    return None


def line_painter() -> Callable[[object], object] | None:
    """A function that shows an object as a line of text, each time in the same place; None outside of a kernel."""
    shell = kernel_shell()
    if shell is None:
        return None
    paint = _in_kernel(shell)
    return lambda shown: paint({"text/plain": str(shown), "text/markdown": small(str(shown))})


def _in_kernel(shell: Any) -> Paint:
    transient = {"display_id": uuid.uuid4().hex}
    painted = False

    def paint(shown: dict[str, Any]) -> None:
        nonlocal painted
        shell.display_pub.publish(shown, {}, transient=transient, update=painted)
        painted = True

    return paint


def _in_marimo(marimo: Any) -> Paint:
    def paint(shown: dict[str, Any]) -> None:
        marimo.output.replace(marimo.md(shown["text/markdown"]))

    return paint


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
