"""What a caller can set, checked before anything is sent: the transport options and the chat options."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Union
from urllib.parse import SplitResult, urlsplit

from llmbridge._json import json_copy
from llmbridge._locks import monotonic
from llmbridge._text import edits
from llmbridge.errors import ClockExpired, ConfigError
from llmbridge.retry import Retry
from llmbridge.secret import Key, KeyFunction, MaskedStr, Secret, revealed

if TYPE_CHECKING:
    import requests

__all__ = [
    "CHAT_NAMES",
    "OPTION_NAMES",
    "STRUCTURED",
    "TRANSPORT_NAMES",
    "UNSET",
    "ChatOptions",
    "KeyLike",
    "ReasoningEffort",
    "Timeout",
    "TimeoutLike",
    "TotalClock",
    "TransportOptions",
    "Unsupported",
    "checked_base_url",
    "checked_extra",
    "checked_headers",
    "checked_options",
    "checked_proxy",
    "given",
    "is_sensitive",
    "refuse_misspelt",
    "refuse_of_client",
    "warn_caller",
    "without_secrets",
]

PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")

# RFC 9110, 5.6.2: the characters of a field name.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ON_THIS_MACHINE = re.compile(r"(localhost|127\.[\d.]+|\[::1\])(:|/|$)")
_SCHEME = re.compile(r"[a-zA-Z]+:?/")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")
_SENSITIVE = re.compile(r"authorization|key|token|secret|cookie|password|signature", re.IGNORECASE)
_FRAMING = ("content-length", "transfer-encoding")


@dataclass(frozen=True, slots=True)
class Timeout:
    """The timeouts of a call, in seconds; None switches one off.

    Args:
        connect: Name lookup, connecting, passing a proxy and the TLS handshake.
        first_content: From the sent request to the first content. A comment or a ping is not content.
        idle: Between two pieces of content, while waiting for the server (time spent by the caller does not count).
        total: The whole call, with its retries, waits and error bodies, fallback models, retries for an answer that
            does not fit its schema, and with `run_tools` all turns and tools.

    Raises:
        ConfigError: A value is not a positive number.

    Example:
        >>> Timeout(idle=30).total
        1800.0
        >>> Timeout.of(20) == Timeout(total=20)
        True
    """

    connect: float | None = 10.0
    first_content: float | None = 300.0
    idle: float | None = 120.0
    total: float | None = 1800.0

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ConfigError(f"timeout {limit.name} must be a positive number of seconds or None, not {value!r}")

    @classmethod
    def of(cls, value: TimeoutLike) -> Timeout:
        """The timeouts for `value`: None means the defaults, a number the total."""
        if value is None:
            return cls()
        return value if isinstance(value, Timeout) else cls(total=value)


TimeoutLike = Union[None, float, Timeout]
KeyLike = Union[None, str, Secret, Callable[[], Union[str, Secret, Awaitable[Union[str, Secret]]]]]
Unsupported = Literal["error", "warn", "drop"]
ReasoningEffort = Union[Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"], str]


class TotalClock:
    """The total timeout of a whole chat: one for all turns, the tools between them, and retries for a schema.

    Args:
        limit: Seconds; None for no limit.
    """

    __slots__ = ("_limit", "_runs_out_at")

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._runs_out_at: float | None = None

    def start(self) -> float:
        """When it expires, on the clock of `time.monotonic`; the first call starts it."""
        if self._runs_out_at is None:
            self._runs_out_at = monotonic() + (float("inf") if self._limit is None else self._limit)
        return self._runs_out_at

    @property
    def left(self) -> float:
        """The seconds until then; zero or negative if it has expired."""
        return self.start() - monotonic()

    def check(self, doing: str = "") -> float:
        """The seconds that are left.

        Args:
            doing: The current activity, for the message.

        Raises:
            ClockExpired: It has expired.
        """
        if (left := self.left) > 0:
            return left
        raise ClockExpired(f"the call did not end within {self._limit:g} s{doing}", clock="total")


class _Unset:
    """The default of a parameter for which None has a meaning: leave it to the service."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()


