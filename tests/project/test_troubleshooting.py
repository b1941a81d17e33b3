"""docs/troubleshooting.md: each message that it quotes is provoked here, and is the one that the code says.

In a quotation `...` stands for anything, and HOST:PORT for a server.
`python tests/project/test_troubleshooting.py` renews the quotations that are old.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import socket
import ssl
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trustme

from llmbridge import Client, Image, LLMBridgeError, Timeout, chat, embed, set_thread_limit
from llmbridge.cli import main
from llmbridge.testing import LLMServer, Reply

PAGE = Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md"
QUOTED = re.compile(r"^### (?P<title>.+)\n\n```text\n(?P<text>.+)\n```$", re.MULTILINE)
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
TURN = {"role": "user", "content": "Hi"}


@dataclass(frozen=True)
class Place:
    """Where a mistake is made: a server that answers as scripted, and a folder."""

    server: LLMServer
    folder: Path

    def client(self, **options: Any) -> Client:
        """A client of the server."""
        usual = {"base_url": self.server.base_url("openai"), "api_key": "sk-example", "proxy": False, "retries": 0}
        return Client("openai:gpt-5.4-mini", **{**usual, **options})

    def read(self, reply: Reply, **options: Any) -> None:
        """Reads an answer to its end."""
        self.server.default = reply
        list(self.client().chat("Hi", **options))

    def complete(self, reply: Reply, **options: Any) -> Any:
        """Takes a whole answer."""
        self.server.default = reply
        return self.client().chat("Hi", **options).complete()

    def file(self, name: str, content: bytes) -> Path:
        """A file that holds this."""
        (self.folder / name).write_bytes(content)
        return self.folder / name


def weather(city: str) -> str:
    """The weather in a city."""
    return f"Sun in {city}"


CALLS = Reply("", tool_calls=[{"name": "weather", "arguments": {"city": "Oslo"}}])


class Unknown:
    """A class without typed fields."""


def nowhere() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def with_tls(scheme: str) -> Callable[[Place], None]:
    """Asks a server whose certificate nobody knows."""

    def ask(place: Place) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        with LLMServer(ssl_context=context) as server:
            url = server.base_url("openai").replace("https", scheme)
            place.client(base_url=url).chat("Hi").complete()

    return ask


def without_key(place: Place) -> None:
    """A worker does not find the key that this process has found."""
    with ThreadPoolExecutor(1) as pool, mock.patch.dict(os.environ, OPENAI_API_KEY="sk-example"):
        rows = Client("openai:gpt-5.4-mini").map(["Hi"], executor=pool)
        del os.environ["OPENAI_API_KEY"]
        rows.complete()


def without_workers(place: Place) -> None:
    """An executor that was shut down."""
    with ThreadPoolExecutor(1) as pool:
        pass
    Client("demo").map(["Hi"], executor=pool).complete()


def read_twice(place: Place) -> None:
    """The second loop finds nothing."""
    stream = place.client().chat("Hi")
    list(stream)
    list(stream)


def read_on(place: Place) -> None:
    """A loop that was left cannot be gone on with."""
    stream = place.client().chat("Hi")
    for _ in stream:
        break
    list(stream)


def read_elsewhere(place: Place) -> None:
    """Two loops at once."""
    with place.client().chat("Hi") as stream:
        next(stream)
        list(stream.events())


def running(ask: Callable[[Place], Any]) -> Callable[[Place], Any]:
    """Does it in a coroutine, and awaits what comes of it."""

    async def coroutine(place: Place) -> None:
        answer = ask(place)
        if hasattr(answer, "__await__"):
            await answer

    return lambda place: asyncio.run(coroutine(place))


def waiting(place: Place) -> None:
    """Awaits where there is nothing to await, with an `await` that can be seen."""

    async def coroutine() -> None:
        await place.client().chat("Hi").complete()  # type: ignore[misc]

    asyncio.run(coroutine())


def looping(place: Place) -> None:
    """Loops over what an `await` gives."""

    async def coroutine() -> None:
        async for _ in await place.client().chat("Hi"):  # type: ignore[attr-defined]
            pass

    asyncio.run(coroutine())


def command(*words: str) -> Callable[[Place], str]:
    """What a command says on standard error."""

    def run(place: Place) -> str:
        with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.suppress(SystemExit):
            main(list(words))
        return said.getvalue().strip()

    return run


PLACES: dict[str, Callable[[Place], Any]] = {
    "No model is named": lambda _: chat("Hi"),
    "The model has no provider": lambda _: chat("Hi", "gpt-5.4-mini"),
    "The provider is not known": lambda _: chat("Hi", "opnai:gpt-5.4-mini"),
    "Model and message are swapped": lambda _: chat("demo", "Write a haiku"),
    "The key is missing": lambda _: chat("Hi", "anthropic:claude-sonnet-5"),
    "The key holds a line break": lambda _: chat("Hi", "openai:gpt-5.4-mini", api_key="sk-exa\nmple"),
    "An option is misspelt": lambda _: chat("Hi", "demo", max_token=100),
    "The service does not take a parameter": lambda _: chat("Hi", "openai:o3", api_key="sk-example", temperature=0.2),
    "The base URL has no scheme": lambda _: Client("m", base_url="127.0.0.1:8080/v1"),
    "The timeout is not a number": lambda _: Client("demo", timeout="30"),  # type: ignore[arg-type]
    "The file of certificates is missing": lambda _: list(chat("Hi", "demo", verify="/no/such/ca.pem")),
    "A role is not known": lambda _: chat([{"role": "human", "content": "Hi"}], "demo"),
    "A message has no content": lambda _: chat([{"role": "user", "text": "Hi"}], "demo"),
    "The messages are plain texts": lambda _: chat(["Hi", "Hello"], "demo"),
    "There are no messages": lambda _: chat([], "demo"),
    "The image is not an image": lambda place: Image(place.file("photo.jpg", b"hello")),
    "The image cannot be read": lambda place: Image(place.folder / "photo.jpg"),
    "The schema is a dict of names": lambda _: chat("Hi", "demo", schema={"name": "str"}),
    "The schema's type has no JSON form": lambda _: chat("Hi", "demo", schema=Unknown),
    "tool_choice names a tool that is not there": lambda _: chat("Hi", "demo", tools=[weather], tool_choice="add"),
    "Nothing listens at the address": lambda _: list(chat("Hi", "ollama:m", base_url=f"http://{nowhere()}", retries=0)),
    "The proxy does not answer": lambda place: (
        place.client(base_url="http://llm.example/v1", proxy=f"http://{nowhere()}").chat("Hi").complete()
    ),
    "The certificate is not trusted": with_tls("https"),
    "The server speaks TLS, the address says http": with_tls("http"),
    "The server speaks plain HTTP, the address says https": lambda place: (
        place.client(base_url=place.server.base_url("openai").replace("http", "https"), timeout=Timeout(connect=0.3))
        .chat("Hi")
        .complete()
    ),
    "The key is refused": lambda place: place.read(Reply(status=401)),
    "The key may not do that": lambda place: place.read(Reply(status=403)),
    "The model does not exist": lambda place: place.read(Reply(status=404)),
    "The address lacks /v1": lambda place: place.read(Reply(status=404), base_url=place.server.root),
    "The address is a web page": lambda place: place.read(
        Reply(body="<!DOCTYPE html><html>It works!</html>", content_type="text/html")
    ),
    "The request is not accepted": lambda place: place.read(Reply("messages: text is too long", status=400)),
    "The prompt is too long": lambda place: place.read(
        Reply("This model's maximum context length is 128000 tokens.", status=400)
    ),
    "Too many requests": lambda place: place.read(Reply(status=429, headers={"Retry-After": "7"})),
    "No credit is left": lambda place: place.read(Reply(status=402)),
    "The service is overloaded": lambda place: place.read(Reply(status=503)),
    "The service makes no embeddings": lambda _: embed("Hi", "anthropic:claude-sonnet-5", api_key="sk-example"),
    "Not one of several models answers": lambda _: list(
        Client([Client(name, base_url=f"http://{nowhere()}/v1", retries=0) for name in ("a", "b")]).chat("Hi")
    ),
    "The answer breaks off": lambda place: place.read(Reply("Half an ans", end_mark=False, finish_reason=None)),
    "The answer does not begin": lambda place: place.read(Reply(first_delay=30), timeout=Timeout(first_content=0.1)),
    "The answer stalls": lambda place: place.read(Reply(["a", "b"], delay=0.5), timeout=Timeout(idle=0.1)),
    "The call takes too long": lambda place: place.read(Reply(["a", "b"], delay=30), timeout=Timeout(total=0.1)),
    "The answer does not fit the schema": lambda place: place.complete(Reply("Paris"), schema=SCHEMA, schema_retries=0),
    "The answer is cut off, and does not fit the schema": lambda place: place.complete(
        Reply('{"name": "Par', finish_reason="length"), schema=SCHEMA
    ),
    "The model calls tools without end": lambda place: place.complete(
        CALLS, tools=[weather], run_tools=True, max_turns=3
    ),
    "A worker lacks something": without_key,
    "The workers are gone": without_workers,
    "The stream was not read": lambda place: place.client().chat("Hi").text,
    "The stream is read a second time": read_twice,
    "The loop was left, then continued": read_on,
    "The stream is read in two places": read_elsewhere,
    "There is no .content": lambda place: place.client().chat("Hi").content,  # type: ignore[attr-defined]
    "The tools are not run": lambda place: place.read(CALLS, tools=[weather]),
    "The answer has no text": lambda place: str(place.complete(CALLS, tools=[weather])),
    "The call blocks the event loop": running(lambda place: str(place.client().chat("Hi").complete())),
    "complete() is awaited": waiting,
    "async for loops over an await": looping,
    "set_thread_limit() is called outside": lambda _: set_thread_limit(100),
    "The command is misspelt": command("caht", "Hello"),
    "The command has no key": command("chat", "-m", "openai:gpt-5.4-mini", "Hello"),
    "The attachment is not there": command("chat", "-m", "demo", "-a", "photo.jpg", "Hello"),
    "A number is not a number": command("chat", "--timeout", "abc", "Hello"),
}
"""What goes wrong, by its heading on the page."""


def said(provoke: Callable[[Place], Any]) -> str:
    """The error, the warning or the words that something ends with."""
    recording = warnings.catch_warnings(record=True)
    with LLMServer() as server, tempfile.TemporaryDirectory() as folder, recording as caught:
        warnings.simplefilter("always")
        server.default = Reply(["Hel", "lo"], delay=0.01)
        try:
            text = str(provoke(Place(server, Path(folder))))
        except (LLMBridgeError, AttributeError) as error:
            text = f"{type(error).__name__}: {error}"
        if caught:
            text = f"{caught[0].category.__name__}: {caught[0].message}"
    return re.sub(r"127\.0\.0\.1:(?!8080)\d+", "HOST:PORT", text)


def fits(quoted: str, text: str) -> bool:
    """Whether a quotation is what was said; it may leave something out.

    Example:
        >>> fits("no connection: ...", "no connection: refused"), fits("no connection", "no connections")
        (True, False)
    """
    return re.fullmatch(re.escape(quoted).replace(r"\.\.\.", ".*"), text) is not None


def renewed(page: str) -> str:
    """The page with the messages that the code says."""

    def quote(match: re.Match[str]) -> str:
        text = said(PLACES[match["title"]])
        return match[0] if fits(match["text"], text) else match[0].replace(match["text"], text)

    return QUOTED.sub(quote, page)


def test_each_quotation_is_provoked() -> None:
    """And each thing that is provoked is on the page."""
    titles = [match["title"] for match in QUOTED.finditer(PAGE.read_text(encoding="utf-8"))]
    assert sorted(titles) == sorted(PLACES)


@pytest.mark.slow
@pytest.mark.parametrize("title", PLACES)
def test_the_message_is_the_one_that_is_quoted(title: str) -> None:
    """To the letter, but for what the quotation leaves out."""
    quoted = {match["title"]: match["text"] for match in QUOTED.finditer(PAGE.read_text(encoding="utf-8"))}
    text = said(PLACES[title])
    assert fits(quoted[title], text), f"the page is old: python tests/project/test_troubleshooting.py\n{text}"


if __name__ == "__main__":
    for setting in list(os.environ):
        if setting.upper().endswith(("_API_KEY", "_TOKEN", "_PROXY", "_BASE_URL", "_MODEL")):
            del os.environ[setting]
    os.environ.update(LLMBRIDGE_KEYS_FILE=os.devnull, LLMBRIDGE_KEEP="0")
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
