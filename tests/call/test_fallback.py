"""Several models for one call: their order, the cool-down of a failed one, and the error when all of them fail."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import KEY
from loopback import free_port, head
from modes import LOOPS, MODES, Mode
from moments import cancelled_when

from llmbridge import (
    AllFailed,
    AuthError,
    BadRequest,
    Cancelled,
    Client,
    ClockExpired,
    ConfigError,
    ConnectFailed,
    ContextLengthExceeded,
    InvalidRequest,
    LLMBridgeError,
    MissingKey,
    NotFound,
    Overloaded,
    ProtocolError,
    RateLimited,
    Retry,
    RetryAttempt,
    ServerError,
    StreamTruncated,
    Timeout,
    UnknownProvider,
    chat,
)
from llmbridge._call.route import COOL_DOWN, Breaker
from llmbridge.testing import HOLD, LLMServer, Reply

OVERLOADED = {"message": "busy", "type": "overloaded_error", "code": 503}


class Pair:
    """Two services, and a client that falls back from the first to the second.

    Attributes:
        first, second: The servers.
        one, two: A client of each.
        both: Of both, in order.
        now: What the breakers take for the time.
    """

    def __init__(self, first: LLMServer, second: LLMServer) -> None:
        self.first, self.second = first, second
        second.default = Reply(["from ", "two"])
        self.now = 1000.0
        self.one = Client("openai:a", base_url=first.base_url("openai"), api_key=KEY, retries=0)
        self.two = Client("anthropic:b", base_url=second.base_url("anthropic"), api_key=KEY, retries=0)
        for client, name in ((self.one, "openai:a"), (self.two, "anthropic:b")):
            client.connections.breakers[name] = Breaker(lambda: self.now)
        self.both = Client([self.one, self.two], timeout=20)

    @property
    def asked(self) -> tuple[int, int]:
        """How many requests each server got."""
        return len(self.first.requests), len(self.second.requests)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two services."""
    with LLMServer() as first, LLMServer() as second:
        made = Pair(first, second)
        with made.one, made.two, made.both:
            yield made


# -- the memory --------------------------------------------------------------------------------------------------


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_a_breaker_lets_one_trial_through_after_the_cool_down() -> None:
    """During the cool-down no call passes; afterwards one does, and its outcome decides for all."""
    clock = Clock()
    breaker = Breaker(clock)
    assert breaker.admits()
    breaker.failed(ConnectFailed("down"))
    clock.now = COOL_DOWN - 0.001
    assert not breaker.admits()
    clock.now = COOL_DOWN
    assert [breaker.admits() for _ in range(3)] == [True, False, False]
    breaker.failed(ConnectFailed("still down"))
    assert not breaker.admits()
    clock.now += COOL_DOWN
    assert breaker.admits()
    breaker.succeeded()
    assert breaker.admits()
    assert breaker.admits()


def test_a_trial_that_gives_up_makes_room_for_another() -> None:
    """A trial that was cancelled decides nothing; one that never reports is followed by another."""
    clock = Clock()
    breaker = Breaker(clock)
    breaker.failed(ConnectFailed("down"))
    clock.now = COOL_DOWN
    assert breaker.admits()
    breaker.gave_up()
    assert [breaker.admits(), breaker.admits()] == [True, False]
    clock.now += COOL_DOWN
    assert [breaker.admits(), breaker.admits()] == [True, False]


@pytest.mark.parametrize(
    ("error", "cool_down"),
    [
        (RateLimited("slow", retry_after=5.0), 5.0),
        (RateLimited("slow"), COOL_DOWN),
        (RateLimited("slow", retry_after=7200.0), 600.0),
        (Overloaded("busy", retry_after=0.0), 0.0),
        (ServerError("oh"), COOL_DOWN),
        (AuthError("who"), COOL_DOWN),
        (ClockExpired("slow", clock="first_content"), COOL_DOWN),
        (ProtocolError("what"), COOL_DOWN),
        (BadRequest("no"), 0.0),
        (ContextLengthExceeded("long"), 0.0),
        (MissingKey("no key"), 0.0),
        (Cancelled("enough"), 0.0),
    ],
)
def test_what_failed_decides_how_long_a_model_is_left_out(error: LLMBridgeError, cool_down: float) -> None:
    """The cool-down is the service's wait, within bounds; errors of the request itself cause none."""
    clock = Clock()
    breaker = Breaker(clock)
    breaker.failed(error)
    if cool_down:
        clock.now = cool_down - 0.01
        assert not breaker.admits()
    clock.now = cool_down
    assert breaker.admits()


