"""Ctrl-C, a signal handler or a garbage collection at the worst moment leaves no lock taken."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from moments import interrupted

from llmbridge import Cancelled, Client, Limits, Timeout
from llmbridge._locks import Signal
from llmbridge._transport import call as transport_call
from llmbridge._transport.call import Call
from llmbridge._transport.connections import _Idle
from llmbridge.testing import LLMServer

_MOST = 1_000


def in_thread(function: Callable[[], object]) -> bool:
    """Whether a function ends, in a thread of its own."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(30)
    return not thread.is_alive()


class Watched:
    """An object for the watchdog to watch, like a call."""

    def __init__(self) -> None:
        self.deadline = float("inf")
        self.expired = threading.Event()

    def expire(self, now: float) -> None:
        """Called when its time is over."""
        if self.deadline <= now:
            self.deadline = float("inf")
            self.expired.set()


def test_the_watchdog_goes_on_whenever_a_poke_is_interrupted() -> None:
    """Otherwise no timeout of the process would work any more."""
    watchdog = transport_call._Watchdog()
    watched: Any = Watched()
    watchdog.watch(watched)
    try:
        for moment in range(_MOST):
            reached = interrupted(watchdog.poke, moment)
            watched.expired.clear()
            watched.deadline = time.monotonic()
            watchdog.poke()
            assert watched.expired.wait(30), f"after an interrupt at {moment}"
            if not reached:
                break
        assert 0 < moment < _MOST - 1
    finally:
        watchdog.stop()


class Connection:
    """A pooled connection."""

    closed = False

    def close(self) -> None:
        """Records it."""
        self.closed = True


def test_idle_connections_can_be_taken_whenever_a_call_was_interrupted() -> None:
    """Later calls do not hang while taking a kept connection."""
    idle = _Idle(2)

    def step() -> None:
        idle.put(Connection())
        idle.get(block=False)

    for moment in range(_MOST):
        reached = interrupted(step, moment)
        assert in_thread(step), f"after an interrupt at {moment}"
        if not reached:
            break
    assert 0 < moment < _MOST - 1
    idle.expire(time.monotonic() + 1000)
    assert idle.qsize() <= 2


def test_idle_connections_come_back_last_in_first_out_and_those_beyond_the_usual_go_after_a_while() -> None:
    """The latest one is the least likely to have been closed."""
    idle = _Idle(2)
    connections = [Connection() for _ in range(4)]
    for connection in connections:
        idle.put(connection, block=False)
    idle.put(None)  # urllib3's mark of a free place
    assert idle.qsize() == 4
    idle.expire(time.monotonic())
    assert idle.qsize() == 4
    idle.expire(time.monotonic() + 1000)
    assert [connection.closed for connection in connections] == [True, True, False, False]
    assert idle.deadline == float("inf")
    assert (idle.get(), idle.get(block=False)) == (connections[3], connections[2])
    with pytest.raises(queue.Empty):
        idle.get(block=True, timeout=1)


def test_a_ticket_is_given_back_if_its_way_into_the_queue_is_interrupted(server: LLMServer) -> None:
    """It would stay at the head of the queue, and hold up all others."""
    with Client("openai:m", base_url=server.base_url("openai"), limits=Limits(concurrency=1), timeout=10) as client:
        limiter: Any = client.connections.limiter

        def interrupt() -> None:
            del limiter._settle
            raise KeyboardInterrupt

        limiter._settle = interrupt
        with pytest.raises(KeyboardInterrupt):
            client.chat("x").complete()
        assert (len(limiter._queue), len(limiter._running)) == (0, 0)
        assert client.chat("x").complete().text


def test_a_ticket_is_given_back_if_that_was_interrupted(server: LLMServer) -> None:
    """The next attempt to end the call ends the ticket too."""
    with Client("openai:m", base_url=server.base_url("openai"), limits=Limits(concurrency=1), timeout=10) as client:
        limiter: Any = client.connections.limiter

        def interrupt(*_: object) -> None:
            del limiter.take_back
            raise KeyboardInterrupt

        limiter.take_back = interrupt
        stream = client.chat("x")
        with pytest.raises(KeyboardInterrupt):
            stream.complete()
        stream.close()
        assert (len(limiter._queue), len(limiter._running)) == (0, 0)


@pytest.mark.parametrize("seconds", [30, None])
def test_a_call_can_be_cancelled_from_within_its_own_wait(seconds: float | None) -> None:
    """As by a signal handler or a garbage collection, at the moment when the thread begins to wait."""
    call = Call(Timeout(total=60))
    outcome: list[BaseException] = []

    def cancel(_: Any, kind: str, function: Any) -> None:
        if kind == "c_call" and getattr(function, "__name__", "") == "acquire":
            sys.setprofile(None)
            call.cancel()

    def target() -> None:
        sys.setprofile(cancel)
        try:
            call.rest(seconds)
            call.check()
        except Cancelled as error:
            outcome.append(error)
        finally:
            sys.setprofile(None)

    try:
        assert in_thread(target)
        assert len(outcome) == 1
    finally:
        call.end()


class TestSignal:
    """A flag to wait for."""

    def test_it_is_remembered_once(self) -> None:
        """Set early, even repeatedly, it ends one wait at once."""
        signal = Signal()
        assert not signal.is_set
        signal.set()
        signal.set()
        assert signal.is_set
        signal.wait(None)
        assert not signal.is_set

    def test_it_can_be_taken_back(self) -> None:
        """Set or not."""
        signal = Signal()
        signal.clear()
        signal.set()
        signal.clear()
        assert not signal.is_set

    def test_a_wait_ends_with_its_time(self) -> None:
        """A timeout ends the wait without setting the flag."""
        signal = Signal()
        signal.wait(0)
        signal.wait(-1.0)
        assert not signal.is_set

    def test_another_thread_ends_a_wait(self) -> None:
        """The wait itself has no timeout."""
        signal = Signal()
        thread = threading.Thread(target=signal.wait, args=(None,), daemon=True)
        thread.start()
        signal.set()
        thread.join(30)
        assert not thread.is_alive()
