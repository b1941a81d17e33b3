"""The adapter of llmbridge's own session: that of requests, without repeating for each call what never changes."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from typing import Any

from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.util import parse_url

from llmbridge._transport.connections import Watched, watch_manager
from llmbridge._transport.later import Later
from llmbridge.secret import MaskedStr

__all__ = ["SentHeaders", "WatchedAdapter"]

_IDLE_CONNECTIONS = 64  # kept per host for reuse; the number of busy ones is not limited
_HOSTS = 64  # to which a client keeps idle connections


class SentHeaders(CaseInsensitiveDict):  # type: ignore[type-arg]
    """Headers of a request: urllib3 copies them, and reads them one by one, which takes long with those of requests."""

    _store: Any

    def copy(self) -> SentHeaders:
        """See requests."""
        copy = SentHeaders.__new__(SentHeaders)
        copy._store = self._store.copy()
        return copy

    def items(self) -> Any:
        """Names and values."""
        return self._store.values()


@lru_cache(maxsize=_HOSTS)
def _target(url: str) -> str:
    """The path and the query, as urllib3 sends them."""
    return parse_url(url).request_uri


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

    def send_over_kept(self, request: Any, verify: Any, at_once: bool) -> Later | None:
        """`send` over a kept connection: most of what requests and urllib3 do is for new ones, redirects and retries.

        Args:
            request, verify: As for `send`.
            at_once: The socket must not block.

        Returns:
            The answer, which is empty so far; None if there is no usable connection.
        """
        pool: Any = self.get_connection_with_tls_context(request, verify)
        if not _keeps(pool) or (connection := pool._get_conn()).sock is None:
            return None
        connection.timeout = 0 if at_once else None
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # as in urllib3: the server may have answered before
                connection.request(request.method, _target(request.url), request.body, request.headers)
            later: Later = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        later.request, later._pool = request, pool
        return later

    def has_idle(self, url: str) -> bool:
        """Whether a request to this URL may be sent over a kept connection."""
        return any(key[0] == url and _keeps(pool) for key, pool in [*self._pools.items()])

    def request_url(self, request: Any, proxies: Any) -> str:
        """The path, unless there is a proxy: requests would parse the URL each time to find that out."""
        url: str = super().request_url(request, proxies) if proxies else request.path_url
        return url

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
