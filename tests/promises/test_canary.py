"""P18: a canary key appears nowhere, with any provider and any failure. The watch itself detects each kind of leak."""

from __future__ import annotations

import base64
import http.client
import io
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from canary import KEY, PASSWORD, Canary, Leaked, sightings, watching
from loopback import Listener, Proxy, free_port, port_of
from modes import LOOPS, MODES

from llmbridge import Client, ClockExpired, ConfigError, LLMBridgeError, Timeout, aembed, amodels, embed, models
from llmbridge.cli import main
from llmbridge.errors import AllFailed
from llmbridge.provider import Provider
from llmbridge.providers import known
from llmbridge.secret import MaskedStr, Secret
from llmbridge.testing import CLOSE, LLMServer, Reply

PROVIDERS = {name: provider for name, provider in sorted(known().items()) if not provider.direct}

ECHO = f'{{"error": {{"message": "bad key {KEY}", "code": "{KEY}", "type": "{KEY}", "param": "{KEY}"}}}}'
ESCAPED = "".join(f"\\u{ord(character):04x}" for character in KEY)

FAULTS: dict[str, Callable[[str], Reply]] = {
    "401 in body and headers": lambda kind: Reply(
        status=401, body=ECHO, headers={"WWW-Authenticate": KEY, "X-Request-Id": KEY, "Request-Id": KEY}
    ),
    "429 with a header": lambda kind: Reply(status=429, body=ECHO, headers={"Retry-After": KEY}),
    "500 in plain text": lambda kind: Reply(status=500, body=f"{KEY} " * 3000, content_type="text/plain"),
    "redirect": lambda kind: Reply(status=307, body="", headers={"Location": f"http://{KEY}.example/{KEY}?k={KEY}"}),
    "error in the stream": lambda kind: Reply(body=framed(kind, ECHO), content_type=kind),
    "error in the stream, text": lambda kind: Reply(body=framed(kind, f'{{"error": "{KEY}"}}'), content_type=kind),
    "error in the stream, typed": lambda kind: Reply(
        body=framed(kind, '{"type": "error", ' + ECHO[1:], "error"), content_type=kind
    ),
    "error document": lambda kind: Reply(body=ECHO, content_type="application/json"),
    "no JSON": lambda kind: Reply(body=framed(kind, f"{{{KEY}"), content_type=kind),
    "another shape": lambda kind: Reply(body=framed(kind, f'["{KEY}"]'), content_type=kind),
    "HTML": lambda kind: Reply(body=f"<html><title>{KEY}</title>", content_type=f"text/html; {KEY}"),
    "unknown coding": lambda kind: Reply(body="x", headers={"Content-Encoding": KEY}),
    "status line": lambda kind: Reply(raw=[f"HTTP/1.1 {KEY} {KEY}\r\n\r\n".encode(), CLOSE]),
    "header line": lambda kind: Reply(raw=[f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode(), CLOSE]),
    "chunk": lambda kind: Reply(
        raw=[f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n\r\n".encode(), CLOSE]
    ),
    "cut": lambda kind: Reply(
        raw=[
            f"HTTP/1.1 200 {KEY}\r\nContent-Type: {kind}\r\nContent-Length: 999\r\nX-Echo: {KEY}\r\n\r\n".encode(),
            CLOSE,
        ]
    ),
}


def framed(kind: str, data: str, event: str = "") -> str:
    """The data as one frame of a stream of that type."""
    if kind == "application/x-ndjson":
        return f"{data}\n"
    return (f"event: {event}\n" if event else "") + f"data: {data}\n\n"


def content_type(provider: type[Provider]) -> str:
    """The content type of the provider's streams."""
    return "application/x-ndjson" if type(provider.framing()).__name__ == "NDJSON" else "text/event-stream"


def client_of(provider: str, base_url: str, **options: Any) -> Client:
    """A client of the provider at that address, with the canary as its key."""
    return Client(f"{provider}:m", base_url=base_url, **{"api_key": KEY, "retries": 0, "timeout": 20, **options})


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROVIDERS)
def test_p18_no_answer_of_a_service_brings_the_key_out(canary: Canary, name: str, mode: str) -> None:
    """A service may repeat the key in bodies, headers, status lines, streams and addresses."""
    kind = content_type(PROVIDERS[name])
    with LLMServer() as server, client_of(name, server.root) as client:
        for fault, reply in FAULTS.items():
            server.script(reply(kind))
            stream = client.chat("Hi")
            outcome = MODES[mode].read(stream)
            assert outcome.error is not None, fault
            canary.look_at(stream, outcome.error)
            canary.check(fault)
        assert len(server.requests) == len(FAULTS)
        assert any(KEY in value for _, value in server.requests[0].headers)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROVIDERS)
