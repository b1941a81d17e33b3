"""P18 to P24: secrets never show, and neither go to nor come from untrusted places."""

from __future__ import annotations

import base64
import contextlib
import copy
import http.client
import io
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from conftest import KEY
from loopback import Listener, Proxy, event, free_port, head, port_of, read_head

import llmbridge
from llmbridge import (
    Client,
    ConfigError,
    ConnectFailed,
    LLMBridgeError,
    MissingKey,
    Retry,
    RetryAttempt,
    StatusError,
    Timeout,
    Vitalentum,
    chat,
)
from llmbridge.testing import CLOSE, LLMServer, Reply

PASSWORD = "pw-canary-9876543210"
BASIC = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
PACKAGE = str(Path(llmbridge.__file__).parent)


def traces(error: BaseException, with_locals: bool) -> str:
    """The error's traceback, with the locals of frames outside of this test."""
    links, seen = [error], set()
    shown = ["".join(traceback.format_exception(error))]
    while links:
        link = links.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        links += [other for other in (link.__cause__, link.__context__) if other is not None]
        report = traceback.TracebackException.from_exception(link, capture_locals=with_locals)
        for frame in report.stack:
            if Path(frame.filename).name.startswith(("test_", "conftest", "loopback", "python.py")):
                continue
            shown += [
                f"{frame.filename}:{frame.lineno} {name} = {value}" for name, value in (frame.locals or {}).items()
            ]
    return "\n".join(shown)


def assert_discreet(error: BaseException, *secrets: str) -> None:
    """The error shows no secret: in str, repr, traceback with locals, attributes, pickle and copy."""
    places = {
        "str": str(error),
        "repr": repr(error),
        "args": repr(error.args),
        "attributes": repr(vars(error)),
        "traceback": traces(error, False),
        "locals": traces(error, True),
        "pickle": pickle.dumps(error).decode("latin-1"),
        "copy": repr(vars(copy.copy(error))),
    }
    for place, text in places.items():
        for secret in secrets:
            at = text.find(secret)
            assert at < 0, f"{place}: {text[max(0, at - 200) : at + 60]}"


def failure(pieces: Any) -> LLMBridgeError:
    """The error that ends the pieces."""
    with pytest.raises(LLMBridgeError) as caught:
        list(pieces)
    return caught.value


