"""P52: many rows at once take a few threads, and no row holds up the others."""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from canary import KEY
from modes import Mode
from requests.adapters import HTTPAdapter

from llmbridge import BadRequest, Cancelled, Client, ClockExpired, Limits, Retry, Timeout, TransportError, _transport
from llmbridge._call import attempts
from llmbridge._transport import connections
from llmbridge._transport.later import Later
from llmbridge.many import Row, calls
from llmbridge.many.asking import Embeds
from llmbridge.providers.openai import OpenAI
from llmbridge.testing import HOLD, LLMServer, Received, Reply

_SECONDS = 20.0  # for what takes a moment


@pytest.fixture
def client(server: LLMServer) -> Iterator[Client]:
    """A client of `server`, which repeats what was said."""
    server.default = lambda received: Reply(f"<{received.user_text}>")
    retries = Retry(backoff=0.01, max_backoff=0.05)
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=retries, timeout=60) as made:
        yield made


def threads() -> list[str]:
    """Those of runs."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("llmbridge-map")]


def wait_for(condition: Callable[[], bool]) -> bool:
    """Whether it becomes true."""
    end = time.monotonic() + _SECONDS
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def rows_of(mode: Mode, source: Any) -> list[Row[Any]]:
    """All rows, by a kind of loop."""
    found: list[Row[Any]] = []
    mode.each(source, found.append)
    return found


def answered(rows: list[Row[Any]], count: int) -> bool:
    """Whether each of so many rows has its own answer."""
    return [row.index for row in rows] == list(range(count)) and all(row.text == f"<{row.input}>" for row in rows)


# -- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not connections.RETURNS_ANY, reason="urllib3 1.26 waits for headers itself, in a thread")
@pytest.mark.parametrize("stream", [None, True, False])
def test_p52_many_rows_at_once_take_a_few_threads(
    client: Client, server: LLMServer, mode: Mode, stream: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three hundred are under way at the same time."""
    monkeypatch.setattr(calls, "_LONG_SECONDS", _SECONDS)  # on a busy machine, connecting takes long enough for more
    together, seen = threading.Barrier(300), []

    def answer(received: Received) -> Reply:
        together.wait(_SECONDS)
        seen.append(len(threads()))
        return Reply(f"<{received.user_text}>")

    server.default = answer
    rows = rows_of(mode, client.map(map(str, range(600)), concurrency=300, stream=stream))
    assert answered(rows, 600)
    assert max(seen) <= 64


class Waiting(HTTPAdapter):
    """Waits before it sends: as any code of the caller's may, it has no socket to watch."""

    def __init__(self, wait: Callable[[], object]) -> None:
        super().__init__(pool_maxsize=100)
        self._wait = wait

    def send(self, *given: Any, **more: Any) -> requests.Response:
        """See HTTPAdapter."""
        self._wait()
        return super().send(*given, **more)


@contextmanager
def by_session(server: LLMServer, wait: Callable[[], object]) -> Iterator[Client]:
    """A client with a session of its own, which is closed: urllib3 1.26 leaves its sockets open."""
    with requests.Session() as session:
        session.mount("http://", Waiting(wait))
        yield Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, timeout=60, session=session)


def test_p52_rows_that_need_a_thread_have_one_each(server: LLMServer, mode: Mode) -> None:
    """All hundred are under way, although they wait for each other."""
    together = threading.Barrier(100)
    server.default = lambda received: Reply(f"<{received.user_text}>")
    with by_session(server, lambda: together.wait(_SECONDS)) as client:
        assert answered(rows_of(mode, client.map(map(str, range(200)), concurrency=100)), 200)


def test_p52_long_steps_get_more_threads_although_some_end_all_the_time(server: LLMServer) -> None:
    """Or as many rows as there were threads at first would be under way."""
    under_way, most, lock, number = 0, 0, threading.Lock(), 0

    def wait() -> None:
        nonlocal under_way, most, number
        with lock:
            under_way, number = under_way + 1, number + 1
            most, seconds = max(most, under_way), 0.02 + number * 37 % 100 / 50
        time.sleep(seconds)
        with lock:
            under_way -= 1

    server.default = lambda received: Reply(f"<{received.user_text}>")
    with by_session(server, wait) as client:
        assert answered(client.map(map(str, range(300)), concurrency=100).complete(), 300)
    assert most > 80


