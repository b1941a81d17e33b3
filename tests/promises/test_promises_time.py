"""P12: the four timeouts. They are a fraction of a second here; the asserts allow for a very busy machine."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from loopback import DONE, FINISH, Listener, event, head, port_of
from moments import waits_no_more, when_bytes_come

from llmbridge import AuthError, Client, ClockExpired, Retry, ServerError, Timeout, TransportError
from llmbridge._transport import call as transport_call
from llmbridge.testing import HOLD, LLMServer, Reply

SOON = 15.0
DRIP = [step for i in range(90) for step in (b"X-%d: y\r\n" % i, 0.05)]
EARLY = [step for _ in range(1000) for step in (b"HTTP/1.1 102 Processing\r\nA: b\r\n\r\n", 0.03)]
COMMENTS = [step for _ in range(1000) for step in (b": ping\n\n", 0.03)]
ROLES = [step for _ in range(1000) for step in (b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n', 0.03)]


@contextlib.contextmanager
def expires(clock: str, after: float = 0.0) -> Iterator[Any]:
    """The block ends in ClockExpired of that name, not before its time, and soon."""
    started = time.monotonic()
    with pytest.raises(ClockExpired) as caught:
        yield caught
    seconds = time.monotonic() - started
    assert caught.value.clock == clock
    assert isinstance(caught.value, TimeoutError)
    assert after * 0.9 <= seconds < SOON


@pytest.fixture
def full_backlog() -> Iterator[int]:
    """The port of a listener that completes no further connection."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        time.sleep(0.05)
        probe = stack.enter_context(socket.socket())
        probe.settimeout(0.2)
        try:
            probe.connect(address)
        except TimeoutError:
            yield address[1]
        else:
            pytest.skip("this system accepts past the backlog")


@pytest.mark.slow
def test_p12_connect_clock_on_a_server_that_does_not_accept(full_backlog: int) -> None:
    """A connection that is never completed ends with the connect timeout."""
    with Client("openai:m", base_url=f"http://127.0.0.1:{full_backlog}", retries=0) as client:
        with expires("connect", 0.3):
            list(client.chat("x", timeout=Timeout(connect=0.3)))
        with expires("total", 0.3):
            list(client.chat("x", timeout=0.3))


def test_p12_connect_clock_on_a_handshake_that_never_ends() -> None:
    """TLS counts for the connect timeout."""
    with Listener() as silent, Client("openai:m", base_url=f"https://127.0.0.1:{silent.port}", retries=0) as client:
        with expires("connect", 0.3):
            list(client.chat("x", timeout=Timeout(connect=0.3)))
        with expires("total", 0.3):
            list(client.chat("x", timeout=0.3))


def test_p12_connect_clock_on_a_proxy_that_never_answers() -> None:
    """The way through a proxy counts for the connect timeout."""
    with (
        Listener() as silent,
        Client("openai:m", base_url="https://127.0.0.1:9", retries=0) as client,
        expires("connect", 0.3),
    ):
        list(client.chat("x", proxy=f"http://127.0.0.1:{silent.port}", timeout=Timeout(connect=0.3)))


