"""Connections that report to the call they serve, so that it can be timed and cancelled in every phase.

urllib3 and http.client do the work. What is added: the socket is known to the call from before it connects, a name
lookup and a connect can be interrupted, headers that end in the middle are an error, and 1xx answers are skipped.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import os
import queue
import socket
import ssl
import sys
import threading
from collections import deque
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from llmbridge._transport.call import Call, current_call
from llmbridge.errors import ConfigError
from llmbridge.options import checked_proxy

__all__ = ["ProxySetting", "WatchedAdapter", "named_proxy", "passwords_of", "proxies_for", "watch_pool"]

_IDLE_CONNECTIONS = 64  # kept per host for reuse; there may be any number of busy ones
_CONTINUE, _OK = 100, 200
ProxySetting = str | bool | None
"""A URL; None for what the environment says; False for no proxy at all."""

_VARIABLES = tuple(
    name
    for lower in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method")
    for name in (lower, lower.upper())
)
# Elsewhere the system's own settings count too, and can change behind the environment's back.
_ENVIRONMENT_IS_ALL = sys.platform not in ("win32", "darwin")

_UNKNOWN = "unknown"
_known: dict[tuple[str | None, ...], str | None] = {}


class HeadersTruncated(http.client.HTTPException):
    """The connection ended inside the status line's or the headers' block."""


class _HeaderLines:
    """Remembers the last header line read: http.client takes the end of the file for the end of the headers."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self._file.readline(limit)
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Response(http.client.HTTPResponse):
    def begin(self) -> None:
        file = self.fp
        lines = _HeaderLines(file)
        self.fp = lines  # type: ignore[assignment]
        try:
            super().begin()
        except http.client.BadStatusLine:
            if lines.last.endswith(b"\n") or not lines.last:
                raise
        finally:
            if self.fp is lines:  # type: ignore[comparison-overlap]
                self.fp = file
        if not lines.last.endswith(b"\n"):
            raise HeadersTruncated("the connection ended inside the headers")
        if current_call() is not None:
            # What is no header line ends the headers here, and urllib3 would log it, whatever it holds.
            self.msg.set_payload("")
            self.msg.defects.clear()

    def _read_status(self) -> tuple[str, int, str]:
        """The final status. http.client itself skips 100 only, and takes 102 and 103 for an answer."""
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not _CONTINUE < status < _OK:
                return version, status, reason
            while self.fp.readline(65537).strip():
                continue


class _Watched:
    """Mixed into a connection class of urllib3."""

    response_class = _Response
    sock: Any
    proxy: Any
    _served = False
    _headers: bytes | None = b""

    @property
    def debuglevel(self) -> int:
        """Of http.client, which prints the headers, and the key with them: not those of a call."""
        own: int = self.__dict__.get("_debuglevel", http.client.HTTPConnection.debuglevel)
        return own if current_call() is None else 0

    @debuglevel.setter
    def debuglevel(self, level: int) -> None:
        self.__dict__["_debuglevel"] = level

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        if (call := current_call()) is not None and self.sock is not None:
            call.reused_connection = self._served
            call.attach(self.sock)
            call.start("first_content")
        super().putrequest(*args, **kwargs)  # type: ignore[misc]

    def connect(self) -> None:
        call = current_call()
        if call is not None:
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
        """There is a connection: to a proxy that is to be spoken to, or to the service."""
        call.step = "proxy" if getattr(self, "proxy", None) else "tls"

    def _tunnel(self) -> None:
        super()._tunnel()  # type: ignore[misc]
        if (call := current_call()) is not None:
            call.check()  # the end of a socket that was shut down looks like the end of the proxy's headers
            call.step = "tls"

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        self._headers = None
        super().endheaders(*args, **kwargs)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        """Keeps the header block until the body comes: one system call and one packet for both."""
        if self._headers is None:
            self._headers = data
            return
        headers, self._headers = self._headers, b""
        if headers and isinstance(data, bytes):
            data = headers + data
        elif headers:
            super().send(headers)  # type: ignore[misc]
        super().send(data)  # type: ignore[misc]

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        if self._headers:  # there was no body
            self.send(b"")
        self._served = True
        return super().getresponse(*args, **kwargs)  # type: ignore[misc]