@dataclass(frozen=True)
class TransportOptions:
    """The checked transport options of a caller. None if not set."""

    api_key: Key | None = None
    base_url: str | None = field(default=None, repr=False)
    proxy: str | bool | None = field(default=None, repr=False)
    timeout: Timeout | None = None
    retries: Retry | None = None
    headers: Mapping[str, str | None] | None = None
    session: requests.Session | None = None
    verify: bool | str | None = None

    @classmethod
    def checked(cls, **options: Any) -> TransportOptions:
        """From the caller's named arguments.

        Raises:
            ConfigError: One of them cannot be used; the message says which, and quotes no secret.
        """
        given = _checked(options)
        return cls(**given) if given else _NO_TRANSPORT_OPTIONS

    def over(self, defaults: TransportOptions) -> TransportOptions:
        """These options, with defaults for those that are not set; headers are merged."""
        if self is _NO_TRANSPORT_OPTIONS:
            return defaults
        changed = {name: value for name, value in vars(self).items() if value is not None}
        if self.headers is not None and defaults.headers is not None:
            changed["headers"] = {**defaults.headers, **self.headers}
        return replace(defaults, **changed)


@dataclass(frozen=True)
class ChatOptions:
    """The checked chat options of a caller. None if not set.

    Args:
        unsupported, run_tools, max_turns, schema_retries, extra, system, tools, tool_choice, schema, schema_mode: See
            `Client.chat`.
        params: Parameters of the service.
    """

    unsupported: Unsupported | None = None
    run_tools: bool | None = None
    max_turns: int | None = None
    schema_retries: int | None = None
    extra: Mapping[str, Any] | None = None
    system: str | None = None
    tools: Any = None
    tool_choice: Any = None
    schema: Any = None
    schema_mode: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def checked(
        cls, params: Mapping[str, Any], taken: Callable[[], Iterable[str]] = tuple, **options: Any
    ) -> ChatOptions:
        """From the caller's arguments; later changes to these have no effect.

        Args:
            params, taken: As for `refuse_misspelt`.
            **options: By the names of this class.

        Raises:
            ConfigError: One of them cannot be used, is misspelt, or belongs to a client.
        """
        refuse_of_client(params)
        refuse_misspelt(params, taken)
        given = _checked(options)
        if not (given or params):
            return _NO_CHAT_OPTIONS
        return cls(**given, params={name: _copied(value) for name, value in params.items()})

    def over(self, defaults: ChatOptions) -> ChatOptions:
        """These options, with defaults for those that are not set; parameters and `extra` are merged."""
        if self is _NO_CHAT_OPTIONS:
            return defaults
        changed = {name: value for name, value in vars(self).items() if value is not None}
        if self.extra is not None and defaults.extra is not None:
            changed["extra"] = {**defaults.extra, **self.extra}
        return replace(defaults, **{**changed, "params": {**defaults.params, **self.params}})

    @property
    def asked(self) -> dict[str, Any]:
        """The arguments of `ChatRequest.checked`: the parameters, tools and schema."""
        structured = {name: getattr(self, name) for name in STRUCTURED}
        return {**self.params, **{name: value for name, value in structured.items() if value is not None}}

    @property
    def wants_logprobs(self) -> bool:
        """Whether a parameter requests log probabilities: services send them unasked too, and they are bulky.

        Example:
            >>> ChatOptions(params={"generationConfig": {"responseLogprobs": True}}).wants_logprobs
            True
            >>> ChatOptions(params={"temperature": 0, "logprobs": False}).wants_logprobs
            False
        """
        for name, value in {**self.params, **(self.extra or {})}.items():
            if value is None or value is False:
                continue
            words = [name, *(value if isinstance(value, (Mapping, list, tuple)) else ())]
            if any(isinstance(word, str) and "logprobs" in word.lower() for word in words):
                return True
        return False


_NO_TRANSPORT_OPTIONS, _NO_CHAT_OPTIONS = TransportOptions(), ChatOptions()

STRUCTURED = ("tools", "tool_choice", "schema", "schema_mode")
"""Options that llmbridge converts for the service, unlike parameters, which are sent unchanged."""

