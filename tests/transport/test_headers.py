"""Headers are read with the same result as by http.client, but faster if they are ordinary."""

from __future__ import annotations

import http.client
import io
from typing import Any
from unittest.mock import patch

import pytest

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


@pytest.mark.parametrize("data", USUAL)
def test_usual_headers_are_read_without_the_parser_of_mails(data: bytes) -> None:
    """The parser takes five times as long."""
    with patch.object(http.client, "parse_headers", side_effect=AssertionError):
        read(_Response, data + b"body", "POST")