def test_p18_no_failure_on_the_way_brings_a_secret_out(canary: Canary, name: str, mode: str) -> None:
    """Refused, unknown host, dead proxy: with passwords in the addresses."""
    dead = f"http://user:{PASSWORD}@127.0.0.1:{free_port()}"
    for options in (
        {"base_url": dead},
        {"base_url": dead.replace("http:", "https:")},
        {"base_url": "http://127.0.0.1:9", "proxy": dead},
        {"base_url": "https://127.0.0.1:9", "proxy": dead},
        {"base_url": f"http://user:{PASSWORD}@ho%zzst"},
        {"base_url": f"http://user:{PASSWORD}@{'a' * 70}.com"},
    ):
        with client_of(name, **options) as client:
            stream = client.chat("Hi")
            assert MODES[mode].read(stream).error is not None
            canary.look_at(stream)
        canary.check(str(sorted(options)))


@pytest.mark.parametrize("name", PROVIDERS)
def test_p18_no_refused_argument_brings_a_secret_out(canary: Canary, name: str) -> None:
    """Errors about a key, a header, an address or a parameter do not quote it, and nothing is sent."""
    refused: list[dict[str, Any]] = [
        {"api_key": f"{KEY}\n{KEY}"},
        {"api_key": f"{KEY}é"},
        {"api_key": [KEY]},
        {"api_key": KEY.encode()},
        {"headers": {"Authorization": f"Bearer {KEY}\r\nX-Evil: 1"}},
        {"headers": {f"{KEY}\n": "x"}},
        {"base_url": f"ftp://user:{PASSWORD}@host"},
        {"base_url": f"http://user:{PASSWORD}@host:port"},
        {"proxy": f"gopher://user:{PASSWORD}@host"},
        {"timeout": -1},
        {"temperature": float("nan")},
    ]
    for options in refused:
        with pytest.raises(ConfigError) as caught:
            Client(f"{name}:m", **{"base_url": "http://127.0.0.1:9", "api_key": KEY, **options}).chat("Hi")
        canary.look_at(caught.value)
        canary.check(str(sorted(options)))