TRANSPORT_NAMES = tuple(TransportOptions.__dataclass_fields__)
CHAT_NAMES = ("unsupported", "run_tools", "max_turns", "schema_retries", "extra")
_OF_CHATS = frozenset(ChatOptions.__dataclass_fields__) - {"params"}
OPTION_NAMES = (*TRANSPORT_NAMES, *CHAT_NAMES)
"""The named arguments that are not sent; all others are parameters of the service."""

_OF_CLIENT = ("limits", "pickle_key")

_OWN_NAMES = (*OPTION_NAMES, *STRUCTURED, *_OF_CLIENT, "model", "system")
_USUAL_NAMES = (
    "max_tokens", "temperature", "top_p", "top_k", "stop", "seed", "presence_penalty", "frequency_penalty",
    "reasoning_effort", "n", "logprobs", "top_logprobs", "parallel_tool_calls", "dimensions", "response_format",
    "max_completion_tokens",
)  # fmt: skip
_MEANT = frozenset((*_OWN_NAMES, *_USUAL_NAMES))
# Parameters of services, present and likely ones, that look like misspellings of these.
_NO_MISTAKES = frozenset(
    """
    app_key frequencyPenalty limit minTokens min_tokens modal mode models modes presencePenalty seeds topK topP
    """.split()  # noqa: SIM905 - a table of words
)
_BY_OTHER_NAMES = {  # in other libraries, or in earlier versions
    "api_base": "base_url",
    "extra_headers": "headers",
    "max_retries": "retries",
    "num_retries": "retries",
    "proxies": "proxy",
    "reask": "schema_retries",
    "request_timeout": "timeout",
    "response_model": "schema",
}


def refuse_misspelt(params: Mapping[str, Any], taken: Callable[[], Iterable[str]]) -> None:
    """Rejects a parameter whose name is so close to a known one that it must be a typo; new ones of a service pass.

    Args:
        params: The caller's parameters.
        taken: The names that a provider accepts in any case; called only if a name looks wrong.

    Raises:
        ConfigError: There is such a name; the message suggests the right one. Values are not quoted.

    Example:
        >>> refuse_misspelt({"min_p": 0.1, "top_a": 0.2, "best_of": 2}, tuple)
        >>> refuse_misspelt({"max_token": 0}, tuple)
        Traceback (most recent call last):
            ...
        llmbridge.errors.ConfigError: 'max_token' is not an option or a usual parameter: did you mean 'max_tokens'? \
        To send it to the service unchanged: extra={'max_token': ...}
    """
    for name in params:
        if name not in _MEANT and (meant := _meant(name)) and name not in taken():
            raise ConfigError(
                f"{name!r} is not an option or a usual parameter: did you mean {meant!r}? To send it to the service "
                f"unchanged: extra={{{name!r}: ...}}"
            )


@lru_cache
def _meant(name: str) -> str:
    """The known name that must have been meant; "" if it may be a parameter of its own.

    Example:
        >>> [_meant(name) for name in ("max_token", "maxTokens", "sotp", "step", "speed")]
        ['max_tokens', 'max_tokens', 'stop', '', '']
    """
    if name in _BY_OTHER_NAMES or name in _NO_MISTAKES:
        return _BY_OTHER_NAMES.get(name, "")
    return next((known for known in (*_OWN_NAMES, *_USUAL_NAMES) if _is_slip(_letters(name), _letters(known))), "")


def _letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _is_slip(word: str, known: str) -> bool:
    """Whether a word differs from a known one in few letters: for short words, which are often similar, in fewer."""
    if abs(len(word) - len(known)) > 2:
        return False
    if len(known) < 5:
        return word == known or (len(known) > 1 and sorted(word) == sorted(known) and edits(word, known) == 1)
    return edits(word, known) <= (1 if len(known) < 9 else 2)


def refuse_of_client(params: Mapping[str, Any]) -> None:
    """Rejects parameters of a call that only a client can have.

    Raises:
        ConfigError: There is one.
    """
    for name in _OF_CLIENT:
        if name in params:
            raise ConfigError(f"{name} belongs to a client, not to a single call: Client(..., {name}=...)")


