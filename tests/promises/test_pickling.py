"""P11 and P17: clients, answers and errors that travel to worker processes and back, and those that cannot."""

from __future__ import annotations

import concurrent.futures
import copy
import functools
import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import resource_tracker
from typing import Any

import pytest
import requests
from conftest import KEY

import llmbridge
from llmbridge import (
    AllFailed,
    AuthError,
    Client,
    Completion,
    Limits,
    LLMBridgeError,
    MissingKey,
    Overloaded,
    Partial,
    Retry,
    RetryAttempt,
    Secret,
    StreamTruncated,
    Timeout,
    Tool,
    tool,
)
from llmbridge._call.route import Breaker
from llmbridge.limits import Limiter
from llmbridge.testing import LLMServer, Reply

PASSWORD = "pw-canary-9876543210"
METHODS = ["spawn", *(["fork"] if sys.platform == "linux" else [])]
# Python 3.12 and later warn about a fork beside threads, which these tests do on purpose.
# Before 3.15 the warning was never raised as an error.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def ask(client: Client, prompt: str) -> Completion:
    """A call in a worker."""
    return client.chat(prompt).complete()


def fail(client: Client, prompt: str) -> LLMBridgeError:
    """A call in a worker that returns its error."""
    try:
        client.chat(prompt).complete()
    except LLMBridgeError as error:
        return error
    raise AssertionError("no error")


def note(attempt: RetryAttempt) -> None:
    """A function that pickle can name."""


@pytest.fixture(scope="module", autouse=True)
def _tracker() -> None:
    """The helper process that multiprocessing keeps for as long as this one lives."""
    resource_tracker.ensure_running()


@pytest.fixture(params=METHODS)
def pool(request: pytest.FixtureRequest) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """Two workers."""
    context = multiprocessing.get_context(request.param)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as made:
        yield made


@pytest.fixture
def traveller(server: LLMServer) -> Iterator[Client]:
    """A client that takes its key along."""
    with Client(
        "openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=0, timeout=20, pickle_key=True
    ) as made:
        yield made


# -- worker processes --------------------------------------------------------------------------------------------


@pytest.mark.quick(1)
def test_p17_workers_of_a_pool_use_a_client_of_the_parent(
    server: LLMServer, traveller: Client, pool: concurrent.futures.ProcessPoolExecutor
) -> None:
    """Spawned or forked, after the parent has used it; every answer comes back whole."""
    assert traveller.chat("first").complete().text
    prompts = [f"number {index}" for index in range(6)]
    answers = list(pool.map(ask, [traveller] * 6, prompts))
    for prompt, answer in zip(prompts, answers, strict=True):
        assert type(answer) is Completion
        assert prompt in answer.text
        assert (answer.provider, answer.model, answer.finish_reason) == ("openai", "m", "stop")
        assert answer.request_id
    assert {request.header("Authorization") for request in server.requests} == {f"Bearer {KEY}"}
    assert traveller.chat("last").complete().text


@pytest.mark.quick(1)
def test_p11_errors_of_workers_come_back_whole(
    server: LLMServer, traveller: Client, pool: concurrent.futures.ProcessPoolExecutor
) -> None:
    """Errors are raised in the parent as in the worker, with the partial answer, and without a key."""
    server.script(Reply(f"no {KEY}", status=401, headers={"x-request-id": "r-1"}))
    with pytest.raises(AuthError) as caught:
        pool.submit(ask, traveller, "x").result(30)
    assert (caught.value.status, caught.value.request_id, caught.value.provider) == (401, "r-1", "openai")
    server.script(Reply(["a", "b"], end_mark=False, finish_reason=None))
    with pytest.raises(StreamTruncated) as cut:
        pool.submit(ask, traveller, "x").result(30)
    assert isinstance(cut.value.partial, Partial)
    assert cut.value.partial == "ab"
    server.script(Reply(status=529), Reply(status=401))
    failed = pool.submit(fail, Client([traveller, traveller]), "x").result(30)
    assert isinstance(failed, AllFailed)
    assert [type(error) for error in failed.errors] == [Overloaded, AuthError]
    assert KEY not in str(caught.value) + caught.value.body + str(failed)


