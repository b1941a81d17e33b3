"""A client's own limits, end to end: the order of calls, the end of a wait, and the effect of the service's limits."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import KEY
from loopback import DONE, FINISH, event, head
from modes import LOOPS, MODES, Mode

from llmbridge import (
    Cancelled,
    Client,
    ClockExpired,
    Limits,
    Overloaded,
    RateLimited,
    Retry,
    RetryAttempt,
    TransportError,
    Usage,
    set_thread_limit,
)
from llmbridge.limits import Limiter, Ticket
from llmbridge.testing import HOLD, LLMServer, Reply
from llmbridge.testing.received import Received

QUICK = Retry(2, backoff=0.01, max_backoff=0.02)


class Gate:
    """A reply that counts how many requests are being answered at once, and their maximum."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self.now = self.most = 0

    def __call__(self, _: Received) -> Reply:
        """Takes a while, then answers."""
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self._seconds)
        with self._lock:
            self.now -= 1
        return Reply(["o", "k"])


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


MakeClient = Callable[..., Client]


@pytest.fixture
def limited(server: LLMServer) -> Iterator[MakeClient]:
    """Makes clients of the server with limits."""
    made: list[Client] = []

    def make(clock: Clock | None = None, **limits: int) -> Client:
        client = Client(
            "openai:m", base_url=server.base_url("openai"), api_key=KEY, timeout=20, retries=0, limits=Limits(**limits)
        )
        if clock is not None:
            client.connections.limiter = Limiter(Limits(**limits), clock)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


def waiting(client: Client) -> int:
    """The number of requests in the queue."""
    assert client.connections.limiter is not None
    return len(client.connections.limiter._queue)


def running(client: Client) -> int:
    """The number of requests in progress."""
    assert client.connections.limiter is not None
    return len(client.connections.limiter._running)


