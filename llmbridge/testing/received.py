"""A request that a client sent: HTTP/1.x, kept unchanged."""

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
        method: As sent, like `POST`.
        path: The request target with its query, as sent (a full URL if the client uses the server as a proxy).
        headers: (name, value) pairs in their original order and case.
        body: The bytes of the body, without transfer coding.
        connection: The number of the TCP connection it came on, counted from 1.
        gone: Set once the server sees the client leave that connection (FIN, RST), during its answer or later; not set
            if the server itself reset it.
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
        """The first header of that name, in any letter case, or None."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    @property
    def json(self) -> Any:
        """The body parsed as JSON; raises ValueError if it is not JSON."""
        return json.loads(self.body)

    @property
    def route(self) -> str:
        """The path without the query, and without scheme and host if a full URL was sent."""
        path = self.path.partition("?")[0]
        return path if path.startswith("/") else "/" + path.partition("://")[2].partition("/")[2]

    @property
    def model(self) -> str | None:
        """The requested model, from the body or, as for Gemini and Azure, from the path; None without one."""
        found = _MODEL_IN_PATH.search(self.route)
        if found:
            return found[1]
        model = self.fields.get("model")
        return model if isinstance(model, str) else None

    @property
    def turns(self) -> list[asked.Turn]:
        """The conversation in the order of the request, instructions first, for every dialect.

        Each turn has a `role`, as the dialect calls it, and a `text`; tools' results have the role `tool`. Empty if the
        body is not a chat request.
        """
        return asked.turns(self.fields)

    @property
    def user_text(self) -> str:
        """The last text of the user; "" if there is none."""
        texts = [turn.text for turn in self.turns if turn.role in ("user", "human")]
        # JSON may contain lone surrogates, which an answer could not carry.
        return texts[-1].encode("utf-8", "replace").decode() if texts else ""

    @property
    def tools(self) -> list[asked.Tool]:
        """The tools in the request, for every dialect: each has a `name`, a `description` and a schema `parameters`."""
        return asked.tools(self.fields)

    def with_json(self, value: Any) -> Received:
        """The same request with another body."""
        return replace(self, body=json.dumps(value).encode())

    @property
    def fields(self) -> dict[str, Any]:
        """The body as a JSON object; {} if it is something else."""
        try:
            parsed = self.json
        except (ValueError, RecursionError):
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @property
    def wants_close(self) -> bool:
        """Whether the client wants the connection closed after this answer (RFC 9112, 9.3)."""
        options = [option.strip() for option in (self.header("Connection") or "").lower().split(",")]
        return "close" in options or (self.version == "HTTP/1.0" and "keep-alive" not in options)


def read_request(connection: Connection) -> Received:
    """The next request of a connection.

    Raises:
        MalformedRequest: It is not HTTP/1.x.
        ClientGone: The client left before sending a whole request.
    """
    head = b""
    while not head:  # RFC 9112, 2.2: ignore empty lines before a request
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