def test_p17_a_pool_of_multiprocessing_does_too(server: LLMServer, traveller: Client) -> None:
    """`multiprocessing.Pool` pickles in the same way."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(ask, (traveller, "Hi")).text
    assert len(server.requests) == 1


@pytest.mark.skipif("fork" not in METHODS, reason="the system does not fork")
def test_p17_a_forked_worker_needs_no_pickle(server: LLMServer) -> None:
    """A client made before the fork works in the child, including key, limits and cool-downs."""
    client = Client(
        "openai:m",
        base_url=server.base_url("openai"),
        api_key=KEY,
        retries=0,
        timeout=20,
        limits=Limits(requests_per_minute=2, concurrency=1),
    )
    server.script(Reply(["a", "b"], keep_open=True))
    with client:
        held = client.chat("held")
        assert next(held) == "a"
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(write, client.chat("child").complete().text.encode())
            finally:
                os._exit(0)
        os.close(write)
        try:
            assert b"child" in os.read(read, 1000)
        finally:
            os.close(read)
            os.waitpid(child, 0)
        held.close()
        assert client.connections.limiter is not None
        assert not client.connections.limiter._running


@pytest.mark.skipif("fork" not in METHODS, reason="the system does not fork")
def test_p17_a_fork_in_the_middle_of_a_trial_does_not_lock_a_model_out() -> None:
    """Neither a lock held by another thread nor a trial of the parent blocks the child."""
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    breaker.failed(Overloaded("busy", retry_after=1.0))
    now[0] = 1.0
    assert breaker.admits()
    with breaker._lock:
        child = os.fork()
        if child == 0:
            now[0] = 40.0
            os._exit(0 if breaker.admits() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- what a pickle of a client holds -----------------------------------------------------------------------------


def _full(**more: Any) -> Client:
    return Client(
        "openai:m",
        api_key=KEY,
        base_url=f"http://user:{PASSWORD}@127.0.0.1:9/v1",
        proxy=f"http://user:{PASSWORD}@127.0.0.1:8",
        headers={"X-Api-Key": KEY, "X-App": "app", "Authorization": None},
        timeout=Timeout(total=7, idle=3),
        retries=Retry(4, statuses=[418], on_retry=note),
        verify=False,
        unsupported="drop",
        system="Be brief.",
        limits=Limits(requests_per_minute=7),
        reask=2,
        temperature=0.5,
        **more,
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_p18_no_pickle_holds_a_secret_unless_asked(protocol: int) -> None:
    """Keys, passwords in URLs and sensitive headers are left out; everything else is kept."""
    data = pickle.dumps(_full(), protocol)
    for secret in (KEY, PASSWORD):
        assert secret.encode() not in data
    client = pickle.loads(data)
    options, chat = client.transport_options, client.chat_options
    assert (options.api_key, options.base_url, options.proxy) == (None, "http://127.0.0.1:9/v1", "http://127.0.0.1:8")
    assert dict(options.headers) == {"X-App": "app", "Authorization": None}
    assert (options.timeout, options.verify, chat.unsupported) == (Timeout(total=7, idle=3), False, "drop")
    assert (options.retries.times, options.retries.on_retry) == (4, note)
    assert client.default_model == "openai:m"
    assert (chat.system, chat.params, chat.reask) == ("Be brief.", {"temperature": 0.5}, 2)
    assert client.connections.limiter.limits == Limits(requests_per_minute=7)


def test_p18_a_pickle_that_was_asked_to_holds_everything() -> None:
    """The unpickled client shows as little as before."""
    client = pickle.loads(pickle.dumps(_full(pickle_key=True)))
    options = client.transport_options
    assert options.api_key == Secret(KEY)
    assert PASSWORD in options.base_url
    assert PASSWORD in options.proxy
    assert options.headers["X-Api-Key"] == KEY
    assert KEY not in repr(vars(client)) + repr(options)
    assert PASSWORD not in repr(client) + repr(options)
    assert KEY.encode() in pickle.dumps(client)


def test_a_client_without_its_key_finds_it_where_it_arrives(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's environment supplies the key; without one, the error says so."""
    client = pickle.loads(pickle.dumps(Client("openai:m", api_key=KEY)))
    with pytest.raises(MissingKey, match="OPENAI_API_KEY"):
        client.chat("x")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-worker")
    again = pickle.loads(pickle.dumps(Client("openai:m", api_key=KEY, base_url=server.base_url("openai"))))
    with again:
        assert again.chat("x").complete().text
    assert server.requests[0].header("Authorization") == "Bearer sk-of-the-worker"


