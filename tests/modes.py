"""One way to read a stream for each kind of user (a plain loop, asyncio, trio): a test written with it runs in all."""

# ruff: noqa: D102 - Mode documents the methods
from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from llmbridge import ChatStream, Completion, LLMBridgeError


@dataclass(frozen=True)
class Outcome:
    """What a loop over a stream got: the pieces, and the error after them."""

    pieces: list[Any]
    error: LLMBridgeError | None


class Mode(ABC):
    """A kind of user. `source` is anything that can be iterated; each call is a program of its own (an event loop)."""

    @abstractmethod
    def each(self, source: Any, body: Callable[[Any], object]) -> None:
        """`for piece in source: body(piece)`; a true result breaks the loop."""

    @abstractmethod
    def each_within(self, stream: ChatStream, body: Callable[[Any], object]) -> Any:
        """The same inside `with stream:`; returns the iterator, so that only `with` has closed it."""

    @abstractmethod
    def complete(self, stream: ChatStream) -> Completion:
        """The whole answer."""

    @abstractmethod
    def in_turn(self, sources: Sequence[Any]) -> list[list[Any]]:
        """The pieces of each, read one after the other in one program."""

    @abstractmethod
    def at_once(self, sources: Sequence[Any]) -> list[list[Any]]:
        """The pieces of each, read at the same time."""

    @abstractmethod
    def of_class(self, provider: Any, **options: Any) -> Any:
        """The source that a provider class gives to this kind of user."""

    def read(self, source: Any) -> Outcome:
        """All pieces, and the error after them."""
        pieces: list[Any] = []
        try:
            self.each(source, pieces.append)
        except LLMBridgeError as error:
            return Outcome(pieces, error)
        return Outcome(pieces, None)


class Sync(Mode):
    """A script."""

    def each(self, source: Any, body: Callable[[Any], object]) -> None:
        for piece in source:
            if body(piece):
                break

    def each_within(self, stream: ChatStream, body: Callable[[Any], object]) -> Any:
        with stream as same:
            assert same is stream
            pieces = iter(stream)
            self.each(pieces, body)
        return pieces

    def complete(self, stream: ChatStream) -> Completion:
        return stream.complete()

    def in_turn(self, sources: Sequence[Any]) -> list[list[Any]]:
        return [list(source) for source in sources]

    def at_once(self, sources: Sequence[Any]) -> list[list[Any]]:
        found: list[list[Any]] = [[] for _ in sources]
        threads = [
            threading.Thread(target=lambda source=source, into=into: into.extend(source))
            for source, into in zip(sources, found, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return found

    def of_class(self, provider: Any, **options: Any) -> Any:
        return provider.create_completion("m", "Hi", **options)


class Async(Mode):
    """An app with an event loop."""

    @abstractmethod
    def run(self, main: Callable[[], Any]) -> Any:
        """The result of a coroutine function in a new event loop."""

    def each(self, source: Any, body: Callable[[Any], object]) -> None:
        self.run(lambda: _each(source, body))

    def each_within(self, stream: ChatStream, body: Callable[[Any], object]) -> Any:
        async def main() -> Any:
            async with stream as same:
                assert same is stream
                pieces = stream.__aiter__()
                await _each(pieces, body)
            return pieces

        return self.run(main)

    def complete(self, stream: ChatStream) -> Completion:
        async def main() -> Completion:
            return await stream

        result: Completion = self.run(main)
        return result

    def in_turn(self, sources: Sequence[Any]) -> list[list[Any]]:
        async def main() -> list[list[Any]]:
            return [await _all(source) for source in sources]

        result: list[list[Any]] = self.run(main)
        return result

    def of_class(self, provider: Any, **options: Any) -> Any:
        return provider.create_async_generator("m", "Hi", **options)


class Asyncio(Async):
    """An asyncio app."""

    def run(self, main: Callable[[], Any]) -> Any:
        return asyncio.run(main())

    def at_once(self, sources: Sequence[Any]) -> list[list[Any]]:
        async def main() -> list[list[Any]]:
            return await asyncio.gather(*map(_all, sources))

        result: list[list[Any]] = self.run(main)
        return result


class Trio(Async):
    """A trio app."""

    def run(self, main: Callable[[], Any]) -> Any:
        return pytest.importorskip("trio").run(main)

    def at_once(self, sources: Sequence[Any]) -> list[list[Any]]:
        trio = pytest.importorskip("trio")
        found: list[list[Any]] = [[] for _ in sources]

        async def into(index: int) -> None:
            found[index] = await _all(sources[index])

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                for index in range(len(sources)):
                    nursery.start_soon(into, index)

        self.run(main)
        return found


async def _each(source: Any, body: Callable[[Any], object]) -> None:
    async for piece in source:
        if body(piece):
            break


async def _all(source: Any) -> list[Any]:
    return [piece async for piece in source]


MODES: dict[str, Mode] = {"sync": Sync(), "asyncio": Asyncio(), "trio": Trio()}
LOOPS: dict[str, Async] = {name: mode for name, mode in MODES.items() if isinstance(mode, Async)}