def test_p18_a_key_of_the_environment_that_cannot_be_one(
    canary: Canary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error names each provider's variable, but not its value."""
    for name, provider in PROVIDERS.items():
        for variable in provider.key_env[:1]:
            monkeypatch.setenv(variable, f"{KEY}\n{KEY}")
            with pytest.raises(ConfigError, match=variable):
                Client(f"{name}:m", base_url="http://127.0.0.1:9").chat("Hi")
            monkeypatch.delenv(variable)
            canary.check(name)


@pytest.mark.parametrize("mode", MODES)
def test_p18_no_tls_failure_brings_the_key_out(canary: Canary, tls_server: LLMServer, mode: str) -> None:
    """A certificate that is not trusted, and a server that does not speak TLS."""
    canary.watch(tls_server)
    seen = bytearray()

    def serve(sock: socket.socket) -> None:
        seen.extend(sock.recv(65536))
        sock.sendall(f"HTTP/1.1 400 {KEY}\r\n\r\n".encode())

    with Listener(serve) as plain:
        for url in (tls_server.root, f"https://127.0.0.1:{plain.port}"):
            with client_of("openai", url.replace("//", f"//user:{PASSWORD}@")) as client:
                assert MODES[mode].read(client.chat("Hi")).error is not None
            canary.check(url)
    assert not sightings(bytes(seen), "what the server without TLS got")
    assert not tls_server.requests


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("session", ["own", "foreign"])
def test_p18_no_proxy_brings_a_secret_out(canary: Canary, mode: str, session: str) -> None:
    """A proxy that rejects the password and repeats it, and one that accepts it."""
    basic = requests.auth._basic_auth_str("user", PASSWORD)
    with (
        LLMServer() as server,
        Proxy(f"user:{PASSWORD}", ("127.0.0.1", port_of(server))) as proxy,
        requests.Session() as own,
    ):
        options = {"session": own} if session == "foreign" else {}
        server.script(Reply(status=407, body=f"{basic} {PASSWORD} {KEY}", content_type="text/plain"), Reply("fine"))
        for url in (server.root.replace("//", f"//user:{PASSWORD}@"), proxy.url):
            with client_of("openai", "http://model.test/v1", proxy=url, **options) as client:
                stream = client.chat("Hi")
                outcome = MODES[mode].read(stream)
                assert (outcome.error is None) == (url == proxy.url)
                canary.look_at(stream)
            canary.check(url.partition("@")[2])
        assert PASSWORD not in proxy.seen[0]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROVIDERS)
def test_p18_no_timeout_brings_the_key_out(canary: Canary, name: str, mode: str) -> None:
    """A server that stays silent."""
    with Listener() as silent, client_of(name, f"http://user:{PASSWORD}@127.0.0.1:{silent.port}") as client:
        stream = client.chat("Hi", timeout=Timeout(total=0.05))
        outcome = MODES[mode].read(stream)
        assert isinstance(outcome.error, ClockExpired)
        canary.look_at(stream, outcome.error)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("when", ["before the headers", "in mid-answer"])
@pytest.mark.parametrize("name", PROVIDERS)
def test_p18_no_cancelled_call_brings_the_key_out(
    canary: Canary,
    name: str,
    when: str,
    mode: str,
) -> None:
    """Another thread cancels while the call waits."""
    kind = content_type(PROVIDERS[name])
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nX-Echo: {KEY}\r\n\r\n".encode()
    with LLMServer() as server, client_of(name, server.root) as client:
        server.script(Reply(raw=[head, b" ", 60.0] if when == "in mid-answer" else [60.0]))
        stream = client.chat("Hi")

        def cancel() -> None:
            server.wait_for_requests(1)
            stream.cancel()

        thread = threading.Thread(target=cancel)
        thread.start()
        outcome = MODES[mode].read(stream)
        thread.join(30)
        assert outcome.error is not None
        canary.look_at(stream, outcome.error)


WAITING = {"sync": {"before the headers": "readinto", "in mid-answer": "read"}}
"""The innermost function of the main thread while a call waits; those of event loops do not depend on the moment."""


