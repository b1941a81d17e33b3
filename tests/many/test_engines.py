"""`map(executor=...)`: the same rows from other threads and processes, also if those die. Clusters: tests/engines."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from canary import KEY, sightings
from modes import Mode

from llmbridge import (
    AuthError,
    Cancelled,
    Client,
    ConfigError,
    Limits,
    LLMBridgeError,
    Message,
    MissingKey,
    Retry,
    WorkerLost,
)
from llmbridge.limits import Limiter
from llmbridge.many import Row, engines, run_shard
from llmbridge.many.engines import _Pool
from llmbridge.many.run import Plan
from llmbridge.many.shard import Report, work
from llmbridge.many.spread import Spread, _places
from llmbridge.testing import LLMServer, Received, Reply

SPAWN = multiprocessing.get_context("spawn")  # what an executor of processes does by itself differs between Pythons
HERE = os.getpid()


@dataclass
class Word:
    """What the rows of some tests are parsed to. In a worker, one word ends the process."""

    word: str

    def __post_init__(self) -> None:
        if self.word == "poison" and multiprocessing.parent_process() is not None:
            os._exit(3)


@dataclass
class Fussy:
    """Raises here, but in no worker."""

    word: str

    def __post_init__(self) -> None:
        if multiprocessing.parent_process() is None:
            raise KeyError(self.word)


@pytest.fixture(scope="module", autouse=True)
def pool() -> Iterator[Executor]:
    """Two processes, which find the key in their environment."""
    with new_pool() as executor:
        yield executor


@pytest.fixture
def threads() -> Iterator[Executor]:
    """Two threads."""
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture(params=["threads", "pool"])
def executor(request: pytest.FixtureRequest) -> Executor:
    """One of them."""
    found: Executor = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def processes() -> Iterator[ProcessPoolExecutor]:
    """Two processes that a test may kill."""
    with new_pool() as executor:
        yield executor


def new_pool() -> ProcessPoolExecutor:
    """Two processes, which find the key in their environment; they are there already."""
    executor = ProcessPoolExecutor(2, SPAWN, set_key, (KEY,))
    for _ in executor.map(time.sleep, [0.1, 0.1]):
        pass
    return executor


def set_key(key: str | None) -> None:
    """In a worker, before its first task."""
    if key is None:
        os.environ.pop("OPENAI_API_KEY", None)
    else:
        os.environ["OPENAI_API_KEY"] = key


@pytest.fixture
def client(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of `server` that has its key from the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.default = echo
    retries = Retry(backoff=0.01, max_backoff=0.05)
    with Client("openai:m", base_url=server.base_url("openai"), retries=retries, timeout=30) as made:
        yield made


def echo(received: Received) -> Reply:
    """What was said, or a failure if that was wanted."""
    text = received.user_text
    return Reply("no", status=400) if text == "bad" else Reply(f"<{text}>", header_delay=0.002 * (len(text) % 7))


def outcome(row: Row[Any]) -> tuple[Any, ...]:
    """What must be the same from every sender."""
    answer = row.answer and (row.answer.text, row.answer.usage, row.answer.headers is not None, row.answer.parsed)
    error = row.error and (type(row.error), row.error.message, getattr(row.error, "status", None))
    return row.index, row.input, row.key, answer, row.vector, error, row.attempts, row.resumed


# -- the same rows ----------------------------------------------------------------------------------------------------


def test_p51_workers_give_the_same_rows(client: Client, executor: Executor, mode: Mode) -> None:
    """In the order of the input, with the same answers, errors and attempts."""
    items = [{"id": number, "text": "bad" if number % 40 == 5 else f"row {number}"} for number in range(300)]

    def rows(**how: Any) -> list[Any]:
        return mode.read(client.map(items, prompt="{text}", key="id", **how)).pieces

    assert list(map(outcome, rows(executor=executor))) == list(map(outcome, rows()))


def test_p51_rows_have_their_type_whoever_parsed_them(
    client: Client, server: LLMServer, executor: Executor, tmp_path: Path
) -> None:
    """Also when they come from the journal."""
    server.default = lambda received: Reply(f'{{"word": "{received.user_text}"}}')
    journal = tmp_path / "journal"
    for resumed in (False, True):
        rows = client.map(["one", "two"], schema=Word, executor=executor, journal=journal).complete()
        assert [(row.parsed, row.resumed) for row in rows] == [(Word("one"), resumed), (Word("two"), resumed)]
    assert len(server.requests) == 2


def test_p51_a_class_that_raises_here_alone_fails_its_row(client: Client, server: LLMServer, pool: Executor) -> None:
    """As it does in a worker."""
    server.default = Reply('{"word": "one"}')
    [row] = client.map(["a"], schema=Fussy, executor=pool).complete()
    assert row.error is not None
    assert "KeyError: 'one'" in row.error.message


def test_embeddings_come_from_workers_as_well(client: Client, server: LLMServer, executor: Executor) -> None:
    """Several texts share a request, as they do without workers."""
    texts = list(map(str, range(150)))
    rows = client.map(texts, embed=True, executor=executor).complete()
    assert [row.vector for row in rows] == client.embed(texts).vectors
    assert len(server.requests) < 20


def test_tools_travel_by_name(server: LLMServer, client: Client, executor: Executor) -> None:
    """They run where the row is."""
    server.default = answer_after_tool
    [row] = client.map(["hi"], tools=[process_id], run_tools=True, executor=executor).complete()
    assert row.text.isdigit()
    assert (int(row.text) == HERE) == isinstance(executor, ThreadPoolExecutor)


def process_id() -> str:
    """The id of this process."""
    return str(os.getpid())


def answer_after_tool(received: Received) -> Reply:
    """Calls the tool, and then says what it returned."""
    last = received.json["messages"][-1]
    if last["role"] == "tool":
        return Reply(last["content"])
    return Reply(tool_calls=[{"name": "process_id", "arguments": {}}])


def test_p51_an_endless_input_is_read_as_far_as_the_window(client: Client, executor: Executor) -> None:
    """The driver reads, and only ahead of what is taken."""
    read = 0

    def items() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "row"

    for row in client.map(items(), window=50, executor=executor):
        if row.index == 60:
            break
    assert 60 < read <= 60 + 52


# -- workers that die -------------------------------------------------------------------------------------------------


def test_p51_a_worker_that_dies_costs_no_row(
    client: Client, server: LLMServer, processes: ProcessPoolExecutor, tmp_path: Path
) -> None:
    """Nor an outcome of another row; what it had under way is sent again."""
    victim: list[int] = []
    count = 400

    def answer(received: Received) -> Reply:
        if len(server.requests) > 60 and not victim and processes._processes:
            victim.append(next(iter(processes._processes)))
            os.kill(victim[0], signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        return Reply(f"<{received.user_text}>", header_delay=0.005)

    server.default = answer
    rows = client.map(map(str, range(count)), concurrency=8, executor=processes, journal=tmp_path / "j")
    assert [row.text for row in rows] == [f"<{number}>" for number in range(count)]
    assert victim
    asked = Counter(received.user_text for received in server.requests)
    assert sum(times - 1 for times in asked.values()) <= 2 * 200  # the shards that were under way
    assert rows.totals.done == count


@pytest.mark.slow
def test_p51_a_row_that_kills_workers_fails_alone(
    client: Client, server: LLMServer, processes: ProcessPoolExecutor
) -> None:
    """The rows beside it are answered."""
    server.default = lambda received: Reply(f'{{"word": "{received.user_text}"}}')
    items = ["poison" if number == 17 else f"w{number}" for number in range(40)]
    rows = client.map(items, schema=Word, executor=processes, concurrency=4).complete()
    assert [row.index for row in rows if not row.ok] == [17]
    assert isinstance(rows[17].error, WorkerLost)
    assert [row.parsed.word for row in rows if row.ok] == [item for item in items if item != "poison"]


class Dying(ThreadPoolExecutor):
    """Its worker dies of the first shards."""

    deaths = 3

    def submit(  # noqa: D102
        self, work: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        if args and self.deaths:
            self.deaths -= 1
            return super().submit(self._die)
        return super().submit(work, *args, **kwargs)

    @staticmethod
    def _die() -> None:
        raise BrokenExecutor("a worker died")


def test_the_driver_sleeps_while_a_suspect_is_under_way(
    client: Client, server: LLMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although others are ready, and a place is free."""
    looks, hear = 0, Spread._hear

    def count(run: Spread, seconds: float | None) -> None:
        nonlocal looks
        looks += 1
        hear(run, seconds)

    monkeypatch.setattr(Spread, "_hear", count)
    server.default = lambda received: Reply("yes", header_delay=1.0 if received.user_text == "0" else 0.0)
    with Dying(2) as executor:
        rows = client.map(map(str, range(8)), executor=executor, window=2, concurrency=2).complete()
    assert [row.ok for row in rows] == [True] * 8
    assert looks < 200


