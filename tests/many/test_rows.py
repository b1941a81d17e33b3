"""`map`: what a row is, in which order rows come, what is tried again, and what ends a run."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from canary import KEY
from modes import Async, Mode

import llmbridge
from llmbridge import (
    AuthError,
    BadRequest,
    Cancelled,
    Client,
    Completion,
    ConfigError,
    InvalidRequest,
    Limits,
    LLMBridgeError,
    RateLimited,
    Retry,
    ServerError,
)
from llmbridge.many import Row
from llmbridge.testing import LLMServer, Received, Reply, demo


@pytest.fixture
def client(server: LLMServer) -> Iterator[Client]:
    """A client of `server` that waits for no time worth mentioning before a repetition."""
    server.default = echo
    retries = Retry(backoff=0.01, max_backoff=0.05)
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=retries, timeout=20) as made:
        yield made


def echo(received: Received) -> Reply:
    """Answers what was said, later the longer it is."""
    return Reply(f"<{received.user_text}>", header_delay=0.002 * (len(received.user_text) % 7))


def failing(**times: Reply) -> Any:
    """Answers the first request of these texts with a failure, and everything else with what was said."""
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def answer(received: Received) -> Reply:
        text = received.user_text
        with lock:
            seen[text] += 1
            first = seen[text] == 1
        return times[text] if first and text in times else Reply(f"<{text}>")

    return answer


# -- rows -------------------------------------------------------------------------------------------------------------


def test_p46_each_item_has_its_own_row(client: Client, mode: Mode) -> None:
    """In the order of the input, with its answer, whatever the order in which the answers come."""
    texts = [f"{'x' * (40 - number)}{number}" for number in range(40)]
    (rows,) = mode.in_turn([client.map(texts, concurrency=8)])
    assert [row.index for row in rows] == list(range(40))
    assert [row.input for row in rows] == texts
    assert [row.text for row in rows] == [f"<{text}>" for text in texts]
    assert all(row.ok and row.attempts == 1 and not row.resumed and row.seconds > 0 for row in rows)
    assert rows[3].usage.total_tokens == rows[3].answer.usage.total_tokens > 0


def test_p46_equal_items_are_rows_of_their_own(client: Client, server: LLMServer) -> None:
    """They are not asked once for all."""
    rows = client.map(["same"] * 5).complete()
    assert [row.index for row in rows] == [0, 1, 2, 3, 4]
    assert len(server.requests) == 5


def test_rows_come_as_they_are_done_if_wanted(client: Client, server: LLMServer, release: threading.Event) -> None:
    """A straggler holds up nobody."""

    def answer(received: Received) -> Reply:
        if received.user_text == "0":
            release.wait(20)
        return Reply("Hello")

    server.default = answer
    indexes = []
    for row in client.map(map(str, range(30)), order="done", concurrency=4):
        indexes.append(row.index)
        if len(indexes) == 29:
            release.set()
    assert indexes[-1] == 0
    assert sorted(indexes) == list(range(30))


def test_the_package_has_a_function_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for chats."""
    monkeypatch.setattr(demo, "_PACE", 0.0)
    [row] = llmbridge.map(["Hello"], model="demo").complete()
    assert row.answer is not None
    assert row.answer.model == "demo"
    assert "map" not in llmbridge.__all__


def test_a_row_is_data(client: Client) -> None:
    """It can be pickled, and is frozen."""
    [row] = client.map(["a"]).complete()
    again = pickle.loads(pickle.dumps(row))
    assert again == row
    with pytest.raises(AttributeError):
        row.index = 2  # type: ignore[misc]


def test_what_a_row_is_asked_comes_from_its_columns(client: Client) -> None:
    """By a template, a function, or for a named tuple."""
    items = [{"id": 7, "city": "Paris"}]
    assert client.map(items, prompt="Is {city} large?", key="id").complete()[0].text == "<Is Paris large?>"
    assert client.map(items, prompt=lambda item: item["city"] * 2).complete()[0].text == "<ParisParis>"
    [row] = client.map(["x"], prompt="Translate {}").complete()
    assert (row.text, row.input, row.key) == ("<Translate x>", "x", None)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert client.map([messages]).complete()[0].text == "<Hi>"
    [row] = client.map(items, prompt="{city}", key=lambda item: item["id"]).complete()
    assert row.key == "7"


