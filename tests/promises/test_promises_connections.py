"""The number of connections that are made and kept: P33 and P34 of docs/promises.md."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from conftest import KEY
from loopback import free_port, port_of
from modes import Mode

from llmbridge import Cancelled, Client, ClockExpired, ConnectFailed, Retry, Timeout
from llmbridge._transport import adapter, addresses, connections
from llmbridge._transport import call as transport_call
from llmbridge.testing import LLMServer, Reply
from llmbridge.testing.faults import HTTPProxy, Listener

SOON = 10.0
"""Seconds, far more than anything here takes on a busy machine, and far less than what must not be waited for."""
LONG = 60.0
TOGETHER = 0.4
"""Seconds after which a wave of calls is answered: all of them have been sent by then, or nearly so."""


def eventually(holds: Callable[[], bool]) -> None:
    """Waits until it is true."""
    end = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def wave(mode: Mode, client: Client, width: int) -> None:
    """So many calls at once."""
    assert mode.at_once([client.chat("x") for _ in range(width)]) == [["ok"]] * width


# -- P33: idle connections --------------------------------------------------------------------------------------------


@pytest.mark.quick(1)
def test_p33_calls_in_waves_make_no_more_connections_than_a_wave_is_wide(server: LLMServer, mode: Mode) -> None:
    """Each wave reuses the connections of the one before, even if it is wider than the number kept for long."""
    width = 100
    assert width > adapter._IDLE_CONNECTIONS
    server.default = Reply("ok", first_delay=TOGETHER)
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=0, timeout=LONG) as client:
        for _ in range(3):
            wave(mode, client, width)
    assert server.connections <= 1.1 * width


@pytest.mark.slow
def test_p33_those_beyond_the_usual_go_when_nobody_has_needed_them_for_a_while(
    server: LLMServer, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They close by themselves, even without a further call; the usual ones stay."""
    monkeypatch.setattr(adapter, "_IDLE_CONNECTIONS", 4)
    monkeypatch.setattr(connections, "_SURPLUS_SECONDS", 1.5)
    server.default = Reply("ok", first_delay=TOGETHER)
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=0, timeout=LONG) as client:
        wave(mode, client, 12)
        assert 4 < server.open_connections <= 12
        eventually(lambda: server.open_connections <= 4)
        time.sleep(0.2)
        assert server.open_connections == 4


def test_p33_they_go_in_time_while_no_call_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog, which sleeps without end then, is woken for them."""
    monkeypatch.setattr(connections, "_SURPLUS_SECONDS", 0.2)
    watchdog = transport_call._Watchdog()
    monkeypatch.setattr(transport_call, "_watchdog", watchdog)
    idle, closed = connections._Idle(1), threading.Event()
    connections.watch(idle)
    time.sleep(0.2)
    for _ in range(2):
        idle.put(SimpleNamespace(close=closed.set))
    assert closed.wait(SOON)
    assert idle.qsize() == 1
    watchdog.stop()


def test_p33_many_hosts_have_their_connections_kept(
    server: LLMServer, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that calls many services in turn connects to each of them once."""
    resolves(monkeypatch, port_of(server))
    server.default = Reply("ok")
    with Client("openai:m", api_key=KEY, retries=0, timeout=LONG) as client:
        urls = [server.base_url("openai").replace("127.0.0.1", f"host{number}.test") for number in range(16)]
        for _ in range(2):
            assert mode.in_turn([client.chat("x", base_url=url) for url in urls]) == [["ok"]] * len(urls)
    assert server.connections == len(urls)


@pytest.mark.quick(1)
def test_p33_a_session_of_the_caller_keeps_as_many_as_it_says(server: LLMServer, mode: Mode) -> None:
    """Its pool does not belong to llmbridge."""
    server.default = Reply("ok", first_delay=TOGETHER)
    with requests.Session() as session:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=3))
        with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=0, session=session) as client:
            wave(mode, client, 8)
            eventually(lambda: server.open_connections <= 3)


