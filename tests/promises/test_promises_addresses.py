"""P35: many headers are read, and a wrong address gives a helpful error."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
from conftest import KEY
from loopback import DONE, FINISH, Listener, chunk, event, free_port, head, read_head
from modes import Mode

from llmbridge import (
    BadRequest,
    Client,
    ClockExpired,
    ConfigError,
    ConnectFailed,
    LLMBridgeError,
    NotFound,
    ProtocolError,
    Retry,
    Timeout,
)
from llmbridge.testing import LLMServer, Reply
from llmbridge.testing.faults import self_signed_context

QUICK = Retry(2, backoff=0.01)
WHOLE = event("Hi") + FINISH + DONE


def answering(answer: bytes) -> Listener:
    """A server that reads the head of each request and sends this."""

    def serve(sock: socket.socket) -> None:
        if read_head(sock):
            sock.sendall(answer)

    return Listener(serve)


def lines(count: int, size: int = 10) -> tuple[str, ...]:
    """So many header lines."""
    return tuple(f"X-H-{number}: {'v' * size}" for number in range(count))


def error_of(mode: Mode, base_url: str, model: str = "openai:m", **options: Any) -> LLMBridgeError:
    """The error of a chat there."""
    with Client(model, base_url=base_url, api_key=KEY, retries=QUICK, timeout=20, proxy=False) as client:
        error = mode.read(client.chat("x", **options)).error
    assert error is not None
    return error


MANY = {
    "100": lines(100),
    "5,000": lines(5_000),
    "long": lines(20, 12_000),
    "one": lines(1, 250_000),
    "the-block-of-a-line-end": lines(1, 65_537 - len("X-H-0: \r\n")),
}


class TestHeaders:
    """All headers of a reasonable size are read, over any session."""

    @pytest.mark.parametrize("own", [True, False], ids=["own", "session"])
    @pytest.mark.parametrize("name", MANY)
    def test_p35_many_headers_are_read(self, mode: Mode, name: str, own: bool) -> None:
        """http.client rejects more than 100 of them, and more than 64 KiB in one."""
        with answering(head(*MANY[name], "X-Request-Id: r-1", "Connection: close") + WHOLE) as server:
            session = None if own else requests.Session()
            client = Client("openai:m", base_url=server.root + "/v1", api_key=KEY, retries=0, session=session)
            stream = client.chat("x", proxy=False)
            assert mode.read(stream).pieces == ["Hi"]
            assert stream.request_id == "r-1"
            client.close()
            if session is not None:
                session.close()

    @pytest.mark.parametrize("status", ["100 Continue", "102 Processing", "103 Early Hints"])
    def test_p35_before_the_answer_too(self, mode: Mode, status: str) -> None:
        """Also those of an interim answer."""
        early = "\r\n".join([f"HTTP/1.1 {status}", *lines(150), "", ""]).encode()
        with (
            answering(early + head("X-Request-Id: r-1", "Connection: close") + WHOLE) as server,
            Client("openai:m", base_url=server.root + "/v1", api_key=KEY, retries=0, proxy=False) as client,
        ):
            stream = client.chat("x")
            assert mode.read(stream).pieces == ["Hi"]
            assert stream.request_id == "r-1"

    @pytest.mark.parametrize(
        "endless",
        [
            head()[:-2] + b"X: y\r\n" * 60_000,
            head()[:-2] + b"X: " + b"y" * 300_000,
            b"HTTP/1.1 103 Early\r\n\r\n" * 140_000,
        ],
        ids=["lines", "one-line", "early-answers"],
    )
    @pytest.mark.quick(2)
    def test_p35_there_is_an_end_to_them(self, mode: Mode, endless: bytes) -> None:
        """Endless headers are not kept in memory, and give a clear error."""
        with answering(endless) as server:
            error = error_of(mode, server.root + "/v1")
            assert server.accepted == 1
        assert isinstance(error, ProtocolError)
        assert error.message.endswith("sent more than 256 kB of headers")

    def test_p35_a_proxy_may_send_many(self, mode: Mode) -> None:
        """Only the status of a proxy's answer to CONNECT counts, however many headers it has."""
        refusal = "\r\n".join(["HTTP/1.1 503 No", *lines(150), "", ""]).encode()
        with (
            answering(refusal) as proxy,
            Client("openai:m", base_url="https://llm.example/v1", api_key=KEY, retries=0, proxy=proxy.root) as client,
        ):
            error = mode.read(client.chat("x")).error
        assert isinstance(error, ConnectFailed)
        assert error.message.endswith("which answered 503")

    def test_p35_a_long_trailer_costs_no_answer(self, mode: Mode) -> None:
        """The payload of a whole JSON document has arrived by then."""
        document = b'{"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}'
        body = chunk(document) + b"0\r\nX-Signature: " + b"s" * 20_000 + b"\r\n\r\n"
        with (
            answering(head("Transfer-Encoding: chunked", kind="application/json") + body) as server,
            Client("openai:m", base_url=server.root + "/v1", api_key=KEY, retries=0, proxy=False) as client,
        ):
            assert mode.complete(client.chat("x")).text == "Hi"


