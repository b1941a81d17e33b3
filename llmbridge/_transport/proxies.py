"""Which proxy a URL goes through: the argument's, or the environment's; a bad one never means a direct request."""

from __future__ import annotations

import base64
import os
import sys
from urllib.parse import unquote, urlsplit

from requests.utils import get_environ_proxies, select_proxy

from llmbridge.errors import ConfigError
from llmbridge.options import checked_proxy

__all__ = ["ProxySetting", "passwords_of", "proxies_for"]

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