def _main_thread_waits(mode: str, when: str) -> bool:
    names = (WAITING[mode][when],) if mode in WAITING else ("select", "get_events")
    return sys._current_frames()[threading.main_thread().ident or 0].f_code.co_name in names


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("when", ["before the headers", "in mid-answer"])
@pytest.mark.parametrize("session", ["own", "foreign"])
def test_p18_no_ctrl_c_brings_the_key_out(
    canary: Canary,
    session: str,
    when: str,
    mode: str,
) -> None:
    """The traceback of a KeyboardInterrupt, with its locals, holds no key."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    with LLMServer() as server, requests.Session() as own:
        options = {"session": own} if session == "foreign" else {}
        with client_of("openai", server.root, **options) as client:
            server.script(Reply(raw=[head, b" ", 60.0] if when == "in mid-answer" else [60.0]))
            stream = client.chat("Hi")

            def interrupt() -> None:
                server.wait_for_requests(1)
                while not _main_thread_waits(mode, when):
                    time.sleep(0.001)
                os.kill(os.getpid(), signal.SIGINT)

            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(KeyboardInterrupt) as caught:
                MODES[mode].each(stream, bool)
            thread.join(30)
            canary.look_at(caught.value, stream)
            stream.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_p18_no_cancelled_task_brings_the_key_out(canary: Canary, loop: str) -> None:
    """The exception of a cancelled task holds no key either."""
    seen: list[BaseException] = []
    with LLMServer() as server, client_of("openai", server.root) as client:
        server.script(Reply(raw=[60.0]))

        async def main() -> None:
            import anyio
            import anyio.to_thread

            async def read() -> None:
                try:
                    await client.chat("Hi")
                except BaseException as error:
                    seen.append(error)
                    raise

            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await anyio.to_thread.run_sync(server.wait_for_requests, 1)
                group.cancel_scope.cancel()

        LOOPS[loop].run(main)
        assert len(seen) == 1
        canary.look_at(seen.pop())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("session", ["own", "foreign"])
def test_p18_a_good_call_brings_the_key_out_to_the_service_only(
    canary: Canary,
    session: str,
    mode: str,
) -> None:
    """All logs are on, and the service repeats the key in its headers."""
    with LLMServer() as server, requests.Session() as own:
        options = {"session": own} if session == "foreign" else {}
        server.default = Reply("fine", headers={"X-Echo": f"a {KEY} b", "X-Request-Id": KEY})
        with client_of("openai", server.base_url("openai"), **options) as client:
            for _ in range(2):
                stream = client.chat("Hi", headers={"X-Api-Key": KEY})
                canary.look_at(client, stream)
                answer = MODES[mode].complete(stream)
                assert answer.text == "fine"
                canary.look_at(answer, stream)
        assert server.requests[0].header("Authorization") == f"Bearer {KEY}"
    canary.look_at(Secret(KEY), MaskedAlone(MaskedStr(KEY)), *PROVIDERS.values())


def test_p18_an_escaped_echo_does_not_bring_the_key_out(canary: Canary) -> None:
    """A service may write every character of its JSON as an escape."""
    with LLMServer() as server, client_of("openai", server.root) as client:
        for fault in (Reply(status=401, body=ECHO.replace(KEY, ESCAPED)), Reply(status=401, body=ESCAPED)):
            server.script(fault)
            with pytest.raises(LLMBridgeError):
                client.chat("Hi").complete()
            canary.check()


def test_p18_a_client_brings_no_secret_out(canary: Canary) -> None:
    """Neither its repr nor its pickle holds a key or password, before and after a call."""
    proxy = f"http://user:{PASSWORD}@127.0.0.1:{free_port()}"
    headers = {"Authorization": f"Bearer {KEY}", "X-Api-Key": KEY}
    for options in ({}, {"proxy": proxy}, {"base_url": proxy}, {"headers": headers}):
        with client_of("openai", **{"base_url": "http://127.0.0.1:9", **options}) as client:
            canary.look_at(client)
            with pytest.raises(LLMBridgeError):
                client.chat("Hi").complete()
            canary.look_at(client)
        canary.check(str(sorted(options)))


def _function(method: Any) -> Any:
    """The function below a classmethod or staticmethod."""
    return getattr(method, "__func__", method)


def _dialects(what: str) -> list[tuple[str, str]]:
    """One provider for each way to read a list of models, or vectors: most differ only in their names."""
    reader, asked = ("decode_models", "models_path") if what == "models" else ("decode_embeddings", "embeddings_batch")
    found = {
        _function(getattr(provider, reader)): name for name, provider in PROVIDERS.items() if getattr(provider, asked)
    }
    return [(name, what) for name in found.values()]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "what"), [*_dialects("models"), *_dialects("embed")])
def test_p18_no_list_and_no_vector_brings_the_key_out(
    canary: Canary,
    name: str,
    what: str,
    mode: str,
) -> None:
    """Lists of models and embeddings fail as discreetly as answers."""
    ask: Callable[..., Any] = {
        ("models", False): models, ("models", True): amodels, ("embed", False): embed, ("embed", True): aembed
    }[what, mode in LOOPS]  # fmt: skip
    run: Callable[..., Any] = LOOPS[mode].run if mode in LOOPS else lambda call: call()
    target = (name,) if what == "models" else (["text"],)
    options: dict[str, Any] = {} if what == "models" else {"model": f"{name}:m"}
    with LLMServer() as server:
        options |= {"base_url": server.root, "api_key": KEY, "retries": 0, "timeout": 20}
        for fault, reply in FAULTS.items():
            server.script(reply("application/json"))
            with pytest.raises(LLMBridgeError) as caught:
                run(lambda: ask(*target, **options))
            canary.look_at(caught.value)
            canary.check(fault)
        assert len(server.requests) == len(FAULTS)


@pytest.mark.parametrize("debug", [[], ["--debug"]], ids=["plain", "debug"])
@pytest.mark.quick(1)
def test_p18_no_command_brings_the_key_out(
    canary: Canary,
    debug: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The key is in the keys file: set, listed, used by each command, rejected by the service, removed."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 0)
    path = tmp_path / "keys.json"
    monkeypatch.setenv("LLMBRIDGE_KEYS_FILE", str(path))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(KEY.encode())))
    with LLMServer() as server:
        there = ["--base-url", server.base_url("openai"), "--timeout", "20"]
        model = ["-m", "openai:m"]
        failing = [
            (["chat", *model, *there, "Hi"], 1),
            (["chat", *model, *there, "--json", "Hi"], 1),
            (["models", "openai", *there], 1),
            (["check", "openai", *there], 1),
            (["check", "openai", *there, "--json"], 1),
            (["embed", *model, *there, "text"], 1),
        ]
        for words, code in [(["keys", "set", "openai"], 0), (["keys", "list"], 0), *failing]:
            server.default = Reply(status=401, body=ECHO)
            assert main([*words, *debug]) == code
            canary.check(str(words))
        assert [request.header("Authorization") for request in server.requests] == [f"Bearer {KEY}"] * len(failing)
    path.chmod(0o644)
    for words in (["keys", "list"], ["keys", "remove", "openai"], ["keys", "set", "openai"], ["models"]):
        assert main([*words, *debug]) == (0 if words == ["models"] else 2)
        canary.check(str(words))
    path.chmod(0o600)
    assert main(["keys", "remove", "openai", *debug]) == 0


class MaskedAlone:
    """An object that holds a masked header, as a dict of headers does."""

    def __init__(self, value: MaskedStr) -> None:
        self._value = value

    def __repr__(self) -> str:
        return repr({"Authorization": self._value})

    def __reduce__(self) -> str:
        raise TypeError("not pickled")


# -- the watch detects leaks ------------------------------------------------------------------------------------------

PACKAGE_FRAME = compile("def raiser(make, held):\n    raise make(held is None)", "llmbridge/leaky.py", "exec")


def _raised(make: Callable[..., BaseException], held: Any = None) -> BaseException:
    """An error that passed a foreign frame with a key in it."""
    scope: dict[str, Any] = {}
    exec(PACKAGE_FRAME, scope)
    try:
        scope["raiser"](lambda _: make(), held)
    except BaseException as error:  # noqa: BLE001 - whatever was made
        return error
    raise AssertionError("not raised")


def _fails(error: LLMBridgeError) -> None:
    """Raises the error, and catches it as a test does."""
    with pytest.raises(LLMBridgeError):
        raise error


def _leak_cause(watch: Canary) -> None:
    with pytest.raises(LLMBridgeError):
        raise LLMBridgeError("x") from ValueError(KEY)


def _leak_context(watch: Canary) -> None:
    try:
        raise ValueError(PASSWORD)
    except ValueError:
        _fails(LLMBridgeError("x"))


def _leak_quietly(watch: Canary) -> None:
    logger = logging.getLogger("canary.test.quiet")
    logger.propagate, logger.disabled = False, False
    logger.setLevel(logging.CRITICAL)
    logger.debug("sending %s", KEY)


def _leak_exc_info(watch: Canary) -> None:
    try:
        raise ValueError(KEY)
    except ValueError:
        logging.getLogger("canary.test").debug("failed", exc_info=True)


def _leak_warning(watch: Canary) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.warn(f"a warning of {KEY}", stacklevel=1)


def _leak_explicit_warning(watch: Canary) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.warn_explicit(UserWarning(KEY), None, "x.py", 1)


def _leak_on_the_wire(where: str) -> Callable[[Canary], None]:
    def leak(watch: Canary) -> None:
        path = f"/v1/models?key={KEY}" if where == "URL" else "/v1/models"
        header = f"X-Trace: {KEY}" if where == "header" else f"Authorization: Bearer {KEY}"
        body = KEY if where == "body" else ""
        request = f"POST {path} HTTP/1.1\r\n{header}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        with LLMServer(Reply(body=b"x")) as server, socket.create_connection(("127.0.0.1", port_of(server))) as sock:
            sock.sendall(request.encode())
            server.wait_for_requests(1)

    return leak


def _leak_http_client(watch: Canary) -> None:
    with LLMServer(Reply("x")) as server:
        connection = http.client.HTTPConnection("127.0.0.1", port_of(server))
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {KEY}"})
        connection.getresponse().read()
        connection.close()


class Leaky:
    """An object that shows a key in one of the language's ways."""

    def __init__(self, way: str) -> None:
        self._way = way
        if way == "attribute":
            self.key = KEY

    def __str__(self) -> str:
        return KEY if self._way == "str" else "x"

    def __repr__(self) -> str:
        return KEY if self._way == "repr" else "x"

    def __format__(self, spec: str) -> str:
        return KEY if self._way == "format" else "x"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._way == "refusal":
            raise TypeError(f"no pickle with {KEY}")
        return (str, (KEY if self._way == "pickle" else "x",))


