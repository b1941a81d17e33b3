"""An answer whose headers are read when they have arrived.

urllib3 reads them as soon as a request is sent, which blocks until they are there, and builds a response of its own.
Unless something else gets the response, a connection returns a `Later` instead: an event loop can wait for it, and a
thread reads it for less.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llmbridge._transport.body import WOULD_BLOCK

if TYPE_CHECKING:
    import requests

    from llmbridge._transport.call import Call

__all__ = ["Later"]


class Later:
    """In place of urllib3's response, and of the one of requests that holds it.

    Args:
        connection: The one over which the request was sent.
        call: The call that it serves.

    Attributes:
        request: The request as it was sent.
        status_code: The HTTP status; 0 until the headers are there.
        whole: Whether all headers have come.
    """

    status = status_code = 0
    reason = ""
    headers: http.client.HTTPMessage | Mapping[str, str] = MappingProxyType({})
    request: requests.PreparedRequest
    _pool: Any = None
    _original_response: http.client.HTTPResponse | None = None

    def __init__(self, connection: Any, call: Call) -> None:
        self._held = connection
        self._call = call
        self._http = connection.response_class(connection.sock, method=connection._method)
        self._failure: OSError | None = None
        self.whole = False
        self._closed = False

    def __getattr__(self, name: str) -> None:
        """None for other attributes that any version of urllib3 and requests reads, mostly for logging."""
        return

    def get_redirect_location(self) -> bool:
        """See urllib3: there is no redirect."""
        return False

    @property
    def readable(self) -> int:
        """The file descriptor that becomes readable when there is something to read."""
        descriptor: int = self._held.sock.fileno()
        return descriptor

    def arrived(self) -> bool | None:
        """None if nothing has come yet, True if all headers have, False if only a thread can tell. Never blocks."""
        sock = self._held.sock
        self._set_timeout(0)
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
        self.whole = b"\r\n\r\n" in begin and begin.startswith(b"HTTP/1.") and begin[9:10] != b"1"
        return self.whole

    def begin(self) -> None:
        """Reads the headers. Blocks until all of them have come."""
        connection = self._held
        connection.response_class = lambda *_, **__: self._http  # it has begun to read
        try:
            if self._failure is not None:
                raise self._failure
            # Without a socket (TLS within TLS), a thread reads the body, and has to wait.
            self._set_timeout(0 if self.whole and isinstance(connection.sock, socket.socket) else None)
            # Not urllib3's, which builds a response of its own: that takes longer than reading the headers.
            http.client.HTTPConnection.getresponse(connection)
        except BaseException:
            self._closed = True
            self._drop()
            raise
        finally:
            del connection.response_class
        self._original_response = self._http
        self.status_code, self.headers = self._http.status, self._http.headers

    def _set_timeout(self, timeout: int | None) -> None:
        sock = self._held.sock
        if not isinstance(sock, socket.socket) or sock.gettimeout() != timeout:  # pyOpenSSL's cannot say
            sock.settimeout(timeout)

    @property
    def raw(self) -> Later:
        """Itself."""
        return self

    def release_conn(self) -> None:
        """Returns the connection for reuse."""
        self._closed = True
        self._pool._put_conn(self._held)

    def close(self) -> None:
        """Closes the connection, unless it was returned. May be repeated."""
        if not self._closed:
            self._closed = True
            self._call.detach(abort=True)
            self._drop()
            self._call.let_go()

    def _drop(self) -> None:
        self._failure = None
        self._http.close()
        self._held.close()
        if self._pool is not None:
            self._pool._put_conn(None)  # frees its place
