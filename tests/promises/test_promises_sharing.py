"""P39: clients that are pickles of one client share its connections, limits and cool-downs in each process."""

from __future__ import annotations

import concurrent.futures
import copy
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from multiprocessing import resource_tracker
from typing import Any

import pytest
from conftest import KEY
from modes import Mode

from llmbridge import Client, ClockExpired, Limits
from llmbridge._call import route
from llmbridge.testing import LLMServer, Reply

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def _tracker() -> None:
    """The helper process that multiprocessing keeps for as long as this one lives."""
    resource_tracker.ensure_running()


def client_of(server: LLMServer, **options: Any) -> Client:
    """A client that takes its key along."""
    return Client(
        "openai:m",
        base_url=server.base_url("openai"),
        api_key=KEY,
        pickle_key=True,
        **{"retries": 0, "timeout": 20, **options},
    )


def again(client: Client) -> Client:
    """A client as a worker gets it."""
    found: Client = pickle.loads(pickle.dumps(client))
    return found


def outcome(client: Client, timeout: float) -> str:
    """A call in a worker: the text, or the name of the error."""
    try:
        return client.chat("x", timeout=timeout).complete().text
    except ClockExpired as error:
        return type(error).__name__


# -- in one process ----------------------------------------------------------------------------------------------


def test_p39_pickles_share_connections(server: LLMServer, mode: Mode) -> None:
    """All of them use the same connection, and so does the original."""
    server.default = Reply("ok")
    with client_of(server) as client:
        brothers = [client, again(client), again(again(client))]
        for brother in brothers:
            assert mode.complete(brother.chat("x")).text == "ok"
        assert {id(brother.connections) for brother in brothers} == {id(client.connections)}
    assert server.connections == 1


@pytest.mark.quick(1)
def test_p39_pickles_share_limits(server: LLMServer, mode: Mode) -> None:
    """The limits per minute hold for all together."""
    server.default = Reply("ok")
    with client_of(server, limits=Limits(requests_per_minute=2)) as client:
        for brother in (again(client), again(client)):
            assert mode.complete(brother.chat("x")).text == "ok"
        for brother in (again(client), client):
            assert isinstance(mode.read(brother.chat("x", timeout=0.2)).error, ClockExpired)
    assert len(server.requests) == 2


def test_p39_pickles_share_cool_downs(server: LLMServer, mode: Mode) -> None:
    """A model that failed for one is skipped by the others."""
    server.default = lambda received: Reply("ok") if received.json["model"] == "b" else Reply(status=529)
    first, second = client_of(server), client_of(server)
    second._model = "openai:b"
    with Client([first, second]) as client:
        for brother in (again(client), client, again(client)):
            assert mode.complete(brother.chat("x")).model == "b"
    for one in (first, second):
        one.close()
    assert [request.json["model"] for request in server.requests] == ["m", "b", "b", "b"]


@pytest.mark.quick(1)
def test_p39_limits_and_cool_downs_outlive_the_clients(server: LLMServer, mode: Mode) -> None:
    """A worker drops each client before it gets the next; connections are not kept open for that."""
    server.default = Reply("ok")
    data = pickle.dumps(client_of(server, limits=Limits(requests_per_minute=1)))
    gc.collect()
    client = pickle.loads(data)
    assert mode.complete(client.chat("x")).text == "ok"
    client.close()
    del client
    gc.collect()
    assert isinstance(mode.read(pickle.loads(data).chat("x", timeout=0.2)).error, ClockExpired)
    assert len(server.requests) == 1


def test_p39_only_so_many_are_remembered() -> None:
    """Many new clients do not fill the memory."""
    for _ in range(route._TRAVELLERS + 10):
        pickle.loads(pickle.dumps(Client("demo", limits=Limits(concurrency=1))))
    gc.collect()
    assert len(route.TRAVELLERS._memories) == route._TRAVELLERS


class Tagged(Client):
    """A caller's own subclass of Client."""

    tag = "none"