LEAKS: dict[str, Callable[[Canary], Any]] = {
    "message": lambda watch: _fails(LLMBridgeError(f"a bad key: {KEY}")),
    "attribute of an error": lambda watch: _fails(LLMBridgeError("x", partial=KEY)),
    "most of a key": lambda watch: _fails(LLMBridgeError(f"bad key {KEY[:-3]}")),
    "held error": lambda watch: _fails(AllFailed("x", errors=[LLMBridgeError(KEY)])),
    "cause": _leak_cause,
    "context": _leak_context,
    "local": lambda watch: watch.look_at(_raised(lambda: ValueError("x"), {"headers": [KEY]})),
    "local of an own error": lambda watch: _raised(lambda: LLMBridgeError("x"), KEY),
    "group": lambda watch: watch.look_at(_with(ValueError("x"), exceptions=[ValueError(KEY)])),
    "other error": lambda watch: watch.look_at(KeyboardInterrupt(KEY)),
    "log": lambda watch: logging.getLogger("canary.test").debug("sending %s", {"key": KEY}),
    "log of a quiet logger": _leak_quietly,
    "log with an error": _leak_exc_info,
    "extra of a log": lambda watch: logging.getLogger("canary.test").debug("x", extra={"token": KEY}),
    "print": lambda watch: print(KEY),  # noqa: T201
    "http.client": _leak_http_client,
    "warning": _leak_warning,
    "explicit warning": _leak_explicit_warning,
    "URL": _leak_on_the_wire("URL"),
    "body": _leak_on_the_wire("body"),
    "header": _leak_on_the_wire("header"),
    "text": lambda watch: watch.search(f"x {PASSWORD} x".encode(), "a file"),
    **{way: lambda watch, way=way: watch.look_at(Leaky(way)) for way in ("str", "repr", "format", "attribute")},
    "pickle": lambda watch: watch.look_at(Leaky("pickle")),
    "refusal to be pickled": lambda watch: watch.look_at(Leaky("refusal")),
}


