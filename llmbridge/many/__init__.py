"""Many rows: one question for each item of an input, asked side by side, and resumed where they were stopped.

`Client.map` makes `Rows`, one object for `for`, `async for` and `complete()`::

    row          an item, the question made of it, and what came of it
    asking       how a row is sent: as a chat, or as a text to embed
    run          the threads that read, wait and keep order
    calls        the requests under way, in one thread
    spread       the same, where workers of an executor send
    shard        what a worker does
    engines      the executors there are
    width        how many requests are under way at once
    journal      what a crash must not take
    totals       what has been done so far
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Union

from llmbridge._call.reading import mind_event_loop
from llmbridge._text import shown
from llmbridge.errors import ConfigError, InvalidRequest
from llmbridge.many.asking import Asking, Chats, Embeds
from llmbridge.many.journal import Journal
from llmbridge.many.row import Key, Questions, Row, Template
from llmbridge.many.run import Plan, Run
from llmbridge.many.shard import run_shard
from llmbridge.many.totals import ProgressLike, Totals
from llmbridge.messages import Parsed
from llmbridge.secret import discreet

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from llmbridge.client import Client

__all__ = [
    "ExecutorLike",
    "Inputs",
    "JournalLike",
    "Key",
    "Order",
    "ProgressLike",
    "Row",
    "Rows",
    "Template",
    "Totals",
    "run_shard",
]

Inputs = Union[Iterable[Any], AsyncIterable[Any]]
Order = Literal["input", "done"]
JournalLike = Union[str, "os.PathLike[str]", None]
ExecutorLike = Union["Executor", Any, None]


class Rows(Generic[Parsed]):
    """The rows of an input, for `for` and `async for`; read once. Nothing is read or sent before the first is wanted.

    Leaving the loop early, `cancel()`, Ctrl-C and dropping the iterator end the run within a second: what is under way
    is cancelled, and the journal closed.

    Args:
        client: Asked.
        prompts, prompt, key, order, concurrency, window, journal, attempts, max_errors, progress, embed, executor:
            See `Client.map`.
        options: What `chat` or `embed` takes.

    Raises:
        ConfigError: An argument cannot be used; nothing was read or sent.

    Example:
        >>> from llmbridge import Client
        >>> rows = Client("demo").map(["Hello", "Goodbye"])
        >>> [row.ok for row in rows], rows.totals.done
        ([True, True], 2)
    """

    @discreet
    def __init__(
        self,
        client: Client,
        prompts: Inputs,
        *,
        prompt: Template,
        key: Key,
        order: Order,
        concurrency: int | None,
        window: int | None,
        journal: JournalLike,
        attempts: int,
        max_errors: float | None,
        progress: ProgressLike,
        embed: bool,
        executor: ExecutorLike,
        options: Mapping[str, Any],
    ) -> None:
        if isinstance(prompts, (str, bytes, Mapping)) or not isinstance(prompts, (Iterable, AsyncIterable)):
            raise InvalidRequest(f"map() takes a list or another iterable of prompts, not {shown(prompts)}")
        if order not in ("input", "done"):
            raise ConfigError(f"order must be 'input' or 'done', not {shown(order)}")
        for name, value in (("concurrency", concurrency), ("window", window), ("attempts", attempts)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name} must be a whole number from 1, not {shown(value)}")
        if max_errors is not None and not _is_count_or_share(max_errors):
            raise ConfigError(f"max_errors must be a whole number from 0 or a share like 0.01, not {shown(max_errors)}")
        kind: type[Asking] = Embeds if embed else Chats
        self._asking = kind(client, options)
        limits = client._limits
        self._prompts = prompts
        self._plan = Plan(
            questions=Questions(prompt, key, self._asking.checked, None if journal is None else self._asking.digest),
            in_order=order == "input",
            concurrency=concurrency,
            most=limits.concurrency if limits is not None else None,
            window=window,
            attempts=attempts,
            max_errors=max_errors,
            journal=None if journal is None else os.fspath(journal),
            progress=progress,
        )
        self._spread: Callable[[Iterable[Any]], Run] | None = None
        if executor is not None:
            from llmbridge.many.engines import engine_of
            from llmbridge.many.spread import Spread

            engine = engine_of(executor)
            self._spread = lambda items: Spread(self._asking, items, self._plan, engine, client, options)
        self._run: Run | None = None
        self._cancelled = False

    def __repr__(self) -> str:
        return f"<Rows of {self._asking.settings['model']}: {self.totals}>"

    @property
    def totals(self) -> Totals:
        """What has been done so far, from any thread."""
        return self._run.totals() if self._run is not None else Totals()

    def cancel(self) -> None:
        """Ends the run, from any thread: no more requests are sent, and the loop gets `Cancelled`. May be repeated."""
        self._cancelled = True
        if self._run is not None:
            self._run.cancel()

    def complete(self) -> list[Row[Parsed]]:
        """All rows, once the last is there. In async code, `await` the object for the same.

        Raises:
            LLMBridgeError: As for the loop.
        """
        return list(self)

    def _outlook(self) -> tuple[int, int, int]:
        """Reads the input without sending anything: how many rows there are, how many are done, the others' tokens."""
        found, done, tokens = 0, 0, 0
        path = self._plan.journal
        journal = Journal(path, self._asking.settings) if path is not None and os.path.exists(path) else None
        try:
            assert isinstance(self._prompts, Iterable)
            for index, item in enumerate(self._prompts):
                asked = self._plan.questions.ask(index, item)
                if asked.problem is not None:
                    raise asked.problem
                is_done = journal is not None and journal.found(asked.digest) is not None
                found, done = found + 1, done + is_done
                tokens += 0 if is_done else self._asking.tokens(asked.content)
        finally:
            if journal is not None:
                journal.close()
        return found, done, tokens

    def _begun(self, items: Iterable[Any]) -> Run:
        if self._run is not None:
            raise InvalidRequest("these rows can be read only once: call map() again (a journal keeps what is done)")
        make = self._spread or (lambda items: Run(self._asking, items, self._plan))
        self._run = run = make(items)
        if self._cancelled:
            run.cancel()
        return run

    def __iter__(self) -> Iterator[Row[Parsed]]:
        if not isinstance(self._prompts, Iterable):
            raise InvalidRequest("an async iterable can be read in an event loop only: use `async for`, or `await`")
        mind_event_loop()
        return _each(self._begun(self._prompts))

    def __aiter__(self) -> AsyncIterator[Row[Parsed]]:
        from llmbridge._aio.rows import AsyncRows, InLoop

        items = self._prompts if isinstance(self._prompts, Iterable) else InLoop(self._prompts)
        return AsyncRows(self._begun(items))

    def __await__(self) -> Generator[Any, Any, list[Row[Parsed]]]:
        return self._all().__await__()

    async def _all(self) -> list[Row[Parsed]]:
        return [row async for row in self]

    def __enter__(self) -> Rows[Parsed]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cancelled = True
        if self._run is not None:
            self._run.close()

    async def __aenter__(self) -> Rows[Parsed]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()
        if self._run is not None:
            from llmbridge._aio.threads import in_thread

            await in_thread(self._run.close, self._run.cancel)


def _each(run: Run) -> Iterator[Row[Any]]:
    """The loop alone holds it, so leaving the loop ends the run although the `Rows` live on."""
    try:
        run.start()
        while (row := run.next()) is not None:
            yield row
    finally:
        run.close()


def _is_count_or_share(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return value >= 0 if isinstance(value, int) else 0 < value < 1
