"""Headers are read with the same result as by http.client, but faster if they are ordinary."""

from __future__ import annotations

import http.client
import io
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge._transport.connections import _Response

OK = b"HTTP/1.1 200 OK\r\n"
USUAL = [
    OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    OK + b"content-length: 12\r\nX-A: \t b \xe9 \r\nx-a: c\r\nConnection: close\r\n\r\n",
    OK + b"Content-Length: 0\r\nEmpty:\r\nColons: a:b: c\r\n\r\n",
    OK + b"Transfer-Encoding: Chunked\r\nContent-Length: 7\r\n\r\n",
    OK + b"Server: x\r\n\r\n",
    OK + b"\r\n",
    b"HTTP/1.1 404  Not Found \r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n",
]
UNUSUAL = [
    b"HTTP/1.0 200 OK\r\nContent-Length: 12\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 12\r\n\r\n",
    b"HTTP/1.2 200 OK\r\nContent-Length: 12\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\n\r\n",
    OK + b"Folded: a\r\n b\r\nContent-Length: 12\r\n\r\n",
    OK + b"Server: x\nContent-Length: 12\n\n",
    OK + b"Server: x\rContent-Length: 12\r\n\r\n",
    OK + b"Nul: a\0b\r\nContent-Length: 12\r\n\r\n",
    OK + b"no header line\r\nContent-Length: 12\r\n\r\n",
    OK + b": no name\r\nContent-Length: 12\r\n\r\n",
    OK + b"Space : before\r\nContent-Length: 12\r\n\r\n",
    OK + b"Content-Length: +12\r\n\r\n",
    OK + b"Content-Length: -12\r\n\r\n",
    OK + b"Content-Length: 1_2\r\n\r\n",
    OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    OK + b"Transfer-Encoding: identity\r\nContent-Length: 12\r\n\r\n",
]
NAMES = st.sampled_from(
    [b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"CONNECTION", b"Set-Cookie", b"X~!'"]
)
VALUES = st.sampled_from(
    [
        b"",
        b"0",
        b"12 ",
        b"7",
        b"012",
        b"+1",
        b"1, 1",
        b"chunked",
        b"Chunked",
        b"gzip, chunked",
        b"Close, x",
        b"a:b",
        b"\x85",
    ]
)
USUAL_LINES = st.tuples(NAMES, st.just(b": "), VALUES, st.just(b"\r\n")).map(b"".join)
LINES = st.tuples(
    NAMES | st.binary(max_size=4),
    st.sampled_from([b":", b": ", b":\t ", b" :", b""]),
    VALUES | st.binary(max_size=9),
    st.sampled_from([b"\r\n"] * 9 + [b"\n", b"\r\n ", b" \r\n"]),
).map(b"".join)
BLOCKS = st.lists(USUAL_LINES, max_size=9) | st.lists(LINES, max_size=9)


class FakeSocket:
    """The socket of an answer."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any) -> io.BufferedReader:
        """Its file."""
        return io.BufferedReader(io.BytesIO(self._data))  # type: ignore[arg-type]


def read(kind: type[Any], data: bytes, method: str) -> tuple[Any, ...]:
    """The attributes of a response after its headers, and the bytes after them."""
    response = kind(FakeSocket(data), method=method)
    response.begin()
    status = response.status, response.code, response.reason, response.version
    framing = response.chunked, response.length, response.will_close
    defects = [type(defect) for defect in response.msg.defects]
    return status, framing, response.getheaders(), response.msg.get_payload(), defects, response.fp.read()


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("data", USUAL + UNUSUAL)
def test_headers_are_read_as_http_client_does(data: bytes, method: str) -> None:
    """Any headers give the same result."""
    assert read(_Response, data + b"body", method) == read(http.client.HTTPResponse, data + b"body", method)


@given(BLOCKS)
def test_any_headers_are_read_as_http_client_does(lines: list[bytes]) -> None:
    """Names in any case, repeated ones, folded lines, empty values and wrong bytes."""
    data = OK + b"".join(lines) + b"\r\n\r\nbody"
    assert read(_Response, data, "POST") == read(http.client.HTTPResponse, data, "POST")


@pytest.mark.parametrize("data", USUAL)
def test_usual_headers_are_read_without_the_parser_of_mails(data: bytes) -> None:
    """The parser takes five times as long."""
    with patch.object(http.client, "parse_headers", side_effect=AssertionError):
        read(_Response, data + b"body", "POST")
