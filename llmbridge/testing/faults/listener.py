"""A bare listener for faults below HTTP: calls a function for each connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType

__all__ = ["Listener", "read_head"]

_HEAD_LIMIT = 1 << 20
_PATIENCE = 2.0


class Listener:
    """Listens on 127.0.0.1 until `close()`; it knows no protocol.

    Args:
        serve: Called in a new thread with each accepted socket, which is closed afterwards; an OSError ends only that
            connection. Without it nothing is accepted: the system completes connections, but nothing is read.
        small_buffers: Makes the system buffer as little as possible of what clients send.

    Attributes:
        port: The port it listens on.
        accepted: The number of accepted connections.

    Example:
        >>> import socket
        >>> with Listener(lambda sock: sock.sendall(b"220 no HTTP here")) as listener:
        ...     with socket.create_connection(("127.0.0.1", listener.port)) as client:
        ...         client.recv(100)
        b'220 no HTTP here'
    """

    def __init__(self, serve: Callable[[socket.socket], None] | None = None, *, small_buffers: bool = False) -> None:
        self._serve = serve
        self._listener = socket.socket()
        if small_buffers:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._closing = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        if serve is not None:
            self._start(self._accept)

    @property
    def root(self) -> str:
        """The URL without a path."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stops listening, ends every connection and its thread. May be repeated."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            open_ones = list(self._open)
        for sock in (self._listener, *open_ones):
            with contextlib.suppress(OSError):  # not connected any more
                sock.shutdown(socket.SHUT_RDWR)
        # On systems where shutdown does not wake accept(), a last connection does.
        if self._serve is not None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.1):
                pass
        self._listener.close()
        for thread in list(self._threads):
            thread.join(_PATIENCE)

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="llmbridge-testing-listener", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closing:
                    sock.close()
                    return
                self.accepted += 1
                self._open.add(sock)
            self._start(self._run, sock)

    def _run(self, sock: socket.socket) -> None:
        assert self._serve is not None
        try:
            with contextlib.suppress(OSError):
                self._serve(sock)
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()


def read_head(sock: socket.socket) -> bytes:
    r"""The data up to the empty line after a request's headers, and perhaps more; b"" if the client left before.

    Raises:
        OSError: The connection broke, or a megabyte came without an end.
    """
    received = b""
    while b"\r\n\r\n" not in received:
        data = sock.recv(65536)
        if not data:
            return b""
        received += data
        if len(received) > _HEAD_LIMIT:
            raise OSError("headers without an end")
    return received