@dataclass
class City:
    """An answer."""

    name: str


def test_a_schema_gives_typed_rows(client: Client, server: LLMServer) -> None:
    """`.parsed` is an instance of the class."""
    server.default = Reply('{"name": "Paris"}')
    assert [row.parsed for row in client.map(["a", "b"], schema=City)] == [City("Paris")] * 2


def test_embeddings_share_requests(client: Client, server: LLMServer, mode: Mode) -> None:
    """A vector for each row, and few requests."""
    (rows,) = mode.in_turn([client.map([f"text {number}" for number in range(150)], embed=True)])
    assert [row.index for row in rows] == list(range(150))
    assert [row.vector for row in rows] == client.embed([f"text {number}" for number in range(150)]).vectors
    assert len(server.requests) <= 10
    with pytest.raises(InvalidRequest, match="vector"):
        _ = rows[0].text


def test_one_text_that_is_refused_costs_no_other(client: Client, server: LLMServer) -> None:
    """What shares a request with it is sent again without it."""

    def answer(received: Received) -> Reply:
        return Reply("too long", status=400) if "poison" in str(received.json["input"]) else Reply()

    server.default = answer
    rows = client.map(["a", "b", "poison", "c"], embed=True).complete()
    assert [row.ok for row in rows] == [True, True, False, True]
    assert isinstance(rows[2].error, BadRequest)


# -- the input --------------------------------------------------------------------------------------------------------


def test_p49_the_input_is_read_as_far_as_the_window(client: Client, mode: Mode) -> None:
    """A generator of a thousand million items is no matter; nothing is read before the first row is wanted."""
    read = []

    def items() -> Iterator[str]:
        for number in range(10**9):
            read.append(number)
            yield str(number)

    rows = client.map(items(), window=10, concurrency=4)
    time.sleep(0.05)
    assert read == []
    taken: list[Any] = []
    mode.each(rows, lambda row: taken.append(row) or len(taken) == 7)
    assert len(read) <= 10 + 7


def test_p49_a_slow_consumer_stops_reading_and_sending(client: Client, server: LLMServer) -> None:
    """At the window, which goes on with each row that is taken."""
    rows = iter(client.map(map(str, range(10**9)), window=12, concurrency=4))
    next(rows)
    server.wait_for_requests(13)
    time.sleep(0.3)
    assert len(server.requests) == 13
    for _ in range(5):
        next(rows)
    server.wait_for_requests(18)
    time.sleep(0.3)
    assert len(server.requests) == 18


def test_p49_a_straggler_stops_reading_at_the_window(
    client: Client, server: LLMServer, release: threading.Event
) -> None:
    """Not before, and not never: what is finished behind it waits."""

    def answer(received: Received) -> Reply:
        if received.user_text == "0":
            release.wait(20)
        return Reply("Hello")

    server.default = answer
    rows = iter(client.map(map(str, range(10**9)), window=20, concurrency=4))
    threading.Timer(0.5, release.set).start()
    assert next(rows).index == 0
    assert 20 <= len(server.requests) <= 21


def test_an_async_input_is_read_in_its_event_loop(client: Client, loop: Async) -> None:
    """`async for` and `await` take one; a plain loop says what to do."""

    async def items() -> AsyncIterator[str]:
        for number in range(20):
            yield str(number)

    async def main() -> list[Row[Any]]:
        found: list[Row[Any]] = await client.map(items())
        return found

    assert [row.text for row in loop.run(main)] == [f"<{number}>" for number in range(20)]
    with pytest.raises(InvalidRequest, match="async for"):
        client.map(items()).complete()


def test_p46_an_input_that_breaks_off_ends_the_run_behind_its_rows(client: Client, mode: Mode) -> None:
    """What was read comes out, and the error comes last."""

    def items() -> Iterator[str]:
        yield from "abc"
        raise LookupError("no more")

    texts: list[str] = []
    with pytest.raises(LookupError, match="no more"):
        mode.each(client.map(items()), lambda row: texts.append(row.text))
    assert texts == ["<a>", "<b>", "<c>"]


