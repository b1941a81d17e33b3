"""The processes of `benchmarks.dialects`: a server that sends any dialect's bytes, and a worker per contender.

    python -m benchmarks.dialect_processes serve
    python -m benchmarks.dialect_processes work DIALECT floor
    python -m benchmarks.dialect_processes work DIALECT llmbridge [PATH]   the package in that directory

A request's path chooses the answer: `/{dialect}/{events per chunk}/{events}/...`.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from benchmarks.contenders import Pieces, dechunk
from benchmarks.dialect_events import DIALECTS, Dialect
from benchmarks.server import BenchServer, _chunk, _head
from benchmarks.worker import check, run

FLOOR = "floor"


@cache
def writes(dialect: str, step: int, events: int) -> list[bytes]:
    """Everything sent for one request: each item is one send."""
    stream = DIALECTS[dialect].stream(events)
    groups = (b"".join(stream[start : start + step]) for start in range(0, len(stream), step))
    return [_head("Transfer-Encoding: chunked"), *(_chunk(group) for group in groups if group), b"0\r\n\r\n"]


def answer(connection: socket.socket, path: str) -> None:
    """Send what the path requests."""
    _, dialect, step, events, *_ = path.split("/")
    send = connection.sendall
    for data in writes(dialect, int(step), int(events)):
        send(data)


def serve() -> None:
    """Serve until standard input ends."""
    server = BenchServer(answer)
    server.start()
    print(server.port, flush=True)
    sys.stdin.read()


def floor(dialect: Dialect, base_url: str) -> Pieces:
    """A raw socket and the standard library: the same bytes, split into events and parsed for their text."""
    parts = urlsplit(base_url)
    connection = socket.create_connection((parts.hostname, parts.port or 80))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = json.dumps({"model": "bench", "messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    def pieces() -> Iterator[str]:
        connection.sendall(head + body)
        wire = b""
        while b"\r\n\r\n" not in wire:
            wire += connection.recv(65536)
        wire = wire.partition(b"\r\n\r\n")[2]
        events = b""
        ended = False
        while not ended:
            data, wire, ended = dechunk(wire)
            frames = (events + data).split(dialect.separator)
            events = frames.pop()
            yield from dialect.pieces(frames)
            if not ended:
                received = connection.recv(65536)
                if not received:
                    raise ConnectionResetError("the server closed the connection")
                wire += received

    return pieces


def llmbridge(dialect: Dialect, base_url: str) -> Pieces:
    """The package, using only its public names."""
    client = import_module("llmbridge").Client(dialect.model, base_url=base_url, api_key="x")

    def pieces() -> Iterable[str]:
        stream: Iterable[str] = client.chat("hi")
        return stream

    return pieces


def work(name: str, who: str) -> None:
    """Answer jobs, one line of JSON each, until standard input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # other output must not get between the answers
    pieces: Pieces | None = None
    for line in sys.stdin:
        job = json.loads(line)
        reply: dict[str, Any] = {}
        if "open" in job:
            pieces = (floor if who == FLOOR else llmbridge)(DIALECTS[name], job["open"])
        elif pieces is None:
            raise SystemExit(f"{name}: a job came before its client was created")
        else:
            reply = check(pieces) if "check" in job else run(pieces, job["run"])
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        sys.path[:0] = sys.argv[4:]  # before this tree's own package
        work(*sys.argv[2:4])
