"""P43: Ctrl-C at the worst moment, and a program that exits without closing its event loop."""

from __future__ import annotations

import gc
import http.client
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from modes import Mode
from moments import interrupted

from llmbridge import Client, Limits, chat
from llmbridge._call.attempts import Attempts
from llmbridge._call.pipeline import Pipeline
from llmbridge._call.route import Breaker
from llmbridge._transport import Transport
from llmbridge._transport.call import Call
from llmbridge._transport.connections import _Response
from llmbridge.limits import Limiter, Ticket
from llmbridge.testing import LLMServer, Reply

_MOST = 2_000


def of_limiter() -> tuple[Callable[[], object], Any]:
    """A ticket from the queue to its release."""
    limiter = Limiter(Limits(concurrency=2))

    def step() -> None:
        ticket = Ticket(limiter, 0, lambda: None)
        limiter.enter(ticket)
        ticket.delay()
        ticket.release()

    return step, limiter._lock


def of_breaker() -> tuple[Callable[[], object], Any]:
    """A call that becomes the trial."""
    breaker = Breaker(lambda: 100.0)

    def step() -> None:
        breaker._open_until, breaker._trial_until = 1.0, 1.0
        assert breaker.admits()

    return step, breaker._lock


def of_pipeline() -> tuple[Callable[[], object], Any]:
    """A stream that is closed."""
    pipeline = chat("x", "demo")._source
    assert isinstance(pipeline, Pipeline)
    return pipeline.close, pipeline._busy


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Switches the garbage collector off meanwhile."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="a `with` statement itself has such a moment there")
@pytest.mark.parametrize("made", [of_limiter, of_breaker, of_pipeline])
@pytest.mark.quick(1)
def test_p43_a_ctrl_c_leaves_no_lock_taken(made: Callable[[], tuple[Callable[[], object], Any]]) -> None:
    """After a Ctrl-C at any moment, the lock can be taken and calls are let through."""
    kept = []  # what ends while a moment is awaited would be interrupted as well
    for moment in range(_MOST):
        step, lock = made()
        kept.append(step)
        reached = interrupted(step, moment)
        assert not lock.locked(), f"after a Ctrl-C at {moment}"
        if not reached:
            break
    assert 0 < moment < _MOST - 1


def _lost_by(owner: Any, name: str, patches: pytest.MonkeyPatch, kept: list[Any]) -> None:
    """Sends a Ctrl-C when a function has ended, and only the test has its result."""
    function = getattr(owner, name)

    def lost(*args: Any, **kwargs: Any) -> None:
        kept.extend((args, function(*args, **kwargs)))
        raise KeyboardInterrupt

    patches.setattr(owner, name, lost)


LOST: dict[str, tuple[Any, str]] = {
    "headers": (_Response, "begin"),
    "response": (Transport, "_send"),
    "exchange": (Transport, "send"),
    "its headers": (Attempts, "_take_headers"),
    "close": (http.client.HTTPResponse, "_close_conn"),
}


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("length", ["known", "until the end"])
@pytest.mark.parametrize("moment", LOST)
@pytest.mark.quick(1)
def test_p43_a_ctrl_c_in_the_moment_of_the_answer_leaves_no_socket(
    mode: Mode, moment: str, length: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call knows its socket, even if a frame has lost the answer."""
    opened: list[Any] = []
    plain = Call.attach

    def noted(call: Call, sock: Any) -> None:
        opened.append(sock)
        plain(call, sock)

    monkeypatch.setattr(Call, "attach", noted)
    headers = {"Connection": "close"} if length != "known" else {}
    kept: list[Any] = []
    with LLMServer(Reply("x", headers=headers)) as server:
        stream = chat("x", "openai-compatible:m", base_url=server.base_url("openai"))
        with monkeypatch.context() as patches:
            _lost_by(*LOST[moment], patches, kept)
            with pytest.raises(BaseException) as caught:  # noqa: PT011 - trio has groups of them
                mode.complete(stream)
        assert kept
        assert not isinstance(caught.value, Exception)
        found = {sock for sock in opened if sock is not None}
        assert found
        assert [sock.fileno() for sock in found] == [-1] * len(found)


def test_p43_a_connection_that_was_given_back_stays_open(server: LLMServer, mode: Mode) -> None:
    """It no longer belongs to the call, whenever that ends."""
    with Client("openai-compatible:m", base_url=server.base_url("openai")) as client:
        for _ in range(3):
            assert mode.complete(client.chat("x")).text
    assert server.connections == 1


def test_p43_nor_does_an_exchange_that_is_closed_twice(server: LLMServer) -> None:
    """The later end of the call closes only its own socket."""
    ends: list[Callable[[], None]] = []
    with Client("openai-compatible:m", base_url=server.base_url("openai")) as client:
        stream = client.chat("x")
        pipeline: Any = stream._source
        for piece in stream:
            assert piece
            ends.append(pipeline._call.end)
        for end in ends:
            end()
        assert client.chat("x").complete().text
    assert server.connections == 1


PROGRAMS = {
    "nest_asyncio": """
import asyncio, nest_asyncio
nest_asyncio.apply()
import llmbridge
async def main():
    return (await llmbridge.chat("Hi", model="demo")).text
assert asyncio.run(main())
""",
    "a loop that was stopped": """
import asyncio, llmbridge
async def main():
    assert (await llmbridge.chat("Hi", model="demo")).text
    loop.stop()
    await asyncio.sleep(1000)
loop = asyncio.new_event_loop()
task = loop.create_task(main())
loop.run_forever()
""",
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.slow
def test_p43_the_interpreter_ends(program: str) -> None:
    """Worker threads do not keep it alive, though their event loop was never closed."""
    if program == "nest_asyncio" and sys.version_info >= (3, 14):
        pytest.skip("nest_asyncio hides the event loop from anyio there")
    subprocess.run([sys.executable, "-c", PROGRAMS[program]], check=True, timeout=60)
