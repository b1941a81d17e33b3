"""A function as api_key: called before each request, and its keys never shown."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from canary import KEY, Canary
from modes import Async, Mode

from llmbridge import (
    AuthError,
    Client,
    ClockExpired,
    ConfigError,
    ConnectFailed,
    MissingKey,
    Overloaded,
    Provider,
    Retry,
    Secret,
    Timeout,
    chat,
    embed,
    models,
    providers,
)
from llmbridge.testing import LLMServer, Reply

REFUSED = Reply("No.", status=401)
SERVED = [provider for provider in providers.known().values() if not provider.direct]


class Keys:
    """A function that returns another key each time, and records its calls."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.threads: list[threading.Thread] = []

    def __call__(self) -> str:
        """Returns the next key."""
        self.threads.append(threading.current_thread())
        self.given.append(f"key-number-{len(self.given) + 1}")
        return self.given[-1]

    async def soon(self) -> str:
        """The same, awaited."""
        await anyio.sleep(0.001)
        return self()

    def later(self) -> Any:
        """A plain function that returns an awaitable."""
        return self.soon()


@pytest.fixture
def keys() -> Keys:
    """A new one."""
    return Keys()


@pytest.fixture(params=["sync", "async", "awaitable"])
def function(request: pytest.FixtureRequest, keys: Keys) -> Callable[[], Any]:
    """Each kind of function, with the same keys."""
    kinds: dict[str, Callable[[], Any]] = {"sync": keys, "async": keys.soon, "awaitable": keys.later}
    return kinds[request.param]


@pytest.fixture
def keyed(server: LLMServer, function: Callable[[], Any]) -> Iterator[Client]:
    """A client of `server` whose key comes from the function."""
    retries = Retry(times=2, backoff=0.001)
    with Client("openai:m", base_url=server.base_url("openai"), api_key=function, retries=retries, timeout=20) as made:
        yield made


def sent(server: LLMServer) -> list[str]:
    """The keys that arrived."""
    return [(received.header("Authorization") or "").removeprefix("Bearer ") for received in server.requests]


class TestAsked:
    """When and where the function is called."""

    def test_before_each_request(self, mode: Mode, server: LLMServer, keyed: Client, keys: Keys) -> None:
        """Neither creating a call nor dropping it unread calls the function."""
        streams = [keyed.chat("x"), keyed.chat("x")]
        keyed.chat("never read")
        assert keys.given == []
        for stream in streams:
            assert mode.complete(stream).text
        assert sent(server) == keys.given == ["key-number-1", "key-number-2"]

    def test_again_for_a_retry(self, mode: Mode, server: LLMServer, keyed: Client, keys: Keys) -> None:
        """A retry gets a new key, since the old one may expire while the service is busy."""
        server.script(Reply("Busy.", status=503), Reply("Busy.", status=503), Reply("OK"))
        assert mode.complete(keyed.chat("x")).text == "OK"
        assert sent(server) == keys.given == ["key-number-1", "key-number-2", "key-number-3"]

    def test_in_pieces_too(self, mode: Mode, server: LLMServer, keyed: Client, keys: Keys) -> None:
        """The same for a loop over the answer."""
        server.script(REFUSED, Reply(["a", "b"]))
        assert mode.read(keyed.chat("x")).pieces == ["a", "b"]
        assert sent(server) == keys.given == ["key-number-1", "key-number-2"]

    def test_for_embeddings_and_models(self, server: LLMServer, keyed: Client, keys: Keys) -> None:
        """Embeddings and lists of models call it like a chat."""
        server.script(REFUSED, Reply(), Reply(models=["m"]))
        assert len(keyed.embed(["x"])) == 1
        assert keyed.models() == ["m"]
        assert sent(server) == keys.given
        assert len(keys.given) == 3

    def test_for_embeddings_and_models_in_async_code(
        self, loop: Async, server: LLMServer, keyed: Client, keys: Keys
    ) -> None:
        """An async function runs in the loop that waits."""

        async def main() -> None:
            await keyed.aembed("x")
            await keyed.amodels()

        loop.run(main)
        assert sent(server) == keys.given
        assert len(keys.given) == 2

    def test_never_in_the_event_loops_thread(self, loop: Async, server: LLMServer, keys: Keys) -> None:
        """A plain function may block; an async one runs in the loop that waits for the answer."""
        with Client("openai:m", base_url=server.base_url("openai"), api_key=keys) as client:
            loop.complete(client.chat("x"))
        with Client("openai:m", base_url=server.base_url("openai"), api_key=keys.soon) as client:
            loop.complete(client.chat("x"))
        assert keys.threads[0] is not threading.current_thread()
        assert keys.threads[1] is threading.current_thread()

    def test_the_context_is_the_callers(self, mode: Mode, server: LLMServer) -> None:
        """Context variables are visible, since they may decide whose key it is."""
        tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant")

        async def soon() -> str:
            return f"key-of-{tenant.get()}"

        for function in (lambda: f"key-of-{tenant.get()}", soon):
            with Client("openai:m", base_url=server.base_url("openai"), api_key=function) as client:
                context = contextvars.copy_context()
                context.run(tenant.set, "alice")
                context.run(lambda client=client: mode.complete(client.chat("x")))
        assert sent(server) == ["key-of-alice"] * 2

    def test_within_an_event_loop_by_a_plain_loop(self, server: LLMServer, keyed: Client) -> None:
        """A sync call blocks the event loop, so an async function gets a loop of its own."""

        async def main() -> str:
            return "".join(keyed.chat("x"))

        with pytest.warns(RuntimeWarning, match="blocks the event loop"):
            assert asyncio.run(main())

    def test_all_models_of_a_list(self, mode: Mode, server: LLMServer, keys: Keys) -> None:
        """Each model of a list calls its own function, which may fail like the service."""

        def broken() -> str:
            raise OSError("no vault")

        base_url = server.base_url("openai")
        first, second = (Client("openai:m", base_url=base_url, api_key=key) for key in (broken, keys))
        assert mode.complete(Client([first, second]).chat("x")).text
        assert sent(server) == keys.given == ["key-number-1"]

    @pytest.mark.parametrize("provider", SERVED, ids=lambda provider: provider.name)
    def test_by_every_provider(self, mode: Mode, provider: type[Provider], server: LLMServer, keys: Keys) -> None:
        """Every provider sends the key in a header only, even when used as a class."""
        server.default = REFUSED
        options = {"base_url": server.base_url("openai"), "api_key": keys, "proxy": False, "retries": 0}
        assert isinstance(mode.read(mode.of_class(provider, **options)).error, AuthError)
        assert keys.given == ["key-number-1", "key-number-2"]
        for key, received in zip(keys.given, server.requests, strict=True):
            headers = dict(received.headers)
            assert all(headers[name] == value for name, value in provider.token_headers(key).items())
            assert key in "".join(headers.values())
            assert key not in received.path
            assert key.encode() not in received.body