def _with(error: BaseException, **attributes: Any) -> BaseException:
    vars(error).update(attributes)
    return error


@pytest.mark.parametrize("way", LEAKS)
def test_the_watch_sees_a_leak(way: str) -> None:
    """Each place is searched: a deliberate leak is found there."""
    with pytest.raises(Leaked), watching() as watch:
        LEAKS[way](watch)


def test_the_fixture_sees_what_reaches_the_file_descriptors(capfd: pytest.CaptureFixture[str]) -> None:
    """The output of other programs is searched too."""
    with pytest.raises(Leaked), Canary(lambda: "".join(capfd.readouterr())):
        os.system(f"echo {KEY}")


def test_the_watch_is_silent_where_nothing_leaks() -> None:
    """An error, a log, a warning and a request without the canary, and with it where it belongs."""
    with watching() as watch:
        watch.look_at(_raised(lambda: LLMBridgeError("harmless"), "harmless"), Leaky("nothing"), Secret(KEY))
        logging.getLogger("canary.test").debug("harmless %s", Secret(KEY))
        _leak_on_the_wire("nowhere")(watch)
        print("harmless")  # noqa: T201


def test_the_watch_leaves_nothing_behind() -> None:
    """Afterwards everything is as it was, even after a leak."""
    before = (LLMBridgeError.__init__, logging.Logger.handle, warnings.warn, http.client.HTTPConnection.debuglevel)
    with pytest.raises(Leaked), watching():
        _fails(LLMBridgeError(KEY))
    after = (LLMBridgeError.__init__, logging.Logger.handle, warnings.warn, http.client.HTTPConnection.debuglevel)
    assert after == before


