"""A client's socket; every wait also watches for the client closing it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
import time
from collections.abc import Sequence

from .reply import CLOSE, RESET, Step

__all__ = ["ClientGone", "Connection", "MalformedRequest", "Selector"]

# Not epoll, which needs a descriptor per connection, and not select, which ends at descriptor 1023.
Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_LINGER = 30.0


class ClientGone(Exception):
    """The client closed or reset the connection, or the server is shutting down."""


class MalformedRequest(Exception):
    """The bytes are not an HTTP/1.x request; the only answer is a bare 400."""


class Connection:
    """The server's end of one TCP (or TLS) connection.

    Attributes:
        number: Counted from 1 in order of acceptance.
        gone: Set when the client was seen to leave.
        open: False once either side has closed.
    """

    def __init__(self, sock: socket.socket, number: int, context: ssl.SSLContext | None = None) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self.number = number
        self.gone = threading.Event()
        self.open = True
        self._sock = sock
        self._buffer = bytearray()
        self._abandoned = False
        self._closing = threading.Lock()
        self._selector = Selector()
        self._selector.register(sock, selectors.EVENT_READ)

    def handshake(self) -> None:
        """Returns when TLS is set up; at once without TLS. Raises ClientGone if the handshake fails."""
        while isinstance(self._sock, ssl.SSLSocket):
            try:
                self._sock.do_handshake()
                break
            except _NOT_YET:
                self._selector.select()
            except OSError as exc:
                raise self._departure() from exc

    def read_until(self, mark: bytes, limit: int) -> bytes:
        """The bytes up to and including `mark`; raises MalformedRequest after `limit` bytes without it."""
        searched = 0
        while (found := self._buffer.find(mark, searched)) < 0:
            if len(self._buffer) > limit:
                raise MalformedRequest(f"more than {limit} bytes without an end")
            searched = max(0, len(self._buffer) - len(mark) + 1)
            self._await_bytes(None)
        return self._take(found + len(mark))

    def read_exactly(self, count: int) -> bytes:
        """The next `count` bytes."""
        while len(self._buffer) < count:
            self._await_bytes(None)
        return self._take(count)

    def write(self, data: bytes) -> None:
        """Returns when the kernel has taken all of `data`, in one send if it has room."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except _NOT_YET:
                self._await_room()
            except OSError as exc:
                raise self._departure() from exc

    def sleep(self, seconds: float) -> None:
        """Returns after this time; raises ClientGone as soon as the client leaves."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._await_bytes(left)

    def play(self, steps: Sequence[Step]) -> bool:
        """Performs the steps of one answer; True if the connection can be reused."""
        for step in steps:
            if isinstance(step, bytes):
                self.write(step)
            elif isinstance(step, (int, float)):
                self.sleep(step)
            elif step is CLOSE:
                return self._finish()
            elif step is RESET:
                return self._reset()
            else:
                self._linger(None)
        return True

    def abandon(self) -> None:
        """Makes every wait on this connection raise ClientGone at once; callable from any thread."""
        with self._closing:
            self._abandoned = True
            # Bypasses ssl.SSLSocket.shutdown(), which would drop the TLS state while its thread uses it.
            with contextlib.suppress(OSError):  # the client may have reset it
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the socket; called by the thread that owns the connection."""
        self.open = False
        with self._closing:
            self._selector.close()
            self._sock.close()

    def _departure(self) -> ClientGone:
        self.open = False
        if not self._abandoned:
            self.gone.set()
        return ClientGone()

    def _take(self, count: int) -> bytes:
        taken = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        return taken

    def _receive(self) -> None:
        try:
            data = self._sock.recv(1 << 16)
        except _NOT_YET:
            return
        except OSError as exc:
            raise self._departure() from exc
        if not data:
            raise self._departure()
        self._buffer += data

    def _await_bytes(self, timeout: float | None) -> None:
        pending = isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0
        if pending or self._selector.select(timeout):
            self._receive()

    def _await_room(self) -> None:
        self._selector.modify(self._sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
        ready = self._selector.select()
        self._selector.modify(self._sock, selectors.EVENT_READ)
        if any(events & selectors.EVENT_READ for _, events in ready):
            self._receive()

    def _linger(self, seconds: float | None) -> None:
        """Reads and discards until the client leaves; then raises ClientGone."""
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            self._buffer.clear()
            self._await_bytes(None if end is None else max(0.0, end - time.monotonic()))

    def _finish(self) -> bool:
        # Closing a socket with unread input sends RST, which can destroy the answer in transit: end the sending side
        # first and wait for the client to do the same.
        self.open = False
        try:
            if isinstance(self._sock, ssl.SSLSocket):
                with contextlib.suppress(*_NOT_YET):  # do not wait for the client's own close_notify
                    self._sock.unwrap()
            socket.socket.shutdown(self._sock, socket.SHUT_WR)
        except OSError as exc:
            raise self._departure() from exc
        self._linger(_LINGER)
        return False

    def _reset(self) -> bool:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()
        return False