def test_p46_two_rows_of_one_key_end_the_run(client: Client) -> None:
    """The error names both."""
    rows = client.map([{"id": 1}, {"id": 2}, {"id": 1}], prompt="{id}", key="id")
    with pytest.raises(ConfigError, match="rows 0 and 2 have the same key '1'"):
        rows.complete()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"order": "random"}, "order must be"),
        ({"concurrency": 0}, "concurrency must be"),
        ({"window": True}, "window must be"),
        ({"attempts": 0}, "attempts must be"),
        ({"max_errors": 1.5}, "max_errors must be"),
        ({"max_errors": -1}, "max_errors must be"),
        ({"prompt": "{a"}, "is not a template"),
        ({"prompt": 3}, "prompt must be"),
        ({"retries": 3}, "attempts="),
        ({"max_token": 1}, "max_tokens"),
        ({"model": []}, "the list of models is empty"),
        ({"embed": True, "run_tools": True}, "run_tools"),
        ({"embed": True, "schema": dict}, "schema"),
    ],
)
def test_a_wrong_argument_is_found_before_anything_is_read(
    client: Client, server: LLMServer, options: dict[str, Any], says: str
) -> None:
    """At the call."""
    with pytest.raises(ConfigError, match=says):
        client.map(iter("abc"), **options)
    assert server.requests == []


@pytest.mark.parametrize("prompts", ["text", b"text", {"a": 1}, 3])
def test_what_is_no_list_of_prompts_says_so(client: Client, prompts: Any) -> None:
    """A str would be read letter by letter."""
    with pytest.raises(InvalidRequest, match="a list or another iterable"):
        client.map(prompts)


def test_rows_are_read_once(client: Client) -> None:
    """A second loop would pay for everything once more."""
    rows = client.map(["a"])
    assert len(rows.complete()) == 1
    with pytest.raises(InvalidRequest, match="only once"):
        rows.complete()


# -- failures ---------------------------------------------------------------------------------------------------------


def test_p46_a_failure_is_a_row(client: Client, server: LLMServer, mode: Mode) -> None:
    """The others have their answers."""
    server.default = failing(b=Reply("No.", status=400))
    (rows,) = mode.in_turn([client.map("abc"[number] for number in range(3))])
    assert [row.ok for row in rows] == [True, False, True]
    assert isinstance(rows[1].error, BadRequest)
    with pytest.raises(BadRequest):
        _ = rows[1].text


def test_p46_whatever_fails_in_a_row_is_its_own(client: Client, server: LLMServer) -> None:
    """A column that is not there, a function of the caller's, an item that is not a prompt, a class that raises."""

    def prompt(item: Any) -> Any:
        if item == "memory":
            raise MemoryError
        return 1 / 0 if item == "zero" else item

    rows = client.map([{"a": 1}, {"b": 2}], prompt="{a}").complete()
    assert [row.ok for row in rows] == [True, False]
    assert "prompt= names a column 'a', which the row lacks: it has b" in str(rows[1].error)
    rows = client.map(["fine", "zero", "memory", "", 5, {"text": "a"}], prompt=prompt).complete()
    assert [row.ok for row in rows] == [True] + [False] * 5
    assert all(isinstance(row.error, InvalidRequest) for row in rows[1:])
    assert "prompt='{text}'" in str(rows[5].error)
    [row] = client.map([{"a": 1}], prompt="{a}", key="id").complete()
    assert "key= failed for row 0" in str(row.error)

    class Strict:
        def __init__(self, name: str) -> None:
            raise RuntimeError("never")

    @dataclass
    class Strange:
        name: str

        def __post_init__(self) -> None:
            raise MemoryError

    server.default = Reply('{"name": "Paris"}')
    [row] = client.map(["a"], schema=Strange, schema_retries=0, attempts=1).complete()
    assert isinstance(row.error, LLMBridgeError)


@pytest.mark.parametrize(
    "reply",
    [
        Reply("busy", status=500),
        Reply("slow down", status=429),
        Reply(["Hel", "lo"], cut=150),
        Reply("Hello", end_mark=False, finish_reason=None),
        Reply(body="<html>Gone for lunch</html>", content_type="text/html"),
    ],
    ids=["500", "429", "cut off", "no end", "no answer"],
)
def test_p46_what_may_help_is_tried_again(client: Client, server: LLMServer, mode: Mode, reply: Reply) -> None:
    """Also an answer that breaks off in the middle: nobody has seen its pieces."""
    server.default = failing(b=reply)
    (rows,) = mode.in_turn([client.map(["a", "b", "c"])])
    assert [row.text for row in rows] == ["<a>", "<b>", "<c>"]
    assert [row.attempts for row in rows] == [1, 2, 1]


