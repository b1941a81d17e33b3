"""Connections that report to the call they serve, so that it can be timed and cancelled in every phase.

urllib3 and http.client do the work. Added here: the call knows the socket from before it connects, name lookups and
connects can be interrupted, a dead address does not delay a living one, the number of kept connections follows recent
use, truncated headers are an error, and 1xx answers are skipped.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import queue
import re
import socket
import ssl
import threading
from collections import deque
from functools import lru_cache
from typing import Any

from urllib3 import __version__ as _urllib3  # type: ignore[attr-defined]
from urllib3.connectionpool import HTTPConnection, HTTPSConnection  # type: ignore[attr-defined]  # recorders replace others
from urllib3.exceptions import NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from llmbridge._locks import monotonic
from llmbridge._transport.addresses import Address, failed, reach
from llmbridge._transport.body import WOULD_BLOCK
from llmbridge._transport.call import Call, WouldWait, current_call, unwatch, watch
from llmbridge._transport.later import Later

__all__ = [
    "HEADERS_LIMIT",
    "RETURNS_ANY",
    "HeadersTooLong",
    "HeadersTruncated",
    "Watched",
    "ended",
    "watch_manager",
    "watch_pool",
]

RETURNS_ANY = int(_urllib3.partition(".")[0]) >= 2
"""Whether urllib3 passes on what a connection returns; 1.26 builds its response from it."""

_SURPLUS_SECONDS = 60.0  # that surplus idle connections are kept: about as long as servers keep theirs
_CONTINUE, _OK = 100, 200
_WITHOUT_BODY = (204, 304)
_VERSION = b"HTTP/"
_PLAIN_HEADERS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n)*")  # no continuation lines
_HEADER = re.compile(r"([^:]+):[\t ]*([^\r]*)\r\n")
_LENGTH = re.compile("[0-9]{1,18}")
_LONGEST_LINE = 65536  # http.client's limit
HEADERS_LIMIT = 256 * 1024
"""The most bytes of the header lines of an answer, including those of the 1xx answers before it."""


def ended(error: BaseException | None) -> bool:
    """Whether the other side has closed the connection. OpenSSL may say so in several ways."""
    closed = isinstance(error, (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError))
    return closed or getattr(error, "reason", None) == "UNEXPECTED_EOF_WHILE_READING"


class HeadersTruncated(http.client.HTTPException):
    """The connection ended inside the status line or the headers."""


class HeadersTooLong(http.client.HTTPException):
    """The header lines exceed HEADERS_LIMIT."""


class _HeaderLines:
    """The file from which http.client reads status lines and headers.

    http.client takes the end of the file for the end of the headers, so the last line is remembered. It rejects more
    than 100 header lines, and joins them afterwards: so it gets as many at once as its longest line holds.
    """

    def __init__(self, file: Any) -> None:
        self.file = file
        self.last = b""
        self.in_headers = False
        self.headers: bytes | None = None  # once they have been read as a whole
        self._blocks: list[bytes] = []
        self._left = HEADERS_LIMIT

    def readline(self, limit: int = -1) -> bytes:
        if not self.in_headers:
            self.last = self.file.readline(limit)
            return self.last
        if not self._blocks:
            headers = self.headers if self.headers is not None else self.rest_of_headers()
            blocks = [headers[begin : begin + _LONGEST_LINE] for begin in range(0, len(headers), _LONGEST_LINE)]
            self._blocks = [self.last, *reversed(blocks)]
        return self._blocks.pop()

    def rest_of_headers(self) -> bytes:
        """All header lines up to the empty one."""
        lines: list[bytes] = []
        while self._left >= 0:
            line = self.last = self.file.readline(self._left + len(b"\r\n"))
            self._left -= len(line)
            if line in (b"\r\n", b"\n", b""):
                return b"".join(lines)
            lines.append(line)
        raise HeadersTooLong

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class _Headers(http.client.HTTPMessage):
    """The headers of an answer, without what the standard library does for mail each time that they are read."""

    def items(self) -> list[tuple[str, str]]:
        """All names and values."""
        return [*self.raw_items()]

    def get_payload(self, *_: Any, **__: Any) -> Any:
        """Nothing."""
        return ""


class _Response(http.client.HTTPResponse):
    """Also a proxy's answer to CONNECT, whose headers urllib3 and http.client read in their own ways."""

    _final: tuple[str, int, str] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = _HeaderLines(self.fp)  # type: ignore[assignment]

    def begin(self, *args: Any, **kwargs: Any) -> None:
        lines: Any = self.fp
        answers = broken = False
        try:
            # Raises an error if the connection was stale: nothing has come. A caller's sockets may have other files.
            answers = self.headers is None and isinstance(lines.file, io.BufferedReader) and bool(lines.file.peek(1))
            if self.headers is not None or not self._begun_fast(lines):
                super().begin(*args, **kwargs)
        except OSError as error:
            if not (answers and ended(error)):
                raise
            broken = True  # raised below, without this error: it would mean that the connection was stale
        except http.client.BadStatusLine:
            begun = lines.last[: len(_VERSION)]
            if lines.last.endswith(b"\n") or not begun or not _VERSION.startswith(begun):
                raise
        finally:
            file: Any = self.fp
            if file is lines:
                self.fp = lines.file
        if broken or not lines.last.endswith(b"\n"):
            raise HeadersTruncated("the connection ended inside the headers")
        if current_call() is not None:
            # A malformed line ends the headers here, and urllib3 would log it, whatever it holds.
            self.msg.set_payload("")
            self.msg.defects.clear()

    def _begun_fast(self, lines: _HeaderLines) -> bool:
        """Does what `begin` does, for common headers: http.client's parser, made for mail, takes five times as long.

        False if the headers need http.client: then it reads the same lines.
        """
        self._final = version, status, reason = self._read_status()
        lines.headers = lines.rest_of_headers()
        special = self._method == "HEAD" or status in _WITHOUT_BODY or self.debuglevel  # type: ignore[attr-defined]
        if version != "HTTP/1.1" or special or not _PLAIN_HEADERS.fullmatch(lines.headers):
            return False
        headers, pairs = _Headers(), _HEADER.findall(lines.headers.decode("latin-1"))
        for name, value in pairs:
            headers.set_raw(name, value)
        first = {name.lower(): value for name, value in reversed(pairs)}
        length, coding = first.get("content-length"), first.get("transfer-encoding")
        if (coding or "chunked").lower() != "chunked" or not _LENGTH.fullmatch(length or "0"):
            return False
        self.code = self.status = status
        self.reason, self.version = reason.strip(), 11
        self.headers = self.msg = headers
        self.chunked, self.chunk_left = bool(coding), None
        self.length = int(length) if length and not coding else None
        self.will_close = "close" in first.get("connection", "").lower() or not (coding or length)
        return True

    def _read_status(self) -> tuple[str, int, str]:
        """The final status. http.client itself skips only 100, and takes 102 and 103 for the answer."""
        if self._final is not None:
            return self._final
        lines: Any = self.fp
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not _CONTINUE <= status < _OK:
                lines.in_headers = True
                return version, status, reason
            lines.rest_of_headers()