def test_a_shorter_cool_down_does_not_end_a_longer_one() -> None:
    """A longer cool-down stays, whatever another call reports meanwhile."""
    clock = Clock()
    breaker = Breaker(clock)
    breaker.failed(RateLimited("slow", retry_after=60.0))
    breaker.failed(RateLimited("slow", retry_after=1.0))
    clock.now = 59.0
    assert not breaker.admits()


def test_of_many_threads_one_becomes_the_trial() -> None:
    """Of many threads at the same moment, one becomes the trial."""
    for _ in range(20):
        clock = Clock()
        breaker = Breaker(clock)
        breaker.failed(ConnectFailed("down"))
        clock.now = COOL_DOWN
        together = threading.Barrier(8)
        admitted: list[bool] = []

        def ask(breaker: Breaker = breaker, together: threading.Barrier = together, into: Any = admitted) -> None:
            together.wait(10)
            into.append(breaker.admits())

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(admitted) == [False] * 7 + [True]


def test_a_call_from_before_leaves_the_trial_of_another_alone() -> None:
    """The end of an earlier call does not start a second trial."""
    clock = Clock()
    breaker = Breaker(clock)
    old, trial, late = object(), object(), object()
    assert breaker.admits(old)
    breaker.failed(ConnectFailed("down"), late)
    clock.now = COOL_DOWN
    assert breaker.admits(trial)
    breaker.gave_up(old)
    breaker.failed(BadRequest("no"), old)
    assert not breaker.admits(late)
    breaker.gave_up(trial)
    assert breaker.admits(late)


def test_a_cancelled_call_from_before_starts_no_second_trial(pair: Pair) -> None:
    """The same, with real calls."""
    pair.first.script(Reply(header_delay=30))
    outcome: list[type] = []

    def read() -> None:
        try:
            old.complete()
        except LLMBridgeError as error:
            outcome.append(type(error))

    with pair.both.chat("x") as old:
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        pair.first.wait_for_requests(1)
        breaker = pair.one.connections.breaker_of("openai:a")
        breaker.failed(ConnectFailed("down"))
        pair.now += COOL_DOWN
        assert breaker.admits("the trial")
        old.cancel()
        reader.join(30)
        assert outcome == [Cancelled]
        assert not breaker.admits("another")


def test_a_client_remembers_models_of_lists_only_and_not_for_ever() -> None:
    """A client that calls thousands of single models remembers nothing for each."""
    client = Client(api_key=KEY, base_url="http://127.0.0.1:9")
    for number in range(300):
        client.chat("x", model=f"openai:m{number}")
    assert not client.connections.breakers
    client = Client()
    for number in range(300):
        client.chat("x", model=[f"ollama:m{number}", "demo"])
    assert 1 < len(client.connections.breakers) <= 256
    assert client.connections.breaker_of("ollama:m299") is client.connections.breaker_of("ollama:m299")


def test_a_call_that_ends_inside_the_lock_blocks_nothing() -> None:
    """A garbage collection inside the lock may end another call, which reports to the same breaker."""

    def clock() -> float:
        breaker.gave_up()
        breaker.succeeded()
        assert not asking or breaker.admits()
        return 100.0

    asking: list[bool] = []
    breaker = Breaker(clock)
    breaker._open_until = 1.0
    asking.append(True)
    assert breaker.admits()


# -- the order ---------------------------------------------------------------------------------------------------


def test_the_first_that_answers_is_the_answer(pair: Pair, mode: Mode) -> None:
    """The first model's answer is returned, with its name, and no other model is called."""
    stream = pair.both.chat("Hi")
    completion = mode.complete(stream)
    assert (completion.provider, completion.model) == (stream.provider, stream.model) == ("openai", "a")
    assert pair.asked == (1, 0)


FAILURES: dict[str, tuple[Reply, type[LLMBridgeError]]] = {
    "status": (Reply("no", status=500), ServerError),
    "key": (Reply("no", status=401), AuthError),
    "model": (Reply("no", status=404), NotFound),
    "rate": (Reply("no", status=429, headers={"Retry-After": "3600"}), RateLimited),
    "too long": (Reply(status=400, error={"message": "m", "code": "context_length_exceeded"}), ContextLengthExceeded),
    "html": (Reply(body="<html>"), ProtocolError),
    "in stream": (Reply(error=OVERLOADED), Overloaded),
    "cut": (Reply(end_mark=False, finish_reason=None, body='data: {"choices": []}\n\n'), StreamTruncated),
}