class TestRefused:
    """What follows a 401."""

    def test_p13_it_is_asked_once_more(self, mode: Mode, server: LLMServer, keyed: Client, keys: Keys) -> None:
        """A rejected key is replaced once, whatever `retries` is, and without a wait."""
        server.script(REFUSED, Reply("OK"))
        assert mode.complete(keyed.chat("x", retries=0)).text == "OK"
        assert sent(server) == keys.given == ["key-number-1", "key-number-2"]

    def test_it_is_asked_once_only(self, mode: Mode, server: LLMServer, keyed: Client, keys: Keys) -> None:
        """The second 401 is the error."""
        server.default = REFUSED
        assert isinstance(mode.read(keyed.chat("x")).error, AuthError)
        assert sent(server) == keys.given == ["key-number-1", "key-number-2"]

    def test_retries_are_counted_beside_it(self, mode: Mode, server: LLMServer, keyed: Client, keys: Keys) -> None:
        """The new key does not count as a retry."""
        busy = Reply("Busy.", status=503)
        server.script(busy, REFUSED, busy, Reply("OK"))
        assert mode.complete(keyed.chat("x")).text == "OK"
        server.script(REFUSED, busy, busy, busy)
        assert isinstance(mode.read(keyed.chat("x")).error, Overloaded)
        assert sent(server) == keys.given
        assert len(keys.given) == 8

    def test_a_refusal_in_the_stream_counts(self, mode: Mode, server: LLMServer, keyed: Client) -> None:
        """A rejection in the stream counts before the first piece; after it, it is the error."""
        refusal = {"message": "expired", "type": "authentication_error", "code": "invalid_api_key"}
        server.script(Reply("", error=refusal), Reply("OK"))
        assert mode.complete(keyed.chat("x", retries=0)).text == "OK"
        server.script(Reply(["a"], error=refusal), Reply("never"))
        outcome = mode.read(keyed.chat("x"))
        assert outcome.pieces == ["a"]
        assert isinstance(outcome.error, AuthError)
        assert len(server.requests) == 3

    def test_a_key_that_was_given_is_not_tried_again(self, mode: Mode, server: LLMServer, client: Client) -> None:
        """A fixed key would be the same again."""
        server.script(REFUSED, Reply("never"))
        assert isinstance(mode.read(client.chat("x", retries=5)).error, AuthError)
        assert len(server.requests) == 1

    def test_an_auth_error_of_the_function_is_not_retried(self, server: LLMServer, client: Client) -> None:
        """An AuthError raised by the function is passed on."""
        asked = []

        def refuse() -> str:
            asked.append(1)
            raise AuthError("the vault is closed")

        with pytest.raises(AuthError, match="the vault is closed"):
            client.chat("x", api_key=refuse).complete()
        assert (len(asked), server.requests) == (1, [])


