"""P41 and P42: keys never appear in an error, a log or a terminal, and a service's words only made safe."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import traceback
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import requests
import trio
from conftest import KEY
from modes import Mode

import llmbridge
from llmbridge import Client, ConfigError, LLMBridgeError, chat, keys, providers, register
from llmbridge.options import checked_headers
from llmbridge.providers.openai import OpenAI
from llmbridge.secret import MASK, MaskedStr, Secret, callers_frames_only
from llmbridge.testing import LLMServer, Reply

PASSWORD = "pw-canary-9876543210"
SECRETS = (KEY, PASSWORD)
_MOST = 4_000


def frames_of(error: BaseException) -> Iterator[traceback.FrameSummary]:
    """The frames of an error and of all its causes, with their locals."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield from traceback.TracebackException(type(link), link, link.__traceback__, capture_locals=True).stack
        waiting += (link.__cause__, link.__context__)


def assert_discreet(error: BaseException) -> None:
    """Only frames of this file show a key or password, and no message does."""
    shown = [
        f"{frame.filename}:{frame.lineno} {frame.name}: {name} = {value}"
        for frame in frames_of(error)
        if frame.filename != __file__
        for name, value in (frame.locals or {}).items()
    ]
    for place in (*shown, str(error), repr(error)):
        assert not any(secret in place for secret in SECRETS), place


def names_in(error: BaseException) -> list[str]:
    """The functions of this file in its frames."""
    return [frame.name for frame in frames_of(error) if frame.filename == __file__]


def failure(function: Callable[[], object]) -> BaseException:
    """The error that ends it."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - of any kind
        function()
    return caught.value


WAYS: dict[str, dict[str, Any]] = {
    "key": {"api_key": KEY},
    "header": {"headers": {"Authorization": f"Bearer {KEY}", "X-Api-Key": KEY}},
    "proxy": {"proxy": f"http://user:{PASSWORD}@127.0.0.1:9"},
    "base_url": {"base_url": f"http://user:{PASSWORD}@127.0.0.1:9/v1"},
}
"""Where secrets come from."""


class Raising(Mapping[str, str]):
    """A mapping of headers whose repr shows its content, and which fails when read."""

    def __getitem__(self, name: str) -> str:
        raise ZeroDivisionError("theirs")

    def __iter__(self) -> Iterator[str]:
        raise ZeroDivisionError("theirs")

    def __len__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return f"<headers {KEY}>"


def bad_items() -> Iterator[Any]:
    """An iterator that breaks off."""
    yield "x"
    raise ZeroDivisionError("theirs")


class BadList(list[Any]):
    """The same, as a list of messages."""

    def __iter__(self) -> Iterator[Any]:
        raise ZeroDivisionError("theirs")


def bad_messages() -> Any:
    """Messages that break off."""
    return BadList([{"role": "user", "content": "x"}])


class Spiteful:
    """An object that fails at any use."""

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError("theirs")

    def __hash__(self) -> int:
        raise ZeroDivisionError("theirs")

    def __str__(self) -> str:
        raise ZeroDivisionError("theirs")

    def __repr__(self) -> str:
        return "<spiteful>"


talk = Client("demo").conversation()
ASKED: dict[str, Callable[..., object]] = {
    "chat: too many arguments": lambda **way: chat("x", "openai:m", "y", **way),  # type: ignore[misc]
    "chat: none at all": chat,
    "chat: twice": lambda **way: chat("x", messages="y", **way),  # type: ignore[misc]
    "chat: messages that break off": lambda **way: chat(bad_messages(), "openai:m", **way),
    "chat: tools that break off": lambda **way: chat("x", "openai:m", tools=bad_items(), **way),
    "chat: spiteful": lambda **way: chat("x", "openai:m", unsupported=Spiteful(), **way),  # type: ignore[arg-type]
    "run": lambda **way: Client("openai:m").run("x", "y", "z", **way),  # type: ignore[misc,arg-type]
    "Client": lambda **way: Client("openai:m", "y", **way),  # type: ignore[misc]
    "Client: spiteful": lambda **way: Client("openai:m", unsupported=Spiteful(), **way),  # type: ignore[arg-type]
    "Client: models that break off": lambda **way: Client(bad_items(), **way),  # type: ignore[arg-type]
    "conversation": lambda **way: Client("openai:m").conversation("a", "b", **way),  # type: ignore[misc,arg-type]
    "ask": lambda **way: talk.ask("x", "y", **way),  # type: ignore[call-overload]
    "from_dict": lambda **way: llmbridge.Conversation.from_dict({}, Client("demo"), 5, **way),  # type: ignore[misc]
    "load": lambda **way: llmbridge.Conversation.load(5.5, Client("demo"), **way),  # type: ignore[arg-type]
    "embed": lambda **way: llmbridge.embed(bad_items(), "openai:m", **way),
    "embed: too many arguments": lambda **way: llmbridge.embed("x", "openai:m", "y", **way),  # type: ignore[misc]
    "aembed": lambda **way: llmbridge.aembed("x", "openai:m", "y", **way),  # type: ignore[misc]
    "models": lambda **way: llmbridge.models("openai", "y", **way),  # type: ignore[misc]
    "amodels": lambda **way: llmbridge.amodels("openai", "y", **way),  # type: ignore[misc]
    "create_completion": lambda **way: OpenAI.create_completion("m", bad_messages(), **way),
    "create_completion: none": OpenAI.create_completion,
    "create_async_generator": lambda **way: OpenAI.create_async_generator("m", bad_messages(), **way),
    "create_async": lambda **way: OpenAI.create_async("m", bad_messages(), **way),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("asked", ASKED)
def test_p41_no_error_of_another_kind_shows_a_key(asked: str, way: str) -> None:
    """With a wrong argument, or a failing object of the caller's, only the caller's frames are in the error."""
    error = failure(lambda: ASKED[asked](**WAYS[way]))
    assert not isinstance(error, LLMBridgeError) or asked in ("conversation", "from_dict")
    assert_discreet(error)
    if isinstance(error, ZeroDivisionError):
        assert {"bad_items", "__iter__", "__eq__"} & set(names_in(error))


def test_p41_nor_a_mapping_of_headers_that_fails() -> None:
    """The standard library's views show their mapping in their repr."""
    error = failure(lambda: chat("x", "openai:m", headers=Raising()))
    assert isinstance(error, ZeroDivisionError)
    assert "__iter__" in names_in(error)
    assert_discreet(error)


