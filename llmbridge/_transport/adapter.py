"""The adapter of llmbridge's own session: that of requests, without repeating for each call what never changes."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import __version__ as _urllib3  # type: ignore[attr-defined]

from llmbridge._transport.connections import Watched, watch_manager
from llmbridge._transport.later import Later
from llmbridge.secret import MaskedStr

__all__ = ["Template", "WatchedAdapter"]

_IDLE_CONNECTIONS = 64  # kept per host for reuse; the number of busy ones is not limited
_HOSTS = 64  # to which a client keeps idle connections


class Template:
    """A request without its body, as many are that a client sends.

    Args:
        request: As requests prepares it, without the length of its body.
        target: The path and query, as requests gives them to urllib3.
    """

    def __init__(self, request: requests.PreparedRequest, target: str) -> None:
        self.request = request
        self._target = target
        self._lines: list[bytes] = []  # of the headers, once they have been sent

    def send(self, connection: Any, body: bytes | None) -> None:
        """Sends it over a kept connection: the same bytes as by urllib3."""
        headers = self.request.headers
        given = {"skip_host": "Host" in headers, "skip_accept_encoding": "Accept-Encoding" in headers}
        connection.putrequest(self.request.method, self._target, **given)
        buffer, lines = connection._buffer, self._lines  # http.client's; what traces requests may have added some
        begin = len(buffer)
        buffer += lines
        if not lines:
            if "User-Agent" not in headers:
                connection.putheader("User-Agent", f"python-urllib3/{_urllib3}")
            for name, value in headers.items():
                connection.putheader(name, value)
            self._lines = buffer[begin:]
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)


def _keeps(pool: Any) -> bool:
    """Whether it keeps an idle connection, and no mock or recorder has replaced the class of it."""
    newest = None if (idle := pool.pool) is None else idle.newest
    return isinstance(newest, Watched) and type(newest) is pool.ConnectionCls


class WatchedAdapter(HTTPAdapter):
    """The adapter of requests, with connections that report to the call they serve."""

    def __init__(self) -> None:
        super().__init__(pool_connections=_HOSTS, pool_maxsize=_IDLE_CONNECTIONS)
        self._pools: dict[Any, Any] = {}

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        """The pool for a request, cached: urllib3 looks it up under a lock that all threads share."""
        trusts = proxies or not request.url.startswith("http:")
        folder = trusts and isinstance(verify, str) and os.path.isdir(verify)
        key = request.url, verify, folder, *map(MaskedStr, (proxies or {}).values())
        pool = self._pools.get(key)
        if pool is None or pool.pool is None:  # closed: it was the least recently used of many hosts'
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            if len(self._pools) >= _HOSTS:
                self._pools.clear()
            self._pools[key] = pool
        return pool

    def send_over_kept(self, template: Template, body: bytes | None, verify: Any, at_once: bool) -> Later | None:
        """`send` over a kept connection: most of what requests and urllib3 do is for new ones, redirects and retries.

        Args:
            template, body: The request.
            verify: As for `send`.
            at_once: The socket must not block.

        Returns:
            The answer, of which nothing has been read yet; None without a usable connection.
        """
        pool: Any = self.get_connection_with_tls_context(template.request, verify)
        if not _keeps(pool) or (connection := pool._get_conn()).sock is None:
            return None
        try:
            connection.sock.settimeout(0 if at_once else None)
            with suppress(BrokenPipeError, ConnectionResetError):  # as in urllib3: the server may have answered before
                template.send(connection, body)
            later: Later = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        later.request, later._pool = template.request, pool
        return later

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Sets the CAs that the pool trusts, also for a proxy that speaks TLS: requests checks only the URL."""
        url = "https:" if conn.scheme == "https" else url
        if isinstance(verify, str) and any(map(os.path.isdir, verify.split(os.pathsep)[1:])):
            super().cert_verify(conn, url, True, cert)  # type: ignore[no-untyped-call]
            conn.ca_certs, conn.ca_cert_dir = None, verify  # OpenSSL takes a list, requests only one folder
            return
        super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Closes the idle connections at once: urllib3 2 would wait until nothing refers to the pool any more."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                if (pool := manager.pools.get(key)) is not None:
                    pool.close()
        super().close()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        watch_manager(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not known:
            watch_manager(manager)
        return manager
