"""An answer that an event loop waits for, instead of a thread.

As soon as a request is sent, urllib3 reads the answer's headers from the connection, which blocks until they are there.
A connection that serves a call with `answers_later` returns an empty `Later` instead; the real answer is read from it
once the headers have arrived.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llmbridge._transport.body import WOULD_BLOCK

if TYPE_CHECKING:
    import requests

    from llmbridge._transport.call import Call

__all__ = ["Later"]


class Later:
    """A placeholder for urllib3's response, and for the exchange that it will become.

    Args:
        connection: The one over which the request was sent.
        call: The call that it serves.
        answer: Returns the real response. Blocks until its headers are there.
    """

    status = 0
    reason = ""
    headers: Mapping[str, str] = {}
    _pool: Any = None

    def __init__(self, connection: Any, call: Call, answer: Callable[[], Any]) -> None:
        self._held = connection
        self._call = call
        self._answer = answer
        self._http = connection.response_class(connection.sock, method=connection._method)
        self._outer: requests.Response | None = None
        self._failure: OSError | None = None
        self._whole = False  # all headers have come
        self._closed = False

    def __getattr__(self, name: str) -> None:
        """None for other attributes that any version of urllib3 and requests reads, mostly for logging."""
        return

    def get_redirect_location(self) -> bool:
        """See urllib3: there is no redirect."""
        return False

    def of(self, response: requests.Response) -> Later:
        """Itself, after it has noted the response that requests built from it."""
        self._outer = response
        return self

    @property
    def readable(self) -> int:
        """The file descriptor that becomes readable when there is something to read."""
        descriptor: int = self._held.sock.fileno()
        return descriptor

    def arrived(self) -> bool | None:
        """None if nothing has come yet, True if all headers have, False if only a thread can tell. Never blocks."""
        sock = self._held.sock
        if not isinstance(sock, socket.socket) or sock.gettimeout() != 0:  # pyOpenSSL's cannot say
            sock.settimeout(0)
        try:
            begin = self._http.fp.peek(1)
            # An empty buffer may mean the end of the stream, or that nothing was read yet.
            if not begin and type(sock) is socket.socket and sock.recv(1, socket.MSG_PEEK):
                begin = self._http.fp.peek(1)
        except WOULD_BLOCK:
            return None
        except OSError as error:  # of TLS, which reports it only once
            self._failure = error
            return False
        self._whole = b"\r\n\r\n" in begin and begin.startswith(b"HTTP/1.") and begin[9:10] != b"1"
        return self._whole

    def response(self) -> requests.Response:
        """The real response. Blocks until all of its headers have come."""
        assert self._outer is not None
        connection, self._closed = self._held, True
        # urllib3 sets it before it reads. Without a socket (TLS within TLS), a thread reads the body, and has to wait.
        connection.timeout = 0 if self._whole and isinstance(connection.sock, socket.socket) else None
        connection.response_class = lambda *_, **__: self._http  # it has begun to read
        try:
            if self._failure is not None:
                raise self._failure
            raw = self._answer()
        except BaseException:
            self._drop()
            raise
        finally:
            del connection.response_class
        raw.retries, raw._connection, raw._pool = self.retries, self._connection, self._pool
        adapter: Any = self._outer.connection
        response: requests.Response = adapter.build_response(self._outer.request, raw)
        self._outer = None  # it holds this object, and a cycle would need the collector
        return response

    def close(self) -> None:
        """Closes the connection, unless the answer was taken from it. May be repeated."""
        if not self._closed:
            self._closed = True
            self._call.detach(abort=True)
            self._drop()
            self._call.let_go()

    def _drop(self) -> None:
        self._failure = self._outer = None
        self._http.close()
        self._held.close()
        if self._pool is not None:
            self._pool._put_conn(None)  # frees its place