@pytest.mark.parametrize("name", sorted(FAILURES))
def test_the_next_model_answers_when_one_has_failed(pair: Pair, mode: Mode, name: str) -> None:
    """After any failure before the first piece, the next model answers in its own dialect."""
    pair.first.script(FAILURES[name][0])
    stream = pair.both.chat("Hi")
    pieces: list[str] = []
    mode.each(stream, pieces.append)
    assert "".join(pieces) == stream.text == "from two"
    assert (stream.provider, stream.model) == ("anthropic", "b")
    assert pair.asked == (1, 1)


@pytest.mark.quick(1)
def test_what_is_refused_and_what_hangs_is_passed_over(pair: Pair, mode: Mode) -> None:
    """A refused connection and a service that times out are both skipped."""
    nobody = Client("openai:x", base_url=f"http://127.0.0.1:{free_port()}", retries=0)
    pair.first.script(Reply("late", header_delay=20))
    client = Client([nobody, pair.one, pair.two], timeout=Timeout(first_content=1))
    completion = mode.complete(client.chat("Hi"))
    assert (completion.text, completion.provider) == ("from two", "anthropic")


def test_each_model_is_sent_its_own_request(pair: Pair) -> None:
    """Each model gets the key, dialect and parameters of its own client only."""
    other = "sk-other-0123456789"
    two = Client("anthropic:b", base_url=pair.second.base_url("anthropic"), api_key=other, max_tokens=77)
    pair.first.script(Reply(status=500))
    assert Client([pair.one, two]).chat("Hi", temperature=0.5).complete().text == "from two"
    (first,), (second,) = pair.first.requests, pair.second.requests
    assert (first.json["model"], second.json["model"]) == ("a", "b")
    assert "max_tokens" not in first.json
    assert second.json["max_tokens"] == 77
    assert first.json["temperature"] == second.json["temperature"] == 0.5
    assert KEY in str(first.headers)
    assert KEY not in str(second.headers)
    assert other in str(second.headers)


def test_nothing_is_tried_after_the_first_piece(pair: Pair, mode: Mode) -> None:
    """After the first piece there is no fallback: the error names the model that began."""
    pair.first.script(Reply(["a", "b"], error=OVERLOADED))
    outcome = mode.read(stream := pair.both.chat("Hi"))
    assert outcome.pieces == ["a", "b"]
    assert type(outcome.error) is Overloaded
    assert (outcome.error.provider, outcome.error.model, outcome.error.partial) == ("openai", "a", "ab")
    assert (stream.provider, pair.asked) == ("openai", (1, 0))


def test_retries_come_before_the_next_model(pair: Pair, mode: Mode) -> None:
    """Each model is retried by its own client's policy, counted anew."""
    seen: list[RetryAttempt] = []
    policy = Retry(2, backoff=0.01, on_retry=seen.append)
    pair.first.default = Reply(status=500)
    pair.second.script(Reply(status=503), Reply(status=503))
    assert mode.complete(pair.both.chat("Hi", retries=policy)).text == "from two"
    assert pair.asked == (3, 3)
    assert [(attempt.error.provider, attempt.number) for attempt in seen] == [
        ("openai", 1),
        ("openai", 2),
        ("anthropic", 1),
        ("anthropic", 2),
    ]


@pytest.mark.slow
def test_a_long_wait_is_not_waited_for_while_there_is_another_model(pair: Pair, mode: Mode) -> None:
    """A long `retry_after` is skipped in favour of the next model, except for the last one."""
    policy = Retry(2, backoff=0.01, max_backoff=0.05)
    pair.first.default = Reply(status=429, headers={"Retry-After": "60"})
    pair.second.script(Reply(status=429, headers={"retry-after-ms": "300"}))
    started = time.monotonic()
    assert mode.complete(pair.both.chat("Hi", retries=policy)).text == "from two"
    assert 0.25 < time.monotonic() - started < 40
    assert pair.asked == (1, 2)