def checked_options(
    options: Mapping[str, Any], taken: Callable[[], Iterable[str]] = tuple
) -> tuple[TransportOptions, ChatOptions]:
    """The options of a chat from a caller's arguments by name; all others are parameters of the service.

    Raises:
        ConfigError: As `TransportOptions.checked` and `ChatOptions.checked`.
    """
    ways = {name: options[name] for name in TRANSPORT_NAMES if name in options}
    chat = {name: options[name] for name in _OF_CHATS if name in options}
    params = {name: value for name, value in options.items() if name not in {*ways, *chat, "model"}}
    return TransportOptions.checked(**ways), ChatOptions.checked(params, taken, **chat)


def given(params: Mapping[str, Any], **usual: Any) -> dict[str, Any]:
    """The caller's parameters: those of `usual` that are set, and all others."""
    return {**{name: value for name, value in usual.items() if value is not UNSET}, **params}


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _CHECKS.get(name, _copied)(value) for name, value in options.items() if value is not None}


def _copied(value: Any) -> Any:
    """A copy, unaffected by later changes. Values that cannot be copied are rejected when sent."""
    if isinstance(value, (list, dict)):
        with contextlib.suppress(Exception):
            return deepcopy(value)
    return value


def _copied_tools(tools: Any) -> Any:
    """Reads the tools once, since they may come from an iterator.

    Example:
        >>> _copied_tools(iter([print]))
        (<built-in function print>,)
    """
    several = isinstance(tools, Iterable) and not isinstance(tools, (str, bytes, Mapping, type))
    return tuple(tools) if several else tools


def without_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without passwords in URLs and without headers that are likely to hold a secret.

    Example:
        >>> without_secrets({"proxy": "http://me:pw@proxy.example:3128", "headers": {"X-Api-Key": "k", "X-App": "a"}})
        {'proxy': 'http://proxy.example:3128', 'headers': {'X-App': 'a'}}
    """
    kept = dict(options)
    for name in ("base_url", "proxy"):
        if isinstance(url := kept.get(name), str):
            parts = urlsplit(url)
            kept[name] = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if kept.get("headers"):
        headers = kept["headers"].items()
        kept["headers"] = {name: value for name, value in headers if value is None or not is_sensitive(name)}
    return kept


def checked_base_url(base_url: str, name: str = "base_url") -> str:
    """The base URL without trailing slashes.

    Args:
        base_url: `http://` or `https://`, a host, perhaps a port and a path.
        name: Its name in errors.

    Raises:
        ConfigError: It is something else; a password in it is not quoted.

    Example:
        >>> checked_base_url("http://127.0.0.1:8080/v1/")
        'http://127.0.0.1:8080/v1'
    """
    parts = _split(base_url, name)
    if parts.scheme not in ("http", "https"):
        raise ConfigError(f"{name} must begin with http:// or https://, like http://127.0.0.1:8080/v1")
    if parts.query or parts.fragment or base_url.endswith(("?", "#")):
        raise ConfigError(f"{name} must not have a query or a fragment: paths are appended to it")
    return base_url.strip().rstrip("/")


def checked_proxy(proxy: str) -> str:
    """The proxy's URL; without a scheme it is an HTTP proxy.

    Raises:
        ConfigError: It is not a proxy URL; its password is not quoted.

    Example:
        >>> checked_proxy("127.0.0.1:3128")
        'http://127.0.0.1:3128'
    """
    if isinstance(proxy, str) and "://" not in proxy:
        proxy = f"http://{proxy.strip()}"
    if _split(proxy, "proxy").scheme not in PROXY_SCHEMES:
        raise ConfigError(f"proxy must be a URL like http://host:3128; its scheme one of {', '.join(PROXY_SCHEMES)}")
    return proxy.strip()


def is_sensitive(name: str) -> bool:
    """Whether a header of that name is likely to hold a secret."""
    return _SENSITIVE.search(name) is not None


def checked_headers(headers: Mapping[str, str | None]) -> dict[str, str | None]:
    """The caller's headers, stripped; sensitive ones are masked in every repr.

    Args:
        headers: Names to values; None removes a header of the provider.

    Raises:
        ConfigError: A name or value is invalid in HTTP, or a header frames the body. Values are not quoted.
    """
    if not isinstance(headers, Mapping):
        raise ConfigError(f"headers must be a mapping of str to str, not {type(headers).__name__}")
    return {_checked_name(name): _checked_value(name, value) for name, value in headers.items()}


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ConfigError("a header name holds a character that is not allowed there, or is not a str")
    if name.lower() in _FRAMING:
        raise ConfigError(f"header {name} follows from the body and cannot be set: leave it out")
    return name


def _checked_value(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(f"header {name} must be a str or None, not {type(value).__name__}")
    value = revealed(value).strip()
    if not (value.isascii() and value.replace("\t", " ").isprintable()):
        raise ConfigError(f"header {name} holds a line break, a control character or a non-ASCII character")
    return MaskedStr(value) if is_sensitive(name) else value


def _split(url: str, what: str) -> SplitResult:
    """The URL's parts, after checking that it has a host and nothing that would change its meaning."""
    if not isinstance(url, str):
        raise ConfigError(f"{what} must be a str, not {type(url).__name__}")
    url = url.strip()
    if not _has_host(url):
        lacks = ""
        if not _SCHEME.match(url) and _has_host(f"http://{url}"):
            lacks = f": put http://{'' if _ON_THIS_MACHINE.match(url) else ' or https://'} in front"
        raise ConfigError(f"{what} is not a URL with a host, like http://127.0.0.1:8080{lacks}")
    return urlsplit(url)


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        if "[" in parts.netloc:
            ipaddress.IPv6Address((parts.hostname or "").partition("%")[0])
        return bool(parts.hostname) and parts.port != 0 and not _UNPRINTABLE.search(url) and "\\" not in url
    except ValueError:
        return False


