"""An HTTP request made of what a provider encoded and what the caller set about how it travels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llmbridge._version import __version__
from llmbridge.secret import SHORTEST_SECRET, MaskedStr

if TYPE_CHECKING:
    from llmbridge._transport import HTTPRequest
    from llmbridge.options import TransportOptions
    from llmbridge.provider import Encoded, Provider
    from llmbridge.secret import Secret

__all__ = ["http_request"]

_USER_AGENT = f"llmbridge/{__version__}"


def http_request(
    provider: type[Provider],
    encoded: Encoded,
    options: TransportOptions,
    key: Secret | None,
    base_url: str,
    method: str = "POST",
) -> HTTPRequest:
    """The request with all its headers.

    Args:
        provider: Adds its headers, and knows how a key is sent.
        encoded: Path, body and headers of this request.
        options: The caller's headers win over all others.
        key: None for none.
        base_url: What the path is appended to.
        method: POST, or GET for a request without a body.
    """
    from llmbridge._transport import HTTPRequest, passwords_of

    # Identity: a compressing proxy would hold the pieces back until its buffer is full.
    headers: dict[str, str | None] = {
        "User-Agent": _USER_AGENT,
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
    }
    secrets = [*passwords_of(base_url)]
    _override(headers, provider.headers)
    _override(headers, encoded.headers)
    if key is not None:
        secrets.append(key.reveal())
        _override(headers, {name: MaskedStr(value) for name, value in provider.auth_headers(key.reveal()).items()})
    if options.headers:
        masked = [value for value in options.headers.values() if isinstance(value, MaskedStr)]
        secrets += [word for value in masked for word in value.split()]
        _override(headers, options.headers)
    if method == "GET":
        _override(headers, {"Content-Type": None})
    kept = {name: value for name, value in headers.items() if value is not None}
    return HTTPRequest(
        base_url + provider.path_below(base_url, encoded.path),
        kept,
        encoded.body,
        tuple(word for word in secrets if len(word) >= SHORTEST_SECRET),
        method,
    )


def _override(headers: dict[str, str | None], others: Mapping[str, str | None]) -> None:
    """Header names are the same in any case; the later one's spelling stays."""
    for name, value in others.items():
        for known in [known for known in headers if known.lower() == name.lower()]:
            del headers[known]
        headers[name] = value