def until(condition: Callable[[], bool]) -> None:
    """Waits until a condition holds; fails if it does not."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


# -- concurrency -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_are_under_way_than_allowed(server: LLMServer, limited: MakeClient, mode: Mode, limit: int) -> None:
    """The limit holds for threads and tasks together, and all are answered."""
    server.default = gate = Gate(0.02)
    client = limited(concurrency=limit)
    assert mode.at_once([client.chat("x") for _ in range(9)]) == [["o", "k"]] * 9
    assert gate.most <= limit
    assert (waiting(client), running(client)) == (0, 0)


def test_threads_and_tasks_share_one_queue(server: LLMServer, limited: MakeClient) -> None:
    """Threads and tasks share one queue, first come, first served."""
    client = limited(concurrency=1)
    holder = client.chat("holder")
    assert next(holder)
    threads = []
    for number in range(8):
        mode = MODES[["sync", "asyncio", "trio"][number % 3]]
        stream = client.chat(f"n{number}")
        threads.append(threading.Thread(target=lambda mode=mode, stream=stream: mode.complete(stream)))
        threads[-1].start()
        until(lambda number=number: waiting(client) == number + 1)  # type: ignore[misc]
    holder.close()
    for thread in threads:
        thread.join(30)
    assert [request.user_text for request in server.requests[1:]] == [f"n{number}" for number in range(8)]


def _read_whole(stream: Any) -> None:
    stream.complete()


def _break(stream: Any) -> None:
    for _ in stream:
        break


def _close(stream: Any) -> None:
    next(stream)
    stream.close()


def _drop(stream: Any) -> None:
    next(stream)


def _fail(stream: Any) -> None:
    with pytest.raises(Overloaded):
        stream.complete()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "reply"),
    [
        (_read_whole, Reply(["a", "b"])),
        (_break, Reply(["a", "b"], keep_open=True)),
        (_close, Reply(["a", "b"], keep_open=True)),
        (_drop, Reply(["a", "b"], keep_open=True)),
        (_fail, Reply(status=503)),
        (_fail, Reply(error={"message": "busy", "type": "overloaded_error"})),
        (_fail, Reply(["a"], error={"message": "busy", "type": "overloaded_error"})),
    ],
)
def test_every_end_gives_the_place_back(
    server: LLMServer, limited: MakeClient, end: Callable[[Any], None], reply: Reply
) -> None:
    """The end of the answer, a break, close(), an error and the garbage collector all free the place."""
    client = limited(concurrency=1)
    for _ in range(2):
        server.script(reply)
        end(client.chat("x"))
        gc.collect()
        assert running(client) == 0
    assert client.chat("x").complete().text


@pytest.mark.parametrize("loop", sorted(LOOPS))
def test_every_end_of_an_async_stream_gives_the_place_back(server: LLMServer, limited: MakeClient, loop: str) -> None:
    """aclose(), leaving `async with` and an abandoned iterator all free the place."""
    client = limited(concurrency=1)
    server.default = Reply(["a", "b"], keep_open=True)

    async def main() -> None:
        stream: Any = client.chat("x").__aiter__()
        assert await stream.__anext__() == "a"
        assert running(client) == 1
        await stream.aclose()
        async with client.chat("x") as left:
            async for _ in left:
                break
        stream = client.chat("x").__aiter__()
        assert await stream.__anext__() == "a"
        del stream
        gc.collect()
        assert running(client) == 0

    LOOPS[loop].run(main)
    assert len(server.requests) == 3


def test_the_place_is_held_until_the_end_of_the_answer(server: LLMServer, limited: MakeClient) -> None:
    """The place is held until the end of the answer, not only until its headers."""
    server.script(Reply(["a", "b"]))
    client = limited(concurrency=1)
    stream = client.chat("x")
    assert next(stream) == "a"
    assert running(client) == 1
    assert list(stream) == ["b"]
    assert running(client) == 0


def test_a_retry_gives_its_place_to_others_while_it_waits(server: LLMServer, limited: MakeClient) -> None:
    """A call that waits for its retry holds no place."""
    client = limited(concurrency=1)
    others: list[str] = []

    def meanwhile(_: RetryAttempt) -> None:
        others.append(client.chat("other").complete().text)

    server.script(Reply(status=503), Reply("other"), Reply("again"))
    assert client.chat("x", retries=Retry(1, backoff=0.01, on_retry=meanwhile)).complete().text == "again"
    assert others == ["other"]


# -- waiting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", sorted(LOOPS))
def test_waiting_does_not_block_the_event_loop(server: LLMServer, limited: MakeClient, loop: str) -> None:
    """Other tasks run while one waits in the queue; cancelling it frees its place at once."""
    import anyio

    client = limited(concurrency=1)
    holder = client.chat("holder")
    assert next(holder)

    async def main() -> int:
        turns = 0
        with anyio.move_on_after(5) as scope:
            async with anyio.create_task_group() as group:

                async def ask() -> None:
                    await client.chat("x")

                group.start_soon(ask)
                await anyio.to_thread.run_sync(until, lambda: waiting(client) == 1)
                for _ in range(50):
                    await anyio.sleep(0.001)
                    turns += 1
                group.cancel_scope.cancel()
        assert not scope.cancelled_caught
        return turns

    started = time.monotonic()
    assert LOOPS[loop].run(main) == 50
    assert time.monotonic() - started < 20
    until(lambda: waiting(client) == 0)
    holder.close()
    assert len(server.requests) == 1


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_who_is_cancelled_in_the_queue_leaves_at_once(server: LLMServer, limited: MakeClient, end: str) -> None:
    """The calls behind it move up, and nothing was sent."""
    client = limited(concurrency=1)
    holder = client.chat("holder")
    assert next(holder)
    outcomes: list[Any] = []
    streams = [client.chat(f"n{number}") for number in range(2)]
    threads = []
    for number, stream in enumerate(streams):
        threads.append(
            threading.Thread(target=lambda stream=stream: outcomes.append(type(MODES["sync"].read(stream).error)))
        )
        threads[-1].start()
        until(lambda number=number: waiting(client) == number + 1)  # type: ignore[misc]
    getattr(streams[0], end)()
    threads[0].join(30)
    assert outcomes == [Cancelled]
    assert waiting(client) == 1
    holder.close()
    threads[1].join(30)
    assert outcomes == [Cancelled, type(None)]
    assert [request.user_text for request in server.requests] == ["holder", "n1"]


@pytest.mark.quick(1)
def test_the_total_clock_runs_while_waiting(server: LLMServer, limited: MakeClient, mode: Mode) -> None:
    """The error mentions the wait for the limits, and the place in the queue is freed."""
    client = limited(requests_per_minute=1)
    assert client.chat("x").complete().text
    started = time.monotonic()
    error = mode.read(client.chat("x", timeout=0.5)).error
    assert 0.45 < time.monotonic() - started < 40
    assert isinstance(error, ClockExpired)
    assert error.clock == "total"
    assert "the client's own limits" in str(error)
    assert (waiting(client), len(server.requests)) == (0, 1)


@pytest.mark.quick(1)
def test_a_wait_that_fits_into_the_minute(server: LLMServer, limited: MakeClient, mode: Mode) -> None:
    """A call waits until its request fits into the last minute."""
    clock = Clock()
    client = limited(clock, requests_per_minute=2)
    for _ in range(3):
        assert mode.in_turn([client.chat("x"), client.chat("x")])
        assert isinstance(mode.read(client.chat("x", timeout=0.05)).error, ClockExpired)
        clock.now += 60
    assert len(server.requests) == 6


def test_each_attempt_counts(server: LLMServer, limited: MakeClient) -> None:
    """A retry counts like a first request."""
    client = limited(Clock(), requests_per_minute=3)
    server.script(Reply(status=503), Reply(status=503), Reply("ok"))
    assert client.chat("x", retries=QUICK).complete().text == "ok"
    assert isinstance(MODES["sync"].read(client.chat("x", timeout=0.05)).error, ClockExpired)


@pytest.mark.parametrize("loop", sorted(LOOPS))
@pytest.mark.quick(1)
def test_a_waiting_call_takes_no_thread_from_the_current_one(server: LLMServer, limited: MakeClient, loop: str) -> None:
    """With more tasks than threads, the current answer still gets a thread for its last bytes."""
    client = limited(concurrency=1)
    server.default = Reply(["a", "b"], keep_open=True)

    async def main() -> list[list[str]]:
        import anyio

        set_thread_limit(2)
        found: list[list[str]] = []

        async def read(stream: Any) -> None:
            found.append([piece async for piece in stream])

        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(read, client.chat("x"))
        return found

    assert LOOPS[loop].run(main) == [["a", "b"]] * 6


# -- tokens ------------------------------------------------------------------------------------------------------


def spent(client: Client) -> int:
    """The tokens that count for the last minute."""
    assert client.connections.limiter is not None
    client.connections.limiter._settle()
    return client.connections.limiter._spent


def test_tokens_are_put_right_when_the_service_has_counted_them(
    server: LLMServer, limited: MakeClient, mode: Mode
) -> None:
    """The estimate counts until the service's count arrives; a rejected request counts none."""
    client = limited(tokens_per_minute=100_000)
    server.script(Reply("ok", usage={"prompt_tokens": 3_000, "completion_tokens": 500, "total_tokens": 3_500}))
    assert mode.complete(client.chat("x", max_tokens=90_000)).usage is not None
    assert spent(client) == 3_500
    server.script(Reply(status=400))
    mode.read(client.chat("x", max_tokens=90_000))
    assert spent(client) == 3_500
    server.script(Reply(["a"], cut=600))
    mode.read(client.chat("x", max_tokens=50_000))
    assert 53_500 < spent(client) < 54_000