_FORKS_WITH_MANY = """
import os, sys, threading
from llmbridge import Client
from llmbridge._transport import adapter, connections
adapter._IDLE_CONNECTIONS = 1
client = Client("openai:m", base_url=sys.argv[1], retries=0, timeout=60)
threads = [threading.Thread(target=client.chat("x").complete) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
child = os.fork()
if not child:
    assert client.chat("x").complete().text == "ok"
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert client.chat("x").complete().text == "ok"
client.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
@pytest.mark.slow
def test_p33_a_fork_may_come_while_many_are_kept(server: LLMServer) -> None:
    """They belong to the parent, and the child leaves them alone."""
    server.default = Reply("ok", first_delay=TOGETHER)
    command = [sys.executable, "-W", "ignore", "-c", _FORKS_WITH_MANY, server.base_url("openai")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    assert server.requests[-2].connection > 4 >= server.requests[-1].connection


# -- P34: dead addresses ----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets addresses of earlier tests."""
    monkeypatch.setattr(addresses, "_ranks", {})


@pytest.fixture
def dead() -> Iterator[Callable[[], int]]:
    """Makes ports of 127.0.0.1 that never complete a connection, like an address that drops packets."""
    with contextlib.ExitStack() as stack:

        def made() -> int:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for _ in range(8):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(listener.getsockname())
            time.sleep(0.05)
            with socket.socket() as probe:
                probe.settimeout(0.2)
                with contextlib.suppress(TimeoutError):
                    probe.connect(listener.getsockname())
                    pytest.skip("this system accepts past the backlog")
            return int(listener.getsockname()[1])

        yield made


def resolves(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Every name has these addresses. They differ in the port, since only Linux has many addresses on loopback."""
    real = socket.getaddrinfo

    def lookup(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host != "localhost" and not str(host).endswith(".test"):
            return real(host, port, *rest, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", each)) for each in ports]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ports that are connected to, in order."""
    ports: list[int] = []
    connect = socket.socket.connect

    def noted(sock: socket.socket, address: Any) -> None:
        ports.append(address[1])
        connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect", noted)
    return ports


def far_client(**options: Any) -> Client:
    """A client of a name."""
    given = {"api_key": KEY, "retries": 0, "timeout": Timeout(connect=LONG, total=LONG), **options}
    return Client("openai:m", **{"base_url": "http://many.test/v1", **given})


@pytest.mark.parametrize("foreign", [False, True], ids=["own", "session"])
@pytest.mark.quick(1)
def test_p34_a_dead_address_costs_its_head_start_and_that_only_once(
    server: LLMServer,
    mode: Mode,
    dead: Callable[[], int],
    tried: list[int],
    monkeypatch: pytest.MonkeyPatch,
    foreign: bool,
) -> None:
    """The next address is tried beside it, the first that accepts is used, and later comes before all others."""
    first, second, alive = dead(), dead(), port_of(server)
    tried.clear()
    started = time.monotonic()
    for found, ports in (([first, alive], [first, alive]), ([second, first, alive], [alive])):
        resolves(monkeypatch, *found)
        with requests.Session() as session, far_client(session=session if foreign else None) as client:
            assert mode.read(client.chat("x")).error is None
        assert tried == ports
        tried.clear()
    assert 0.2 < time.monotonic() - started < SOON


def test_p34_one_that_refuses_is_followed_at_once(
    server: LLMServer, mode: Mode, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused address does not delay the next; a working one loses its place when it fails."""
    monkeypatch.setattr(addresses, "_HEAD_START", LONG)
    with LLMServer() as before:
        closed, gone = free_port(), port_of(before)
        resolves(monkeypatch, closed, gone, port_of(server))
        with far_client() as client:
            assert mode.read(client.chat("x")).error is None
    for ports in ([gone, port_of(server)], [port_of(server)]):
        tried.clear()
        with far_client() as client:
            started = time.monotonic()
            assert mode.read(client.chat("x")).error is None
            assert time.monotonic() - started < SOON
        assert tried == ports


@pytest.mark.quick(1)
def test_p34_the_connect_clock_counts_over_all(
    mode: Mode, dead: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timeout ends the wait for all of them."""
    monkeypatch.setattr(addresses, "_HEAD_START", LONG)
    resolves(monkeypatch, dead(), dead())
    with far_client(timeout=Timeout(connect=0.4, total=LONG)) as client:
        started = time.monotonic()
        error = mode.read(client.chat("x")).error
        assert 0.3 < time.monotonic() - started < SOON
    assert isinstance(error, ClockExpired)
    assert error.clock == "connect"


@pytest.mark.slow
def test_p34_a_retry_begins_with_another_address_than_the_one_that_took_the_clock(
    server: LLMServer, mode: Mode, dead: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the timeout is shorter than the head start."""
    monkeypatch.setattr(addresses, "_HEAD_START", LONG)
    resolves(monkeypatch, dead(), port_of(server))
    with far_client(timeout=Timeout(connect=1, total=LONG), retries=Retry(1, backoff=0.01)) as client:
        assert mode.read(client.chat("x")).error is None


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.quick(1)
def test_p34_a_cancel_ends_the_wait_for_all(
    mode: Mode, dead: Callable[[], int], tried: list[int], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """A cancel works while one or several addresses are tried."""
    ports = [dead(), dead()]
    resolves(monkeypatch, *ports)
    tried.clear()
    answered = addresses._answered

    def waits_longer(knocking: Any) -> list[Any]:
        if len(tried) == count:
            monkeypatch.setattr(addresses, "_HEAD_START", LONG)
        return answered(knocking)

    monkeypatch.setattr(addresses, "_answered", waits_longer)
    with far_client() as client:
        stream = client.chat("x")

        def cancel() -> None:
            eventually(lambda: len(tried) == count)
            time.sleep(0.1)
            stream.cancel()

        thread = threading.Thread(target=cancel)
        thread.start()
        started = time.monotonic()
        assert isinstance(mode.read(stream).error, Cancelled)
        assert time.monotonic() - started < SOON
        thread.join()
    assert tried == ports[:count]


def test_p34_the_families_take_turns(tried: list[int], mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The family of the resolver's first address begins."""
    if not socket.has_ipv6:
        pytest.skip("there is no IPv6 here")
    closed = [free_port() for _ in range(5)]
    six = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)) for port in closed[:3]]
    four = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in closed[3:]]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: six + four)
    tried.clear()
    with far_client() as client:
        assert isinstance(mode.read(client.chat("x")).error, ConnectFailed)
    assert tried == [closed[0], closed[3], closed[1], closed[4], closed[2]]