def test_a_session_of_the_callers_does_not_travel() -> None:
    """The error says so, and what to do."""
    with requests.Session() as session, pytest.raises(TypeError, match=r"session.*create it in each process"):
        pickle.dumps(Client("openai:m", session=session))


def test_several_models_travel_each_with_its_own_settings() -> None:
    """Each client decides by itself whether its key travels."""
    open_one, discreet_one = Client("openai:a", api_key=KEY, pickle_key=True), Client("openai:b", api_key=PASSWORD)
    data = pickle.dumps(Client([open_one, discreet_one, "demo"], timeout=9))
    assert KEY.encode() in data
    assert PASSWORD.encode() not in data
    client = pickle.loads(data)
    assert [getattr(model, "default_model", model) for model in client._model] == ["openai:a", "openai:b", "demo"]
    assert client.transport_options.timeout == Timeout(total=9)
    assert client.chat("Hi").provider == "openai"


def test_a_client_travels_after_it_was_used(server: LLMServer, traveller: Client) -> None:
    """Also in the middle of an answer."""
    limited = Client("openai:m", base_url=server.base_url("openai"), limits=Limits(requests_per_minute=2), timeout=20)
    for client in (traveller, limited):
        stream = client.chat("x")
        assert next(stream)
        again = pickle.loads(pickle.dumps(client))
        with again:
            assert again.chat("y").complete().text
        assert isinstance(again.connections.limiter, Limiter) == (client is limited)
        stream.close()
        client.close()


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy])
def test_a_copy_within_the_process_keeps_the_key(way: Callable[[Client], Client]) -> None:
    """Nothing leaves the process: a settings object that holds a client may be copied."""
    client = _full()
    again = way(client)
    assert again.transport_options == client.transport_options
    assert again.transport_options.api_key == Secret(KEY)
    assert (again._model, again.chat_options) == (client._model, client.chat_options)
    assert again.connections.limiter is not client.connections.limiter
    assert again.connections is not client.connections
    with requests.Session() as session:
        assert way(Client("openai:m", session=session)).transport_options.session is session


def test_threads_share_what_was_unpickled(server: LLMServer, traveller: Client) -> None:
    """An unpickled client is as safe to share as the original."""
    again = pickle.loads(pickle.dumps(traveller))
    texts: list[str] = []
    threads = [
        threading.Thread(target=lambda index=index: texts.append(again.chat(f"n{index}").complete().text))
        for index in range(8)
    ]
    with again:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert sorted(text[-2:] for text in texts) == [f"n{index}" for index in range(8)]
    assert len(server.requests) == 8


# -- answers -----------------------------------------------------------------------------------------------------

WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_completion_travels_whole(server: LLMServer, client: Client, way: str) -> None:
    """Calls, tokens, reasoning, message, headers and the rest are kept."""
    call = {"name": "get_weather", "arguments": {"city": "Paris"}, "id": "c1"}
    server.script(Reply(["a", "b"], reasoning=["r"], tool_calls=[call], usage=True, headers={"x-a": "b"}))
    completion = client.chat("x").complete()
    again = WAYS[way](completion)
    assert again == completion
    assert (again.text, again.reasoning, again.tool_calls[0].arguments) == ("ab", "r", {"city": "Paris"})
    assert again.usage
    assert again.headers["x-a"] == "b"
    server.script(Reply("ok"))
    assert client.chat([*again.turns[:-1], {"role": "user", "content": "y"}]).complete().text == "ok"