@pytest.mark.slow
def test_chat_takes_several_models_as_well(pair: Pair, mode: Mode) -> None:
    """Lists of names and clients work in the function and in the method."""
    pair.first.default = Reply(status=500)
    assert mode.complete(chat("Hi", model=[pair.one, pair.two])).provider == "anthropic"
    assert mode.complete(Client().chat("Hi", model=[pair.one, "demo"])).provider == "demo"


# -- the cool-down, end to end -----------------------------------------------------------------------------------


def test_a_model_that_failed_is_left_out_for_a_while(pair: Pair, mode: Mode) -> None:
    """A failed model is skipped until its cool-down is over."""
    pair.first.script(Reply(status=500))
    for _ in range(3):
        assert mode.complete(pair.both.chat("Hi")).provider == "anthropic"
    assert pair.asked == (1, 3)
    pair.now += COOL_DOWN
    for _ in range(2):
        assert mode.complete(pair.both.chat("Hi")).provider == "openai"
    assert pair.asked == (3, 3)


def test_a_trial_that_fails_begins_another_cool_down(pair: Pair, mode: Mode) -> None:
    """A failed trial costs the caller one request, and begins another cool-down."""
    pair.first.default = Reply(status=500)
    for _ in range(2):
        for _ in range(2):
            assert mode.complete(pair.both.chat("Hi")).provider == "anthropic"
        pair.now += COOL_DOWN
    assert pair.asked == (2, 4)


def test_the_service_decides_how_long(pair: Pair, mode: Mode) -> None:
    """A rate limit's own wait is the cool-down."""
    pair.first.script(Reply(status=429, headers={"Retry-After": "300"}))
    assert mode.complete(pair.both.chat("Hi")).provider == "anthropic"
    pair.now += 299
    assert mode.complete(pair.both.chat("Hi")).provider == "anthropic"
    pair.now += 1
    assert mode.complete(pair.both.chat("Hi")).provider == "openai"


def test_while_one_tries_the_others_do_not_wait_for_it(pair: Pair, mode: Mode) -> None:
    """While a slow trial runs, other calls use the second model."""
    release = threading.Event()

    def slow(_: Any) -> Reply:
        assert release.wait(20)
        return Reply("one is back")

    pair.first.script(Reply(status=500), slow)
    assert pair.both.chat("Hi").complete().provider == "anthropic"
    pair.now += COOL_DOWN
    trial: list[str] = []
    thread = threading.Thread(target=lambda: trial.append(pair.both.chat("Hi").complete().text))
    thread.start()
    try:
        pair.first.wait_for_requests(2, 10)
        assert mode.at_once([pair.both.chat("Hi") for _ in range(4)]) == [["from ", "two"]] * 4
    finally:
        release.set()
        thread.join(30)
    assert trial == ["one is back"]
    assert mode.complete(pair.both.chat("Hi")).provider == "openai"


def test_the_end_of_a_long_answer_says_nothing_new(pair: Pair) -> None:
    """The end of an earlier answer does not end the cool-down."""
    pair.first.script(Reply(["a", "b"], delay=0.05), Reply(status=500))
    stream = pair.both.chat("Hi")
    assert next(stream) == "a"
    assert pair.both.chat("Hi").complete().provider == "anthropic"
    assert list(stream) == ["b"]
    assert pair.both.chat("Hi").complete().provider == "anthropic"
    assert pair.asked == (2, 2)


@pytest.mark.parametrize("way", ["cancel", "close"])
def test_a_trial_that_is_given_up_leaves_room_for_the_next(pair: Pair, way: str) -> None:
    """A caller who leaves the trial early lets the next call be the trial."""
    pair.first.script(Reply(status=500), Reply(raw=[HOLD]), Reply("back"))
    pair.both.chat("Hi").complete()
    pair.now += COOL_DOWN
    stream = pair.both.chat("Hi")
    ended: list[LLMBridgeError | None] = []
    thread = threading.Thread(target=lambda: ended.append(MODES["sync"].read(stream).error))
    thread.start()
    try:
        pair.first.wait_for_requests(2, 10)
    finally:
        getattr(stream, way)()
        thread.join(30)
    assert type(ended[0]) is Cancelled
    assert pair.both.chat("Hi").complete().text == "back"