def _checked_proxy_setting(proxy: str | bool) -> str | bool:
    if isinstance(proxy, bool):
        if proxy:
            raise ConfigError("proxy=True is ambiguous: pass a URL, None for the environment's, or False for none")
        return False
    return checked_proxy(proxy)


def _checked_key(key: Any) -> Key:
    if isinstance(key, (Secret, KeyFunction)):
        return key
    return KeyFunction(key) if callable(key) else Secret(key)


def _checked_session(session: Any) -> Any:
    if isinstance(session, type) or not callable(getattr(session, "prepare_request", None)):
        raise ConfigError(f"session must be a requests.Session, not {type(session).__name__}")
    return session


def _checked_verify(verify: bool | str | os.PathLike[str]) -> bool | str:
    if not isinstance(verify, (bool, str, os.PathLike)):
        raise ConfigError("verify must be True, False or the path of a CA file")
    if isinstance(verify, bool):
        return verify
    if not os.path.exists(verify):
        raise ConfigError(f"verify: CA file or folder {os.fspath(verify)!r} does not exist")
    return os.fspath(verify)


def _checked_unsupported(value: Any) -> Any:
    if value not in ("error", "warn", "drop"):
        raise ConfigError(f"unsupported must be 'error', 'warn' or 'drop', not {value!r}")
    return value


def _checked_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"run_tools must be True or False, not {value!r}")
    return value


def _checked_count(name: str, least: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} must be a whole number from {least}, not {value!r}")
        return value

    return check


def checked_extra(extra: Any) -> Any:
    """A copy of the fields to add to a body.

    Raises:
        ConfigError: It is not a mapping, or JSON cannot hold it.
    """
    if not isinstance(extra, Mapping):
        raise ConfigError(f"extra must be a mapping of fields to add to the body, not {type(extra).__name__}")
    return json_copy(extra, "extra")


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "api_key": _checked_key,
    "base_url": checked_base_url,
    "proxy": _checked_proxy_setting,
    "timeout": Timeout.of,
    "retries": Retry.of,
    "headers": checked_headers,
    "session": _checked_session,
    "verify": _checked_verify,
    "unsupported": _checked_unsupported,
    "run_tools": _checked_flag,
    "max_turns": _checked_count("max_turns", 1),
    "schema_retries": _checked_count("schema_retries", 0),
    "extra": checked_extra,
    "tools": _copied_tools,
}


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warns with the line of the caller: the first one up the stack outside of llmbridge."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] == "llmbridge":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