def test_tokens_of_an_attempt_that_failed_are_not_those_of_the_next(server: LLMServer, limited: MakeClient) -> None:
    """A retry counts for itself after an attempt that failed with a token count."""
    client = limited(tokens_per_minute=100_000)
    usage = {"prompt_tokens": 7_000, "completion_tokens": 0, "total_tokens": 7_000}
    server.script(Reply(error={"type": "overloaded_error", "message": "m"}, usage=usage), Reply("ok", usage=False))
    assert client.chat("x", retries=QUICK).complete().text == "ok"
    assert 0 < spent(client) < 500


# -- what the service says ---------------------------------------------------------------------------------------


def paused_for(client: Client) -> float:
    """The seconds of the current pause."""
    assert client.connections.limiter is not None
    ticket = Ticket(client.connections.limiter, 0, lambda: None)
    client.connections.limiter.enter(ticket)
    delay = ticket.delay()
    ticket.release()
    return delay or 0.0


def test_rate_headers_hold_everybody_up(server: LLMServer, limited: MakeClient, mode: Mode) -> None:
    """An answer whose headers say that nothing remains makes the next request wait."""
    client = limited(concurrency=8)
    server.script(Reply("ok", headers={"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"}))
    assert mode.complete(client.chat("x")).text == "ok"
    assert 29 < paused_for(client) <= 30


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=429, headers={"Retry-After": "30"}),
        Reply("Please try again in 30s.", status=429),
        Reply(error={"message": "Please try again in 30s.", "code": "rate_limit_exceeded"}),
        Reply(["a"], error={"message": "Please try again in 30s.", "code": "rate_limit_exceeded"}),
    ],
)
def test_many_rate_limits_hold_everybody_up(server: LLMServer, limited: MakeClient, mode: Mode, reply: Reply) -> None:
    """Rate limits, by status or in the stream, before or after the first piece; two alone delay only themselves."""
    client = limited(concurrency=8)
    for paused in (0, 0, 30):
        server.script(reply)
        assert type(mode.read(client.chat("x")).error) is RateLimited
        assert paused - 1 < paused_for(client) <= paused