def _reset(sock: socket.socket) -> None:
    read_head(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _says(data: bytes) -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.sendall(data)

    return serve


_TITLE = b"<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>"
_APACHE = b"<title>400 Bad Request</title>Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />"

TLS_PORTS = {
    "resets": (_reset, "before it answered: is it an https:// server?"),
    "closes": (read_head, "closed the connection before it answered: is it an https:// server?"),
    "alerts": (_says(b"\x15\x03\x01\x00\x02\x02\x46"), "speaks TLS: write https://"),
    "go": (
        _says(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"),
        "it speaks TLS: write https://",
    ),
    "nginx": (_says(b"HTTP/1.1 400 Bad Request\r\n\r\n" + _TITLE), "it speaks TLS: write https://"),
    "apache": (_says(b"HTTP/1.1 400 Bad Request\r\n\r\n" + _APACHE), "it speaks TLS: write https://"),
}


class TestSchemes:
    """http on a TLS port, and TLS on an http port."""

    @pytest.mark.parametrize("name", TLS_PORTS)
    def test_p35_http_on_a_tls_port(self, mode: Mode, name: str) -> None:
        """The error says so, and is not retried."""
        serve, said = TLS_PORTS[name]
        with Listener(serve) as server:
            error = error_of(mode, server.root + "/v1")
            assert server.accepted == 1
        assert said in error.message

    def test_p35_http_on_a_server_that_speaks_tls(self, mode: Mode) -> None:
        """A real TLS server."""
        with LLMServer(ssl_context=self_signed_context()) as server:
            error = error_of(mode, server.base_url("openai").replace("https", "http"))
        assert "is it an https:// server?" in error.message

    def test_p35_tls_on_an_http_port_is_final(self, mode: Mode) -> None:
        """A port without TLS is not retried."""
        with Listener(_says(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
            error = error_of(mode, server.root.replace("http", "https") + "/v1")
            assert server.accepted == 1
        assert isinstance(error, ConnectFailed)
        assert "the server speaks plain HTTP; write http://" in error.message

    @pytest.mark.parametrize("serve", [lambda sock: sock.recv(9_999), lambda sock: None], ids=["closes", "resets"])
    def test_p35_tls_that_is_cut_off_is_asked_about(self, mode: Mode, serve: Callable[[socket.socket], Any]) -> None:
        """The server may be about to start: it is retried."""
        with Listener(serve) as server:
            error = error_of(mode, server.root.replace("http", "https") + "/v1")
            assert server.accepted == 3
        assert error.message.endswith("does it speak plain http://?")

    @pytest.mark.parametrize("clock", ["connect", "total"])
    @pytest.mark.slow
    def test_p35_a_server_that_waits_for_more_is_asked_about(self, mode: Mode, clock: Any) -> None:
        """The shorter timeout expires: a plain number for `timeout` is the total."""
        with (
            Listener(lambda sock: sock.recv(1) and time.sleep(1.5)) as server,
            Client(
                "openai:m",
                base_url=server.root.replace("http", "https"),
                api_key=KEY,
                retries=0,
                timeout=Timeout(**{clock: 0.5}),
            ) as client,
        ):
            error = mode.read(client.chat("x")).error
            host = server.root.rpartition("/")[2]
        assert isinstance(error, ClockExpired)
        assert error.clock == clock
        assert f"no TLS answer from {host}" in error.message
        assert error.message.endswith("does it speak plain http://?")

    def test_p35_a_plain_proxy_that_is_taken_for_one_with_tls(self, mode: Mode) -> None:
        """The proxy's URL is wrong."""
        with (
            Listener(_says(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as proxy,
            Client(
                "openai:m",
                base_url="https://llm.example/v1",
                api_key=KEY,
                retries=QUICK,
                proxy=f"https://localhost:{proxy.port}",  # urllib3 1.26.5 takes no address there
            ) as client,
        ):
            error = mode.read(client.chat("x")).error
            assert proxy.accepted == 1
        assert error is not None
        assert "the proxy speaks plain HTTP; write http:// in its URL" in error.message

    def test_p35_a_redirect_to_tls(self, mode: Mode) -> None:
        """The error suggests to change only the scheme."""
        location = ""

        def serve(sock: socket.socket) -> None:
            read_head(sock)
            sock.sendall(f"HTTP/1.1 301 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())

        with Listener(serve) as server:
            location = server.root.replace("http", "https") + "/v1/chat/completions"
            error = error_of(mode, server.root + "/v1")
            assert error.message.endswith("redirects are not followed: write https://")
            location = "https://login.example/"
            assert error_of(mode, server.root + "/v1").message.endswith("give the right base_url")


NOT_FOUND = head("Content-Length: 22", status="404 Not Found", kind="application/json") + b'{"detail":"Not Found"}'
MOSTLY = "OpenAI-compatible servers mostly want base_url to end in /v1"
PLACES = [
    ("openai", "", MOSTLY),
    ("openai", "/api", MOSTLY),
    ("openai", "/v1/v1", "leave one /v1 out of base_url"),
    ("openai-responses", "", MOSTLY),
    ("groq", "", MOSTLY),
    ("vllm", "", MOSTLY),
    ("mistral", "", MOSTLY),
    ("perplexity", "/v1", "leave /v1 out of base_url"),
    ("anthropic", "/v1", "leave /v1 out of base_url"),
    ("gemini", "/v1", "leave /v1 out of base_url"),
    ("gemini", "/v1beta/openai", "base_url is usually like https://generativelanguage.googleapis.com"),
    ("ollama", "/v1", "leave /v1 out of base_url"),
    ("ollama", "/api", "leave /api out of base_url"),
    ("cohere", "/v2", "leave /v2 out of base_url"),
    ("vertex", "/v1", "leave /v1 out of base_url"),
    ("vertex-anthropic", "/v1", "leave /v1 out of base_url"),
    ("azure", "/openai", "leave /openai out of base_url"),
    ("azure", "/openai/deployments/m", "base_url is usually like https://NAME.openai.azure.com"),
]


class TestPaths:
    """A base URL whose path is too short or too long."""

    @pytest.mark.parametrize(("provider", "path", "said"), PLACES)
    def test_p35_nothing_below_a_base_url(self, mode: Mode, provider: str, path: str, said: str) -> None:
        """The error has the request, and what is likely wrong."""
        place = {"project": "p", "location": "l"} if provider.startswith("vertex") else {}
        with answering(NOT_FOUND) as server:
            error = error_of(mode, server.root + path, f"{provider}:m", **place)
            assert server.accepted == 1
            assert error.message.startswith(f"POST {server.root}{path}/")
        assert isinstance(error, NotFound)
        assert error.message.endswith(f"answered 404: Not Found ({said})")

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (head(status="405 Method Not Allowed") + b'{"detail":"Method Not Allowed"}', BadRequest),
            (head(kind="text/html") + b"<!doctype html><title>Open WebUI</title>", ProtocolError),
            (head(kind="application/json") + b'{"status": "ok"}', ProtocolError),
            (
                head(kind="application/json") + b'{"error":"Unexpected endpoint or method. (POST /chat/completions)"}',
                LLMBridgeError,
            ),
        ],
        ids=["405", "html", "json", "lm-studio"],
    )
    def test_p35_other_answers_than_404(self, mode: Mode, answer: bytes, kind: type[LLMBridgeError]) -> None:
        """Some servers have a page for every path."""
        with answering(answer) as server:
            error = error_of(mode, server.root)
            assert server.accepted == 1
        assert isinstance(error, kind)
        assert error.message.endswith(f"({MOSTLY})")

    def test_p35_a_model_that_is_not_there(self, mode: Mode) -> None:
        """The base URL is right then: the error gives no misleading hint."""
        with LLMServer(Reply("the model 'm' does not exist", status=404)) as server:
            error = error_of(mode, server.root)
        assert isinstance(error, NotFound)
        assert MOSTLY not in error.message

    def test_p35_a_sound_base_url(self, mode: Mode) -> None:
        """The error has only the usual hint."""
        with answering(NOT_FOUND) as server:
            error = error_of(mode, server.root + "/openai/v1")
        assert error.message.endswith("(check the model's name and the base_url)")

    @pytest.mark.parametrize("model", ["ollama:m", "ollama-v1:m", "vllm:m"])
    def test_p35_a_server_of_ones_own_that_is_not_there(self, mode: Mode, model: str) -> None:
        """The error says how to start the server, and which variable holds its address."""
        error = error_of(mode, f"http://127.0.0.1:{free_port()}", model)
        assert isinstance(error, ConnectFailed)
        started, variable = ("vllm serve", "VLLM_BASE_URL") if "vllm" in model else ("ollama serve", "OLLAMA_HOST")
        assert error.message.endswith(f": start it with {started!r}, or say where it is with {variable}")

    @pytest.mark.parametrize(
        ("url", "front"),
        [
            ("127.0.0.1:8080/v1", "put http:// in front"),
            ("localhost:11434", "put http:// in front"),
            ("llm.example/v1", "put http:// or https:// in front"),
            ("llm.example:8000", "put http:// or https:// in front"),
        ],
    )
    def test_p35_a_base_url_without_a_scheme(self, url: str, front: str) -> None:
        """The error says what is missing."""
        with pytest.raises(ConfigError, match=f": {front}$"):
            Client("openai:m", base_url=url)

    @pytest.mark.parametrize("url", ["http:/llm.example/v1", "/v1", "x y", ""])
    def test_p35_what_no_scheme_would_mend(self, url: str) -> None:
        """The error does not suggest a scheme."""
        with pytest.raises(ConfigError, match=r"like http://127\.0\.0\.1:8080$"):
            Client("openai:m", base_url=url)
