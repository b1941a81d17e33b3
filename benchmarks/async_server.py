"""A server of any number of paced streams in one thread with a selector: 1,000 threads could not keep the pace.

`python -m benchmarks.async_server` prints its port, answers each line on standard input with the number of TCP
connections accepted so far, and ends with its standard input.
"""

from __future__ import annotations

import contextlib
import heapq
import re
import resource
import selectors
import socket
import sys
import time

from benchmarks.server import _writes


class Connection:
    """A client's connection: its request, and what is still to be sent."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.writes: list[bytes] = []
        self.next = 0
        self.interval = 0.0
        self.due = 0.0
        self.unsent = b""


class PacedServer:
    """Any number of streams from one thread.

    /paced/{events}/{microseconds}/v1/chat/completions    this much time between two sends; the last one ends the answer
    /whole/{events}/{microseconds}/v1/chat/completions    everything in one send, after this much time
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        self._due: list[tuple[float, int, Connection]] = []
        self._number = 0
        self._accepted = 0

    def serve(self) -> None:
        """Serve until standard input ends."""
        print(self._listener.getsockname()[1], flush=True)
        while True:
            wait = max(0.0, self._due[0][0] - time.perf_counter()) if self._due else None
            for key, mask in self._selector.select(wait):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is sys.stdin:
                    if not sys.stdin.readline():
                        return  # the parent has ended
                    print(self._accepted, flush=True)
                elif mask & selectors.EVENT_READ:
                    self._receive(key.data)
                else:
                    self._send(key.data, b"")
            now = time.perf_counter()
            while self._due and self._due[0][0] <= now:
                self._step(heapq.heappop(self._due)[2])

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                self._accepted += 1
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(sock, selectors.EVENT_READ, Connection(sock))

    def _close(self, connection: Connection) -> None:
        if connection.sock.fileno() >= 0:
            self._selector.unregister(connection.sock)
            connection.sock.close()

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        connection.received += data
        head, end, rest = connection.received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not end or len(rest) < int(length[1] if length else 0):
            return
        connection.received = b""
        _, mode, events, microseconds, *_ = head.split(b" ", 2)[1].decode().split("/")
        *writes, end = _writes(mode, int(events))
        connection.writes, connection.next = [*writes[:-1], b"".join((*writes[-1:], end))], 0
        connection.interval = int(microseconds) / 1e6
        connection.due = time.perf_counter() + (connection.interval if mode == "whole" else 0)
        self._schedule(connection)

    def _schedule(self, connection: Connection) -> None:
        self._number += 1
        heapq.heappush(self._due, (connection.due, self._number, connection))

    def _step(self, connection: Connection) -> None:
        """The next send."""
        self._send(connection, connection.writes[connection.next])
        connection.next += 1
        connection.due += connection.interval
        if connection.next < len(connection.writes) and connection.sock.fileno() >= 0:
            self._schedule(connection)

    def _send(self, connection: Connection, data: bytes) -> None:
        data = connection.unsent + data
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if sent < len(data) else 0)
        if bool(connection.unsent) != (sent < len(data)):
            self._selector.modify(connection.sock, events, connection)
        connection.unsent = data[sent:]


def allow_many_sockets() -> None:
    """Raises the limit of open sockets, which is often below a thousand."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    allow_many_sockets()
    PacedServer().serve()