def test_what_one_of_several_services_asks_for_does_not_hold_up_the_others(server: LLMServer) -> None:
    """The first model's headers do not delay the fallback; the limits of its own client do."""
    options: dict[str, Any] = {"base_url": server.base_url("openai"), "api_key": KEY, "retries": 0}
    first, second = Client("openai:a", limits=Limits(concurrency=1), **options), Client("openai:b", **options)
    client = Client([first, second], limits=Limits(requests_per_minute=5), timeout=20)
    nothing_left = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"}
    server.script(Reply(error={"message": "busy", "code": "overloaded"}, headers=nothing_left), Reply("ok"))
    assert client.chat("x").complete().model == "b"
    assert 29 < paused_for(first) <= 30
    assert paused_for(client) == 0


def test_one_queue_for_several_services_listens_to_none_of_them(server: LLMServer, mode: Mode) -> None:
    """With several services, neither the rate limit nor the headers of one delay the other."""
    options: dict[str, Any] = {"base_url": server.base_url("openai"), "api_key": KEY, "retries": 0}
    nothing_left = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"}
    client = Client(
        [Client("openai:a", **options), Client("openai:b", **options)], limits=Limits(concurrency=1), timeout=5
    )
    server.script(Reply(status=429, headers={"Retry-After": "30", **nothing_left}), Reply("ok"))
    assert mode.complete(client.chat("x")).model == "b"
    assert paused_for(client) == 0


# -- everything that is a request --------------------------------------------------------------------------------


@pytest.mark.slow
def test_embeddings_and_lists_of_models_count(server: LLMServer, limited: MakeClient) -> None:
    """Embeddings and lists of models use the same queue and timeouts."""
    client = limited(requests_per_minute=2)
    assert len(client.embed(["a", "b"])) == 2
    assert client.models()
    for ask in (
        lambda: client.embed("a", timeout=1),
        lambda: client.models(timeout=1),
        lambda: client.chat("a", timeout=1).complete(),
    ):
        with pytest.raises(ClockExpired, match="own limits"):
            ask()
    assert len(server.requests) == 2


def test_two_clients_do_not_wait_for_each_other(limited: MakeClient) -> None:
    """Each client has its own limits."""
    for client in (limited(requests_per_minute=1), limited(requests_per_minute=1)):
        assert client.chat("x").complete().text


def test_a_stream_that_hangs_gives_its_place_back_when_its_clock_ends(server: LLMServer, limited: MakeClient) -> None:
    """A service that does not answer holds its place only until the call times out."""
    server.script(Reply(raw=[HOLD]), Reply("ok"))
    client = limited(concurrency=1)
    threads = [
        threading.Thread(target=lambda seconds=seconds: MODES["sync"].read(client.chat("x", timeout=seconds)))
        for seconds in (0.3, 10)
    ]
    for number, thread in enumerate(threads):
        thread.start()
        until(lambda number=number: running(client) + waiting(client) == number + 1)  # type: ignore[misc]
    for thread in threads:
        thread.join(30)
    assert len(server.requests) == 2


# -- what a service may send ---------------------------------------------------------------------------------------


def test_an_absurd_count_of_tokens_is_ignored(server: LLMServer, limited: MakeClient) -> None:
    """An absurd token count is ignored in favour of the estimate."""
    client = limited(tokens_per_minute=1_000)
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 10**30}
    server.script(Reply("one", usage=usage), Reply("two"))
    assert client.chat("x").complete().text == "one"
    assert 0 < spent(client) < 100
    assert client.chat("x", timeout=5).complete().text == "two"


def test_counts_before_the_first_piece_are_kept_as_one(server: LLMServer) -> None:
    """Counts before the first piece are kept as one, so that endless counts do not fill the memory."""
    count = b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": %d}}\n\n'
    counts = [count % number for number in range(50)]
    server.script(Reply(raw=[head("Connection: close"), *counts, event("a"), FINISH, DONE]))
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=0) as client:
        stream = client.chat("x")
        found = list(stream.events())
    assert [item for item in found if isinstance(item, Usage)] == [stream.usage]
    assert stream.usage is not None
    assert (stream.text, stream.usage.input_tokens, stream.usage.output_tokens) == ("a", 7, 49)


def test_a_system_without_threads_is_an_error_of_the_tree(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name lookup needs a thread, since it cannot be interrupted; without one, a typed error is raised."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "llmbridge-lookup":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    named = server.base_url("openai").replace("127.0.0.1", "localhost")
    with (
        Client("openai:m", base_url=named, retries=0) as client,
        pytest.raises(TransportError, match="cannot start a thread") as caught,
    ):
        client.chat("x").complete()
    assert caught.value.partial is not None
