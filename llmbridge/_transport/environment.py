"""The proxies and CAs that the environment names, and the names of proxies in errors."""

from __future__ import annotations

import base64
import os
import sys
from typing import Any
from urllib.parse import unquote, urlsplit

from requests.utils import get_environ_proxies, select_proxy

from llmbridge.errors import ConfigError
from llmbridge.options import checked_proxy

__all__ = ["CA_VARIABLES", "ProxySetting", "named_proxy", "passwords_of", "proxies_for", "trusted_by_environment"]

ProxySetting = str | bool | None
"""A URL; None for the environment's; False for no proxy."""

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""Variables that may name the CAs to trust: the first that is set wins."""

_PROXY_VARIABLES = tuple(
    name
    for lower in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method")
    for name in (lower, lower.upper())
)
_VARIABLES = (*CA_VARIABLES, *_PROXY_VARIABLES)
_ENCODED = tuple(map(getattr(os.environ, "encodekey", str), _VARIABLES))
# Elsewhere the system's own settings apply too, and can change without a change of the environment.
_ENVIRONMENT_IS_ALL = sys.platform not in ("win32", "darwin")
_MOST = 100  # cached answers

_UNKNOWN: Any = object()
_known: tuple[tuple[Any, ...], dict[Any, Any]] = (), {}


def _cache() -> dict[Any, Any]:
    """The cache for the environment as it is now: empty if that has changed."""
    global _known
    # os.environ itself takes a microsecond for each variable that is not set. A replacement may lack `_data`.
    inside = getattr(os.environ, "_data", None)
    now = tuple(map(os.environ.get, _VARIABLES) if inside is None else map(inside.get, _ENCODED))
    known = _known
    if now != known[0] or len(known[1]) > _MOST:
        _known = known = now, {}
    return known[1]


def trusted_by_environment(variables: tuple[str, ...]) -> bool | str:
    """The file or folder of CAs that one of the variables names; True if none does.

    Args:
        variables: Their names; the first that is set wins.
    """
    known = _cache()
    if variables not in known:
        known[variables] = next((path for path in map(os.environ.get, variables) if path), True)
    found: bool | str = known[variables]
    return found


def proxies_for(url: str, proxy: ProxySetting) -> dict[str, str]:
    """The proxies to pass to requests for this URL: empty for a direct connection.

    Raises:
        ConfigError: The environment names a proxy that is not a URL.
    """
    if proxy is False:
        return {}
    chosen = proxy if isinstance(proxy, str) else _from_environment(url)
    return {"http": chosen, "https": chosen} if chosen else {}


def _from_environment(url: str) -> str | None:
    """Caches the answer of requests, which takes longer than everything else in preparing a short call."""
    known = _cache()
    if _ENVIRONMENT_IS_ALL and (found := known.get(url, _UNKNOWN)) is not _UNKNOWN:
        return found  # type: ignore[no-any-return]
    chosen = select_proxy(url, get_environ_proxies(url))
    if chosen:
        try:
            chosen = checked_proxy(chosen)
        except ConfigError as error:
            scheme = urlsplit(url).scheme.upper()
            raise ConfigError(f"the environment's {scheme}_PROXY or ALL_PROXY: {error.message}") from None
    known[url] = chosen or None
    return chosen or None


def named_proxy(url: str, proxy: str, setting: ProxySetting) -> str:
    """The proxy as an error names it: its address and, if the environment chose it, the variable.

    Args:
        url: The URL of the request.
        proxy: The proxy's URL.
        setting: The caller's setting.
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
    if "@" not in parts.netloc or not parts.password:
        return ()
    plain = unquote(parts.password)
    basic = base64.b64encode(f"{unquote(parts.username or '')}:{plain}".encode()).decode()
    return tuple(dict.fromkeys((parts.password, plain, basic)))