def test_p46_attempts_are_counted_but_for_refusals(client: Client, server: LLMServer) -> None:
    """A service that is asked too much answers in the end."""
    server.script(*[Reply("slow down", status=429)] * 6)
    [row] = client.map(["a"], attempts=1).complete()
    assert (row.text, row.attempts) == ("<a>", 7)
    server.script(*[Reply("slow down", status=429)] * 3, Reply("broken", status=500))
    [row] = client.map(["a"], attempts=2).complete()
    assert (row.text, row.attempts) == ("<a>", 5)
    server.script(*[Reply("broken", status=500)] * 6)
    [row] = client.map(["a"], attempts=3).complete()
    assert isinstance(row.error, ServerError)
    assert row.attempts == 3


def test_a_refusal_that_lasts_too_long_fails_the_row(client: Client, server: LLMServer) -> None:
    """Longer than the client's `max_retry_after`."""
    server.script(Reply("tomorrow", status=429, headers={"Retry-After": "80000"}))
    [row] = client.map(["a"]).complete()
    assert isinstance(row.error, RateLimited)


@pytest.mark.parametrize("max_errors", [0, 2, 0.02])
def test_p49_too_many_errors_end_the_run(client: Client, server: LLMServer, mode: Mode, max_errors: float) -> None:
    """With the error of the row that was one too many; a share counts from the hundredth row."""
    server.default = Reply("No.", status=400)
    rows = client.map(map(str, range(10**9)), max_errors=max_errors, concurrency=1)
    seen: list[Row[Any]] = []
    with pytest.raises(BadRequest):
        mode.each(rows, seen.append)
    allowed = 2 if max_errors else 0
    assert len(seen) == len(server.requests) == rows.totals.failed == allowed + 1


def test_p49_what_fails_alike_ends_the_run(client: Client, server: LLMServer, mode: Mode) -> None:
    """A wrong key is not tried a million times."""
    server.default = Reply("Who?", status=401)
    rows = client.map(map(str, range(10**6)), concurrency=4)
    with pytest.raises(AuthError):
        mode.each(rows, lambda _: None)
    assert len(server.requests) <= 24
    assert rows.totals.errors == {"AuthError": rows.totals.failed}


def test_a_few_that_fail_alike_are_rows(client: Client, server: LLMServer) -> None:
    """What succeeds between them says that the setup is right."""
    server.default = lambda received: Reply("Who?", status=401) if int(received.user_text) % 10 else Reply("Hello")
    rows = client.map(map(str, range(100)), concurrency=2).complete()
    assert sum(row.ok for row in rows) == 10


# -- the end ----------------------------------------------------------------------------------------------------------