@pytest.mark.parametrize("loop", sorted(LOOPS))
@pytest.mark.quick(1)
def test_a_trial_whose_task_is_cancelled_leaves_room_for_the_next(pair: Pair, loop: str) -> None:
    """The task is cancelled while the event loop waits for the first piece."""
    pair.first.script(Reply(status=500), Reply(raw=[head() + b": wait\n\n", HOLD]), Reply("back"))
    pair.both.chat("Hi").complete()
    pair.now += COOL_DOWN

    async def read() -> None:
        async for _ in pair.both.chat("Hi"):
            raise AssertionError("nothing was to come")

    LOOPS[loop].run(lambda: cancelled_when(lambda: len(pair.first.requests) == 2, read))
    assert pair.first.requests[1].gone.wait(30)
    _wait_for(
        lambda: pair.one.connections.breakers["openai:a"]._trial_until < pair.now
    )  # its thread has come back, too
    assert pair.both.chat("Hi").complete().text == "back"
    assert pair.asked == (3, 1)


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come to pass within 20 s"
        time.sleep(0.005)


def test_a_model_that_cools_down_is_tried_at_last(pair: Pair, mode: Mode) -> None:
    """If no other model is left, the one that cools down is tried; success ends its cool-down."""
    pair.first.script(Reply(status=500))
    assert mode.complete(pair.both.chat("Hi")).provider == "anthropic"
    pair.second.script(Reply(status=500))
    assert mode.complete(pair.both.chat("Hi")).provider == "openai"
    pair.now += 1
    assert mode.complete(pair.both.chat("Hi")).provider == "openai"
    assert pair.asked == (3, 2)


def test_the_request_s_own_fault_starts_no_cool_down(pair: Pair) -> None:
    """A prompt too long for one model goes to the next; the next prompt goes to the first again."""
    pair.first.script(FAILURES["too long"][0])
    assert pair.both.chat("Hi").complete().provider == "anthropic"
    assert pair.both.chat("Hi").complete().provider == "openai"


@pytest.mark.slow
def test_a_model_that_uses_up_all_the_time_is_left_out_by_the_next_call(pair: Pair, mode: Mode) -> None:
    """A model that uses up the total timeout is skipped by the next call."""
    pair.first.script(Reply("late", header_delay=20))
    error = mode.read(pair.both.chat("Hi", timeout=1)).error
    assert isinstance(error, ClockExpired)
    assert (error.clock, error.provider) == ("total", "openai")
    assert pair.asked == (1, 0)
    assert mode.complete(pair.both.chat("Hi")).provider == "anthropic"


# -- when all fail -----------------------------------------------------------------------------------------------


def test_one_error_holds_all_of_them(pair: Pair, mode: Mode) -> None:
    """The error names each model, survives pickling and copying, and shows no key."""
    pair.first.script(Reply(f"no {KEY}", status=401))
    pair.second.script(Reply("no", status=529))
    error = mode.read(pair.both.chat("Hi")).error
    assert isinstance(error, AllFailed)
    assert [(type(each), each.provider, each.model) for each in error.errors] == [
        (AuthError, "openai", "a"),
        (Overloaded, "anthropic", "b"),
    ]
    assert "openai:a: AuthError" in str(error)
    assert "anthropic:b: Overloaded" in str(error)
    assert all(each.request_id for each in error.errors)
    assert error.partial == ""
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert str(again) == str(error)
        assert [vars(each) for each in again.errors] == [vars(each) for each in error.errors]
    assert KEY not in str(error) + repr(error.errors) + repr([vars(each) for each in error.errors])
    assert KEY.encode() not in pickle.dumps(error)
    assert all(each.__traceback__ is None and each.__context__ is None for each in error.errors)