ESCAPED = "".join(f"\\u{ord(character):04x}" for character in KEY)
ECHOED: dict[str, Reply] = {
    "error body": Reply(status=401, error={"message": f"Incorrect API key provided: {KEY}.", "code": KEY}),
    "error body, plain": Reply(status=500, body=f"oh {KEY}" * 3),
    "error body, cut": Reply(status=500, body="x" * (64 * 1024 - 12) + KEY * 3),
    "error body, html": Reply(status=403, body=f"<title>{KEY}</title>", content_type="text/html"),
    "error body, fastapi": Reply(status=422, body=json.dumps({"detail": [{"loc": [KEY], "msg": KEY}]})),
    "error body, escaped": Reply(status=400, body=f'{{"error": "{ESCAPED}"}}'),
    "stream error, escaped": Reply(body=f'data: {{"error": {{"message": "{ESCAPED}", "code": "{ESCAPED}"}}}}\n\n'),
    "error code, escaped": Reply(status=400, body=f'{{"error": {{"message": "{ESCAPED}", "code": "{ESCAPED}"}}}}'),
    "stream error": Reply(["a"], error={"message": f"bad {KEY}", "code": KEY, "type": KEY}),
    "stream error, text": Reply(["a"], error=f"bad {KEY}"),
    "stream error, long": Reply(["a"], error="x" * 590 + KEY),
    "stream error, event": Reply(body=f"event: error\ndata: {KEY}\n\n"),
    "stream error, list": Reply(body=f'data: ["{KEY}"]\n\n'),
    "document": Reply(body=json.dumps({"error": {"message": KEY, "code": KEY}}), content_type="application/json"),
    "no json": Reply(body=f"data: {{{KEY}\n\n"),
    "no json, long": Reply(body="data: " + "x" * 45 + KEY + "y" * 60 + "\n\n"),
    "no json, longer": Reply(body="data: " + "x" * 90 + KEY + "y" * 8 + "\n\n"),
    "no object": Reply(body=f'data: 5\n\ndata: "{KEY}"\n\n'),
    "html": Reply(body=f"<html>{KEY}</html>", content_type="text/html"),
    "headers": Reply("no", status=500, headers={"X-Request-Id": KEY, "Retry-After": KEY, "WWW-Authenticate": KEY}),
    "header without a colon": Reply(
        raw=[f"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\nbroken {KEY}\r\n\r\n".encode(), CLOSE]
    ),
    "reason": Reply("no", status=500, reason=KEY),
    "status": Reply(raw=[f"HTTP/1.1 {KEY}\r\n\r\n".encode(), CLOSE]),
    "status line": Reply(raw=[f"{KEY} 200 OK\r\n\r\n".encode(), CLOSE]),
    "redirect": Reply("x", status=302, headers={"Location": f"http://{KEY}.example/{KEY}"}),
    "compression": Reply("x", headers={"Content-Encoding": KEY}),
    "chunk size": Reply(raw=[head("Transfer-Encoding: chunked") + f"{KEY}\r\n\r\n".encode(), CLOSE]),
    "chunk too long": Reply(raw=[head("Transfer-Encoding: chunked") + f"2\r\n{KEY}\r\n\r\n".encode(), CLOSE]),
    "type": Reply(body=b"<", content_type=f"text/html; {KEY}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ECHOED)
@pytest.mark.parametrize("own_session", [True, False], ids=["own", "foreign"])
def test_p18_a_key_that_the_server_echoes_does_not_show(
    server: LLMServer,
    client: Client,
    name: str,
    own_session: bool,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Wherever a server repeats the key, no error, traceback, pickle or log shows it, nor most of it."""
    caplog.set_level(logging.DEBUG)
    server.script(ECHOED[name])
    with requests.Session() as session:
        error = failure(client.chat("x", **({} if own_session else {"session": session})))
        assert_discreet(error, KEY, KEY[:-3], KEY[4:])
    output = "".join(capfd.readouterr())
    for text in (caplog.text, output):
        assert KEY not in text
    assert server.requests[0].header("Authorization") == f"Bearer {KEY}"


def test_p18_a_key_in_the_headers_of_a_good_answer_does_not_show(server: LLMServer, client: Client) -> None:
    """The headers that a caller may print or keep are masked as well."""
    server.script(Reply("x", headers={"X-Echo": f"a {KEY} b", "X-Request-Id": KEY}))
    answer = client.chat("x").complete()
    assert KEY not in repr(dict(answer.headers)) + repr(answer) + str(answer.request_id)
    assert KEY.encode() not in pickle.dumps(answer)


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Turns on all logs."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3", "requests", "llmbridge", "sseclient"):
        caplog.set_level(logging.DEBUG, name)


@pytest.mark.usefixtures("talkative")
@pytest.mark.parametrize("kind", ["own", "foreign", "foreign, used before"])
@pytest.mark.quick(1)
def test_p18_p24_logs_show_neither_key_nor_prompt_nor_answer(
    server: LLMServer,
    client: Client,
    kind: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With DEBUG of urllib3 and http.client, of good calls and bad ones, logs and output hold only times and sizes."""
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {}
        if kind != "own":
            options["session"] = stack.enter_context(requests.Session())
        if kind == "foreign, used before":
            options["session"].get(server.root + "/v1/models")
            capfd.readouterr()
        server.script(
            Reply("the-answer"), Reply("the-answer", status=500), Reply(["the-answer"], error="the-answer"),
            Reply(body="data: {the-answer\n\nthe-answer\n\n"),
        )  # fmt: skip
        assert client.chat("the-prompt", **options).complete().text == "the-answer"
        for _ in range(3):
            failure(client.chat("the-prompt", **options))
    shown = caplog.text + "".join(capfd.readouterr())
    assert "POST" in shown
    for word in (KEY, "the-prompt", "the-answer"):
        assert word not in shown


REFUSED: dict[str, dict[str, Any]] = {
    "base_url": {"base_url": "nonsense"},
    "messages": {"messages": ""},
    "role": {"messages": [{"role": "robot", "content": "x"}]},
    "model": {"model": "nobody:m"},
    "parameter": {"temperature": float("nan")},
    "timeout": {"timeout": -1},
    "header": {"headers": {"Authorization": f"Bearer {KEY}\r\n"}, "timeout": -1},
    "header value": {"headers": {"Authorization": f"Bearer\n{KEY}"}},
    "key with a line end": {"api_key": f"{KEY}\nx"},
    "key not ASCII": {"api_key": f"{KEY}ü"},
    "key of a list": {"api_key": [KEY]},
    "proxy": {"proxy": f"ftp://user:{PASSWORD}@host"},
    "proxy port": {"proxy": f"http://user:{PASSWORD}@host:99999"},
    "base_url with password": {"base_url": f"ftp://user:{PASSWORD}@host"},
    "base_url with password and query": {"base_url": f"http://user:{PASSWORD}@host?a"},
    "base_url with password and port": {"base_url": f"http://user:{PASSWORD}@host:port"},
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("by", ["chat", "run", "Client"])
def test_p18_p21_refused_calls_show_no_secret(name: str, by: str) -> None:
    """Key and passwords of a rejected call are in no message, and in no local of llmbridge's frames."""
    options = {"messages": "x", "model": "openai:m", "api_key": KEY, **REFUSED[name]}
    messages = options.pop("messages")
    ask = {"chat": chat, "run": Client().run, "Client": lambda messages, **given: Client(**given).chat(messages)}[by]
    with pytest.raises(ConfigError) as caught:
        ask(messages, **options)
    assert_discreet(caught.value, KEY, PASSWORD)


def test_p18_reprs_show_no_key(server: LLMServer, client: Client) -> None:
    """Client, stream, completion, and everything in them, have harmless reprs."""
    stream = client.chat("x", headers={"X-Api-Key": KEY, "Cookie": KEY}, proxy=f"http://u:{PASSWORD}@127.0.0.1:1")
    shown = [
        repr(client),
        str(client),
        repr(stream),
        repr(vars(stream)),
        repr(vars(client)),
        repr(vars(client).values()),
    ]
    answer = client.chat("x").complete()
    shown += [repr(answer), str(vars(client)), repr(vars(client)["transport_options"])]
    for text in shown:
        assert KEY not in text
        assert PASSWORD not in text


def test_p18_a_stream_is_not_pickled(client: Client) -> None:
    """It holds a key, and a connection that no other process has."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever part refuses first
        pickle.dumps(client.chat("x"))
    assert KEY not in str(caught.value)


def test_p18_a_pickled_client_has_left_its_key_behind(server: LLMServer, client: Client) -> None:
    """The unpickling process finds its key as if none had been given."""
    pickled = pickle.dumps(client)
    assert KEY.encode() not in pickled
    with pickle.loads(pickled) as again:
        again.chat("x").complete()
    assert KEY not in str(server.requests[-1].headers)


def test_p18_a_pickled_client_takes_its_key_along_if_asked(server: LLMServer) -> None:
    """With `pickle_key=True`, for workers without an environment of their own."""
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, pickle_key=True) as client:
        pickled = pickle.dumps(client)
    with pickle.loads(pickled) as again:
        again.chat("x").complete()
    assert KEY in str(server.requests[-1].headers)


def test_p18_the_key_is_in_no_url_and_only_in_its_header(server: LLMServer, client: Client) -> None:
    """On the wire the key is in one header, and nowhere else."""
    client.chat("x").complete()
    received = server.requests[0]
    assert KEY not in received.path
    assert KEY.encode() not in received.body
    assert [name for name, value in received.headers if KEY in value] == ["Authorization"]


def test_p18_no_network_failure_shows_a_key(client: Client, tls_server: LLMServer) -> None:
    """Refused, unknown, untrusted, expired: failures without an answer show no key."""
    base = f"http://user:{PASSWORD}@127.0.0.1:{free_port()}"
    for options in (
        {"base_url": base},
        {"base_url": base.replace("http:", "https:")},
        {"base_url": f"http://user:{PASSWORD}@nowhere.invalid"},
        {"base_url": f"http://user:{PASSWORD}@ho%zzst/v1"},
        {"base_url": f"http://user:{PASSWORD}@{'a' * 70}.com"},
        {"base_url": f"http://user:{PASSWORD}@*.com"},
        {"base_url": tls_server.root.replace("//", f"//user:{PASSWORD}@")},
        {"proxy": base},
        {"proxy": f"http://user:{PASSWORD}@ho%zzst"},
        {"proxy": f"http://user:{PASSWORD}@{'a' * 70}.com"},
        {"proxy": base, "base_url": "https://127.0.0.1:9"},
    ):
        assert_discreet(failure(client.chat("x", **options)), KEY, PASSWORD)  # type: ignore[arg-type]


def test_p18_an_encoder_that_refuses_shows_no_secret(server: LLMServer) -> None:
    """Errors of a provider that encodes the request show no secret."""
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    proxy = f"http://user:{PASSWORD}@127.0.0.1:{free_port()}"
    with pytest.raises(LLMBridgeError) as caught:
        list(Vitalentum.create_completion("m", picture, base_url=server.root, api_key=KEY, proxy=proxy))
    assert_discreet(caught.value, KEY, PASSWORD)


@pytest.mark.parametrize("outer", [" ", "\n", "\r\n", "\t", "\n\n  "])
def test_p19_outer_white_space_is_stripped(server: LLMServer, outer: str) -> None:
    """White space around a key, left from reading it from a file, does no harm."""
    with Client("openai:m", base_url=server.base_url("openai"), api_key=outer + KEY + outer) as client:
        client.chat("x", headers={"X-Org": f"{outer}org{outer}"}).complete()
    assert server.requests[0].header("Authorization") == f"Bearer {KEY}"
    assert server.requests[0].header("X-Org") == "org"


@pytest.mark.parametrize("bad", ["\r", "\n", "\r\nX-Evil: 1", "\0", "é", "ключ", "\x7f", "\x1b", "\u2028"])
@pytest.mark.parametrize("where", ["api_key", "environment", "header", "header name", "authorization"])
def test_p19_what_no_header_can_carry_is_refused_unquoted(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch, bad: str, where: str
) -> None:
    """Line ends, NUL, control and non-ASCII characters in keys and headers are rejected before anything is sent."""
    value = f"sk-secret{bad}value"
    options: dict[str, Any] = {"api_key": KEY}
    if where == "api_key":
        options["api_key"] = value
    elif where == "environment":
        if "\0" in bad:
            pytest.skip("no environment can hold it")
        monkeypatch.setenv("OPENAI_API_KEY", value)
        options = {}
    elif where == "header name":
        options["headers"] = {f"X-{bad}Name": "value"}
    else:
        options["headers"] = {"X-Some" if where == "header" else "Authorization": value}
    with pytest.raises(ConfigError) as caught:
        chat("x", "openai:m", base_url=server.base_url("openai"), **options)
    assert "secret" not in str(caught.value)
    assert server.connections == 0


def test_p19_a_missing_key_names_its_variable() -> None:
    """The error says where to put the key."""
    with pytest.raises(MissingKey, match="OPENAI_API_KEY"):
        chat("x", "openai:m")


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("session", ["own", "foreign"])
def test_p20_redirects_are_not_followed(server: LLMServer, client: Client, status: int, session: str) -> None:
    """The other host gets nothing, and the error names it."""
    with LLMServer() as other, contextlib.ExitStack() as stack:
        options = {} if session == "own" else {"session": stack.enter_context(requests.Session())}
        server.script(Reply("moved", status=status, headers={"Location": other.root + "/v1/x?secret=1"}))
        error = failure(client.chat("x", retries=2, **options))
        assert isinstance(error, StatusError)
        assert error.status == status
        assert other.root.partition("//")[2] in str(error)
        assert "secret" not in str(error)
        assert not other.connections
    assert len(server.requests) == 1


def test_p20_redirects_to_the_same_host_are_not_followed_either(server: LLMServer, client: Client) -> None:
    """A POST that becomes something else is never intended."""
    server.script(Reply("moved", status=301, headers={"Location": "/v2/chat/completions"}))
    failure(client.chat("x"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("session", ["own", "foreign"])
def test_p20_the_body_of_a_redirect_is_not_read_whole(server: LLMServer, client: Client, session: str) -> None:
    """A redirect with an endless body soon is an error."""
    steps = [head("Location: http://example.org/", status="302 Found"), *[b"x" * 65536, 0.01] * 400]
    server.script(Reply(raw=steps))
    with contextlib.ExitStack() as stack:
        options = {} if session == "own" else {"session": stack.enter_context(requests.Session())}
        error = failure(client.chat("x", timeout=Timeout(total=3), **options))
    assert isinstance(error, StatusError)
    assert "example.org" in str(error)


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A netrc file with credentials for the loopback host."""
    path = tmp_path / "netrc"
    path.write_text(f"machine 127.0.0.1 login user password {PASSWORD}\ndefault login user password {PASSWORD}\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize("session", ["own", "foreign"])
@pytest.mark.parametrize("key", [KEY, None], ids=["key", "no key"])
def test_p21_netrc_is_not_looked_at(server: LLMServer, session: str, key: str | None) -> None:
    """The netrc file replaces no key, and is not used without one."""
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {} if session == "own" else {"session": stack.enter_context(requests.Session())}
        client = stack.enter_context(Client("openai-compatible:m", base_url=server.base_url("openai"), **options))
        client.chat("x", api_key=key).complete()
    assert server.requests[0].header("Authorization") == (f"Bearer {key}" if key else None)


@pytest.fixture
def proxy(server: LLMServer) -> Iterator[Proxy]:
    """A proxy that demands credentials, and sends everything to `server`."""
    with Proxy(f"user:{PASSWORD}", ("127.0.0.1", port_of(server))) as running:
        yield running


ELSEWHERE = "http://model.test/v1"


@pytest.mark.parametrize("session", ["own", "foreign"])
@pytest.mark.parametrize("way", ["argument", "http_proxy", "HTTP_PROXY", "all_proxy"])
def test_p21_proxies_by_argument_and_environment(
    client: Client, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, way: str, session: str
) -> None:
    """The proxy gets the request with its credentials, and looks up the host's name."""
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {} if session == "own" else {"session": stack.enter_context(requests.Session())}
        if way == "argument":
            options["proxy"] = proxy.url
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
        else:
            monkeypatch.setenv(way, proxy.url)
        assert client.chat("x", base_url=ELSEWHERE, **options).complete().text
    assert proxy.seen[0].startswith("POST http://model.test/v1/chat/completions HTTP/1.1")
    assert KEY in proxy.seen[0]


@pytest.mark.parametrize("rule", ["127.0.0.1", "127.0.0.0/8", "*", "example.org,127.0.0.1"])
def test_p21_no_proxy_is_honoured(
    server: LLMServer, client: Client, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """Hosts in NO_PROXY are reached directly."""
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", rule)
    client.chat("x").complete()
    assert not proxy.seen
    assert len(server.requests) == 1


@pytest.mark.parametrize("session", ["own", "foreign"])
def test_p21_proxy_false_means_none(
    server: LLMServer, client: Client, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, session: str
) -> None:
    """Not even the environment's."""
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("all_proxy", proxy.url)
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {} if session == "own" else {"session": stack.enter_context(requests.Session())}
        client.chat("x", proxy=False, **options).complete()
    assert not proxy.seen


def test_p21_an_environment_that_changes_counts_at_once(
    client: Client, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cached proxies of the environment are used only as long as it is unchanged."""
    client.chat("x").complete()
    monkeypatch.setenv("http_proxy", proxy.url)
    client.chat("x").complete()
    assert len(proxy.seen) == 1
    monkeypatch.delenv("http_proxy")
    client.chat("x").complete()
    assert len(proxy.seen) == 1


def test_p21_https_goes_through_a_tunnel(tls_server: LLMServer, tls_client: Client) -> None:
    """The proxy of an https URL sees CONNECT, its own credentials, and nothing of the request."""
    with Proxy(f"user:{PASSWORD}") as proxy:
        for _ in range(3):
            assert tls_client.chat("x", proxy=proxy.url).complete().text
    assert len(proxy.seen) == 1
    assert proxy.seen[0].startswith(f"CONNECT 127.0.0.1:{port_of(tls_server)} ")
    assert KEY not in proxy.seen[0]
    assert tls_server.requests[0].header("Proxy-Authorization") is None


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("credentials", ["", f"user:{PASSWORD}x@"])
def test_p21_a_proxy_that_refuses_is_an_error(
    server: LLMServer, client: Client, proxy: Proxy, scheme: str, credentials: str
) -> None:
    """407 never leads to a direct request, and the password shows nowhere."""
    url = f"http://{credentials}127.0.0.1:{proxy.port}"
    error = failure(client.chat("x", base_url=server.base_url("openai").replace("http", scheme), proxy=url))
    assert_discreet(error, PASSWORD, KEY)
    assert len(proxy.seen) == 1
    assert not server.requests


def test_p21_what_a_proxy_answers_is_said(server: LLMServer, client: Client) -> None:
    """The error has its status, but not its words: they may quote the password."""

    def refuse(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(f"HTTP/1.1 403 {PASSWORD}\r\n\r\n".encode())

    with Listener(refuse) as listener:
        url = f"http://user:{PASSWORD}@127.0.0.1:{listener.port}"
        error = failure(client.chat("x", base_url="https://127.0.0.1:9", proxy=url))
    assert type(error) is ConnectFailed
    assert "403" in error.message
    assert_discreet(error, PASSWORD, KEY)


BAD_PROXIES = [
    "foo bar",
    "http://[bad",
    "ftp://127.0.0.1",
    "http://127.0.0.1:99999",
    "http://",
    "://",
    "127.0.0.1:port",
]


@pytest.mark.parametrize("bad", BAD_PROXIES)
@pytest.mark.parametrize("session", ["own", "foreign"])
def test_p21_a_bad_proxy_of_the_environment_never_means_a_direct_request(
    server: LLMServer, client: Client, monkeypatch: pytest.MonkeyPatch, bad: str, session: str
) -> None:
    """An invalid proxy URL is a typed error."""
    monkeypatch.setenv("http_proxy", bad)
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {} if session == "own" else {"session": stack.enter_context(requests.Session())}
        failure(client.chat("x", **options))
    assert server.connections == 0


@pytest.mark.parametrize("session", ["own", "foreign"])
@pytest.mark.parametrize(
    "bad", [f"http://user:{PASSWORD}@host:99999", f"ftp://user:{PASSWORD}@host", f"u:{PASSWORD}@["]
)
def test_p21_a_bad_proxy_of_the_environment_shows_no_password(
    client: Client, monkeypatch: pytest.MonkeyPatch, bad: str, session: str
) -> None:
    """The password of an invalid proxy URL shows nowhere."""
    monkeypatch.setenv("http_proxy", bad)
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {} if session == "own" else {"session": stack.enter_context(requests.Session())}
        assert_discreet(failure(client.chat("x", **options)), PASSWORD, KEY)


def test_p21_a_dead_proxy_never_means_a_direct_request(server: LLMServer, client: Client) -> None:
    """A proxy that does not answer is an error."""
    with pytest.raises(ConnectFailed):
        list(client.chat("x", proxy=f"http://127.0.0.1:{free_port()}", retries=0))
    assert server.connections == 0


@pytest.mark.parametrize("echo", [PASSWORD, f"user:{PASSWORD}", f"Basic {BASIC}"])
def test_p21_a_password_in_the_base_url_is_sent_and_scrubbed(server: LLMServer, echo: str) -> None:
    """Credentials in base_url are sent as Basic if there is no key, and masked when echoed."""
    base_url = server.base_url("openai").replace("//", f"//user:{PASSWORD}@")
    server.script(Reply(status=401, error={"message": f"no {echo}"}), Reply("x"))
    with Client("openai-compatible:m", base_url=base_url, retries=0) as client:
        assert_discreet(failure(client.chat("x")), PASSWORD, BASIC)
        client.chat("x", api_key=KEY).complete()
    assert (server.requests[0].header("Authorization") or "").startswith("Basic ")
    assert server.requests[1].header("Authorization") == f"Bearer {KEY}"


def test_p22_certificates_are_verified(tls_server: LLMServer) -> None:
    """A certificate of an unknown authority is rejected, and nothing is sent."""
    with (
        Client("openai:m", base_url=tls_server.base_url("openai"), api_key=KEY, retries=0) as client,
        pytest.raises(ConnectFailed, match="not trusted"),
    ):
        list(client.chat("x"))
    assert not tls_server.requests


def test_p22_names_are_verified(tls_server: LLMServer, ca_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trusted certificate for another name is rejected."""
    import socket

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: real("127.0.0.1", *rest, **more))
    base_url = f"https://other.test:{port_of(tls_server)}/v1"
    with (
        Client("openai:m", base_url=base_url, verify=ca_file, retries=0) as client,
        pytest.raises(ConnectFailed, match="not trusted"),
    ):
        list(client.chat("x"))
    assert not tls_server.requests


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_p22_the_environment_may_name_a_ca(
    tls_server: LLMServer, ca_file: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """By default, the usual variables apply."""
    monkeypatch.setenv(variable, ca_file)
    with Client("openai:m", base_url=tls_server.base_url("openai")) as client:
        assert client.chat("x").complete().text


@pytest.mark.parametrize("session", ["own", "foreign"])
def test_p22_a_ca_in_code_beats_the_environment(
    tls_server: LLMServer, ca_file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, session: str
) -> None:
    """The argument overrides them, to trust and not to."""
    trustme = pytest.importorskip("trustme")
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {} if session == "own" else {"session": stack.enter_context(requests.Session())}
        client = stack.enter_context(Client("openai:m", base_url=tls_server.base_url("openai"), retries=0, **options))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
        assert client.chat("x", verify=ca_file).complete().text
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", ca_file)
        with pytest.raises(ConnectFailed):
            list(client.chat("x", verify=str(other)))
    assert len(tls_server.requests) == 1


def test_p22_a_ca_of_the_session_beats_the_environment(
    tls_server: LLMServer, ca_file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The caller's `session.verify` applies, whatever REQUESTS_CA_BUNDLE says."""
    trustme = pytest.importorskip("trustme")
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with requests.Session() as session:
        client = Client("openai:m", base_url=tls_server.base_url("openai"), retries=0, session=session)
        session.verify = ca_file
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
        assert client.chat("x").complete().text
        session.verify = str(other)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", ca_file)
        with pytest.raises(ConnectFailed):
            list(client.chat("x"))
    assert len(tls_server.requests) == 1


@pytest.mark.parametrize("session", ["own", "foreign"])
@pytest.mark.quick(1)
def test_p22_verification_off_is_never_sticky(tls_server: LLMServer, session: str) -> None:
    """verify=False holds only for its own call; the next one over the same client is rejected."""
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        options: dict[str, Any] = {} if session == "own" else {"session": stack.enter_context(requests.Session())}
        client = stack.enter_context(Client("openai:m", base_url=tls_server.base_url("openai"), retries=0, **options))
        for _ in range(2):
            assert client.chat("x", verify=False).complete().text
            with pytest.raises(ConnectFailed):
                list(client.chat("x"))
            with pytest.raises(ConnectFailed):
                list(client.chat("x", verify=True))
    assert len(tls_server.requests) == 2


def test_p22_verification_is_not_switched_off_by_the_environment(
    tls_server: LLMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No value of a variable turns verification off."""
    for value in ("", "0", "false", "False"):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", value)
        monkeypatch.setenv("CURL_CA_BUNDLE", value)
        with Client("openai:m", base_url=tls_server.base_url("openai"), retries=0) as client:
            failure(client.chat("x"))
    assert not tls_server.requests


def test_p22_a_ca_file_that_is_missing_is_said_before_anything_is_sent(tls_server: LLMServer) -> None:
    """A missing file is an error of the setup."""
    with pytest.raises(ConfigError, match="CA"):
        Client("openai:m", base_url=tls_server.base_url("openai"), verify="/nowhere/ca.pem")
    assert not tls_server.connections


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_p22_a_ca_file_that_cannot_be_used_is_said_once(
    tls_server: LLMServer, server: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A missing or invalid file is an error of the setup, but only with TLS."""
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    with Client("openai:m", base_url=tls_server.base_url("openai"), api_key=KEY, timeout=20) as client:
        for path in ("/nowhere/ca.pem", str(empty)):
            monkeypatch.setenv(variable, path)
            for session in (None, requests.Session()):
                waits: list[RetryAttempt] = []
                policy = Retry(2, backoff=0.01, on_retry=waits.append)
                with pytest.raises(ConfigError, match=variable):
                    list(client.chat("x", session=session, retries=policy))
                assert not waits
        assert list(client.chat("x", base_url=server.base_url("openai")))
    assert not tls_server.requests


def test_p23_the_body_is_strict_json_in_utf8(server: LLMServer, client: Client) -> None:
    """Requests parse under the strictest rules, with any characters in them."""
    text = 'Привет \u2028\u0085\0\x7f "\\/" 😀'
    client.chat(text, temperature=0.1, stop=("a", "b"), metadata={"ключ": [None, True, 10**30]}).complete()
    received = server.requests[0]

    def refuse(word: str) -> None:
        raise ValueError(word)

    body = json.loads(received.body.decode("utf-8"), parse_constant=refuse)
    assert body["messages"][0]["content"] == text
    assert (body["stop"], body["metadata"]) == (["a", "b"], {"ключ": [None, True, 10**30]})
    assert received.header("Content-Type") == "application/json"
    assert received.header("Content-Length") == str(len(received.body))


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("-inf"), "\ud800", {"a": "\udc00"}, {"\ud800": 1}, [float("nan")], {1, 2}, b"x", {1: 2}],
)
def test_p23_what_json_cannot_hold_is_refused_before_sending(server: LLMServer, client: Client, value: object) -> None:
    """NaN, infinity, lone surrogates, and other types are rejected at the call."""
    with pytest.raises(ConfigError):
        client.chat("x", some=value)
    with pytest.raises(ConfigError):
        Vitalentum.create_completion("m", "x", base_url=server.root, some=value)
    assert server.connections == 0


def test_p23_numbers_of_any_length_do_not_break_the_call(server: LLMServer, client: Client) -> None:
    """An int that Python refuses to write is rejected with an error of the tree."""
    with pytest.raises(ConfigError):
        list(client.chat("x", seed=10**5000))
    assert not server.requests


def test_p24_debug_logs_name_provider_status_and_times(
    server: LLMServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """The logs are useful, and harmless."""
    caplog.set_level(logging.DEBUG, "llmbridge")
    server.script(Reply("the-answer"))
    client.chat("the-prompt").complete()
    own = [record.getMessage() for record in caplog.records if record.name.startswith("llmbridge")]
    assert any("openai" in line and "200" in line for line in own)
    assert not any("the-" in line for line in own)


def test_p24_sse_lines_are_not_logged(server: LLMServer, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """The event parser's own debug lines, which quote unknown data, are off."""
    caplog.set_level(logging.DEBUG)
    server.script(Reply(body=b"the-answer\nthe-answer: x\n" + event("a", finish_reason="stop")))
    client.chat("x").complete()
    assert "the-answer" not in caplog.text


@pytest.mark.parametrize("session", ["own", "foreign"])
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_p18_a_proxy_password_that_is_echoed_does_not_show(
    server: LLMServer, client: Client, monkeypatch: pytest.MonkeyPatch, way: str, session: str
) -> None:
    """A proxy's echo of its password, plain or as it was sent, is masked."""
    server.script(Reply(status=403, body=f"no {PASSWORD} / Basic {BASIC}", content_type="text/plain"))
    url = server.root.replace("//", f"//user:{PASSWORD}@")
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {} if session == "own" else {"session": stack.enter_context(requests.Session())}
        if way == "argument":
            options["proxy"] = url
        else:
            monkeypatch.setenv("http_proxy", url)
        error = failure(client.chat("x", base_url=ELSEWHERE, **options))
    assert server.requests[0].header("Proxy-Authorization") == f"Basic {BASIC}"
    assert isinstance(error, StatusError)
    assert "***" in error.body
    assert_discreet(error, PASSWORD, BASIC)


def test_p18_the_authorization_of_a_session_that_is_echoed_does_not_show(server: LLMServer) -> None:
    """A key known only to the caller's session is masked like an argument."""
    server.script(Reply(status=401, body=f"Incorrect key {PASSWORD}", content_type="text/plain"))
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {PASSWORD}"
        with Client("m", base_url=server.base_url("openai"), session=session, retries=0) as client:
            error = failure(client.chat("x"))
    assert server.requests[0].header("Authorization") == f"Bearer {PASSWORD}"
    assert "***" in str(error)
    assert_discreet(error, PASSWORD)


@pytest.mark.parametrize("model", ["openai/gpt-oss-20b", "openai"])
def test_p20_a_model_that_is_called_like_a_provider_takes_no_key_of_the_environment(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """With a base_url, a name with a slash is the model's own, and the provider's key is not sent."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    chat("x", model, base_url=server.base_url("openai")).complete()
    assert server.requests[0].json["model"] == model
    assert server.requests[0].header("Authorization") is None


@pytest.mark.parametrize("name", ["Set-Cookie", "Set-Cookie2"])
def test_p17_no_cookies_are_kept(server: LLMServer, client: Client, name: str) -> None:
    """A cookie of one answer is not sent with the next request."""
    server.default = Reply("x", headers={name: "session=1; Path=/"})
    for _ in range(3):
        client.chat("x").complete()
    assert not any(request.header("Cookie") for request in server.requests)


def test_p18_standard_streams_stay_clean(server: LLMServer) -> None:
    """A whole process with every debug switch on, in good and bad calls, prints no key."""
    code = (
        "import http.client, logging, sys; http.client.HTTPConnection.debuglevel = 2; "
        "logging.basicConfig(level=1); from llmbridge import Client, LLMBridgeError\n"
        "c = Client('openai:m', base_url=sys.argv[1], retries=1)\n"
        "for _ in range(2):\n"
        "    try: c.chat('x').complete()\n"
        "    except LLMBridgeError as error: logging.exception('failed')\n"
    )
    server.script(Reply("x"), Reply(status=401, error={"message": f"bad {KEY}"}))
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code, server.base_url("openai")],
        capture_output=True, text=True, timeout=20, env={**os.environ, "OPENAI_API_KEY": KEY},
    )  # fmt: skip
    assert done.returncode == 0
    assert "bad ***" in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert "Warning" not in done.stderr


def test_p20_p22_a_plain_server_behind_https_gets_nothing() -> None:
    """A server that should speak TLS but does not never sees the request."""
    seen = io.BytesIO()

    def serve(sock: Any) -> None:
        seen.write(sock.recv(65536))
        sock.sendall(b"HTTP/1.1 400 Bad\r\n\r\n")

    with (
        Listener(serve) as listener,
        Client("openai:m", base_url=f"https://127.0.0.1:{listener.port}") as client,
        pytest.raises(ConnectFailed),
    ):
        list(client.chat("x", api_key=KEY, retries=0))
    assert KEY.encode() not in seen.getvalue()


@pytest.mark.parametrize("way", ["chat", "models", "embed"])
def test_p20_a_clients_key_does_not_go_to_another_provider(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A key belongs to one service. Another provider, at its own address, finds its own key, or none."""
    monkeypatch.setenv("OLLAMA_HOST", server.base_url("ollama"))
    with Client("openai:m", api_key=KEY, headers={"X-Api-Key": KEY, "X-Team": "a"}, proxy=False) as client:
        if way == "chat":
            client.chat("Hi", "ollama:m").complete()
        elif way == "models":
            client.models("ollama")
        else:
            client.embed("Hi", "ollama:m")
    (received,) = server.requests
    assert KEY not in str(received.headers)
    assert received.header("X-Team") == "a"


def test_p20_a_clients_key_goes_to_all_providers_at_its_own_address(server: LLMServer) -> None:
    """One gateway, several models: the key was given for that host."""
    with Client("openai:m", api_key=KEY, base_url=server.root, proxy=False) as client:
        client.chat("Hi", "anthropic:m").complete()
        client.chat("Hi", "another-model", base_url=server.base_url("openai")).complete()
    assert server.requests[0].header("x-api-key") == KEY
    assert KEY not in str(server.requests[1].headers)


def test_the_objects_in_a_traceback_keep_their_secrets_masked(server: LLMServer, client: Client) -> None:
    """P18: crash reports show the locals of frames, as `vars` does."""
    server.script(Reply(error={"message": f"bad key {KEY}", "type": "authentication_error"}, status=401))
    with pytest.raises(LLMBridgeError) as caught:
        client.chat("x").complete()
    trace, shown = caught.value.__traceback__, []
    while trace is not None:
        if str(trace.tb_frame.f_code.co_filename).startswith(PACKAGE):
            shown += [repr(vars(value)) for value in trace.tb_frame.f_locals.values() if hasattr(value, "__dict__")]
        trace = trace.tb_next
    assert any("_secrets" in text for text in shown)
    assert KEY not in "".join(shown)


def test_a_key_with_a_slash_stays_hidden_in_an_error_of_php(server: LLMServer) -> None:
    """P18: PHP's JSON escapes each slash, in an answer and within a stream."""
    key = "sk-ab/cdefghijkl"
    body = b'{"error": {"message": "Incorrect API key: sk-ab\\/cdefghijkl", "code": "sk-ab\\/cdefghijkl"}}'
    with Client("openai:m", base_url=server.base_url("openai"), api_key=key, retries=0) as client:
        server.script(
            Reply(raw=[head(f"Content-Length: {len(body)}", status="401 Unauthorized", kind="application/json"), body]),
            Reply(raw=[head("Connection: close"), b"data: " + body + b"\n\n", CLOSE]),
        )
        for _ in range(2):
            with pytest.raises(LLMBridgeError) as caught:
                client.chat("x").complete()
            assert "cdefghijkl" not in repr(vars(caught.value)) + str(caught.value)
            assert "***" in str(vars(caught.value)["body"])
