"""The adapter of llmbridge's own session: that of requests, without repeating for each call what never changes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar, extract_cookies_to_jar
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3.util import parse_url

from llmbridge._transport.call import WouldWait
from llmbridge._transport.connections import watch_manager
from llmbridge._transport.later import Later
from llmbridge.secret import MaskedStr

__all__ = ["LazyResponse", "SentHeaders", "WatchedAdapter"]

_IDLE_CONNECTIONS = 64  # kept per host for reuse; the number of busy ones is not limited
_HOSTS = 64  # to which a client keeps idle connections
_LAZY = ("cookies", "encoding", "headers", "history")
_BLANK = {name: value for name, value in vars(requests.Response()).items() if name not in _LAZY}


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


class LazyResponse(requests.Response):
    """A response whose costly attributes are built when they are first read: most callers need only the body."""

    def __init__(self, request: Any, raw: Any, adapter: Any) -> None:
        vars(self).update(
            _BLANK, status_code=raw.status, reason=raw.reason, raw=raw, url=request.url, request=request,
            connection=adapter, history=[],
        )  # fmt: skip

    @cached_property
    def headers(self) -> Any:  # type: ignore[override]
        """See requests."""
        return CaseInsensitiveDict(self.raw.headers)

    @cached_property
    def encoding(self) -> Any:  # type: ignore[override]
        """See requests."""
        return get_encoding_from_headers(self.headers)

    @cached_property
    def cookies(self) -> Any:  # type: ignore[override]
        """See requests."""
        jar = RequestsCookieJar()
        extract_cookies_to_jar(jar, self.request, self.raw)  # type: ignore[no-untyped-call]
        return jar

    def header_items(self) -> Iterable[tuple[str, str]]:
        """Names and values, without building `headers`."""
        items: Iterable[tuple[str, str]] = self.raw.headers.itermerged()
        return self.headers.items() if "headers" in vars(self) else items


@lru_cache(maxsize=_HOSTS)
def _target(url: str) -> str:
    """The path and the query, as urllib3 sends them."""
    return parse_url(url).request_uri


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

    def send_over_kept(self, request: Any, verify: Any) -> Later:
        """`send` over a kept connection, for a call that sends at once: most of what urllib3 does is for new ones.

        Raises:
            WouldWait: There is none, or it might wait.
        """
        pool: Any = self.get_connection_with_tls_context(request, verify)
        connection = pool._get_conn()
        try:
            if connection.sock is None:
                raise WouldWait
            connection.timeout = 0
            connection.request(request.method, _target(request.url), request.body, request.headers)
            later: Later = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        later.request, later._pool = request, pool
        return later

    def has_idle(self, url: str) -> bool:
        """Whether an idle connection is kept for this URL, and no mock or recorder has replaced its class."""
        for key, pool in [*self._pools.items()]:
            if key[0] == url and (idle := pool.pool) is not None and type(idle.newest) is pool.ConnectionCls:
                return True
        return False

    def request_url(self, request: Any, proxies: Any) -> str:
        """The path, unless there is a proxy: requests would parse the URL each time to find that out."""
        url: str = super().request_url(request, proxies) if proxies else request.path_url
        return url

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        """The response of urllib3 as one of requests."""
        return LazyResponse(req, resp, self)

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