class _Interruptible(_Watched):
    """Mixed into a connection class that makes plain TCP connections."""

    shares_trust = False
    """Whether nobody but llmbridge sets how TLS is done here."""
    ssl_context: Any
    ca_certs: Any
    _opened: socket.socket | None = None

    def connect(self) -> None:
        shared = self.shares_trust and not self._speaks_tls_to_proxy
        if shared and getattr(self, "ca_certs", None) and self.ssl_context is None:
            self.ssl_context = _trusting(os.fspath(self.ca_certs), os.stat(self.ca_certs).st_mtime_ns)
            self.ca_certs = None
        try:
            super().connect()
        except BaseException:
            if self._opened is not None:
                self._opened.close()  # urllib3 1.26 leaves it open if the CAs cannot be read
            raise
        finally:
            self._opened = None

    @property
    def _speaks_tls_to_proxy(self) -> bool:
        """Then urllib3 makes the context for the proxy itself, of the CAs that it was given."""
        return bool(self.proxy) and self.proxy.scheme == "https"

    def _new_conn(self) -> socket.socket:
        call = current_call()
        if call is None:
            connected: socket.socket = super()._new_conn()  # type: ignore[misc]
            return connected
        host = getattr(self, "_dns_host", None) or self.host  # type: ignore[attr-defined]
        try:
            sock = _open(call, host.strip("[]"), self.port, self.socket_options, self.source_address)  # type: ignore[attr-defined]
            self._opened = sock
            if isinstance(self, HTTPSConnection):
                call.guard(sock)
            self._reached(call)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be looked up at all
            raise NewConnectionError(self, f"{error}") from error  # type: ignore[arg-type]
        return sock


@lru_cache(maxsize=8)
def _trusting(ca_file: str, changed: int) -> ssl.SSLContext:
    """A context that trusts the CAs of a file: urllib3 reads the file for each connection, which costs 15 ms of CPU.

    Args:
        ca_file: Its path.
        changed: When it was changed, so that a new file is read again.
    """
    context: ssl.SSLContext = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    context.load_verify_locations(ca_file)
    return context


class _Threaded(_Watched):
    """Mixed into a connection class that connects in a way of its own (SOCKS), which nothing can interrupt."""

    timeout: Any

    def _new_conn(self) -> Any:
        call = current_call()
        plain = super()._new_conn  # type: ignore[misc]
        if call is None:
            return plain()

        def connect() -> Any:
            sock = plain()
            if call.reason() is not None:
                sock.close()  # it comes too late, and nobody waits for it
            return sock

        self.timeout = call.connect_limit
        sock = call.run(connect)
        call.guard(sock)
        self._reached(call)
        return sock


def _open(call: Call, host: str, port: int, options: Any, source: Any) -> socket.socket:
    """A socket connected to the first address of the host that accepts."""
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in _addresses(call, host, port):
        call.check()
        sock = socket.socket(family, kind, protocol)
        try:
            for option in options or ():
                sock.setsockopt(*option)
            if source:
                sock.bind(source)
            call.attach(sock)
            sock.connect(address)
        except OSError as error:
            failure = error
            call.attach(None)
            sock.close()
        except BaseException:
            call.attach(None)
            sock.close()
            raise
        else:
            return sock
    call.check()
    raise failure