@pytest.mark.parametrize("function", [keys.set_key, Secret])
def test_p41_nor_a_key_that_is_kept(function: Any) -> None:
    """Nor an invalid one."""
    assert_discreet(failure(lambda: function("openai", KEY, KEY, KEY)))
    assert_discreet(failure(lambda: function("openai", f"{KEY}\n{KEY}", 5)))
    assert_discreet(failure(lambda: Secret(f"{KEY}\n{KEY}")))


def interrupt(*args: Any, **kwargs: Any) -> None:
    """A Ctrl-C."""
    raise KeyboardInterrupt


class Buggy(OpenAI):
    """A provider that fails at a given place."""

    name = "buggy"
    base_url = "http://127.0.0.1:9/v1"
    where = ""
    error: type[BaseException] = ZeroDivisionError

    @classmethod
    def _fail(cls, where: str) -> None:
        if where == cls.where:
            try:
                raise KeyError("first")
            except KeyError:
                raise cls.error("theirs") from None

    @classmethod
    def auth_headers(cls, key: str) -> dict[str, str]:
        """See Provider."""
        cls._fail("auth_headers")
        return super().auth_headers(key)

    @classmethod
    def encode(cls, request: Any) -> Any:
        """See Provider."""
        cls._fail("encode")
        return super().encode(request)

    @classmethod
    def locate(cls, model: str) -> tuple[str, str]:
        """See Provider."""
        cls._fail("locate")
        return super().locate(model)

    @classmethod
    def path_below(cls, base_url: str, path: str) -> str:
        """See Provider."""
        cls._fail("path_below")
        return super().path_below(base_url, path)

    @classmethod
    def decoder(cls) -> Any:
        """See Provider."""
        cls._fail("decoder")
        return super().decoder()