def test_embeddings_and_events_travel(server: LLMServer, client: Client) -> None:
    """Other results of a worker travel too."""
    vectors = client.embed(["a", "b"])
    assert pickle.loads(pickle.dumps(vectors)) == vectors
    server.script(Reply(["a"], reasoning=["r"], usage=True))
    events = list(client.chat("x").events())
    assert pickle.loads(pickle.dumps(events)) == events


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_live_answer_does_not_travel(client: Client, way: str) -> None:
    """The error says what can be pickled instead."""
    with pytest.raises(TypeError, match=r"live .*Completion from complete\(\)"):
        WAYS[way](client.chat("x"))


# -- tools -------------------------------------------------------------------------------------------------------


@tool
def decorated(x: int) -> int:
    """Doubles a number."""
    return 2 * x


@tool(name="other", strict=True)
def renamed(x: int) -> int:
    """Doubles a number."""
    return 2 * x


def plain(x: int) -> int:
    """Doubles a number."""
    return 2 * x


class Thing:
    """An object with tools."""

    @tool
    def decorated(self, x: int) -> int:
        """Doubles a number."""
        return 2 * x

    def plain(self, x: int) -> int:
        """Doubles a number."""
        return 2 * x


TOOLS = {
    "decorated": decorated,
    "renamed": renamed,
    "made of a decorated one": replace(decorated, description="Twice."),
    "a function": Tool.of(plain),
    "a function with a schema": Tool("f", "F.", {"properties": {"x": {"type": "integer"}}}, plain),
    "a described function": replace(Tool.of(plain), name="f", description="F."),
    "partial": Tool.of(functools.partial(plain)),
    "a method": Tool.of(Thing().plain),
    "a decorated method": Thing().decorated,
}


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_travels_by_the_name_of_its_function(name: str) -> None:
    """The unpickled tool can be called, by the model too."""
    again = pickle.loads(pickle.dumps(TOOLS[name]))
    known = TOOLS[name]
    assert (again.name, again.description, again.parameters) == (known.name, known.description, known.parameters)
    assert (again.strict, again.raw, again.run({"x": 2})) == (known.strict, known.raw, 4)


def test_a_tool_without_a_function_travels() -> None:
    """A service's own tools travel too."""
    for known in (Tool("f", "F."), Tool.of({"type": "web_search"})):
        assert pickle.loads(pickle.dumps(known)) == known


def test_a_tool_that_nobody_finds_does_not_travel() -> None:
    """The error names it; within the process it can be copied."""

    @tool
    def inner(x: int) -> int:
        """Doubles a number."""
        return 2 * x

    with pytest.raises(TypeError, match=r"tool inner cannot be pickled.*top of a module"):
        pickle.dumps(Client("demo", tools=[inner]))
    assert copy.copy(inner) is copy.deepcopy(inner) is inner


def test_a_client_travels_with_decorated_tools(server: LLMServer, traveller: Client) -> None:
    """The tools run where the client arrives."""
    server.script(Reply(tool_calls=[{"name": "decorated", "arguments": {"x": 2}}]), Reply("4"))
    options: dict[str, Any] = {"base_url": server.base_url("openai"), "api_key": KEY, "pickle_key": True}
    again = pickle.loads(pickle.dumps(Client("openai:m", tools=[decorated], run_tools=True, **options)))
    assert again.chat("x").complete().text == "4"
    assert server.requests[1].json["messages"][-1]["content"] == "4"


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
@pytest.mark.parametrize("name", ["chat", "embed", "aembed", "models", "amodels"])
def test_the_functions_of_the_package_travel_by_name(name: str, way: Callable[[Any], Any]) -> None:
    """It is the same function there, so a worker that gets it again and again keeps its connections."""
    function = getattr(llmbridge, name)
    assert way(function) == function
    assert way(functools.partial(function, timeout=3)).func == function