class TestFailures:
    """What a function may do wrong; nothing is sent then."""

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (None, "NoneType"),
            (b"key", "bytes"),
            (" \n", "empty"),
            (f"{KEY}\n{KEY}", "line break"),
            ("clé", "non-ASCII"),
        ],
    )
    def test_p19_what_cannot_be_a_key(
        self, mode: Mode, server: LLMServer, keyed: Client, canary: Canary, given: Any, said: str
    ) -> None:
        """An invalid key is rejected, and not quoted."""

        async def soon() -> Any:
            return given

        for function in (lambda: given, soon):
            error = mode.read(keyed.chat("x", api_key=function)).error
            assert type(error) is ConfigError
            assert said in str(error)
            canary.look_at(error)
        assert server.requests == []

    def test_what_can(self, mode: Mode, server: LLMServer, keyed: Client) -> None:
        """White space around the key is removed, and a Secret is accepted."""
        mode.complete(keyed.chat("x", api_key=lambda: " key-one\n"))
        mode.complete(keyed.chat("x", api_key=lambda: Secret("key-two")))
        assert sent(server) == ["key-one", "key-two"]

    def test_p18_what_it_raises_is_the_cause(
        self, mode: Mode, server: LLMServer, keyed: Client, canary: Canary
    ) -> None:
        """Its frames are removed, since they hold keys; a note says where it failed."""

        def broken() -> str:
            key = KEY
            raise OSError(f"no vault for {len(key)}")

        async def soon() -> str:
            await anyio.sleep(0.001)
            return broken()

        for function in (broken, soon):
            error = mode.read(keyed.chat("x", api_key=function)).error
            assert type(error) is MissingKey
            assert "OSError" in str(error)
            assert error.provider == "openai"
            assert isinstance(error.__cause__, OSError)
            assert error.__cause__.__traceback__ is None
            assert "in broken" in "".join(error.__cause__.__notes__)
            canary.look_at(error)
        assert server.requests == []

    def test_an_error_of_the_tree_comes_as_it_is(self, mode: Mode, keyed: Client) -> None:
        """A retryable error is followed by retries, like one of the service."""
        raised: list[ConnectFailed] = []

        def broken() -> str:
            raised.append(ConnectFailed("no vault"))
            raise raised[-1]

        error = mode.read(keyed.chat("x", api_key=broken)).error
        assert error is raised[-1]
        assert len(raised) == 3

    def test_a_coroutine_that_cancels_itself_ends_no_task(self, mode: Mode, keyed: Client) -> None:
        """A coroutine that cancels itself must not look like a cancelled caller."""

        async def cancelled() -> str:
            raise asyncio.CancelledError

        assert type(mode.read(keyed.chat("x", api_key=cancelled)).error) is MissingKey

    def test_an_exit_is_one(self, client: Client) -> None:
        """A BaseException is raised in the thread that reads."""

        def leave() -> str:
            raise SystemExit(3)

        with pytest.raises(SystemExit):
            client.chat("x", api_key=leave).complete()

    def test_another_type_is_not_a_function(self) -> None:
        """Other values are rejected at the call."""
        for wrong in (5, [KEY], b"key"):
            with pytest.raises(ConfigError, match="api_key must be a str"):
                Client("openai", api_key=wrong)  # type: ignore[arg-type]