def sends_no_more(server: LLMServer) -> bool:
    """Whether no request comes for a while. A slow server may still have to read the last ones."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        before = len(server.requests)
        time.sleep(0.4)
        if len(server.requests) == before:
            return True
    return False


def no_thread_is_left() -> bool:
    """Within a second."""
    end = time.monotonic() + 10
    while any(thread.name.startswith("llmbridge-map") for thread in threading.enumerate()):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Left(Exception):
    """Somebody had enough."""


@pytest.mark.parametrize("how", ["break", "raise", "cancel", "with"])
@pytest.mark.quick(1)
def test_p49_nothing_is_sent_once_the_loop_is_left(client: Client, server: LLMServer, mode: Mode, how: str) -> None:
    """However that happens; what is under way is given up."""
    server.default = lambda received: Reply("Hello" if received.user_text == "0" else ["Hel", "lo"] * 50, delay=0.02)
    rows = client.map(map(str, range(10**9)), concurrency=6)

    def leave(_: Any) -> bool:
        if how == "raise":
            raise Left
        if how == "cancel":
            rows.cancel()
        return how != "cancel"

    if how == "with":
        mode.each_within(rows, leave)  # type: ignore[arg-type]
    elif how == "break":
        mode.each(rows, leave)
    else:
        with pytest.raises(Left if how == "raise" else Cancelled):
            mode.each(rows, leave)
    assert no_thread_is_left()
    assert sends_no_more(server)
    end = time.monotonic() + 10
    while server.open_connections > 2 and time.monotonic() < end:  # one may have been given back for the next call
        time.sleep(0.01)
    assert server.open_connections <= 2


def test_p49_dropping_the_iterator_ends_the_run(client: Client, server: LLMServer) -> None:
    """Nobody can take its rows any more."""
    rows = iter(client.map(map(str, range(10**9)), concurrency=4))
    next(rows)
    del rows
    assert no_thread_is_left()
    assert sends_no_more(server)


def test_a_run_that_was_cancelled_before_it_began_sends_nothing(client: Client, server: LLMServer, mode: Mode) -> None:
    """The loop gets Cancelled."""
    rows = client.map(["a"])
    rows.cancel()
    with pytest.raises(Cancelled):
        mode.each(rows, lambda _: None)
    assert server.requests == []


@pytest.mark.quick(1)
def test_a_wait_for_a_row_can_be_cancelled_and_repeated(client: Client, server: LLMServer, loop: Async) -> None:
    """No row is lost."""
    import anyio

    server.default = lambda received: Reply(f"<{received.user_text}>", header_delay=0.1)

    async def main() -> list[str]:
        rows = aiter(client.map(map(str, range(12)), concurrency=3))
        texts: list[str] = []
        while True:
            with anyio.move_on_after(0.01):
                try:
                    texts.append((await anext(rows)).text)
                except StopAsyncIteration:
                    return texts

    assert loop.run(main) == [f"<{number}>" for number in range(12)]


def conductors_end() -> None:
    """Waits for the end of all runs."""
    for thread in threading.enumerate():
        if thread.name == "llmbridge-map-conductor":
            thread.join(30)
            assert not thread.is_alive()


async def _last(rows: Any) -> None:
    async for _ in rows:
        pass


@pytest.mark.quick(1)
def test_p49_a_wait_that_was_cancelled_ends_the_run_if_no_other_follows(
    client: Client, server: LLMServer, loop: Async
) -> None:
    """A traceback may hold the reader for long."""
    import anyio

    server.default = lambda received: Reply("x", header_delay=0.3)

    async def main() -> None:
        rows = aiter(client.map(map(str, range(1000)), concurrency=3))
        with anyio.move_on_after(0.05):
            await anext(rows)
        with anyio.CancelScope() as scope:  # one that never gets to wait
            scope.cancel()
            await anext(rows)
        await anyio.to_thread.run_sync(conductors_end)
        with pytest.raises(Cancelled):
            await _last(rows)

    loop.run(main)


def test_the_end_stays_the_end(client: Client, loop: Async) -> None:
    """A step behind it ends at once, also after `aclose()`."""

    async def main() -> None:
        rows: Any = aiter(client.map(["a"]))
        assert [row.text async for row in rows] == ["<a>"]
        assert [row async for row in rows] == []
        rows = aiter(client.map(["a"]))
        await rows.aclose()
        with pytest.raises(Cancelled):
            await anext(rows)
        with pytest.raises(StopAsyncIteration):
            await anext(rows)

    loop.run(main)


def test_types_and_functions_are_read_once(client: Client, server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each row: so tools may also come from an iterator."""

    @dataclass
    class Answer:
        value: int

    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    server.default = Reply('{"value": 3}')
    rows = client.map(map(str, range(5)), schema=Answer, tools=iter([add]))
    monkeypatch.setattr("llmbridge.schema.json_schema", None)
    assert [row.parsed for row in rows] == [Answer(3)] * 5
    assert all(received.json["tools"][0]["function"]["name"] == "add" for received in server.requests)


def test_tools_and_several_models_work_as_in_a_chat(server: LLMServer, mode: Mode) -> None:
    """A row is a whole answer, from any of the models and after any number of turns."""

    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    def answer(received: Received) -> Reply:
        if received.json["messages"][-1]["role"] == "tool":
            return Reply("3")
        return Reply(tool_calls=[{"name": "add", "arguments": {"a": 1, "b": 2}}])

    server.default = answer
    with LLMServer(Reply("no", status=500)) as broken:
        first = Client("openai:a", base_url=broken.base_url("openai"), api_key=KEY, retries=0)
        second = Client("openai:b", base_url=server.base_url("openai"), api_key=KEY)
        with first, second, Client([first, second]) as several:
            (rows,) = mode.in_turn([several.map(["1 + 2?"] * 3, tools=[add], run_tools=True)])
    assert [row.text for row in rows] == ["3"] * 3
    assert all(row.answer.model == "b" and len(row.answer.turns) == 3 for row in rows)


