"""What a client sent: one HTTP/1.x request, read as it came and kept unchanged."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field, replace
from typing import Any

from . import asked
from .connection import Connection, MalformedRequest

__all__ = ["Received", "read_request"]

_MODEL_IN_PATH = re.compile(r"/(?:models|tunedModels|deployments)/([^/:]+)[:/]")
_HEAD_LIMIT = 1 << 20
_BODY_LIMIT = 1 << 30


@dataclass(frozen=True, eq=False)
class Received:
    """One request as the server saw it.

    Attributes:
        method: as sent, for example `POST`.
        path: the request target with its query, as sent (a full URL if the client took the server for a proxy).
        headers: (name, value) pairs in the order and case in which they came.
        body: the bytes of the body, without any transfer coding.
        connection: which TCP connection of the server it came on, counted from 1.
        gone: set as soon as the server saw the client leave that connection (FIN, RST), while it answered or after;
            not set when the server itself tore the connection down.
        version: `HTTP/1.1` or `HTTP/1.0`.
    """

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int
    gone: threading.Event = field(repr=False)
    version: str = "HTTP/1.1"

    def header(self, name: str) -> str | None:
        """The first header of that name in any case, or None."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    @property
    def json(self) -> Any:
        """The body parsed as JSON; a body that is none raises ValueError."""
        return json.loads(self.body)

    @property
    def route(self) -> str:
        """The path alone: no query, and no scheme and host if a full URL was sent."""
        path = self.path.partition("?")[0]
        return path if path.startswith("/") else "/" + path.partition("://")[2].partition("/")[2]

    @property
    def model(self) -> str | None:
        """The model that was asked for, in the body or, as Gemini and Azure have it, in the path; None without one."""
        found = _MODEL_IN_PATH.search(self.route)
        if found:
            return found[1]
        model = self.fields.get("model")
        return model if isinstance(model, str) else None

    @property
    def turns(self) -> list[asked.Turn]:
        """The conversation in the order of the request, instructions first, whatever the dialect.

        Each has a `role`, as the dialect calls it, and a `text`; results of tools have the role `tool`. Empty where
        the body is no chat request.
        """
        return asked.turns(self.fields)

    @property
    def user_text(self) -> str:
        """What the user said last; "" where nothing can be found."""
        texts = [turn.text for turn in self.turns if turn.role in ("user", "human")]
        # JSON may smuggle in lone surrogates, which an answer could not carry.
        return texts[-1].encode("utf-8", "replace").decode() if texts else ""

    @property
    def tools(self) -> list[asked.Tool]:
        """The tools on offer, whatever the dialect: each has a `name`, a `description` and a schema `parameters`."""
        return asked.tools(self.fields)

    def with_json(self, value: Any) -> Received:
        """The same request with another body."""
        return replace(self, body=json.dumps(value).encode())

    @property
    def fields(self) -> dict[str, Any]:
        """The body as a JSON object; {} if it is none."""
        try:
            parsed = self.json
        except (ValueError, RecursionError):
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @property
    def wants_close(self) -> bool:
        """Whether the client asked for the connection to end with this answer (RFC 9112, 9.3)."""
        options = [option.strip() for option in (self.header("Connection") or "").lower().split(",")]
        return "close" in options or (self.version == "HTTP/1.0" and "keep-alive" not in options)


def read_request(connection: Connection) -> Received:
    """The next request of a connection.

    Raises:
        MalformedRequest: what came is not HTTP/1.x.
        ClientGone: the client left before a whole request had come.
    """
    head = b""
    while not head:  # RFC 9112, 2.2: empty lines in front of a request are to be ignored
        head = connection.read_until(b"\r\n\r\n", _HEAD_LIMIT).lstrip(b"\r\n")
    method, path, version, headers = _parse_head(head)
    request = Received(method, path, headers, b"", connection.number, connection.gone, version)
    if (request.header("Expect") or "").lower() == "100-continue":
        connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = _read_body(connection, request)
    return Received(method, path, headers, body, connection.number, connection.gone, version)


def _parse_head(head: bytes) -> tuple[str, str, str, list[tuple[str, str]]]:
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise MalformedRequest(f"not an HTTP/1.x request line: {first[:80]!r}")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise MalformedRequest(f"not a header line: {line[:80]!r}")
        headers.append((name, value.strip(" \t")))
    return words[0], words[1], words[2], headers


def _read_body(connection: Connection, request: Received) -> bytes:
    if (request.header("Transfer-Encoding") or "").lower() == "chunked":
        return _read_chunks(connection)
    length = request.header("Content-Length") or "0"
    if not (length.isascii() and length.isdigit()) or int(length) > _BODY_LIMIT:
        raise MalformedRequest(f"not a content length: {length[:80]!r}")
    return connection.read_exactly(int(length))


def _read_chunks(connection: Connection) -> bytes:
    body = bytearray()
    while True:
        line = connection.read_until(b"\r\n", _HEAD_LIMIT)
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            raise MalformedRequest(f"not a chunk size: {line[:80]!r}") from None
        if size == 0:
            while connection.read_until(b"\r\n", _HEAD_LIMIT) != b"\r\n":
                continue
            return bytes(body)
        if size < 0 or len(body) + size > _BODY_LIMIT:
            raise MalformedRequest(f"not a chunk size: {line[:80]!r}")
        body += connection.read_exactly(size)
        connection.read_exactly(2)