def test_p34_the_error_says_what_tells_most(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal tells more than an address without a route."""
    unreachable, lost, closed = (free_port(), free_port()), free_port(), free_port()
    resolves(monkeypatch, unreachable[0], lost, closed, unreachable[1])
    connect = socket.socket.connect

    def no_way(sock: socket.socket, address: Any) -> None:
        if address[1] in unreachable:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        if address[1] == lost:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect", no_way)
    with far_client() as client:
        error = mode.read(client.chat("x")).error
        assert isinstance(error, ConnectFailed)
        assert error.message.endswith(os.strerror(errno.ECONNREFUSED))
        resolves(monkeypatch, unreachable[0], lost, unreachable[1])
        error = mode.read(client.chat("x")).error
        assert isinstance(error, ConnectFailed)
        assert error.message.endswith(os.strerror(errno.EHOSTUNREACH))
        resolves(monkeypatch)
        error = mode.read(client.chat("x")).error
        assert isinstance(error, ConnectFailed)
        assert error.message == "no connection to many.test: the name has no address"


def test_p34_an_address_that_this_machine_cannot_even_try_is_passed_over(
    server: LLMServer, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a family that the system was built without."""
    unknown = (max(socket.AddressFamily) + 100, socket.SOCK_STREAM, 6, "", ("x", 1))
    four = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port_of(server)))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [unknown, four])
    with far_client() as client:
        assert mode.read(client.chat("x")).error is None


@pytest.mark.slow
def test_p34_an_address_that_fails_behind_its_connection_is_tried_last(
    tls_server: LLMServer, ca_file: str, mode: Mode, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS uses only the first address that accepts; if TLS gets no answer, a retry uses another address."""
    with Listener() as silent:
        resolves(monkeypatch, silent.port, port_of(tls_server))
        with far_client(
            base_url=f"https://localhost:{port_of(tls_server)}/v1",
            verify=ca_file,
            timeout=Timeout(connect=1, total=LONG),
            retries=Retry(1, backoff=0.01),
        ) as client:
            assert mode.read(client.chat("x")).error is None
        assert tried == [silent.port, port_of(tls_server)]


@pytest.mark.quick(1)
def test_p34_the_proxy_may_have_dead_addresses(
    server: LLMServer, mode: Mode, dead: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy is reached in the same way as a service."""
    with HTTPProxy() as proxy:
        resolves(monkeypatch, dead(), proxy.port)
        with far_client(base_url=server.base_url("openai"), proxy="http://proxy.test:9") as client:
            started = time.monotonic()
            assert mode.read(client.chat("x")).error is None
            assert time.monotonic() - started < SOON


def test_p34_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may meet any number of addresses."""
    for number in range(addresses._RANKED * 2):
        addresses.failed((number,))
        assert len(addresses._ranks) <= addresses._RANKED