def test_the_event_loop_goes_on_while_rows_are_waited_for(client: Client, server: LLMServer) -> None:
    """Others have their turn."""
    server.default = Reply("Hello", header_delay=0.1)

    async def main() -> int:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.001)

        task = asyncio.create_task(others())
        await client.map(["a", "b"])
        task.cancel()
        return turns

    assert asyncio.run(main()) > 10


def test_a_plain_loop_in_a_coroutine_warns(client: Client) -> None:
    """It blocks everything else for as long as the run lasts; what is awaited in vain is an error."""

    async def main() -> None:
        with pytest.warns(RuntimeWarning, match="blocks the event loop"):
            assert all(row.ok for row in client.map(["a"]))
        with pytest.raises(InvalidRequest):
            await client.map(["a"]).complete()  # type: ignore[misc]

    asyncio.run(main())


# -- limits and totals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [Limits(concurrency=3), None])
@pytest.mark.quick(2)
def test_p49_the_width_is_never_exceeded(server: LLMServer, limits: Limits | None, mode: Mode) -> None:
    """That of the client's limits, or of `concurrency`."""
    running, most, lock = 0, 0, threading.Lock()

    def answer(received: Received) -> Reply:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return Reply("Hello")

    server.default = answer
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, limits=limits) as client:
        rows = client.map(map(str, range(60)), concurrency=None if limits else 3)
        mode.each(rows, lambda row: None)
    assert most == 3
    assert rows.totals.width == 3


@pytest.mark.slow
def test_p49_rows_do_not_wait_in_the_queue_of_the_limits(server: LLMServer) -> None:
    """Their timeouts run there: a few are in it, however wide the run may be, and none of them fails."""
    waiting = []

    def answer(received: Received) -> Reply:
        waiting.append(limiter.waiting)
        return Reply("Hello")

    server.default = answer
    limits = Limits(requests_per_minute=900)
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, limits=limits) as client:
        limiter: Any = client.connections.limiter
        rows = client.map(map(str, range(30)))
        assert all(row.ok for row in rows)
    assert max(waiting) <= 5


def test_refusals_alone_end_the_run(client: Client, server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while."""
    monkeypatch.setattr("llmbridge.many.width._HOPELESS_SECONDS", 0.0)
    server.default = Reply("slow down", status=429, headers={"Retry-After": "0.01"})
    rows = client.map(map(str, range(10**6)), concurrency=2)
    with pytest.raises(RateLimited):
        rows.complete()
    assert 10 <= len(server.requests) <= 14


def test_the_totals_say_what_was_done(client: Client, server: LLMServer) -> None:
    """Rows, requests, tokens, errors; the function given as progress gets them at the end at the latest."""
    heard = []
    server.default = failing(a=Reply("No.", status=400), b=Reply("slow", status=429), c=Reply(["x", "y"], cut=150))
    rows = client.map(list("abcde"), progress=heard.append)
    for row in rows:
        assert row.ok == (row.input != "a")
    totals = rows.totals
    assert (totals.read, totals.done, totals.failed, totals.requests, totals.refused) == (5, 4, 1, 7, 1)
    assert totals.errors == {"BadRequest": 1}
    assert totals.input_tokens > 0
    assert totals.output_tokens > 0
    assert heard[-1].done == 4
    assert "4 done, 1 failed (1 BadRequest)" in str(totals)


def test_progress_is_a_line_on_standard_error(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """Where that is not a terminal, a short run has a single one."""
    client.map(["a", "b"], progress=True).complete()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("2 done")
    assert said.err.count("\n") == 1


def test_a_progress_that_raises_ends_the_run(client: Client) -> None:
    """With its own error."""

    def progress(totals: Any) -> None:
        raise Left

    with pytest.raises(Left):
        client.map(["a"], progress=progress).complete()


def test_the_client_and_its_settings_are_used(client: Client, server: LLMServer) -> None:
    """And what the call adds."""
    [row] = client.map(["a"], system="Be brief.", temperature=0.5).complete()
    assert isinstance(row.answer, Completion)
    [request] = server.requests
    assert request.json["temperature"] == 0.5
    assert request.json["messages"][0]["content"] == "Be brief."
    assert request.header("authorization") == f"Bearer {KEY}"