def test_p39_so_do_those_of_a_class_of_the_callers(server: LLMServer, mode: Mode) -> None:
    """Its own attributes are kept."""
    server.default = Reply("ok")
    with Tagged("openai:m", base_url=server.base_url("openai"), api_key=KEY, pickle_key=True, timeout=20) as client:
        client.tag = "mine"
        for brother in (again(client), again(again(client))):
            assert isinstance(brother, Tagged)
            assert brother.tag == "mine"
            assert mode.complete(brother.chat("x")).text == "ok"
    assert server.connections == 1


def test_p39_a_class_of_the_callers_need_not_be_hashable(server: LLMServer, mode: Mode) -> None:
    """As a class that compares its objects is not, a dataclass for instance."""

    class Comparable(Client):
        __hash__ = None  # type: ignore[assignment]  # as Python makes it

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Comparable)

    with Comparable("openai:m", base_url=server.base_url("openai"), api_key=KEY, timeout=20) as client:
        assert mode.complete(client.chat("x")).text
        with Client([client, client]) as several:
            assert mode.complete(several.chat("x")).text


def test_p39_other_clients_share_nothing(server: LLMServer, mode: Mode) -> None:
    """Neither copies nor equal clients share anything."""
    server.default = Reply("ok")
    limits = Limits(requests_per_minute=1)
    client = client_of(server, limits=limits)
    others = [client_of(server, limits=limits), copy.copy(client), copy.deepcopy(client)]
    for one in (again(client), *map(again, others)):
        assert mode.complete(one.chat("x")).text == "ok"
        one.close()
    assert len({id(one.connections) for one in (client, *others)}) == 4


def test_p39_a_key_does_not_reach_a_brother(server: LLMServer, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key left out of the pickle stays out, though its owner lives in the same process."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-worker")
    server.default = Reply("ok")
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, timeout=20) as client:
        for one, key in ((client, KEY), (again(client), "sk-of-the-worker")):
            assert mode.complete(one.chat("x")).text == "ok"
            assert server.requests[-1].header("Authorization") == f"Bearer {key}"
    assert server.connections == 1


def test_p39_a_brother_that_closes_ends_no_answer(server: LLMServer, mode: Mode) -> None:
    """An answer being read goes on, and the next question gets a new connection."""
    server.default = Reply(["a", "b", "c"])
    with client_of(server) as client:

        def close(_: object) -> None:
            again(client).close()

        pieces: list[Any] = []
        mode.each(client.chat("x"), lambda piece: pieces.append(piece) or close(piece))
        assert pieces == ["a", "b", "c"]
        assert mode.complete(client.chat("x")).text == "abc"


def test_p39_many_threads_unpickle_the_same(server: LLMServer) -> None:
    """At the same time, and none of them gets connections of its own."""
    data = pickle.dumps(Client("openai:m", base_url=server.base_url("openai")))
    gc.collect()
    found: list[Client] = []
    threads = [threading.Thread(target=lambda: found.append(pickle.loads(data))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len({id(client.connections) for client in found}) == 1


# -- in others ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["spawn", *(["fork"] if sys.platform == "linux" else [])])
@pytest.mark.quick(1)
def test_p39_tasks_of_a_worker_process_share(server: LLMServer, method: str) -> None:
    """Each task gets a client of its own, one after the other."""
    server.default = Reply("ok")
    client = client_of(server, limits=Limits(requests_per_minute=2))
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert [pool.submit(outcome, client, 10).result(30) for _ in range(2)] == ["ok", "ok"]
        assert pool.submit(outcome, client, 0.3).result(30) == "ClockExpired"
    assert len(server.requests) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_p39_a_forked_child_shares_with_what_it_inherits(server: LLMServer) -> None:
    """It does not wait for a lock that another thread of the parent held."""
    server.default = Reply("ok")
    with client_of(server, limits=Limits(requests_per_minute=2)) as client:
        data = pickle.dumps(client)
        assert client.chat("x").complete().text == "ok"
        with route.TRAVELLERS._lock:
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                try:
                    brother = pickle.loads(data)
                    told = [outcome(brother, 10), outcome(client, 0.3)]
                    os._exit(0 if told == ["ok", "ClockExpired"] else 1)
                finally:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