def test_a_model_without_a_key_is_passed_over(pair: Pair, mode: Mode) -> None:
    """Models without a key, or without a required feature, are skipped; the final error lists them."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    plain = Client("vitalentum:v", base_url=pair.second.root)
    ask: Callable[..., Any] = Client(["gemini:g", plain, pair.one], timeout=20).chat
    pair.first.script(Reply('{"a": 1}'), Reply(status=500))
    assert mode.complete(ask("Hi", schema=schema)).parsed == {"a": 1}
    error = mode.read(ask("Hi", schema=schema)).error
    assert isinstance(error, AllFailed)
    assert [type(each) for each in error.errors] == [MissingKey, InvalidRequest, ServerError]
    assert [each.provider for each in error.errors] == ["gemini", "vitalentum", "openai"]
    assert error.errors[0].model == "g"


def test_where_no_model_can_be_asked_the_call_says_so() -> None:
    """If all models are unusable, the error says so before anything is sent."""
    with pytest.raises(MissingKey, match=r"openai:a: .*OPENAI_API_KEY.*gemini:g: .*GEMINI_API_KEY"):
        Client(["openai:a", "gemini:g"]).chat("Hi")
    with pytest.raises(ConfigError, match=r"none of the 2 models accepts the request"):
        chat("Hi", model=["openai:a", "vitalentum:v"], schema={"type": "object"})
    with pytest.raises(InvalidRequest) as caught:
        chat("Hi", model=["demo", "demo"], temperature=float("nan"))
    assert "none of" not in str(caught.value)


def test_one_model_in_a_list_fails_with_its_own_error(pair: Pair) -> None:
    """A list of one model raises the model's own error."""
    pair.first.script(Reply(status=500))
    with pytest.raises(ServerError):
        Client([pair.one]).chat("Hi").complete()


def test_cancelling_ends_it_all(pair: Pair, mode: Mode) -> None:
    """A cancelled call does not fall back."""
    pair.first.default = Reply(status=503)
    streams: list[Any] = []
    policy = Retry(1, on_retry=lambda _: streams[0].cancel())
    streams.append(pair.both.chat("Hi", retries=policy))
    assert type(mode.read(streams[0]).error) is Cancelled
    assert pair.asked == (1, 0)


@pytest.mark.slow
def test_the_total_clock_covers_all_models(pair: Pair, mode: Mode) -> None:
    """The total timeout covers all models together."""
    slow = Reply(status=500, header_delay=0.2)
    pair.first.default = pair.second.default = slow
    client = Client([pair.one, pair.two] * 10, timeout=0.5)
    started = time.monotonic()
    error = mode.read(client.chat("Hi")).error
    assert time.monotonic() - started < 10
    assert isinstance(error, ClockExpired)
    assert error.clock == "total"
    assert sum(pair.asked) <= 3


@pytest.mark.parametrize("loop", sorted(LOOPS))
@pytest.mark.quick(1)
def test_a_cancelled_task_goes_to_no_other_model(pair: Pair, loop: str) -> None:
    """The task is free at once, and the second model is never called."""
    pair.first.default = Reply("late", header_delay=20)
    started = time.monotonic()
    LOOPS[loop].run(lambda: cancelled_when(lambda: pair.first.requests, pair.both.chat("Hi").acomplete))
    assert time.monotonic() - started < 15
    assert pair.asked == (1, 0)


# -- the setup ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [[], (), {}, 5, b"openai:a", ["demo", 5], ["demo", None], ["demo", ""]])
def test_a_list_of_models_holds_models(models: Any) -> None:
    """Anything but a model in the list is rejected, in the client and in the call."""
    for make in (lambda: Client(models), lambda: chat("Hi", model=models)):
        with pytest.raises(ConfigError):
            make()


def test_an_unknown_name_is_a_mistake_and_not_a_failure() -> None:
    """A typo in a model's name must not hide behind the fallback."""
    for make in (lambda: Client(["nosuch:a", "demo"]), lambda: chat("Hi", model=["nosuch:a", "demo"])):
        with pytest.raises(UnknownProvider, match="nosuch"):
            make()


@pytest.mark.parametrize(
    "option",
    [{"api_key": "sk-123456"}, {"base_url": "http://127.0.0.1:9"}, {"headers": {"Authorization": "Bearer sk-123456"}}],
)
def test_what_belongs_to_one_service_is_refused_for_several(option: dict[str, Any]) -> None:
    """Options of one service are rejected for several, with advice."""
    for make in (
        lambda: Client(["openai:a", "demo"], **option),
        lambda: Client(["openai:a", "demo"]).chat("Hi", **option),
        lambda: Client("demo", **option).chat("Hi", model=["openai:a", "demo"]),
        lambda: chat("Hi", model=["openai:a", "demo"], **option),
    ):
        with pytest.raises(ConfigError, match="pass a Client for each instead") as caught:
            make()
        assert "sk-123456" not in str(caught.value)


def test_a_list_in_a_list_is_refused() -> None:
    """A client with several models cannot be a part of another list."""
    with pytest.raises(ConfigError, match="must have one model"):
        Client([Client(["demo", "demo"]), "demo"])
