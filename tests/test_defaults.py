"""A client's defaults and the options of a call: None, warnings, options of clients only; closing in async code."""

from __future__ import annotations

import asyncio
import threading
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
from modes import Async, Mode

from llmbridge import BadRequest, Client, ConfigError, InvalidOutput, InvalidRequest, Limits, UnsupportedParameter, chat
from llmbridge.testing import LLMServer, Reply


@dataclass
class City:
    """A city."""

    name: str


def add(a: int = 0) -> int:
    """Adds."""
    return a


def way(server: LLMServer, dialect: str = "openai", **options: Any) -> dict[str, Any]:
    """Options that lead to the server."""
    base_url = server.base_url(dialect)
    return {"model": f"{dialect}:m", "base_url": base_url, "api_key": "k", "retries": 0, "timeout": 20, **options}


DIALECTS = ("openai", "anthropic", "gemini", "ollama", "mistral", "cohere")


class TestNone:
    """None."""

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_no_null_is_sent(self, server: LLMServer, dialect: str) -> None:
        """The body is that of a call without the parameters, rejected ones included."""
        nothing = dict.fromkeys(("temperature", "seed", "stop", "max_tokens", "tools", "n", "wibble"))
        chat("Hi", **way(server, dialect), **nothing).complete()
        chat("Hi", **way(server, dialect)).complete()
        assert server.requests[0].json == server.requests[1].json

    def test_a_call_takes_a_default_away(self, server: LLMServer) -> None:
        """Other defaults stay."""
        with Client(seed=7, temperature=0.5, **way(server)) as client:
            client.chat("Hi", seed=None).complete()
        assert "seed" not in server.requests[0].json
        assert server.requests[0].json["temperature"] == 0.5

    def test_a_schema_and_a_system_message_can_be_taken_away(self, server: LLMServer) -> None:
        """False removes the schema, and an empty text the system message."""
        with Client(schema=City, system="Be brief.", **way(server)) as client:
            answer = client.chat("Hi", schema=False, system="").complete()
        assert answer.parsed is None
        assert server.requests[0].json["messages"] == [{"role": "user", "content": "Hi"}]
        assert "response_format" not in server.requests[0].json

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_a_schema_and_a_response_format_are_one_too_many(self, server: LLMServer, dialect: str) -> None:
        """At every service: neither silently wins."""
        with Client(**way(server, dialect)) as client, pytest.raises(InvalidRequest, match="pass only one of them"):
            client.chat("Hi", schema=City, response_format={"type": "json_object"})
        assert server.requests == []

    @pytest.mark.parametrize("system", [3, ["Be brief."], b"x"])
    def test_a_system_message_is_a_text(self, system: Any) -> None:
        """The error names it."""
        with pytest.raises(InvalidRequest, match="system must be a str, not "):
            chat("Hi", "demo", system=system)


@pytest.mark.parametrize("name", ["limits", "pickle_key"])
def test_what_belongs_to_a_client_is_refused_in_a_call(name: str) -> None:
    """Otherwise it would go to the service."""
    given: dict[str, Any] = {name: Limits(concurrency=1) if name == "limits" else True}
    with pytest.raises(ConfigError, match=rf"{name} belongs to a client.*Client\(\.\.\., {name}="):
        chat("Hi", "demo", **given)
    with pytest.raises(ConfigError, match=f"{name} belongs to a client"):
        Client("demo").run("Hi", **given)


class TestWarnings:
    """`unsupported="warn"`: once for each call, at its line."""

    def told(self, server: LLMServer, mode: Mode, *replies: Reply, **params: Any) -> list[warnings.WarningMessage]:
        """The warnings of a call."""
        server.script(*replies)
        client = Client(**way(server, "anthropic", unsupported="warn"))
        with client, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            mode.complete(client.chat("x", seed=1, **params))
        assert len(server.requests) == len(replies)
        assert all("seed" not in received.json for received in server.requests)
        return [warning for warning in told if warning.category is UnsupportedParameter]

    def test_once_however_many_turns_there_are(self, server: LLMServer, mode: Mode) -> None:
        """Also if the later ones are made in a thread or by an event loop."""
        turn = Reply(tool_calls=[{"name": "add", "arguments": {}}])
        (warning,) = self.told(server, mode, turn, turn, Reply("1"), tools=[add], run_tools=True)
        assert warning.filename == __file__

    def test_once_however_often_is_asked(self, server: LLMServer, mode: Mode) -> None:
        """A schema retry does not warn again."""
        (warning,) = self.told(server, mode, Reply("?"), Reply('{"name": "Oslo"}'), schema=City)
        assert warning.filename == __file__

    def test_a_client_of_a_list_may_want_it_by_itself(self, server: LLMServer) -> None:
        """Its later turns are silent as well."""
        turn = Reply(tool_calls=[{"name": "add", "arguments": {}}])
        server.script(turn, Reply("1"))
        inner = Client(**way(server, "anthropic", unsupported="warn"))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            Client([inner]).run("x", tools=[add], seed=1).complete()
        assert [warning.filename for warning in told] == [__file__]


def test_a_schema_without_a_name_is_called_the_schema(server: LLMServer) -> None:
    """Not by a made-up name."""
    server.default = Reply("I do not know.")
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    with Client(**way(server)) as client, pytest.raises(InvalidOutput, match="the answer does not fit the schema: "):
        client.chat("x", schema=schema, reask=0).complete()


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"X-Generation-Id": "gen-1"}, "gen-1"),
        ({"apim-request-id": "a-1"}, "a-1"),
        ({"mistral-correlation-id": "c-1"}, "c-1"),
        ({"request-id": "r-1"}, "r-1"),
        ({"X-Generation-Id": "gen-1", "x-request-id": "x-1"}, "x-1"),
        ({"cf-ray": "1"}, None),
    ],
)
def test_a_request_id_has_many_names(server: LLMServer, headers: dict[str, str], found: str | None) -> None:
    """In an answer and in an error."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    body = '{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}'
    for status in ("200 OK", "400 Bad Request"):
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
        server.script(Reply(raw=(head + body).encode()))
    with Client(**way(server)) as client:
        assert client.chat("x").complete().request_id == found
        with pytest.raises(BadRequest) as caught:
            client.chat("x").complete()
    assert caught.value.request_id == found


class TestAsyncClosing:
    """`async with Client(...)`."""

    def test_it_closes_the_connections(self, server: LLMServer, loop: Async) -> None:
        """The client may be used again, as after `with`."""

        async def main() -> None:
            async with Client(**way(server)) as client:
                assert (await client.chat("x")).text
                assert client.connections.transports
            assert not client.connections.transports
            assert (await client.chat("x")).text
            await client.aclose()
            assert not client.connections.transports

        loop.run(main)

    def test_closing_is_done_in_a_thread(self, loop: Async, monkeypatch: pytest.MonkeyPatch) -> None:
        """The event loop stays free."""
        threads: list[threading.Thread] = []
        monkeypatch.setattr(Client, "close", lambda _: threads.append(threading.current_thread()))

        async def main() -> None:
            async with Client("demo"):
                pass

        loop.run(main)
        assert [thread is threading.main_thread() for thread in threads] == [False]

    def test_a_cancelled_task_closes_too(self, server: LLMServer) -> None:
        """At once."""

        clients: list[Client] = []

        async def main() -> None:
            async with Client(**way(server)) as client:
                clients.append(client)
                await client.chat("x")
                task = asyncio.current_task()
                assert task is not None
                task.cancel()

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(main())
        assert not clients[0].connections.transports
