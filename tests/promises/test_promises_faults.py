"""P1 to P24 against the catalogue of faults, in a plain loop, asyncio and trio; and what many calls may not mix up.

`llmbridge.testing.faults` says what a correct client makes of each fault; here llmbridge is held to it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import logging
import pickle
import queue
import random
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY
from loopback import chunk, event, head
from modes import MODES, Mode, Outcome

from llmbridge import Client, ClockExpired, ConnectFailed, LLMBridgeError, RateLimited, Retry, StreamTruncated, Timeout
from llmbridge.testing import CLOSE, RESET, LLMServer, Received, Reply
from llmbridge.testing.faults import (
    FAULTS,
    SELF_SIGNED_CERTIFICATE,
    Fault,
    HTTPProxy,
    SocksProxy,
    self_signed_context,
)

ROOT = Path(__file__).resolve().parents[2]
TOTAL = 1.5
# A call may take half a second past its total timeout (the soak job measures it); a busy machine takes longer.
LATEST = TOTAL + 2
ENDING = [fault for fault in FAULTS.values() if not fault.hangs]
HANGING = [fault for fault in FAULTS.values() if fault.hangs]


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lookups of .invalid names are answered here, without a name server."""
    real = socket.getaddrinfo

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


def met(mode: Mode, fault: Fault, timeout: float, prompt: str = "x") -> tuple[Outcome, float]:
    """The outcome of a call that meets the fault, and its seconds."""
    with (
        fault.serve() as base_url,
        Client("openai:m", base_url=base_url, api_key=KEY, retries=0, timeout=timeout) as client,
    ):
        started = time.monotonic()
        return mode.read(client.chat(prompt)), time.monotonic() - started


def shown(error: BaseException) -> str:
    """Everything that an error and its causes show, with the locals of llmbridge's frames."""
    texts = [str(error), repr(error), repr(vars(error)), pickle.dumps(error).decode("latin-1")]
    links: list[BaseException | None] = [error]
    while links:
        link = links.pop()
        if link is None:
            continue
        links += [link.__cause__, link.__context__]
        for frame in traceback.TracebackException.from_exception(link, capture_locals=True).stack:
            if Path(__file__).parents[1] not in Path(frame.filename).parents:
                texts += [f"{frame.filename}:{frame.lineno} {frame.line} {frame.locals}"]
    return "\n".join([*texts, "".join(traceback.format_exception(error))])


def assert_expected(fault: Fault, outcome: Outcome) -> None:
    """The outcome matches the catalogue, text and error, and shows no key."""
    error = outcome.error
    assert (type(error).__name__ if error else "") == fault.error, error
    assert "".join(outcome.pieces) == fault.text
    assert all(outcome.pieces), "an empty piece"
    if error is not None:
        assert error.partial == fault.text
        assert error.provider == "openai"
        assert KEY not in shown(error)


@pytest.mark.parametrize("fault", ENDING, ids=lambda fault: f"{fault.promise.lower()}-{fault}")
def test_every_fault_that_ends_ends_as_promised(mode: Mode, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """Each fault of the catalogue gives its text or typed error, without the key."""
    caplog.set_level(logging.DEBUG)
    outcome, _ = met(mode, fault, timeout=60)
    assert_expected(fault, outcome)
    assert KEY not in caplog.text


@pytest.mark.slow
def test_p12_every_fault_that_hangs_is_ended_by_the_clock(mode: Mode, caplog: pytest.LogCaptureFixture) -> None:
    """No call outlives its total timeout, whatever keeps the server from ending: all such faults at once."""
    caplog.set_level(logging.DEBUG)
    found: dict[str, tuple[Outcome, float]] = {}

    def meet(fault: Fault) -> None:
        found[fault.name] = met(mode, fault, TOTAL)

    in_threads([lambda fault=fault: meet(fault) for fault in HANGING])  # type: ignore[misc]
    assert set(found) == {fault.name for fault in HANGING}
    for fault in HANGING:
        outcome, seconds = found[fault.name]
        assert_expected(fault, outcome)
        assert isinstance(outcome.error, ClockExpired)
        assert outcome.error.clock == "total"
        assert TOTAL * 0.9 <= seconds <= LATEST, fault.name
    assert KEY not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["never-reads", "early-response", "close-before-headers", "silence"])