def test_p52_answers_without_a_socket_are_all_under_way() -> None:
    """Those of `responses`."""
    responses = pytest.importorskip("responses")
    together = threading.Barrier(60)

    def answer(_: Any) -> tuple[int, dict[str, str], str]:
        together.wait(_SECONDS)
        choice = '{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}'
        return 200, {"content-type": "application/json"}, f'{{"choices": [{choice}]}}'

    with responses.RequestsMock() as mock, Client("openai:m", base_url="http://mock.example", api_key=KEY) as client:
        mock.add_callback("POST", "http://mock.example/chat/completions", answer)
        rows = client.map(map(str, range(120)), concurrency=60).complete()
    assert [row.text for row in rows] == ["Hello"] * 120


@pytest.mark.parametrize("started", [0, 1, 2, 3, 4, 10])
def test_p52_a_system_without_threads_ends_the_run_or_slows_it_down(
    client: Client, monkeypatch: pytest.MonkeyPatch, started: int
) -> None:
    """Three are needed: to read, to wait, and to decide. Without more of them, steps that block hold up others."""
    client.chat("x").complete()  # the watchdog runs
    start, begun = threading.Thread.start, []

    def refusing(thread: threading.Thread) -> None:
        if thread.name.startswith("llmbridge-map"):
            begun.append(thread)
            if len(begun) > started:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refusing)
    rows = client.map(map(str, range(40)), concurrency=20)
    if started < 3:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            rows.complete()
    else:
        assert answered(rows.complete(), 40)
    assert wait_for(lambda: not threads())


def test_p52_what_is_over_is_told_before_a_step_that_blocks() -> None:
    """Also where the system gives no thread for that step."""
    told, waited = threading.Event(), []

    def begin(work: Callable[[], None], name: str) -> threading.Thread:
        if name == "worker":
            raise RuntimeError("can't start new thread")
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def at_once() -> Any:
        yield from ()

    made = calls.Calls(begin, pytest.fail)
    made.begin(at_once(), lambda _: told.set())
    made.aside(lambda: waited.append(told.wait(_SECONDS)), lambda _: made.close())
    made.start()
    made.threads[0].join(2 * _SECONDS)
    assert waited == [True]


# -- what holds up one row --------------------------------------------------------------------------------------------


@dataclass
class Slow:
    """Takes its time, if asked to."""

    said: str

    def __post_init__(self) -> None:
        """Waits for the test."""
        if self.said == "0":
            Slow.release.wait(_SECONDS)


Slow.release = threading.Event()  # type: ignore[attr-defined]