class _Quiet:
    """Mixed into any connection class that a call may use."""

    @property
    def debuglevel(self) -> int:
        """Hides http.client's debug level, which prints the headers, and the key with them."""
        own: int = self.__dict__.get("_debuglevel", http.client.HTTPConnection.debuglevel)
        return own if current_call() is None else 0

    @debuglevel.setter
    def debuglevel(self, level: int) -> None:
        self.__dict__["_debuglevel"] = level


class Watched(_Quiet):
    """Mixed into a connection class of urllib3."""

    response_class = _Response
    sock: Any
    proxy: Any
    idle_since = 0.0
    _served = False
    _headers: bytes | None = b""

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        if (call := current_call()) is not None and self.sock is not None:
            call.reused_connection = self._served
            call.attach(self.sock)
            call.start("first_content")
        super().putrequest(*args, **kwargs)  # type: ignore[misc]

    def connect(self) -> None:
        call = current_call()
        if call is not None:
            if call.at_once:
                raise WouldWait
            call.reused_connection = None
            call.start("connect")
            call.step = "proxy" if self._by_proxy else "reach"
        super().connect()  # type: ignore[misc]
        self._served = False
        if call is not None:
            call.reused_connection = False
            call.attach(self.sock)
            call.start("first_content")

    @property
    def _by_proxy(self) -> bool:
        return bool(getattr(self, "proxy", None)) or hasattr(self, "_socks_options")

    def _reached(self, call: Call) -> None:
        """Connected: to a proxy that needs a tunnel, or to the service."""
        call.step = "proxy" if getattr(self, "proxy", None) else "tls"

    def _tunnel(self) -> None:
        super()._tunnel()  # type: ignore[misc]
        if (call := current_call()) is not None:
            call.check()  # a socket that was shut down looks like the end of the proxy's headers
            call.step = "tls"

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        self._headers = None
        super().endheaders(*args, **kwargs)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        """Holds the headers back until the body comes: one system call and one packet for both."""
        if self._headers is None:
            self._headers = data
            return
        headers, self._headers = self._headers, b""
        if headers and isinstance(data, bytes):
            data = headers + data
        elif headers:
            super().send(headers)  # type: ignore[misc]
        if (call := current_call()) is None or not call.at_once:
            try:
                super().send(data)  # type: ignore[misc]
            except ssl.SSLError as error:  # the server may have answered before; urllib3 ignores this only without TLS
                if call is None or not ended(error):
                    raise
            return
        sent = 0
        if self.sock is not None:  # None: a kept connection that the server has closed
            self.sock.settimeout(0)
            with contextlib.suppress(*WOULD_BLOCK):
                sent = self.sock.send(data)
        if sent < len(data):
            raise WouldWait  # this closes the connection, so the server never sees the whole request

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        if self._headers:  # there was no body
            self.send(b"")
        self._served = True
        if (call := current_call()) is not None and call.unseen:
            return Later(self, call)
        return super().getresponse(*args, **kwargs)  # type: ignore[misc]