def test_what_a_test_patches_does_not_outlive_the_watch() -> None:
    """As if the fixtures of pytest were set up first, and so undone last."""
    patches, before = pytest.MonkeyPatch(), http.client.HTTPConnection.debuglevel
    with Canary(lambda: "", patches):
        patches.setattr(http.client.HTTPConnection, "debuglevel", before + 7)
    patches.undo()
    assert http.client.HTTPConnection.debuglevel == before


def test_an_error_of_the_test_itself_is_not_hidden() -> None:
    """The watch stays silent if the test fails for another reason."""
    with pytest.raises(ZeroDivisionError), watching():
        raise ZeroDivisionError(KEY)


@pytest.mark.parametrize("coded", ["base64", "hex", "escaped"])
def test_the_canary_is_known_in_other_clothes(coded: str) -> None:
    """The canary is found at any offset in base64, in hex, and in JSON escapes."""
    texts = {
        "base64": [
            base64.b64encode(f"{front}{PASSWORD}{back}".encode()).decode()
            for front in ("", "u", "us", "use")
            for back in ("", ":")
        ],
        "hex": [KEY.encode().hex()],
        "escaped": [ESCAPED],
    }
    for text in texts[coded]:
        assert sightings(text, "here"), text
    assert sightings("Bearer ***", "here") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("print(canary.KEY)", 1),
        ("logging.getLogger('x').warning(canary.PASSWORD)", 1),
        ("print('harmless')", 0),
        ("assert not canary.KEY", 1),
    ],
)
def test_any_test_of_the_run_that_says_the_canary_fails(tmp_path: Path, body: str, code: int) -> None:
    """With the hook in conftest.py, everything that a test prints or logs is searched, without the fixture."""
    (tmp_path / "conftest.py").write_text("from canary import pytest_runtest_makereport\n")
    (tmp_path / "test_it.py").write_text(f"import canary, logging\ndef test_it():\n    {body}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)
    assert done.returncode == code, done.stdout
    assert ("the canary was seen" in done.stdout) == (code == 1 and "assert" not in body)


@pytest.mark.slow
def test_the_canary_is_new_in_each_run() -> None:
    """A recording, file or copy of an earlier run is not taken for a leak of this one."""
    code = "import canary; print(canary.KEY)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True).stdout
        for _ in range(2)
    ]
    assert len({*runs, KEY}) == 3