def held_up(what: str, release: threading.Event, server: LLMServer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Has row 0 held up until the release; returns options of the client and of the run."""
    first = iter([True])

    def key() -> str:
        if next(first, False):
            release.wait(_SECONDS)
        return KEY

    async def async_key() -> str:
        while next(first, False) and not release.is_set():
            await asyncio.to_thread(release.wait, _SECONDS)
        return KEY

    def tool(said: str) -> str:
        """Looks it up."""
        if said == "0":
            release.wait(_SECONDS)
        return said

    async def async_tool(said: str) -> str:
        """Looks it up."""
        await asyncio.to_thread(tool, said)
        return said

    async_tool.__name__ = "tool"

    def answer(received: Received) -> Reply:
        text = received.user_text
        if what == "schema":
            return Reply(f'{{"said": "{text}"}}')
        if what.endswith("tool") and received.json["messages"][-1]["role"] == "user":
            return Reply(tool_calls=[{"name": "tool", "arguments": {"said": text}}])
        if text == "0" and what == "headers":
            release.wait(_SECONDS)
        if text == "0" and what == "on_retry" and next(first, False):
            return Reply(status=500)
        if text == "0" and what == "error":
            return Reply("x" * 1000, status=400, stall=10)
        return Reply(f"<{text}>")

    server.default = answer
    Slow.release = release  # type: ignore[attr-defined]
    if what == "on_retry":
        return {"retries": Retry(backoff=0.01, on_retry=lambda _: release.wait(_SECONDS))}, {}
    if what in ("key", "async key"):
        return {"api_key": key if what == "key" else async_key}, {}
    if what.endswith("tool"):
        return {}, {"tools": [tool if what == "tool" else async_tool], "run_tools": True}
    return {}, {"schema": Slow} if what == "schema" else {}


@pytest.mark.parametrize(
    "what", ["schema", "tool", "async tool", "key", "async key", "on_retry", "headers", "lookup", "error"]
)
@pytest.mark.quick(9)
def test_p52_what_holds_up_one_row_holds_up_no_other(
    server: LLMServer, release: threading.Event, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Sixty go on while it waits."""
    options, more = held_up(what, release, server)
    base_url = server.base_url("openai")
    if what == "lookup":
        look_up, first = socket.getaddrinfo, iter([True])

        def slow(host: Any, *given: Any, **others: Any) -> Any:
            if host == "slow.example" and next(first, False):
                release.wait(_SECONDS)
            return look_up("127.0.0.1", *given, **others)

        monkeypatch.setattr(socket, "getaddrinfo", slow)
        base_url = base_url.replace("127.0.0.1", "slow.example")
    if what == "error":
        monkeypatch.setattr(attempts, "_ERROR_BODY_SECONDS", 3.0)
    rows: list[Row[Any]] = []
    with Client("openai:m", base_url=base_url, **{"api_key": KEY, "timeout": 60, **options}) as client:
        for row in client.map(map(str, range(61)), order="done", concurrency=8, attempts=2, **more):
            rows.append(row)
            if len(rows) == 60:
                assert not release.is_set()
                release.set()
    if what not in ("key", "async key", "lookup"):  # it is any row there
        assert rows[-1].input == "0"
    assert [row.input for row in rows if not row.ok] == (["0"] if what == "error" else [])


def test_p52_a_large_document_holds_up_no_other(client: Client, server: LLMServer, mode: Mode) -> None:
    """Ten megabytes as one whole answer, which is parsed beside the others."""
    large = "x" * 10_000_000
    server.default = lambda received: Reply(large if received.user_text == "0" else f"<{received.user_text}>")
    rows = rows_of(mode, client.map(map(str, range(20)), stream=False, concurrency=20))
    assert rows[0].text == large
    assert [row.text for row in rows[1:]] == [f"<{number}>" for number in range(1, 20)]


def test_p52_vectors_are_made_beside_the_others(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the thread that waits: a request may have a hundred thousand numbers."""
    names: list[str] = []
    steps = Embeds.steps

    def noted(self: Embeds, rows: Any) -> Any:
        found = yield from steps(self, rows)
        names.append(threading.current_thread().name)
        return found

    monkeypatch.setattr(Embeds, "steps", noted)
    assert all(row.vector for row in client.map(map(str, range(200)), embed=True).complete())
    assert set(names) == {"llmbridge-map-worker"}


def test_p52_an_answer_of_many_pieces_has_its_turns_only(
    client: Client, server: LLMServer, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in each round, however fast it comes, and the others go on."""
    turns, twice = calls.Calls._next_turn, []

    def next_turn(self: calls.Calls, call: Any) -> None:
        twice.append(call in self._turns)
        turns(self, call)

    monkeypatch.setattr(calls.Calls, "_next_turn", next_turn)
    fast = Reply(["x "] * 20_000, per_chunk=50)
    server.default = lambda received: fast if int(received.user_text) < 4 else Reply(["a", "b"], delay=0.05)
    rows = rows_of(mode, client.map(map(str, range(54)), stream=True, concurrency=54, order="done"))
    assert sorted(row.index for row in rows) == list(range(54))
    assert {row.index for row in rows[:4]} != {0, 1, 2, 3}
    assert twice
    assert not any(twice)
    assert all(row.text == ("x " * 20_000 if row.index < 4 else "ab") for row in rows)


def test_p52_what_befalls_some_rows_is_theirs_alone(server: LLMServer, mode: Mode) -> None:
    """Answers that are cut off, stall, come byte by byte, or are refused; each row has its own answer in the end."""
    seen: set[str] = set()
    faults = [
        lambda text: Reply(text * 50, cut=300),
        lambda text: Reply(text * 50, cut=300, reset=True),
        lambda text: Reply(text * 20, stall=100),
        lambda text: Reply(text, split=3),
        lambda text: Reply(status=503),
        lambda text: Reply(status=429, headers={"Retry-After": "0.1"}),
    ]

    def answer(received: Received) -> Reply:
        number = int(received.user_text)
        first = received.user_text not in seen
        seen.add(received.user_text)
        fault = faults[number % 10] if number % 10 < len(faults) and first else Reply
        return fault(f"<{number}>")

    server.default = answer
    retries, timeout = Retry(backoff=0.01, max_backoff=0.05), Timeout(first_content=3, idle=1, total=60)
    with Client(
        "openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=retries, timeout=timeout
    ) as client:
        assert answered(rows_of(mode, client.map(map(str, range(200)), concurrency=200)), 200)


def test_p52_a_library_that_waits_for_headers_holds_up_no_row(
    client: Client, server: LLMServer, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As urllib3 1.26 does, also where the request itself could be sent at once."""
    for module in (_transport, connections):
        monkeypatch.setattr(module, "RETURNS_ANY", False)

    def answer(received: Received) -> Reply:
        if received.user_text == "20":
            release.wait(_SECONDS)
        return Reply(f"<{received.user_text}>")

    server.default = answer
    rows: list[Row[Any]] = []
    for row in client.map(map(str, range(40)), concurrency=2, order="done"):
        rows.append(row)
        if len(rows) == 39:
            assert not release.is_set()
            release.set()
    assert rows[-1].index == 20


# -- where only `select` waits -----------------------------------------------------------------------------------------


@pytest.fixture
def only_select(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, for a few sockets."""
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
    monkeypatch.setattr(calls, "_SELECTABLE", 5)


@pytest.mark.usefixtures("only_select")
def test_p52_select_waits_for_a_few_and_threads_for_the_others(
    client: Client, server: LLMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty are under way at once, and none of them asks again and again whether something has come."""
    together, looks = threading.Barrier(60), []

    def answer(received: Received) -> Reply:
        together.wait(_SECONDS)
        return Reply(f"<{received.user_text}>", header_delay=0.2, delay=0.01)

    arrived = Later.arrived
    monkeypatch.setattr(Later, "arrived", lambda self: looks.append(1) or arrived(self))
    server.default = answer
    assert answered(client.map(map(str, range(180)), concurrency=60).complete(), 180)
    assert len(looks) < 180 * 20


@pytest.mark.usefixtures("only_select")
def test_p52_select_ends_a_run_at_once(client: Client, server: LLMServer) -> None:
    """The threads that wait are woken."""
    server.default = lambda received: Reply("Hello", header_delay=0 if received.user_text == "0" else 30)
    for _ in client.map(map(str, range(40)), concurrency=40):
        assert wait_for(lambda: len(server.requests) == 40)
        break
    assert wait_for(lambda: not threads())


# -- ends -------------------------------------------------------------------------------------------------------------

_PHASES: dict[str, Reply] = {
    "headers": Reply("Hello", header_delay=60),
    "body": Reply(["a", "b"], delay=60),
    "error": Reply(raw=[b"HTTP/1.1 400 Bad\r\nContent-Length: 1000\r\n\r\n", HOLD]),
    "queue": Reply("Hello"),
}


@pytest.mark.parametrize("phase", _PHASES)
@pytest.mark.parametrize("how", ["break", "cancel", "signal", "drop"])
@pytest.mark.quick(16)
def test_p52_an_end_leaves_nothing(server: LLMServer, how: str, phase: str) -> None:
    """In whatever phase the calls are: no thread, no socket, and nothing more is sent."""
    server.default = lambda received: Reply("Hello") if received.user_text == "0" else _PHASES[phase]
    limits = Limits(requests_per_minute=2) if phase == "queue" else None
    url = server.base_url("openai")
    with Client("openai:m", base_url=url, api_key=KEY, retries=0, timeout=90, limits=limits) as client:
        source = client.map(map(str, range(40)), concurrency=20)
        rows = iter(source)
        next(rows)
        assert wait_for(lambda: len(server.requests) == (2 if phase == "queue" else 21))
        if how == "drop":
            del rows
        elif how == "break":
            rows.close()  # type: ignore[attr-defined]
        else:
            before = signal.signal(signal.SIGALRM, lambda *_: source.cancel())
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.05) if how == "signal" else source.cancel()
                with pytest.raises(Cancelled):
                    list(rows)
            finally:
                signal.signal(signal.SIGALRM, before)
        assert wait_for(lambda: not threads())
        sent = len(server.requests)
        time.sleep(0.1)
        assert len(server.requests) == sent


@pytest.mark.parametrize(
    ("phase", "clock"),
    [("headers", "first_content"), ("headers", "total"), ("body", "total"), ("queue", "total"), ("stall", "idle")],
)
@pytest.mark.quick(5)
def test_p52_each_clock_runs_in_each_phase(server: LLMServer, mode: Mode, phase: str, clock: str) -> None:
    """A row that waits for too long fails with the name of the clock."""
    server.default = _PHASES.get(phase) or Reply("x" * 1000, stall=500, per_chunk=1)
    limits = Limits(requests_per_minute=1) if phase == "queue" else None
    if phase == "queue":
        server.default = Reply("Hello")
    url, timeout = server.base_url("openai"), Timeout(**{clock: 0.5})
    if phase == "stall":
        server.default = Reply(["a"] * 100, stall=2000)
    with Client("openai:m", base_url=url, api_key=KEY, timeout=timeout, limits=limits) as client:
        rows = rows_of(mode, client.map(map(str, range(4)), concurrency=4, attempts=1, stream=True))
    errors = [row.error for row in rows][1 if phase == "queue" else 0 :]
    assert [getattr(error, "clock", None) for error in errors] == [clock] * len(errors), errors
    assert all(isinstance(error, ClockExpired) for error in errors)


def test_p52_a_connection_that_is_never_made_ends_at_once(mode: Mode) -> None:
    """The queue of the listening socket is full."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        filling = [socket.socket() for _ in range(4)]
        for one in filling:
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        with Client("openai:m", base_url=url, api_key=KEY, timeout=60) as client:
            source = client.map(map(str, range(10)), concurrency=10)
            timer = threading.Timer(0.3, source.cancel)
            timer.start()
            with pytest.raises(Cancelled):
                rows_of(mode, source)
            timer.join()
        assert wait_for(lambda: not threads())
        for one in filling:
            one.close()


def test_p52_a_validation_that_was_not_begun_is_not_made_after_the_end(
    server: LLMServer, release: threading.Event
) -> None:
    """Those that wait for a thread are dropped with the run; only those that are being made come to their end."""
    made: list[str] = []

    @dataclass
    class Said:
        said: str

        def __post_init__(self) -> None:
            made.append(self.said)
            if self.said != "0":
                release.wait(_SECONDS)

    server.default = lambda received: Reply(f'{{"said": "{received.user_text}"}}')
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, timeout=60) as client:
        source = client.map(map(str, range(300)), concurrency=300, schema=Said)
        rows = iter(source)
        next(rows)
        run: Any = source._run
        assert wait_for(lambda: len(made) + run._calls._jobs.qsize() == 300)
        rows.close()  # type: ignore[attr-defined]
        assert wait_for(lambda: bool(run._calls._closed))
        begun = len(made)
        release.set()
        assert wait_for(lambda: not threads())
    assert len(made) == begun < 300


def test_p52_descriptors_do_not_grow_from_run_to_run(client: Client) -> None:
    """Neither after whole runs nor after those that were left; one that was never begun has none."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("the system does not list them")
    counts = []
    for number in range(60):
        rows = client.map(map(str, range(8)), concurrency=4)
        for row in rows:
            if number % 2 and row.index == 2:
                break
        assert wait_for(lambda: not threads())
        before = set(folder.iterdir())
        kept = [client.map(["a"]), iter(client.map(["b"]))]
        assert len(set(folder.iterdir()) - before) <= 1  # that of the listing itself
        del kept
        counts.append(len(before))
    assert max(counts[30:]) <= max(counts[:30]) + 4


def test_p52_ctrl_c_ends_a_run_of_many(server: LLMServer) -> None:
    """In a program of its own."""
    server.default = lambda received: Reply("Hello", header_delay=0.05)
    source = f"""
import os, signal, threading, time
from llmbridge import Client
client = Client("openai:m", base_url={server.base_url("openai")!r}, api_key="k-0123456789")
rows = iter(client.map(map(str, range(10 ** 6)), concurrency=50))
next(rows)
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    for row in rows:
        pass
except KeyboardInterrupt:
    rows.close()
    end = time.monotonic() + {_SECONDS}
    while any(one.name.startswith("llmbridge-map") for one in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.01)
    print([one.name for one in threading.enumerate() if one.name.startswith("llmbridge-map")])
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


# -- forks ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("what", ["runs", "drops", "goes on"])
def test_p52_a_fork_in_the_middle_harms_neither_side(client: Client, server: LLMServer, what: str) -> None:
    """The parent goes on; the child has runs of its own, and none of the parent's rows."""
    server.default = lambda received: Reply(f"<{received.user_text}>", header_delay=0.02)
    rows: Any = iter(client.map(map(str, range(200)), concurrency=20, window=30))
    found = [next(rows) for _ in range(5)]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(30)
            if what == "drops":
                del rows
                gc.collect()
            if what == "goes on":
                with pytest.raises(TransportError, match="belong to the parent"):
                    list(rows)
            assert answered(client.map(map(str, range(20))).complete(), 20)
            code = 0
        finally:
            os._exit(code)
    found += [next(rows) for _ in range(20)]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    found += list(rows)
    assert answered(found, 200)


# -- what should not happen -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 3, 20])
def test_p52_an_error_of_the_waiting_itself_ends_the_run(
    client: Client, server: LLMServer, mode: Mode, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """With that error, and with nothing left."""
    looks = []

    class Breaking(selectors.DefaultSelector):  # type: ignore[misc]
        """Fails once."""

        def select(self, timeout: float | None = None) -> Any:
            if threading.current_thread().name == "llmbridge-map-calls":
                looks.append(1)
                if len(looks) == at:
                    raise OSError("no more descriptors")
            return super().select(timeout)

    server.default = lambda received: Reply("Hello", header_delay=0.02)
    monkeypatch.setattr(selectors, "DefaultSelector", Breaking)
    with pytest.raises(OSError, match="no more descriptors"):
        rows_of(mode, client.map(map(str, range(300)), concurrency=8))
    assert wait_for(lambda: not threads())


def test_p52_a_call_that_begins_after_the_end_is_over() -> None:
    """Whatever has ended the thread, nobody waits for ever."""
    outcomes: list[Any] = []

    def begin(work: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=work, name=name)
        thread.start()
        return thread

    broken = calls.Calls(begin, outcomes.append)
    broken.cancel()
    broken.start()
    broken._soon(lambda: 1 // 0)
    for thread in broken.threads:
        thread.join(_SECONDS)
    broken.begin(iter(()), outcomes.append)  # type: ignore[arg-type]
    broken.close()
    assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError, Cancelled]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ZeroDivisionError])
def test_p52_what_a_provider_raises_ends_its_row_or_the_run(
    client: Client, mode: Mode, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """An exception is its row's; what ends programs ends the run."""

    def decode(*_: Any, **__: Any) -> Any:
        raise error("from a provider")

    monkeypatch.setattr(OpenAI, "decode", decode)
    source = client.map(map(str, range(30)), concurrency=4, attempts=1)
    if issubclass(error, Exception):
        assert all("from a provider" in str(row.error) for row in rows_of(mode, source))
    else:
        with pytest.raises(error, match="from a provider"):
            rows_of(mode, source)
    assert wait_for(lambda: not threads())


def test_p52_what_on_retry_raises_ends_the_run(server: LLMServer, mode: Mode) -> None:
    """As it ends a chat."""

    def refuse(_: Any) -> None:
        raise LookupError("no more of this")

    server.default = Reply(status=503)
    retries = Retry(backoff=0.01, on_retry=refuse)
    with (
        Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=retries) as client,
        pytest.raises(LookupError, match="no more of this"),
    ):
        rows_of(mode, client.map(map(str, range(10))))


def test_p52_the_wait_for_a_far_time_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """`epoll` cannot wait for a month."""
    waiting = calls.Calls(lambda work, name: threading.current_thread(), print)
    waiting._timers.append((time.monotonic() + 1e9, 0, None, 0))  # type: ignore[arg-type]
    patience = waiting._patience()
    assert patience is not None
    with selectors.DefaultSelector() as selector, socket.create_server(("127.0.0.1", 0)) as listening:
        selector.register(listening, selectors.EVENT_READ)
        with socket.create_connection(listening.getsockname()):
            assert selector.select(patience)


@pytest.mark.skipif(not connections.RETURNS_ANY, reason="urllib3 1.26 leaves cycles of its own")
@pytest.mark.parametrize("how", ["whole", "left", "failed"])
def test_p52_a_run_leaves_nothing_to_the_collector(client: Client, server: LLMServer, how: str) -> None:
    """Its calls and itself are freed when they are over: a cycle for each row would wait for the collector."""
    server.default = lambda received: Reply(f"<{received.user_text}>", header_delay=0.005)
    client.map(map(str, range(20)), concurrency=8).complete()
    if how == "failed":
        server.default = Reply("no", status=400)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for row in client.map(map(str, range(50)), concurrency=8):
            assert row.ok or isinstance(row.error, BadRequest)
            if how == "left" and row.index == 5:
                break
        row = None
        assert wait_for(lambda: not threads())
        gc.collect()
        found = {type(one).__module__ + "." + type(one).__qualname__ for one in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not [name for name in found if name.startswith("llmbridge.") and not name.startswith("llmbridge.testing")]