def test_p12_connect_clock_on_a_proxy_whose_answer_drips() -> None:
    """A proxy cannot hold a call by sending its headers byte by byte."""

    def drip(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n")
        for _ in range(200):
            sock.sendall(b"X-A: b\r\n"[:1])
            time.sleep(0.05)

    with (
        Listener(drip) as proxy,
        Client("openai:m", base_url="https://127.0.0.1:9", retries=0) as client,
        expires("connect", 0.3),
    ):
        list(client.chat("x", proxy=f"http://127.0.0.1:{proxy.port}", timeout=Timeout(connect=0.3)))


def test_p12_connect_clock_on_a_socks_proxy_that_never_answers() -> None:
    """A silent SOCKS proxy is limited in the same way."""
    pytest.importorskip("socks")
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(Listener())
        client = stack.enter_context(Client("openai:m", base_url="http://127.0.0.1:9", retries=0))
        rescue = threading.Timer(3, silent.__exit__, (None, None, None))  # if no timeout fires, the test still ends
        rescue.start()
        stack.callback(rescue.join)
        stack.callback(rescue.cancel)
        stack.enter_context(expires("connect", 0.3))
        list(client.chat("x", proxy=f"socks5h://127.0.0.1:{silent.port}", timeout=Timeout(connect=0.3, total=1)))


@pytest.fixture
def hanging_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The lookup of `hangs.test` takes until the end of the test; yields the names that were looked up."""
    over, asked, real = threading.Event(), [], socket.getaddrinfo

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        if host == "hangs.test" or (host == "hangs.once" and asked.count(host) == 1):
            over.wait(20)
        return real("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    yield asked
    over.set()


def test_p12_connect_clock_on_a_name_that_is_never_found(hanging_names: list[str]) -> None:
    """A name lookup that hangs ends with the connect timeout."""
    with Client("openai:m", base_url="http://hangs.test:9", retries=0) as client:
        with expires("connect", 0.3):
            list(client.chat("x", timeout=Timeout(connect=0.3)))
        with expires("total", 0.3):
            list(client.chat("x", timeout=0.3))
    assert hanging_names == ["hangs.test"] * 2


def test_p12_an_attempt_after_the_connect_clock_has_its_own_time(server: LLMServer, hanging_names: list[str]) -> None:
    """Nothing had been sent when the connect timeout expired: the retry has a timeout of its own."""
    url = f"http://hangs.once:{port_of(server)}/v1"
    server.default = Reply("ok")
    retry = Retry(1, backoff=0.01)
    with Client("openai:m", base_url=url, retries=retry, timeout=Timeout(connect=0.4, total=10)) as client:
        assert client.chat("x").complete().text == "ok"
    assert hanging_names == ["hangs.once"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["first_content", "total"])
def test_p12_headers_that_drip(server: LLMServer, client: Client, clock: str) -> None:
    """A slow, endless series of headers restarts no timeout."""
    server.script(Reply(raw=[b"HTTP/1.1 200 OK\r\n", *DRIP]))
    with expires(clock, 0.4):
        list(client.chat("x", timeout=Timeout(**{clock: 0.4})))
    assert server.requests[0].gone.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["first_content", "total"])
def test_p12_informational_answers_without_end(server: LLMServer, client: Client, clock: str) -> None:
    """Endless 1xx answers are not an answer."""
    server.script(Reply(raw=EARLY))
    with expires(clock, 0.4):
        list(client.chat("x", timeout=Timeout(**{clock: 0.4})))


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["first_content", "total"])
@pytest.mark.parametrize("steps", [COMMENTS, ROLES, [b"\n", 0.02] * 200], ids=["comments", "roles", "line ends"])
def test_p12_what_is_no_content_counts_for_no_clock(
    server: LLMServer, client: Client, clock: str, steps: list[Any]
) -> None:
    """Endless comments and empty events are not content."""
    server.script(Reply(raw=[head(), *steps]))
    with expires(clock, 0.4):
        list(client.chat("x", timeout=Timeout(**{clock: 0.4})))


@pytest.mark.slow
@pytest.mark.parametrize("status", ["500 Oh", "400 No"])
def test_p12_error_bodies_that_drip(server: LLMServer, client: Client, status: str) -> None:
    """The total timeout covers the body of an error too."""
    server.script(Reply(raw=[head(status=status), *[b"x", 0.03] * 200]))
    with expires("total", 0.4):
        list(client.chat("x", timeout=Timeout(total=0.4)))


@pytest.mark.parametrize("status", [401, 503])
@pytest.mark.quick(1)
def test_p12_an_error_body_that_never_ends_does_not_hide_the_status(
    server: LLMServer, client: Client, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """A status is enough if its body stalls, and a retryable one is retried."""
    when_bytes_come(monkeypatch, lambda call: waits_no_more(call) if len(server.requests) == 1 else None)
    server.script(Reply(raw=[head(status=f"{status} No"), b"5\r\nHello\r\n", HOLD]), Reply("ok"))
    stream = client.chat("x", retries=Retry(1, backoff=0.01))
    if status == 401:
        with pytest.raises(AuthError, match="Hello"):
            stream.complete()
    else:
        assert stream.complete().text == "ok"


def test_p12_silence_before_the_headers(server: LLMServer, client: Client) -> None:
    """A server that takes the request and stays silent ends with first_content."""
    server.script(Reply("x", header_delay=20))
    with expires("first_content", 0.3):
        list(client.chat("x", timeout=Timeout(first_content=0.3)))
    assert server.requests[0].gone.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize("transfer", ["chunked", "length", "close", "http10"])
@pytest.mark.parametrize("gzip", [False, True])
def test_p12_a_stall_in_mid_stream_is_the_idle_clock(
    server: LLMServer, client: Client, transfer: Any, gzip: bool
) -> None:
    """A stalled answer is ClockExpired(idle) with the text so far, never a connection error."""
    server.script(Reply(["a", "b"] + ["c"] * 100, first_delay=0.01, delay=0.5, transfer=transfer, gzip=gzip))
    started = time.monotonic()
    with pytest.raises(ClockExpired) as caught:
        list(client.chat("x", timeout=Timeout(idle=0.2)))
    assert (caught.value.clock, caught.value.partial) == ("idle", "a")
    assert time.monotonic() - started < SOON
    assert server.requests[0].gone.wait(30)


def test_p12_a_stall_over_tls_is_the_idle_clock(tls_server: LLMServer, tls_client: Client) -> None:
    """The same over TLS."""
    tls_server.script(Reply(raw=[head(), event("a"), HOLD]))
    with expires("idle", 0.2) as caught:
        list(tls_client.chat("x", timeout=Timeout(idle=0.2)))
    assert caught.value.partial == "a"


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["idle", "total"])
def test_p12_comments_in_mid_stream_are_no_content(server: LLMServer, client: Client, clock: str) -> None:
    """Pings after the first piece do not restart the idle timeout."""
    server.script(Reply(raw=[head(), event("a"), *COMMENTS]))
    with expires(clock, 0.4) as caught:
        list(client.chat("x", timeout=Timeout(**{clock: 0.4})))
    assert caught.value.partial == "a"


def test_p12_the_total_bounds_a_stream_that_goes_on_for_ever(server: LLMServer, client: Client) -> None:
    """A number as timeout limits the whole call, however lively the stream."""
    server.script(Reply(raw=[head(), *[event("a"), 0.01] * 3000]))
    with expires("total", 0.5) as caught:
        list(client.chat("x", timeout=0.5))
    assert len(caught.value.partial) > 2


def test_p12_the_total_bounds_a_flood(server: LLMServer, client: Client) -> None:
    """A stream that never makes the reader wait is limited as well."""
    server.script(Reply(raw=[head(), *[event("a") * 20_000] * 60]))
    with expires("total"):
        for _ in client.chat("x", timeout=0.3):
            time.sleep(0.00001)


def test_p12_the_total_bounds_the_waits_of_retries(server: LLMServer, client: Client) -> None:
    """A service's wait that would exceed the total timeout is an error at once."""
    server.default = Reply(status=503, headers={"Retry-After": "60"})
    started = time.monotonic()
    with pytest.raises((ClockExpired, ServerError)):
        list(client.chat("x", timeout=0.5, retries=3))
    assert time.monotonic() - started < SOON
    assert len(server.requests) == 1


def test_p12_the_total_bounds_all_attempts_together(server: LLMServer, client: Client) -> None:
    """The timeout does not restart with each attempt."""
    server.default = Reply(status=503, header_delay=0.06)
    with expires("total"):
        list(client.chat("x", timeout=0.5, retries=Retry(1000, backoff=0.01, max_backoff=0.01)))
    assert 1 < len(server.requests) < 10


@pytest.mark.slow
def test_p12_the_total_bounds_a_request_that_is_not_read() -> None:
    """A server that never reads a long request does not hold the call."""
    with Listener() as silent, Client("openai:m", base_url=f"http://127.0.0.1:{silent.port}", retries=0) as client:
        with expires("total", 0.4):
            list(client.chat("x" * 30_000_000, timeout=0.4))
        with expires("first_content", 0.4):
            list(client.chat("x" * 30_000_000, timeout=Timeout(first_content=0.4)))


@pytest.mark.slow
def test_p12_a_slow_consumer_trips_no_idle_clock(server: LLMServer, client: Client) -> None:
    """The caller's own time between pieces does not count."""
    server.script(Reply(raw=[head(), event("a"), 1.6, event("b"), FINISH + DONE]))
    stream = client.chat("x", timeout=Timeout(idle=1.0, first_content=5))
    assert next(stream) == "a"
    time.sleep(1.3)
    assert list(stream) == ["b"]


@pytest.mark.slow
def test_p12_a_paused_consumer_gets_what_had_arrived(server: LLMServer, client: Client) -> None:
    """Pieces that wait in the socket while the caller sleeps are content, not a stall."""
    server.script(Reply(raw=[head(), event("a"), 0.01, event("b") * 3, FINISH + DONE]))
    stream = client.chat("x", timeout=Timeout(idle=0.3))
    assert next(stream) == "a"
    time.sleep(0.7)
    assert list(stream) == ["b"] * 3


def test_p12_a_clock_can_be_switched_off(server: LLMServer, client: Client) -> None:
    """None means no limit."""
    never = Timeout(connect=None, first_content=None, idle=None, total=None)
    server.script(Reply(["a", "b"], header_delay=0.1, delay=0.1))
    assert list(client.chat("x", timeout=never)) == ["a", "b"]


def test_p12_the_clocks_survive_a_thread_that_could_not_be_started(
    server: LLMServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call without a thread for its timeouts is an error; the next one, which gets one, is timed again."""
    watchdog = transport_call._Watchdog()
    monkeypatch.setattr(transport_call, "_watchdog", watchdog)
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if "watchdog" in self.name:
            raise RuntimeError("can't start new thread")
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(TransportError, match="thread"):
            list(client.chat("x"))
    server.script(Reply(raw=[HOLD]))
    try:
        with expires("total", 0.2):
            list(client.chat("x", timeout=0.2))
    finally:
        watchdog.stop()


_AT_EXIT = """
import atexit, sys

def call(when):
    from llmbridge import Client, LLMBridgeError
    try:
        Client("openai:m", base_url=sys.argv[1], retries=0, timeout=0.2).chat("x").complete()
    except LLMBridgeError as error:
        print(when, type(error).__name__, getattr(error, "clock", None), flush=True)

atexit.register(call, "late")
call("before")
"""


def test_p12_calls_in_exit_handlers_have_clocks() -> None:
    """A call during interpreter exit is limited as well, or rejected if no thread can be started then."""
    with Listener() as silent:
        command = [sys.executable, "-W", "error", "-c", _AT_EXIT, f"http://127.0.0.1:{silent.port}/v1"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.stderr == ""
    ends = ["before ClockExpired total", "late ClockExpired total"]
    if sys.version_info >= (3, 12) and "TransportError" in run.stdout:
        ends[1] = "late TransportError None"  # from 3.12 on, Python starts no thread in an exit handler
    assert run.stdout.splitlines() == ends


@pytest.mark.slow
def test_p12_many_calls_at_once_expire_each_at_its_time(server: LLMServer, client: Client) -> None:
    """Calls with different timeouts, started in any order, do not disturb one another."""
    server.default = Reply("x", header_delay=20)
    taken: dict[float, float] = {}

    def run(limit: float) -> None:
        started = time.monotonic()
        with contextlib.suppress(ClockExpired):
            list(client.chat("x", timeout=limit))
        taken[limit] = time.monotonic() - started

    threads = [threading.Thread(target=run, args=(limit / 20,)) for limit in (20, 4, 16, 8, 12, 6, 18, 10, 14, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 10
    assert all(limit * 0.9 <= seconds < limit + 15 for limit, seconds in taken.items()), taken