class _Interruptible(Watched):
    """Mixed into a connection class that makes plain TCP connections."""

    shares_trust = False
    """Whether llmbridge alone configures TLS here."""
    ssl_context: Any
    ca_certs: Any
    _opened: socket.socket | None = None
    _address: Address = ()

    def connect(self) -> None:
        shared = self.shares_trust and not self._speaks_tls_to_proxy
        if shared and getattr(self, "ca_certs", None) and self.ssl_context is None:
            self.ssl_context = _trusting(os.fspath(self.ca_certs), os.stat(self.ca_certs).st_mtime_ns, ssl.SSLContext)
            self.ca_certs = None
        try:
            super().connect()
        except BaseException:
            if self._opened is not None:
                self._opened.close()  # urllib3 1.26 leaves it open if the CAs cannot be read
                if (call := current_call()) is not None and not call.cancelled:
                    failed(self._address)  # it accepts, but TLS or the proxy behind it fails
            raise
        finally:
            self._opened = None

    @property
    def _speaks_tls_to_proxy(self) -> bool:
        """Then urllib3 makes the context for the proxy itself, from the CAs that it was given."""
        return bool(self.proxy) and self.proxy.scheme == "https"

    def _new_conn(self) -> socket.socket:
        call = current_call()
        if call is None:
            connected: socket.socket = super()._new_conn()  # type: ignore[misc]
            return connected
        host = getattr(self, "_dns_host", None) or self.host  # type: ignore[attr-defined]
        try:
            sock, self._address = reach(call, host.strip("[]"), self.port, self.socket_options, self.source_address)  # type: ignore[attr-defined]
            self._opened = sock
            if isinstance(self, HTTPSConnection):
                call.guard(sock)
            self._reached(call)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be looked up at all
            raise NewConnectionError(self, f"{error}") from error  # type: ignore[arg-type]
        return sock


@lru_cache(maxsize=8)
def _trusting(ca_file: str, changed: int, kind: type[ssl.SSLContext]) -> ssl.SSLContext:
    """A context that trusts the CAs of a file; cached, since urllib3 would read it for each connection (15 ms of CPU).

    Args:
        ca_file: Its path.
        changed: When it was changed, so that a new file is read again.
        kind: The class of contexts: truststore replaces it, and older contexts cannot be used any more.
    """
    context: ssl.SSLContext = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    context.load_verify_locations(ca_file)
    return context


class _Threaded(Watched):
    """Mixed into a connection class that connects in its own way (SOCKS) and cannot be interrupted."""

    timeout: Any

    def _new_conn(self) -> Any:
        call = current_call()
        plain = super()._new_conn  # type: ignore[misc]
        if call is None:
            return plain()

        def connect() -> Any:
            sock = plain()
            if call.reason() is not None:
                sock.close()  # too late: the call has ended
            return sock

        self.timeout = call.connect_limit
        sock = call.run(connect)
        call.guard(sock)
        self._reached(call)
        return sock