def test_p51_a_driver_hangs_up_on_shards_that_are_over(
    client: Client, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system lets only so many wait: a run may have any number of shards."""
    monkeypatch.setattr(engines, "_BACKLOG", 2)
    rows = client.map(map(str, range(20)), executor=executor, window=1).complete()
    assert [row.text for row in rows] == [f"<{number}>" for number in range(20)]


class Broken(ThreadPoolExecutor):
    """Takes no tasks with arguments."""

    def submit(  # noqa: D102
        self, work: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        if args:
            self.shutdown(wait=False)
        return super().submit(work, *args, **kwargs)


def test_an_executor_that_takes_no_more_ends_the_run(client: Client) -> None:
    """With an error that says so."""
    with Broken(1) as executor, pytest.raises(WorkerLost, match="takes no more rows: cannot schedule new futures"):
        client.map(["a"], executor=executor).complete()


def test_workers_that_never_start_end_the_run(client: Client, server: LLMServer) -> None:
    """At once, with the executor's own words: no row is to blame."""
    with ProcessPoolExecutor(1, SPAWN, os._exit, (1,)) as executor:
        rows = client.map([f"row {number}" for number in range(100)], executor=executor)
        with pytest.raises(ConfigError, match="could not run a task: BrokenProcessPool"):
            rows.complete()
    assert server.requests == []


def test_a_pool_that_broke_before_is_made_anew(client: Client) -> None:
    """As it is if it breaks on the way."""
    with ProcessPoolExecutor(1, SPAWN, set_key, (KEY,)) as executor:
        assert isinstance(executor.submit(os._exit, 1).exception(), BrokenProcessPool)
        assert client.map(["a"], executor=executor).complete()[0].text == "<a>"


class Raising(ThreadPoolExecutor):
    """Its tasks raise, as they do where llmbridge is not installed."""

    def submit(  # noqa: D102
        self, work: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        return super().submit(self._fail) if args else super().submit(work)

    @staticmethod
    def _fail() -> None:
        raise ModuleNotFoundError("No module named 'llmbridge'")


def test_a_worker_without_llmbridge_ends_the_run(client: Client) -> None:
    """The executor's own error is in the message."""
    with Raising(1) as executor, pytest.raises(ConfigError, match="No module named 'llmbridge'"):
        client.map(["a"], executor=executor).complete()


# -- the end ----------------------------------------------------------------------------------------------------------


def test_p51_workers_stop_when_the_loop_is_left(client: Client, server: LLMServer, executor: Executor) -> None:
    """Requests under way are closed, and no others follow."""
    server.default = lambda received: Reply(["a", "b"], header_delay=0.01, piece_delay=0.01)
    for row in client.map(map(str, range(10**9)), executor=executor, concurrency=16):
        if row.index == 20:
            break
    wait_until(lambda: quiet(server))
    count = len(server.requests)
    time.sleep(0.3)
    assert len(server.requests) == count


def test_p51_what_workers_have_finished_is_kept_on_cancel(
    client: Client, server: LLMServer, executor: Executor, tmp_path: Path
) -> None:
    """The next run with the same journal does not send it again."""
    journal, begun, release = tmp_path / "j", threading.Event(), threading.Event()

    def answer(received: Received) -> Reply:
        if received.user_text == "last":
            begun.set()
            release.wait(20)
        return Reply("yes")

    server.default = answer
    items = ["first", "last"]
    rows = client.map(items, executor=executor, concurrency=1, journal=journal)
    ended: list[LLMBridgeError] = []

    def take() -> None:
        try:
            rows.complete()
        except LLMBridgeError as error:
            ended.append(error)

    taking = threading.Thread(target=take)
    taking.start()
    assert begun.wait(20)
    wait_until(lambda: len(server.requests) == len(items))
    rows.cancel()
    taking.join(20)
    release.set()
    assert [type(error) for error in ended] == [Cancelled]
    sent = len(server.requests)
    assert all(row.ok for row in client.map(items, executor=executor, concurrency=1, journal=journal))
    assert len(server.requests) == sent + 1


@pytest.mark.skipif(sys.platform == "win32", reason="processes of Windows have no such signals")
def test_p51_a_worker_that_is_interrupted_keeps_what_it_has(
    client: Client, server: LLMServer, processes: ProcessPoolExecutor
) -> None:
    """As by Ray, or by a terminal: only the rows under way are sent again."""
    interrupted: list[int] = []

    def answer(received: Received) -> Reply:
        if received.user_text == "25" and not interrupted:
            interrupted.extend(processes._processes)
            for process in interrupted:
                os.kill(process, signal.SIGINT)
        return Reply("yes", header_delay=0.02)

    server.default = answer
    rows = client.map(map(str, range(60)), concurrency=4, executor=processes).complete()
    assert [row.index for row in rows] == list(range(60))
    assert all(row.ok for row in rows)
    assert 0 < len(server.requests) - 60 <= 4


def quiet(server: LLMServer, seconds: float = 0.2) -> bool:
    """Whether nothing was sent for a moment."""
    before = len(server.requests)
    time.sleep(seconds)
    return len(server.requests) == before


def wait_until(condition: Callable[[], bool]) -> None:
    """Fails if it does not come true."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


DRIVER = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from llmbridge import Client

if __name__ == "__main__":
    executor = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
    for row in Client("openai:m", base_url=sys.argv[1]).map(map(str, range(10**9)), executor=executor, concurrency=2):
        print(row.index, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="processes of Windows have no such signals")
def test_p51_workers_stop_when_the_driver_is_killed(client: Client, server: LLMServer, tmp_path: Path) -> None:
    """SIGKILL: nobody tells them, and they are in the middle of a hundred rows."""
    server.default = lambda received: Reply("yes", header_delay=0.2)
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, str(tmp_path / "driver.py"), server.base_url("openai")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        try:
            wait_until(lambda: len(server.requests) > 12)
            driver.kill()
            sent = len(server.requests)
            wait_until(lambda: quiet(server, seconds=1.0))
            assert len(server.requests) < sent + 100
        finally:
            os.killpg(driver.pid, signal.SIGKILL)  # idle workers of a pool outlive it


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"concurrency": 3}, {"limits": Limits(concurrency=3)}], ids=["fixed", "limits"])
def test_p51_the_width_is_that_of_all_workers(
    server: LLMServer, executor: Executor, how: dict[str, Any], client: Client
) -> None:
    """Whether it is fixed or adapts."""
    most, now, lock = 0, 0, threading.Lock()

    def answer(received: Received) -> Reply:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1
        return Reply("yes")

    server.default = answer
    limits, width = how.get("limits"), how.get("concurrency")
    with Client("openai:m", base_url=server.base_url("openai"), limits=limits) as limited:
        rows = limited.map(map(str, range(60)), executor=executor, concurrency=width).complete()
    assert all(row.ok for row in rows)
    assert 2 <= most <= 3


def test_p51_each_place_has_its_part_of_the_limits() -> None:
    """All parts together are the whole; there are no more places than parts."""
    limits = Limits(requests_per_minute=601, tokens_per_minute=1000, concurrency=10, burst=9)
    places = _places(4, plan(most=10), limits)
    assert [place.most for place in places] == [3, 3, 2, 2]
    assert sum(place.width for place in places) <= 10
    parts = [place.limits for place in places]
    assert [part and part.requests_per_minute for part in parts] == [151, 150, 150, 150]
    assert [part and part.tokens_per_minute for part in parts] == [250, 250, 250, 250]
    assert [part and part.burst for part in parts] == [2, 2, 2, 2]
    assert [place.concurrency for place in _places(4, plan(concurrency=3), None)] == [1, 1, 1]
    assert [place.concurrency for place in _places(2, plan(concurrency=64, most=5), None)] == [3, 2]
    assert len(_places(4, plan(), Limits(requests_per_minute=2))) == 2
    assert len(_places(4, plan(), None)) == 4


def plan(concurrency: int | None = None, most: int | None = None) -> Plan:
    """A plan of which only these matter."""
    rest: dict[str, Any] = dict.fromkeys(("questions", "window", "max_errors", "journal", "progress"))
    return Plan(**rest, in_order=True, concurrency=concurrency, most=most, attempts=1)


@pytest.mark.slow
def test_p51_requests_keep_their_distance_from_shard_to_shard(
    server: LLMServer, executor: Executor, client: Client
) -> None:
    """Two workers at 60 a minute each send no more than two in a second, however small the shards are."""
    times: list[float] = []

    def answer(received: Received) -> Reply:
        times.append(time.monotonic())
        return Reply("yes")

    server.default = answer
    limits = Limits(requests_per_minute=120, burst=1)
    with Client("openai:m", base_url=server.base_url("openai"), limits=limits) as limited:
        rows = limited.map(map(str, range(8)), executor=executor, window=2).complete()
    assert all(row.ok for row in rows)
    assert times[-1] - times[0] > 2.8


def test_p51_a_shard_takes_over_what_was_sent_before_it() -> None:
    """Its limiter counts the requests of the last minute, and paces the next ones behind them."""
    now = 100.0
    before = Limiter(Limits(requests_per_minute=6, tokens_per_minute=100, burst=1), clock=lambda: now)
    assert taken(before, tokens=30) == 0.0
    now += 4.0
    assert before.recent() == [(4.0, 30)]
    after = Limiter(before.limits, clock=lambda: now)
    after.resume(before.recent())
    assert taken(after, tokens=30) == pytest.approx(6.0, abs=0.01)  # ten seconds apart
    assert taken(after, tokens=90) == pytest.approx(56.0, abs=0.01)  # once the tokens are a minute old


def taken(limiter: Limiter, tokens: int) -> float | None:
    """How long a request would have to wait."""
    from llmbridge.limits import Ticket

    ticket = Ticket(limiter, tokens, lambda: None)
    limiter.enter(ticket)
    delay = ticket.delay()
    ticket.release(tokens)
    return delay


# -- keys -------------------------------------------------------------------------------------------------------------


class Recording(ThreadPoolExecutor):
    """Keeps what would go over a wire."""

    def __init__(self) -> None:
        super().__init__(1)
        self.seen: list[bytes] = []

    def submit(  # noqa: D102
        self, work: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        self.seen += args
        future = super().submit(work, *args, **kwargs)
        if args:
            self.seen.append(future.result())
        return future


def test_p51_no_key_travels(client: Client, server: LLMServer) -> None:
    """Neither in tasks nor in what comes back, errors included."""
    server.default = lambda received: Reply(f"{KEY}?", status=400) if received.user_text == "bad" else Reply("yes")
    with Recording() as executor:
        rows = client.map(["a", "bad", "b"], executor=executor, key=str).complete()
    assert [row.ok for row in rows] == [True, False, True]
    assert executor.seen
    assert [found for data in executor.seen for found in sightings(data, "task")] == []
    assert KEY in str(server.requests[0].headers)


SECRETS: dict[str, dict[str, Any]] = {
    "key": {"api_key": KEY},
    "pickled key": {"api_key": KEY, "pickle_key": True},
    "header": {"headers": {"X-Api-Key": KEY}},
    "proxy": {"proxy": f"http://me:{KEY}@127.0.0.1:9"},
    "address": {"base_url": f"http://me:{KEY}@127.0.0.1:9"},
}


@pytest.mark.parametrize("given", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("where", ["client", "call", "one of several"])
def test_p51_a_secret_for_workers_is_refused(
    server: LLMServer, threads: Executor, given: dict[str, Any], where: str
) -> None:
    """Before anything is sent; the message says what to do, and not the secret."""
    url = {"base_url": server.base_url("openai")}
    plain, secret = Client("openai:m", **url), {**url, **given}
    call: dict[str, Any] = {"executor": threads}
    if where == "client":
        client = Client("openai:m", **secret)
    elif where == "one of several":
        client = Client([plain, Client("openai:n", **secret)])
    else:
        client, call = plain, {**call, **{name: value for name, value in secret.items() if name != "pickle_key"}}
    with pytest.raises(ConfigError, match="not sent to the workers") as caught:
        client.map(["a"], **call).complete()
    assert not sightings(str(caught.value), "message")
    assert server.requests == []


def test_p51_limits_of_one_of_several_models_are_refused(server: LLMServer, threads: Executor) -> None:
    """Each worker would take them whole."""
    url = {"base_url": server.base_url("openai")}
    client = Client([Client("openai:m", **url), Client("openai:n", limits=Limits(concurrency=1), **url)])
    with pytest.raises(ConfigError, match="limits= of one of several models"):
        client.map(["a"], executor=threads).complete()
    assert server.requests == []


def test_a_session_stays_where_it_is(client: Client, threads: Executor) -> None:
    """It cannot travel."""
    import requests

    with requests.Session() as session, pytest.raises(ConfigError, match="session="):
        client.map(["a"], executor=threads, session=session).complete()


def test_p51_a_worker_without_the_key_ends_the_run(client: Client) -> None:
    """With the variable's name, and the worker's; no row was sent."""
    said = r"the worker .*\(process \d+\) cannot send rows: .*OPENAI_API_KEY"
    with ProcessPoolExecutor(1, SPAWN, set_key, (None,)) as executor, pytest.raises(MissingKey, match=said) as caught:
        Client("openai:m").map(["a"], executor=executor).complete()
    assert not sightings(str(caught.value), "message")


# -- what cannot be done ----------------------------------------------------------------------------------------------


def test_p51_another_version_of_llmbridge_is_refused() -> None:
    """Rows of one version may mean something else in another."""
    report = pickle.loads(work(pickle.dumps(("0.0.1", b"", [], b"", ()))))
    assert isinstance(report, Report)
    assert (report.rows, report.totals.requests) == ((), 0)
    assert "not 0.0.1: install the same one everywhere" in str(report.error)


def test_what_cannot_be_pickled_is_refused_before_anything_is_sent(
    client: Client, server: LLMServer, pool: Executor
) -> None:
    """With pickle's reason."""

    @dataclass
    class Local:
        word: str

    with pytest.raises(ConfigError, match=r"an executor needs options that can be pickled: .*Local"):
        client.map(["a"], schema=Local, executor=pool).complete()
    assert server.requests == []


def test_a_row_that_cannot_be_pickled_fails_alone(
    client: Client, threads: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is that pickle does not take."""
    dumps = _Pool.dumps

    def failing(self: _Pool, value: Any) -> bytes:
        if isinstance(value, tuple) and isinstance(value[0], Message) and "bad" in str(value):
            raise TypeError("cannot pickle a lock")
        return dumps(self, value)

    monkeypatch.setattr(_Pool, "dumps", failing)
    rows = client.map(["bad"], executor=threads).complete() + client.map(["a", "bad", "b"], executor=threads).complete()
    assert [row.ok for row in rows] == [False, True, False, True]
    assert str(rows[2].error) == "row 1 cannot be pickled: TypeError: cannot pickle a lock"


class Stopping(ThreadPoolExecutor):
    """Stops its first task in the middle, as others than the driver can."""

    stopped = False

    def submit(  # noqa: D102
        self, work: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        return super().submit(self._stop, work, *args) if args else super().submit(work)

    def _stop(self, work: Callable[[bytes], bytes], task: bytes) -> bytes:
        report: Report = pickle.loads(work(task))
        if self.stopped:
            return pickle.dumps(report)
        self.stopped = True
        return pickle.dumps(replace(report, rows=report.rows[:2], error=Cancelled("the shard was interrupted")))


def test_p51_a_shard_that_another_has_stopped_goes_on(client: Client, server: LLMServer) -> None:
    """What it has finished is not sent again."""
    items = list(map(str, range(6)))
    with Stopping(1) as executor:
        rows = client.map(items, executor=executor)
        assert [row.text for row in rows] == [f"<{item}>" for item in items]
    assert rows.totals.done == len(items)
    assert len(server.requests) == len(items) + 4


@pytest.mark.parametrize("given", [2, "dask", object(), ThreadPoolExecutor])
def test_what_is_not_an_executor_says_so(client: Client, given: Any) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match=r"executor must be a concurrent\.futures\.Executor"):
        client.map(["a"], executor=given)


def test_p51_what_ends_a_run_ends_it_for_all_workers(client: Client, server: LLMServer, executor: Executor) -> None:
    """A wrong key is found within twenty rows of each."""
    server.default = Reply("who?", status=401)
    with pytest.raises(AuthError):
        client.map(map(str, range(10**9)), executor=executor).complete()
    assert len(server.requests) < 200


# -- one shard alone --------------------------------------------------------------------------------------------------


def test_a_shard_has_a_row_for_each_item(client: Client, server: LLMServer) -> None:
    """Whatever fails: engines call again a function that raises, and pay once more."""
    again: Client = pickle.loads(pickle.dumps(client))
    rows = run_shard(again, ({"text": text} for text in ("a", "bad", "b")), prompt="{text}")
    assert [row.ok for row in rows] == [True, False, True]
    server.default = Reply("who?", status=401)
    failed = run_shard(again, map(str, range(100)), concurrency=2)
    assert [row.index for row in failed] == list(range(100))
    assert {type(row.error) for row in failed} == {AuthError}
    assert len(server.requests) < 50


def test_a_shard_that_is_set_up_wrongly_raises(client: Client, server: LLMServer) -> None:
    """Nothing was sent: to try again costs nothing."""
    with pytest.raises(ConfigError, match="did you mean"):
        run_shard(client, ["a"], max_token=1)
    assert server.requests == []