def test_p12_a_long_request_that_nobody_takes(mode: Mode, name: str) -> None:
    """A request of 10 MB, which the server does not read, also ends in a typed error within the total timeout."""
    outcome, seconds = met(mode, FAULTS[name], TOTAL, prompt="x" * 10_000_000)
    assert isinstance(outcome.error, LLMBridgeError)
    assert outcome.pieces == []
    assert seconds <= LATEST + 2  # making the JSON of the request takes its time, too


def in_threads(jobs: Sequence[Callable[[], object]]) -> None:
    """All jobs at the same time; the first failure is raised."""
    failures: list[BaseException] = []

    def run(job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - carried over to the test
            failures.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 60
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "a call does not end"
    if failures:
        raise failures[0]


# -- memory -----------------------------------------------------------------------------------------------------------

MEASURE = """
import json, re, sys
from pathlib import Path
from llmbridge import Client, LLMBridgeError

def peak():
    # Not ru_maxrss where there is better: Linux hands that on through exec, and the parent is large.
    if Path("/proc/self/status").exists():
        return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

bad, good = sys.argv[1:]
with Client("openai:m", api_key="sk-test", retries=0, timeout=60) as client:
    client.chat("x", base_url=good).complete()
    before = peak()
    try:
        client.chat("x", base_url=bad).complete()
    except LLMBridgeError as error:
        print(json.dumps([type(error).__name__, error.partial, peak() - before]))
"""


# The most that may be needed: an event of 64 MiB, another one being joined, and next to nothing.
MEMORY = {"gzip-bomb": 100e6, "giant-line": 150e6, "error-body-250mb": 20e6}


@pytest.mark.slow
@pytest.mark.parametrize("name", [fault.name for fault in ENDING if fault.heavy])
def test_p2_what_is_too_large_is_not_held(server: LLMServer, name: str) -> None:
    """A bomb of 300 kB, a line of 400 MB and an error body of 250 MB give a typed error, within 150 MB of memory."""
    if sys.platform == "win32":
        pytest.skip("the peak of a process's memory is measured on POSIX only")
    fault = FAULTS[name]
    with fault.serve() as base_url:
        command = [sys.executable, "-c", MEASURE, base_url, server.base_url("openai")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    kind, partial, grown = json.loads(done.stdout)
    assert (kind, partial) == (fault.error, fault.text)
    assert grown < MEMORY[name]


# -- proxies and TLS --------------------------------------------------------------------------------------------------

USER, PASSWORD = "me", "pw-canary-0123456789"
UNKNOWN = "https://api.invalid/v1"


def test_p21_an_http_proxy_with_credentials(mode: Mode, tmp_path: Path) -> None:
    """A tunnel through a proxy with a password; the proxy looks the name up, and never sees the key."""
    with (
        LLMServer(Reply(["a", "b"]), ssl_context=self_signed_context()) as server,
        HTTPProxy(USER, PASSWORD, target=("127.0.0.1", port_of(server))) as proxy,
        Client("openai:m", base_url="https://localhost:1/v1", api_key=KEY, verify=trusted(tmp_path)) as client,
    ):
        assert mode.read(client.chat("x", proxy=proxy.url)) == Outcome(["a", "b"], None)
        assert server.requests[0].header("Authorization") == f"Bearer {KEY}"
    assert [(one.method, one.target, one.credentials) for one in proxy.seen] == [
        ("CONNECT", "localhost:1", f"{USER}:{PASSWORD}")
    ]
    assert KEY not in proxy.seen[0].head


def test_p21_a_socks_proxy(mode: Mode, server: LLMServer) -> None:
    """SOCKS5 with and without a password, names looked up by the proxy."""
    pytest.importorskip("socks")
    server.default = Reply(["a", "b"])
    for credentials in ((), (USER, PASSWORD)):
        with (
            SocksProxy(*credentials, target=("127.0.0.1", port_of(server))) as proxy,
            Client("openai:m", base_url="http://api.invalid/v1", api_key=KEY, retries=0) as client,
        ):
            assert mode.read(client.chat("x", proxy=proxy.url)) == Outcome(["a", "b"], None)
        presented = ":".join(credentials) or None
        assert [(one.target, one.credentials) for one in proxy.seen] == [("api.invalid:80", presented)]


@pytest.mark.parametrize("made", [HTTPProxy, SocksProxy], ids=["http", "socks"])
@pytest.mark.parametrize("how", ["refuses", "wrong password", "no password"])
def test_p21_a_proxy_that_lets_nobody_through(
    mode: Mode, made: type[HTTPProxy | SocksProxy], how: str, server: LLMServer
) -> None:
    """Its rejection is a typed error without the password, and never a direct request."""
    if made is SocksProxy:
        pytest.importorskip("socks")
    with (
        made(USER, PASSWORD, target=("127.0.0.1", port_of(server)), refuse=how == "refuses") as proxy,
        Client("openai:m", base_url=UNKNOWN, api_key=KEY, retries=0, timeout=20) as client,
    ):
        url = {
            "refuses": proxy.url,
            "wrong password": proxy.url.replace(PASSWORD, PASSWORD[::-1]),
            "no password": proxy.bare_url,
        }[how]
        error = mode.read(client.chat("x", proxy=url)).error
    assert isinstance(error, ConnectFailed)
    for secret in (PASSWORD, PASSWORD[::-1], KEY):
        assert secret not in shown(error)
    assert server.connections == 0


@pytest.mark.slow
@pytest.mark.parametrize("made", [HTTPProxy, SocksProxy], ids=["http", "socks"])
def test_p12_a_proxy_that_hangs(mode: Mode, made: type[HTTPProxy | SocksProxy]) -> None:
    """The connect timeout, and so the total, covers the way through a proxy."""
    if made is SocksProxy:
        pytest.importorskip("socks")
    with made(hang=True) as proxy, Client("openai:m", base_url=UNKNOWN, api_key=KEY, retries=0) as client:
        for timeout, clock in ((Timeout(connect=0.3), "connect"), (Timeout(total=0.3), "total")):
            started = time.monotonic()
            error = mode.read(client.chat("x", proxy=proxy.url, timeout=timeout)).error
            assert isinstance(error, ClockExpired)
            assert error.clock == clock
            assert time.monotonic() - started < 8  # the usual limit for connecting is 10 s


@pytest.mark.slow
def test_p12_a_socks_proxy_that_hangs_on_a_busy_machine(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SOCKS library has the same limit, and may notice first: it is the connect timeout all the same."""
    pytest.importorskip("socks")
    monkeypatch.setattr("llmbridge._transport.call.Call.expire", lambda *_: None)
    with SocksProxy(hang=True) as proxy, Client("openai:m", base_url=UNKNOWN, api_key=KEY, retries=0) as client:
        error = mode.read(client.chat("x", proxy=proxy.url, timeout=Timeout(connect=0.3))).error
    assert isinstance(error, ClockExpired)
    assert error.clock == "connect"


def test_p22_a_self_signed_certificate_counts_where_it_is_trusted(mode: Mode, tmp_path: Path) -> None:
    """The CA of `verify=` is trusted, for the names in the certificate."""
    with (
        LLMServer(Reply(["a"]), ssl_context=self_signed_context()) as server,
        Client("openai:m", api_key=KEY, retries=0, verify=trusted(tmp_path)) as client,
    ):
        for host in ("127.0.0.1", "localhost"):
            base_url = f"https://{host}:{port_of(server)}/v1"
            assert mode.read(client.chat("x", base_url=base_url)) == Outcome(["a"], None)


def trusted(folder: Path) -> str:
    """The file to trust the self-signed certificate by."""
    path = folder / "ca.pem"
    path.write_text(SELF_SIGNED_CERTIFICATE, encoding="ascii")
    return str(path)


def port_of(server: LLMServer) -> int:
    """The port that a server listens on."""
    return int(server.root.rpartition(":")[2])


# -- many calls -------------------------------------------------------------------------------------------------------

CALLS = 1000
RETRIES = 2
CHUNKED = head("Transfer-Encoding: chunked")


@dataclass
class Attempt:
    """One request of a call: what the server did to it, and whether its connection had answered before."""

    fate: str
    kept: bool


@dataclass
class Unreliable:
    """Answers 30 % of all requests with 429, resets 10 % before the headers, and cuts 10 % in the middle.

    What happens to the nth request of a call depends on nothing but the seed, the call and n.
    """

    seed: int = 5
    attempts: dict[str, list[Attempt]] = field(default_factory=lambda: collections.defaultdict(list))
    _connections: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fate(self, call: str, attempt: int) -> str:
        """What is done to a request."""
        chance = random.Random(f"{self.seed} {call} {attempt}").random()
        return "429" if chance < 0.3 else "reset" if chance < 0.4 else "cut" if chance < 0.5 else "ok"

    def __call__(self, received: Received) -> Reply:
        """The answer."""
        call: str = received.json["messages"][0]["content"]
        with self._lock:
            fate = self.fate(call, len(self.attempts[call]))
            self.attempts[call].append(Attempt(fate, received.connection in self._connections))
            self._connections.add(received.connection)
        if fate == "429":
            wait = random.Random(call).choice([{"Retry-After": "0"}, {"retry-after-ms": "3"}])
            return Reply("slow down", status=429, headers=wait)
        if fate == "reset":
            return Reply(raw=[RESET])
        if fate == "cut":
            begun = [chunk(event(piece)) for piece in pieces_of(call)]
            return Reply(raw=[CHUNKED, *begun[:3], begun[3][:-20], CLOSE])
        return Reply(pieces_of(call))

    def predicted(self, call: str) -> tuple[str, int]:
        """How the call must end, and after how many requests, by the policy alone.

        A 429 is repeated up to the limit. A request whose connection broke may have been worked on, and is not; but
        for a kept connection, which may have gone stale: once in each attempt, and for free. A cut answer never is.
        """
        repeated, free = 0, True
        for number, attempt in enumerate(self.attempts[call], 1):
            if attempt.fate == "429" and repeated < RETRIES:
                repeated, free = repeated + 1, True
            elif attempt.fate == "reset" and attempt.kept and free:
                free = False
            else:
                return attempt.fate, number
        return "another attempt", len(self.attempts[call]) + 1

    def verify(self, outcomes: dict[str, tuple[str, LLMBridgeError | None]]) -> None:
        """Each call is whole or a typed error, with the number of requests that the policy predicts."""
        kinds = {"429": RateLimited, "reset": StreamTruncated, "cut": StreamTruncated}
        for call, (text, error) in outcomes.items():
            end, requests = self.predicted(call)
            assert len(self.attempts[call]) == requests, self.attempts[call]
            whole = "".join(pieces_of(call))
            if end == "ok":
                assert (text, error) == (whole, None)
                continue
            assert type(error) is kinds[end], self.attempts[call]
            assert error.partial == text == ("".join(pieces_of(call)[:3]) if end == "cut" else "")
            assert whole.startswith(text)
        made = [attempt for attempts in self.attempts.values() for attempt in attempts]
        assert any(attempt.fate == "reset" and attempt.kept for attempt in made)
        fates = collections.Counter(attempt.fate for attempt in made)
        total = len(made)
        assert len(outcomes) == CALLS < total
        for fate, share in (("429", 0.3), ("reset", 0.1), ("cut", 0.1), ("ok", 0.5)):
            assert abs(fates[fate] / total - share) < 0.06, fates


def pieces_of(call: str) -> list[str]:
    """The answer to a call: of no other call, and without a repeated piece."""
    return [f"{call}: ", *(f"word {number} of it, " for number in range(6))]


def outcome_of(pieces: list[str], error: LLMBridgeError | None) -> tuple[str, LLMBridgeError | None]:
    """The comparable part of a call's outcome."""
    return "".join(pieces), error


@contextlib.contextmanager
def unreliable() -> Iterator[tuple[Unreliable, Client]]:
    """The server's behaviour, and a client of it."""
    fates = Unreliable()
    retry = Retry(RETRIES, backoff=0.01, max_backoff=0.02)
    with (
        LLMServer(fates, record=False) as server,
        Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=retry, timeout=60) as client,
    ):
        yield fates, client


@pytest.mark.slow
def test_p6_p13_a_thousand_calls_of_an_unreliable_server_by_threads() -> None:
    """30 % 429, 10 % resets, 10 % cuts: each call is whole or a typed error, with no request too many."""
    outcomes: dict[str, tuple[str, LLMBridgeError | None]] = {}
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for number in range(CALLS):
        waiting.put(f"call {number}")

    def work(client: Client) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                call = waiting.get_nowait()
                outcome = MODES["sync"].read(client.chat(call))
                outcomes[call] = outcome_of(outcome.pieces, outcome.error)

    with unreliable() as (fates, client):
        in_threads([lambda: work(client)] * 16)
    fates.verify(outcomes)


@pytest.mark.slow
def test_p6_p13_a_thousand_calls_of_an_unreliable_server_by_tasks() -> None:
    """The same in asyncio, fifty at a time."""
    outcomes: dict[str, tuple[str, LLMBridgeError | None]] = {}

    async def call(client: Client, name: str, room: asyncio.Semaphore) -> None:
        pieces: list[str] = []
        error = None
        async with room:
            try:
                async for piece in client.chat(name):
                    pieces.append(piece)
            except LLMBridgeError as caught:
                error = caught
        outcomes[name] = outcome_of(pieces, error)

    async def main(client: Client) -> None:
        room = asyncio.Semaphore(50)
        await asyncio.gather(*(call(client, f"call {number}", room) for number in range(CALLS)))

    with unreliable() as (fates, client):
        asyncio.run(main(client))
    fates.verify(outcomes)


def echo_twice(received: Received) -> Reply:
    """An answer that belongs to one question only."""
    question = received.json["messages"][0]["content"]
    return Reply([question, " ", question])


@pytest.mark.slow
def test_p17_sixty_four_threads_on_one_client(server: LLMServer) -> None:
    """64 threads of 50 calls each share a client and its connections, and each call gets its own answer."""
    server.default = echo_twice
    wrong: list[str] = []

    def work(client: Client, thread: int) -> None:
        for number in range(50):
            question = f"thread {thread}, question {number}"
            text = "".join(client.chat(question))
            if text != f"{question} {question}":
                wrong.append(text)

    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=0, timeout=100) as client:
        in_threads([lambda thread=thread: work(client, thread) for thread in range(64)])  # type: ignore[misc]
    assert wrong == []
    assert len(server.requests) == 64 * 50
    assert server.connections <= 2 * 64  # kept, not made anew: all but those that a short rush had to close


@pytest.mark.slow
def test_p17_a_thousand_tasks_on_one_client(server: LLMServer) -> None:
    """1,000 tasks at once share a client, and each gets its own answer."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4000:
        pytest.skip("too few descriptors allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4000), hard))
    server.default = echo_twice
    questions = [f"question {number}" for number in range(1000)]
    try:
        with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=0, timeout=100) as client:
            answers = MODES["asyncio"].at_once([client.chat(question) for question in questions])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert answers == [[question, " ", question] for question in questions]
    assert len(server.requests) == 1000


def test_p17_an_answer_that_nobody_asked_for_is_nobodys(server: LLMServer, client: Client) -> None:
    """A second answer after the first is not given to the next call: its connection is not reused."""
    server.script(FAULTS["two-responses"].reply(), Reply("mine"))
    assert client.chat("x").complete().text == FAULTS["two-responses"].text
    assert client.chat("y").complete().text == "mine"
    assert [request.connection for request in server.requests] == [1, 2]


def test_p13_what_is_cut_is_asked_for_once(server: LLMServer, client: Client) -> None:
    """With retries left, no fault after the first piece causes a second request."""
    broken = [fault for fault in ENDING if fault.text and fault.error and fault.scripted and not fault.heavy]
    assert len(broken) > 10
    for fault in broken:
        before = len(server.requests)
        server.script(fault.reply())
        with pytest.raises(LLMBridgeError):
            list(client.chat("x", retries=Retry(3, backoff=0.01)))
        assert len(server.requests) == before + 1, fault.name


def test_p7_what_ends_with_its_mark_is_not_waited_for(client: Client, server: LLMServer) -> None:
    """A connection that stays open after the end mark costs hardly any time."""
    server.script(FAULTS["open-after-end-mark"].reply())
    assert client.chat("x", timeout=60).complete().text == FAULTS["open-after-end-mark"].text
    assert server.requests[0].gone.wait(30)


def test_p20_nothing_reaches_the_server_that_is_redirected_to() -> None:
    """A redirect is an error that names the other host, which sees no connection."""
    with LLMServer(Reply("You followed me")) as other:
        target = other.base_url("openai") + "/chat/completions"
        with (
            LLMServer(
                Reply(raw=[f"HTTP/1.1 307 Go\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode(), CLOSE])
            ) as one,
            Client("openai:m", base_url=one.base_url("openai"), api_key=KEY) as client,
            pytest.raises(LLMBridgeError, match=other.root.partition("//")[2]),
        ):
            client.chat("x").complete()
        assert other.connections == 0