class _Idle(queue.LifoQueue):  # type: ignore[type-arg]
    """The idle connections of a pool, last in first out: as many as were recently in use at once.

    It has room for all returned connections. Those beyond `maxsize` that were not needed for a while are closed by the
    watchdog, which watches this object as it watches a call.

    A LifoQueue in name only (recorders close what they drop from one): a Ctrl-C can leave its lock taken forever,
    while a deque needs no lock.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self.maxsize = maxsize
        self._kept: deque[Any] = deque()

    def qsize(self) -> int:
        return len(self._kept)

    @property
    def newest(self) -> Any:
        """The connection that the next `get` returns if no other thread comes first; None if there is none."""
        try:
            return self._kept[-1]
        except IndexError:
            return None

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The last one. Never blocks: these pools open as many connections as are needed.

        Raises:
            queue.Empty: There is none, or the call wants a new one: its first one was stale, as others may be.
        """
        if (call := current_call()) is not None and call.takes_new:
            raise queue.Empty
        try:
            return self._kept.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Keeps a connection. Ignores None, which urllib3 puts in to mark a free place."""
        if item is None:
            return
        item.idle_since = monotonic()
        self._kept.append(item)
        if len(self._kept) > self.maxsize:
            watch(self)

    @property
    def deadline(self) -> float:
        """When to close the surplus connection that has been idle for the longest; infinite without one."""
        with contextlib.suppress(IndexError):  # other threads may have taken them all meanwhile
            if len(self._kept) > self.maxsize:
                return float(self._kept[0].idle_since) + _SURPLUS_SECONDS
        return float("inf")

    def expire(self, now: float) -> None:
        """Closes the surplus connections whose time is over; called by the watchdog."""
        unwatch(self)  # first, so that a connection returned from here on is watched again
        with contextlib.suppress(IndexError):
            while self.deadline <= now:
                self._kept.popleft().close()
        if self.qsize() > self.maxsize:
            watch(self)


class _Recorder(_Quiet):
    """Mixed into a connection class of vcrpy, which replays answers, or records those of a real connection."""

    def request(self, *args: Any, **kwargs: Any) -> None:
        if (call := current_call()) is not None and call.at_once:
            raise WouldWait  # the recorder reads the whole answer at once
        super().request(*args, **kwargs)  # type: ignore[misc]
        if call is not None:
            call.unseen = False  # the recorder reads the whole answer at once


@lru_cache(maxsize=64)
def _watched_connection(plain: Any, own: bool) -> type[Any]:
    if (recorded := getattr(plain, "_baseclass", None)) is not None:
        return type(f"Watched{plain.__name__}", (_Recorder, plain), {"_baseclass": _watched_connection(recorded, own)})
    base = _Interruptible if plain in (HTTPConnection, HTTPSConnection) else _Threaded
    return type(f"Watched{plain.__name__}", (base, plain), {"shares_trust": own})


class _ConnectionClass:
    """The class of a pool's connections, watched. Looked up each time, since recorders replace it for a while.

    Args:
        plain: The pool's own class.
        own: Whether llmbridge alone uses the pool.
    """

    def __init__(self, plain: Any, own: bool) -> None:
        self._plain = plain
        self._own = own

    def __get__(self, pool: Any, owner: Any) -> Any:
        of_pool = {} if pool is None else vars(pool)
        return _watched_connection(of_pool.get("ConnectionCls", self._plain.ConnectionCls), self._own)

    def __set__(self, pool: Any, connection: Any) -> None:
        vars(pool)["ConnectionCls"] = connection


@lru_cache(maxsize=32)
def _watched_pool(plain: Any, own: bool) -> type[Any]:
    more = {"QueueCls": _Idle} if own else {}
    return type(f"Watched{plain.__name__}", (plain,), {"ConnectionCls": _ConnectionClass(plain, own), **more})


def watch_pool(pool: Any) -> None:
    """Makes the connections of a caller's own pool report to their calls."""
    if isinstance(getattr(pool, "ConnectionCls", None), type) and not _is_watched(pool):
        with _watching:
            if not _is_watched(pool):
                _replace_idle(pool)
                plain: Any = type(pool)
                pool.__class__ = _watched_pool(plain, own=False)  # last: it marks the pool as done


def _is_watched(pool: Any) -> bool:
    return isinstance(vars(type(pool)).get("ConnectionCls"), _ConnectionClass)


_watching = threading.Lock()


def _after_fork() -> None:
    """Replaces the lock, which another thread of the parent may have held."""
    global _watching
    _watching = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _replace_idle(pool: Any) -> None:
    """Replaces the kept connections, which were made before the pool was watched and report to no call."""
    idle: queue.LifoQueue[Any] = getattr(pool, "pool", None) or queue.LifoQueue()
    places = 0
    with contextlib.suppress(queue.Empty):
        while True:
            if (old := idle.get(block=False)) is not None:
                old.close()
            places += 1
    for _ in range(places):
        idle.put(None, block=False)


def watch_manager(manager: Any) -> None:
    """Makes the connections of all pools of llmbridge's own adapter report to their calls."""
    manager.pool_classes_by_scheme = {
        scheme: _watched_pool(pool, own=True) for scheme, pool in manager.pool_classes_by_scheme.items()
    }