@pytest.fixture
def buggy(monkeypatch: pytest.MonkeyPatch, server: LLMServer) -> type[Buggy]:
    """The provider, registered."""
    monkeypatch.setattr(Buggy, "base_url", server.base_url("openai"))
    monkeypatch.setattr(providers, "_registered", dict(providers._registered))
    register(Buggy)
    return Buggy


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt, RecursionError, MemoryError])
@pytest.mark.parametrize("where", ["auth_headers", "encode", "locate", "path_below", "decoder"])
def test_p41_nor_one_of_a_provider(
    buggy: type[Buggy], mode: Mode, where: str, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own frames stay, except for methods that get the key: these become a note."""
    monkeypatch.setattr(buggy, "where", where)
    monkeypatch.setattr(buggy, "error", kind)
    error = failure(lambda: mode.complete(chat("x", "buggy:m", **WAYS["key"], **WAYS["header"])))
    while isinstance(group := getattr(error, "exceptions", None), tuple):
        error = group[0]
    if type(error) is kind:  # trio has a KeyboardInterrupt of its own in the main task
        if where == "auth_headers":
            assert "Buggy.auth_headers()" in "".join(getattr(error, "__notes__", ()))
            assert not any(f"'{KEY}'" in str(frame.locals) for frame in frames_of(error) if frame.name == where)
        else:
            assert {where, "_fail"} <= set(names_in(error))
    assert_discreet(error)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "place", ["http.client.HTTPConnection.putheader", "requests.models.PreparedRequest.prepare_url"]
)
def test_p41_nor_a_ctrl_c_in_a_library(
    server: LLMServer, mode: Mode, way: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of requests, urllib3 and http.client hold the headers as they are sent."""

    options = {"base_url": server.base_url("openai"), **WAYS[way]}
    if way in ("proxy", "base_url"):
        server_at = server.root.partition("//")[2]
        options[way] = options[way].replace("127.0.0.1:9", server_at)
    monkeypatch.setattr(place, interrupt)
    assert_discreet(failure(lambda: mode.complete(chat("x", "openai-compatible:m", **options))))


def test_p41_nor_a_named_tuple(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of URLs and keys of pools are named tuples: their generated methods are in modules of their own."""
    parts: Any = namedtuple("parts", ["whole"])
    monkeypatch.setitem(parts.__new__.__globals__, "_tuple_new", interrupt)
    monkeypatch.setattr("llmbridge.options.urlsplit", parts)
    assert_discreet(failure(lambda: chat("x", "openai-compatible:m", **WAYS["proxy"])))


@pytest.mark.parametrize("run", [asyncio.run, lambda coroutine: trio.run(lambda: coroutine)])
def test_p41_nor_a_step_of_a_coroutine(run: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests for embeddings are made one after the other, after the first `await`."""
    monkeypatch.setattr(OpenAI, "searches", interrupt)
    error = failure(lambda: run(llmbridge.aembed("x", "openai:m", api_key=KEY, **WAYS["proxy"])))
    assert_discreet(error)


def test_p41_nor_the_end_of_a_client(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept connections are stored by their proxies."""
    proxy = f"http://user:{PASSWORD}@{server.root.partition('//')[2]}"
    client = Client("openai-compatible:m", base_url="http://other.example/v1", proxy=proxy)
    assert client.chat("x").complete().text
    transport = next(iter(client.connections.transports.values()))
    with monkeypatch.context() as patches:
        patches.setattr("urllib3.connectionpool.HTTPConnectionPool.close", interrupt)
        assert_discreet(failure(client.close))
    transport.close()


def test_p41_nor_what_led_to_an_error(buggy: type[Buggy], mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error being handled has frames of its own."""

    def path_below(base_url: str, path: str) -> str:
        try:
            checked_headers({"X-Api-Key": f"{KEY}\n{KEY}"})
        except ConfigError as error:
            raise ZeroDivisionError("theirs") from error
        return path

    monkeypatch.setattr(buggy, "path_below", path_below)
    error = failure(lambda: mode.complete(chat("x", "buggy:m", api_key=KEY)))
    assert isinstance(error, ZeroDivisionError)
    assert isinstance(error.__cause__, ConfigError)
    assert_discreet(error)


def test_p41_a_key_in_the_environment_does_not_show(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor in the second turn, which looks it up again."""

    def add(a: int) -> int:
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\u00fc")
        return a

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.script(Reply(tool_calls=[{"name": "add", "arguments": {"a": 1}}]))
    with Client("openai:m", base_url=server.base_url("openai")) as client:
        error = failure(client.run("x", tools=[add]).complete)
    assert isinstance(error, ConfigError)
    assert_discreet(error)


def test_p41_a_session_of_the_caller_sees_the_real_headers(server: LLMServer) -> None:
    """Errors of the session's own functions keep their frames."""
    seen = []

    class Auth(requests.auth.AuthBase):
        def __call__(self, request: Any) -> Any:
            seen.append(str(request.headers["X-Api-Key"]))
            raise ZeroDivisionError("theirs")

    with requests.Session() as session:
        session.auth = Auth()
        options = {"session": session, "headers": {"X-Api-Key": KEY}}
        error = failure(chat("x", "openai-compatible:m", base_url=server.base_url("openai"), **options).complete)  # type: ignore[arg-type]
    assert seen == [KEY]
    assert isinstance(error, ZeroDivisionError)
    assert "__call__" in names_in(error)
    assert_discreet(error)


def test_p41_what_the_caller_was_handling_keeps_its_frames() -> None:
    """That error is not llmbridge's to clean, even if it came from a library."""
    try:
        try:
            json.loads("{")
        except ValueError as handled:
            before = [frame.name for frame in traceback.extract_tb(handled.__traceback__)]
            chat("x", "y", "z", api_key=KEY)  # type: ignore[misc]
    except TypeError as error:
        context = error.__context__
        assert context is not None
        assert [frame.name for frame in traceback.extract_tb(context.__traceback__)] == before
        assert len(before) > 2


def test_p41_an_exception_that_takes_no_attributes_and_a_group_are_cleaned() -> None:
    """A caller's function may raise any kind of exception."""
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Frozen(Exception):
        """It rejects all attributes."""

    def fail() -> None:
        raise Frozen

    class Group(Exception):
        exceptions: tuple[BaseException, ...] = ()

    inner = failure(lambda: chat("x", "y", "z", api_key=KEY))  # type: ignore[misc]
    kept = inner.__traceback__
    error = Group()
    error.exceptions = (inner,)
    assert callers_frames_only(error) is error
    assert inner.__traceback__ is not kept
    assert_discreet(failure(lambda: chat("x", "demo", tools=(fail() for _ in [1]), api_key=KEY)))


def test_p41_half_made_objects_have_a_repr() -> None:
    """A crash report shows the locals of a subclass's frame too."""

    class Mine(Client):
        def __init__(self, **options: Any) -> None:
            super().__init__("openai:m", "y", **options)  # type: ignore[misc]

    error = failure(lambda: Mine(timeout=5))
    assert "<Client without a model>" in str([frame.locals for frame in frames_of(error)])
    for half in (object.__new__(Client), object.__new__(llmbridge.Conversation)):
        assert repr(half).startswith("<C")


class TestMaskedStr:
    """P41: a header's value is sent unchanged, and shows nowhere."""

    @pytest.mark.parametrize(
        "made",
        [
            lambda m: m[1:],
            lambda m: m[:4],
            lambda m: f"{m}",
            lambda m: f"{m:>50}",
            lambda m: f"{m!s} {m!r} {m!a}",
            lambda m: "%s" % m,  # noqa: UP031
            "{0} {0}".format,
            lambda m: "x" + m + "y",
            lambda m: "".join([m]),
            lambda m: ", ".join([m, m]),
            lambda m: m.join("ab"),
            lambda m: m.split("-"),
            lambda m: m.upper() + m.lower() + m.strip() + m.replace("a", "b"),
            list,
            lambda m: json.dumps({"a": m}),
            lambda m: repr({"a": m, m: 1}),
            str,
            lambda m: m * 2,
            MaskedStr,
            lambda m: copy.deepcopy([m]),
            lambda m: pickle.loads(pickle.dumps([m])),
        ],
    )
    def test_p41_whatever_is_made_of_it_is_masked(self, made: Callable[[MaskedStr], object]) -> None:
        """Sliced, joined, formatted, copied."""
        shown = repr(made(MaskedStr(KEY)))
        assert not any(KEY[at : at + 3] in shown for at in range(len(KEY) - 3))

    def test_p41_it_is_its_text(self) -> None:
        """It can be sent, compared and looked up as its text."""
        value = MaskedStr(KEY)
        assert (value.reveal(), value.encode(), value == KEY, value == KEY) == (KEY, KEY.encode(), True, True)
        assert {KEY: 1}[value] == {value: 1}[KEY] == 1
        assert value not in {MaskedStr(KEY + "x"), MASK}
        assert value != MASK

    def test_p41_it_reaches_the_service(self, server: LLMServer) -> None:
        """Over llmbridge's own connections, a caller's session, a conversation, and a pickle that may hold it."""
        options = {"headers": {"X-Api-Key": KEY}, "base_url": server.base_url("openai")}
        with requests.Session() as session, Client("openai-compatible:m", pickle_key=True, **options) as client:  # type: ignore[arg-type]
            client.chat("x").complete()
            client.chat("x", session=session).complete()
            client.conversation(headers={"X-Api-Key": KEY}).ask("x").complete()
            with pickle.loads(pickle.dumps(client)) as again:
                again.chat("x").complete()
            asyncio.run(_awaited(client))
        assert [request.header("X-Api-Key") for request in server.requests] == [KEY] * 5


async def _awaited(client: Client) -> None:
    await client.chat("x")


# -- P42: a service's words ----------------------------------------------------------------------------------------

EVIL = "a\x1b[31m\r\nb\x00\x07\x7f\x9b2J\u202ec\u2066\u2028\u061c\u200f\ud800z"
LONG = "w" * 60_000
OBEYED = {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), *"\u2028\u2029\u202a\u202b\u202c\u202d\u202e"}
OBEYED |= {*"\u061c\u200e\u200f\u2066\u2067\u2068\u2069", *map(chr, range(0xD800, 0xE000))}
IN_HEADER = "a\x1b[31mb\x7f\x9b2Jz"


def report(words: str) -> dict[str, Any]:
    """An error as a service reports it."""
    return {"message": words, "code": words, "type": words, "request_id": words}


def evil(words: str) -> dict[str, Reply]:
    """Answers with such words in all places that an error quotes."""
    body = json.dumps({"error": report(words)})
    call = {"name": words[:300].replace("\ud800", ""), "arguments": {}}
    header = IN_HEADER + words[-300:].encode("ascii", "ignore").decode().translate(dict.fromkeys(map(ord, "\r\n\0")))
    return {
        "error": Reply(status=500, body=body),
        "error, plain": Reply(status=400, body=words.encode("utf-8", "replace")),
        "error, html": Reply(status=403, body=f"<title>{words[:150]}</title>".encode("utf-8", "replace")),
        "error, fastapi": Reply(status=422, body=json.dumps({"detail": [{"loc": [words], "msg": words}]})),
        "in the stream": Reply(body=f"data: {body}\n\n"),
        "document": Reply(body=body, content_type="application/json"),
        "request id": Reply("no", status=500, headers={"X-Request-Id": header}),
        "redirect": Reply("no", status=302, headers={"Location": f"http://{header}/x"}),
        "compression": Reply("x", headers={"Content-Encoding": header}),
        "content type": Reply(body=b" ", content_type=f"image/{header}"),
        "no JSON": Reply(body=f"data: {{{words}\n\n".encode("utf-8", "replace")),
        "cut": Reply(body=b'data: {"id": ' + json.dumps(words).encode() + b', "choices": []}\n\n'),
        "tools": Reply(tool_calls=[call]),
    }


def assert_clean(words: str | None, most: int) -> None:
    """One line of limited length, without characters that a terminal or a log would obey."""
    assert not OBEYED & set(words or ""), ascii(words)
    assert len(words or "") <= most


@pytest.mark.parametrize("name", evil(EVIL))
@pytest.mark.parametrize("words", [EVIL, LONG, EVIL + LONG], ids=["evil", "long", "both"])
def test_p42_an_error_holds_clean_words(
    server: LLMServer, client: Client, mode: Mode, name: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Message, code and request id are cleaned; `.body` has the original."""
    caplog.set_level("DEBUG")
    server.script(evil(words)[name])

    def tool() -> None:
        """Nothing."""

    error = failure(lambda: mode.complete(client.chat("x", tools=[tool], run_tools=True, max_turns=1, retries=0)))
    assert isinstance(error, LLMBridgeError)
    assert_clean(str(error), _MOST)
    assert_clean(repr(error), _MOST + 100)
    assert_clean(error.args[0], _MOST)
    assert_clean(error.request_id, 200)
    assert_clean(getattr(error, "code", None), 200)
    for line in caplog.messages:
        assert_clean(line, _MOST)
    if name == "error, plain":
        assert len(getattr(error, "body", "")) >= min(len(words), 60_000)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.args) == (str(error), error.args)


def test_p42_so_do_those_of_several_models_and_of_a_schema(server: LLMServer, mode: Mode) -> None:
    """Also texts that are added to a message later."""
    server.script(*[Reply(status=400, body=json.dumps({"error": report(EVIL + LONG)}))] * 2)
    server.script(Reply(json.dumps({EVIL + LONG: "x"})))
    models = [Client(f"openai:{name}", base_url=server.base_url("openai"), api_key=KEY) for name in "ab"]
    error = failure(lambda: mode.complete(chat("x", models)))
    assert_clean(str(error), _MOST)
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    error = failure(lambda: mode.complete(models[0].chat("x", schema=schema, reask=0)))
    assert isinstance(error, llmbridge.InvalidOutput)
    for problem in (str(error), *error.problems):
        assert_clean(problem, _MOST)
    error.message += EVIL
    assert_clean(str(error), _MOST)
    assert error.args == (str(error),)
    for model in models:
        model.close()


def test_p42_a_tool_with_an_evil_name_is_logged_on_one_line(
    server: LLMServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """The model chose the name."""
    caplog.set_level("DEBUG", "llmbridge")
    server.script(
        Reply(tool_calls=[{"name": EVIL.replace("\ud800", "") + LONG[:1000], "arguments": {}}]), Reply("done")
    )

    def tool() -> None:
        """Nothing."""

    client.run("x", tools=[tool]).complete()
    assert any("failed" in line for line in caplog.messages)
    for line in caplog.messages:
        assert_clean(line, 300)


SAID = EVIL.replace("\ud800", "")
PRINTED: dict[str, list[str]] = {
    "chat --json": ["chat", "--json", "-m", "openai:m", "x"],
    "chat --schema": ["chat", "--schema", "SCHEMA", "-m", "openai:m", "x"],
    "models": ["models", "openai"],
    "models --json": ["models", "openai", "--json"],
    "check": ["check", "openai"],
    "check --json": ["check", "openai", "--json"],
}


@pytest.mark.parametrize("name", PRINTED)
@pytest.mark.parametrize("fails", [False, True], ids=["works", "fails"])
def test_p42_the_command_prints_nothing_that_a_terminal_obeys(
    server: LLMServer, name: str, fails: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """The JSON is valid, with escapes instead."""
    from llmbridge.cli import main

    (tmp_path / "schema.json").write_text('{"type": "object"}')
    words = [str(tmp_path / "schema.json") if word == "SCHEMA" else word for word in PRINTED[name]]
    answer = json.dumps({"a": EVIL, EVIL: 1}) if "--schema" in words else SAID
    listed = Reply(body=json.dumps({"data": [{"id": EVIL}]}), content_type="application/json")
    bad = Reply(status=400, body=json.dumps({"error": report(EVIL + LONG)}))
    server.script(bad if fails else listed if words[0] != "chat" else Reply(answer))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url("openai"))
    code = main(words)
    out, err = capfd.readouterr()
    assert code == (1 if fails else 0), err
    for line in (out + err).split("\n"):
        assert_clean(line, 5_000)
    if words[-1] == "--json" or "--json" in words:
        said = json.loads(err if fails and words[0] != "check" else out)
        if not fails and words[0] == "chat":
            assert said["text"] == SAID


def test_p42_an_answer_in_a_terminal_gives_it_no_commands(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """In a file or a pipe, it stays unchanged."""
    import sys

    from llmbridge.cli import main

    with LLMServer(Reply(SAID)) as server:
        words = ["chat", "-m", "openai-compatible:m", "--base-url", server.base_url("openai"), "x"]
        assert main(words) == 0
        assert capfd.readouterr().out == SAID + "\n"
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert main(words) == 0
    assert not (OBEYED - {*"\n\u2028\u061c\u200f"}) & set(capfd.readouterr().out)