class TestTime:
    """The total timeout covers the wait for the key."""

    @pytest.mark.quick(1)
    def test_p12_a_slow_function(self, mode: Mode, server: LLMServer, keyed: Client, release: threading.Event) -> None:
        """A slow function is left to itself."""

        def slow() -> str:
            release.wait(20)
            return "late"

        began = time.monotonic()
        error = mode.read(keyed.chat("x", api_key=slow, timeout=0.3)).error
        assert time.monotonic() - began < 5
        assert isinstance(error, ClockExpired)
        assert error.clock == "total"
        assert "api_key" in str(error)
        assert server.requests == []

    @pytest.mark.quick(1)
    def test_a_slow_coroutine(self, mode: Mode, server: LLMServer, keyed: Client) -> None:
        """A slow coroutine is cancelled, and cleans up."""
        ended = threading.Event()

        async def slow() -> str:
            try:
                await anyio.sleep(20)
            finally:
                ended.set()
            return "late"

        error = mode.read(keyed.chat("x", api_key=slow, timeout=0.3)).error
        assert isinstance(error, ClockExpired)
        assert ended.wait(30)
        assert server.requests == []

    @pytest.mark.slow
    def test_no_other_clock_runs(self, mode: Mode, keyed: Client) -> None:
        """The connect and first_content timeouts do not run while the function does."""

        def slow() -> str:
            time.sleep(3.5)
            return "key"

        clocks = Timeout(connect=3, first_content=3, idle=3, total=60)
        assert mode.complete(keyed.chat("x", api_key=slow, timeout=clocks)).text

    def test_a_cancelled_task_leaves_it(self, loop: Async, client: Client, server: LLMServer) -> None:
        """Cancelling the task cancels the coroutine."""
        ended = []

        async def main() -> None:
            with anyio.CancelScope() as scope:

                async def slow() -> str:
                    scope.cancel()
                    try:
                        await anyio.sleep(20)
                    finally:
                        ended.append(True)
                    return "late"

                await client.chat("x", api_key=slow)
            assert ended == [True]

        began = time.monotonic()
        loop.run(main)
        assert time.monotonic() - began < 5
        assert server.requests == []


def key_of_a_module() -> str:
    """A function that pickle can name."""
    return KEY


class TestUnseen:
    """The key appears in no repr, log, pickle or traceback."""

    def test_p18_the_client_shows_nothing(self, mode: Mode, server: LLMServer, canary: Canary) -> None:
        """The repr hides it before and after use; a partial function would show its arguments."""
        canary.watch(server)
        function = functools.partial(str, KEY)
        with Client("openai:m", base_url=server.base_url("openai"), api_key=function) as client:
            stream = client.chat("x")
            assert mode.complete(stream).text
            assert sent(server) == [KEY]
            for thing in (repr(client), repr(vars(client)), repr(client.transport_options), repr(vars(stream))):
                canary.search(thing, "a repr")

    def test_p18_an_echo_is_masked(self, mode: Mode, server: LLMServer, canary: Canary) -> None:
        """The current key and the one before are masked."""
        names = iter([f"{KEY}-1", f"{KEY}-2"])
        server.script(Reply(f"bad key {KEY}-1", status=401), Reply(f"bad keys {KEY}-1, {KEY}-2", status=401))
        with Client("openai:m", base_url=server.base_url("openai"), api_key=lambda: next(names)) as client:
            error = mode.read(client.chat("x")).error
        assert isinstance(error, AuthError)
        canary.look_at(error)

    def test_p18_a_pickle_holds_the_function(self, server: LLMServer) -> None:
        """A pickle holds the function by name, and never its key."""
        with Client("openai:m", base_url=server.base_url("openai"), api_key=key_of_a_module) as client:
            client.chat("x").complete()
            for holds_key in (False, True):
                client._pickle_key = holds_key
                data = pickle.dumps(client)
                assert KEY.encode() not in data
                with pickle.loads(data) as again:
                    again.chat("x").complete()
        assert sent(server) == [KEY] * 3

    def test_a_function_that_cannot_travel_keeps_its_client(self) -> None:
        """Without it, the client would look for another key."""
        with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
            pickle.dumps(Client("openai:m", api_key=lambda: KEY))

    def test_it_goes_to_its_own_service_only(self, server: LLMServer, keys: Keys) -> None:
        """A function is sent to its own service only, like a fixed key."""
        with Client("openai:m", api_key=keys, proxy=False) as client:
            client.chat("x", model="openai-compatible:m", base_url=server.base_url("openai")).complete()
        assert server.requests[0].header("Authorization") is None
        with pytest.raises(ConfigError, match="belong to one service"):
            Client(["openai:a", "groq:b"], api_key=keys)


def test_the_functions_of_the_package_take_it(server: LLMServer, keys: Keys) -> None:
    """The package's functions accept it like the methods of a client."""
    way: dict[str, Any] = {"base_url": server.base_url("openai"), "api_key": keys, "proxy": False}
    chat("x", "openai:m", **way).complete()
    embed("x", "openai:m", **way)
    models("openai", **way)
    assert sent(server) == keys.given == ["key-number-1", "key-number-2", "key-number-3"]