def _addresses(call: Call, host: str, port: int) -> list[Any]:
    if _is_address(host):
        return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    return call.run(lambda: socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class _Idle:
    """The idle connections of a pool, last in first out. One too many is closed in silence: urllib3 would warn.

    It stands in for a queue.LifoQueue, whose lock a Ctrl-C can leave taken for ever. The steps of a deque need none.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self.maxsize = maxsize
        self._kept: deque[Any] = deque()

    def qsize(self) -> int:
        return len(self._kept)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The last one. Never blocks: these pools open as many connections as are needed.

        Raises:
            queue.Empty: There is none, or the call wants a new one: the one that it had was stale, as others may be.
        """
        try:
            if (call := current_call()) is not None and call.takes_new:
                self._kept.remove(None)  # an empty place: what comes back has room then
                return None
            return self._kept.pop()
        except (IndexError, ValueError):
            raise queue.Empty from None

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if 0 < self.maxsize <= len(self._kept):
            if item is not None:
                item.close()
            return
        self._kept.append(item)


def _watched_connection(plain: Any, own: bool) -> type[Any]:
    base = _Interruptible if plain in (HTTPConnection, HTTPSConnection) else _Threaded
    return type(f"Watched{plain.__name__}", (base, plain), {"shares_trust": own})


def _watched_pool(plain: Any) -> type[Any]:
    return type(
        f"Watched{plain.__name__}",
        (plain,),
        {"ConnectionCls": _watched_connection(plain.ConnectionCls, own=True), "QueueCls": _Idle},
    )


def watch_pool(pool: Any) -> None:
    """Makes the connections of a caller's own pool report to their calls."""
    connection = getattr(pool, "ConnectionCls", None)
    if isinstance(connection, type) and not issubclass(connection, _Watched):
        with _watching:
            if not issubclass(pool.ConnectionCls, _Watched):
                _replace_idle(pool)
                pool.ConnectionCls = _watched_connection(connection, own=False)  # last: it says that the work is done


_watching = threading.Lock()


def _replace_idle(pool: Any) -> None:
    """The kept connections of before report to nobody: they make place for others."""
    idle: queue.LifoQueue[Any] = getattr(pool, "pool", None) or queue.LifoQueue()
    places = 0
    with contextlib.suppress(queue.Empty):
        while True:
            if (old := idle.get(block=False)) is not None:
                old.close()
            places += 1
    for _ in range(places):
        idle.put(None, block=False)


class WatchedAdapter(HTTPAdapter):
    """The adapter of requests, with connections that report to the call they serve."""

    def __init__(self) -> None:
        super().__init__(pool_maxsize=_IDLE_CONNECTIONS)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Sets the trust of the pool: also of one to a proxy that speaks TLS, where requests looks at the URL alone."""
        super().cert_verify(conn, "https:" if conn.scheme == "https" else url, verify, cert)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Closes the idle connections at once: urllib3 2 leaves that to the end of the last reference to a pool."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                if (pool := manager.pools.get(key)) is not None:
                    pool.close()
        super().close()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _watch_manager(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not known:
            _watch_manager(manager)
        return manager


def _watch_manager(manager: Any) -> None:
    manager.pool_classes_by_scheme = {
        scheme: _watched_pool(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def proxies_for(url: str, proxy: ProxySetting) -> dict[str, str]:
    """The proxies to hand to requests for this URL: empty for a direct connection.

    Raises:
        ConfigError: The environment names a proxy that is no URL.
    """
    if proxy is False:
        return {}
    chosen = proxy if isinstance(proxy, str) else _from_environment(url)
    return {"http": chosen, "https": chosen} if chosen else {}


def _from_environment(url: str) -> str | None:
    """Asking requests costs more than all else in preparing a short call: its answer is kept while nothing changes."""
    parts = urlsplit(url)
    key = (parts.scheme, parts.netloc.rpartition("@")[2], *map(os.environ.get, _VARIABLES))
    if _ENVIRONMENT_IS_ALL and (known := _known.get(key, _UNKNOWN)) is not _UNKNOWN:
        return known
    chosen = select_proxy(url, get_environ_proxies(url))
    if chosen:
        try:
            chosen = checked_proxy(chosen)
        except ConfigError as error:
            raise ConfigError(f"the environment's {parts.scheme.upper()}_PROXY or ALL_PROXY: {error.message}") from None
    if len(_known) > 100:
        _known.clear()
    _known[key] = chosen or None
    return chosen or None


def named_proxy(url: str, proxy: str, setting: ProxySetting) -> str:
    """The proxy as an error names it: where it is and, if the environment chose it, which variable did.

    Args:
        url: What was to be reached.
        proxy: The proxy's URL.
        setting: What the caller set.
    """
    parts = urlsplit(proxy)
    name = f"the {'SOCKS' if parts.scheme.startswith('socks') else 'HTTP'} proxy {parts.netloc.rpartition('@')[2]}"
    if isinstance(setting, str):
        return name
    scheme = urlsplit(url).scheme
    variables = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    chosen = next((variable for variable in variables if os.environ.get(variable)), None)
    return f"{name} (from {chosen})" if chosen else name


def passwords_of(url: str) -> tuple[str, ...]:
    """The password in a URL, in the forms in which it may show up again.

    Example:
        >>> passwords_of("http://user:p%40ss@proxy:3128")
        ('p%40ss', 'p@ss', 'dXNlcjpwQHNz')
    """
    parts = urlsplit(url)
    if not parts.password:
        return ()
    plain = unquote(parts.password)
    basic = base64.b64encode(f"{unquote(parts.username or '')}:{plain}".encode()).decode()
    return tuple(dict.fromkeys((parts.password, plain, basic)))
