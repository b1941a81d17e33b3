"""P30: a stream never blocks an event loop, whatever it sends."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from loopback import DONE, FINISH, event, head
from modes import Mode

from llmbridge import Client
from llmbridge.testing import CLOSE, HOLD, LLMServer, Reply

MEBI = 1024 * 1024
FLOODS: dict[str, bytes] = {
    "comments": b": alive\n\n" * (16 * MEBI // 9),
    "lines without a meaning": b"id: 1\n" * (8 * MEBI // 6) + b"\n",
    "events of nothing": b'data: {"choices":[]}\n\n' * (2 * MEBI // 22),
}


def flood(name: str) -> Reply:
    """A piece, very much without content, and another piece."""
    return Reply(raw=[head(), event(text="a"), FLOODS[name], event(text="b"), FINISH, DONE, CLOSE])


def zipped(data: bytes, measured: bool = False) -> Reply:
    """The same, compressed: a few bytes that expand, or members without content; perhaps with a length."""
    body = gzip.compress(event(text="a")) + data + gzip.compress(event(text="b") + FINISH + DONE)
    length = [f"Content-Length: {len(body)}"] if measured else []
    return Reply(raw=[head("Content-Encoding: gzip", *length), body, CLOSE])


REPLIES: dict[str, Callable[[], Reply]] = {
    **{name: lambda name=name: flood(name) for name in FLOODS},  # type: ignore[misc]
    "a few bytes that swell": lambda: zipped(gzip.compress(b": alive\n\n" * (32 * MEBI // 9))),
    "a few bytes that are all there": lambda: zipped(gzip.compress((b":" * 4095 + b"\n") * 8192), measured=True),
    "gzip with nothing in it": lambda: zipped(gzip.compress(b"") * 100_000),
}
MORE_TURNS = {"a few bytes that are all there": 100}  # one for each 256 KiB that come out
TURNS = 20  # that others get at the least, where there were none; a read is of 64 KiB at the most


class Others:
    """Another task, which counts its turns."""

    def __init__(self) -> None:
        self.turns = 0

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            self.turns += 1
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", REPLIES)
@pytest.mark.quick(1)
def test_p30_others_get_their_turns(server: LLMServer, client: Client, name: str, backend: str) -> None:
    """Between two pieces, however much lies between them; and all pieces arrive."""
    server.script(REPLIES[name]())
    pieces: list[tuple[str, int]] = []

    async def main() -> None:
        others = Others()
        async with anyio.create_task_group() as group:
            group.start_soon(others.run)
            async for piece in client.chat("x"):
                pieces.append((piece, others.turns))
            group.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    assert [piece for piece, _ in pieces] == ["a", "b"]
    assert pieces[1][1] - pieces[0][1] >= MORE_TURNS.get(name, TURNS)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_p30_a_cancel_comes_through(server: LLMServer, client: Client, backend: str) -> None:
    """In the middle of such a stream, which has not ended."""
    server.script(Reply(raw=[head(), event(text="a"), FLOODS["comments"] * 4, event(text="b"), HOLD]))
    heard: list[Any] = []

    async def main() -> None:
        others = Others()
        async with anyio.create_task_group() as group:

            async def listen() -> None:
                async for piece in client.chat("x"):
                    heard.append(piece)

            group.start_soon(listen)
            group.start_soon(others.run)
            while not heard:
                await anyio.lowlevel.checkpoint()
            until = others.turns + TURNS
            while others.turns < until:
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    assert heard == ["a"]
    assert server.requests[0].gone.wait(30)


def test_p30_much_that_came_at_once_is_handed_out_bit_by_bit(server: LLMServer, client: Client, mode: Mode) -> None:
    """Thousands of pieces in one read, in order."""
    pieces = [f"{number} " for number in range(5_000)]
    body = b"".join(event(text=piece) for piece in pieces) + FINISH + DONE
    server.script(Reply(raw=[head(), body, CLOSE]))
    assert mode.read(client.chat("x")).pieces == pieces
