"""The one place where errors of requests, urllib3, http.client, ssl and the system become errors of llmbridge."""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Iterator
from typing import NoReturn

import requests
import urllib3

from llmbridge._transport.call import Call
from llmbridge._transport.connections import HeadersTruncated
from llmbridge.errors import (
    ClockExpired,
    ConfigError,
    ConnectFailed,
    LLMBridgeError,
    Pending,
    ProtocolError,
    StreamTruncated,
    TransportError,
    without_frames,
)

__all__ = ["FOREIGN", "Failure", "mapped", "root_of"]

FOREIGN = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError)
"""What can come out of a request or a read, and is to be mapped. (ValueError: a read of a closed file.)"""

_SETUP = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidHeader,
    urllib3.exceptions.LocationParseError,
)


class Failure:
    """What goes wrong, kept until the foreign error is out of the way: it would stand in the context otherwise.

    Args:
        error: The foreign error, or one of llmbridge.
        call: Whose end explains the error, if it has ended: then its own socket was shut down.
        host: The host that the request was for.
    """

    def __init__(self, error: BaseException, call: Call, host: str) -> None:
        reason = call.reason()
        connected = call.reused_connection is not None
        self._error = Pending(without_frames(reason or mapped(error, host, call.connecting, connected)))
        self._cause = None if reason is not None or isinstance(error, LLMBridgeError) else root_of(error)

    @property
    def broken(self) -> bool:
        """Whether the connection broke before any answer."""
        return isinstance(self._cause, (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError))

    def throw(self) -> NoReturn:
        """Raises it, once."""
        raise self._error.taken() from self._cause


def mapped(error: BaseException, host: str, connecting: bool = False, connected: bool = False) -> LLMBridgeError:
    """The error of llmbridge that says what `error` means for a caller.

    Nothing of the foreign message is taken over but the system's own words: they quote URLs, headers and passwords.

    Args:
        error: One of FOREIGN, as it came out of the request or of a read.
        host: The host that the request was for.
        connecting: No connection had been made yet.
        connected: One is known to have been made, so that TLS failed behind its handshake.
    """
    chain = list(_chain(error))
    for own in chain:
        if isinstance(own, LLMBridgeError):
            return own
    if any(isinstance(link, urllib3.exceptions.InvalidHeader) for link in chain):
        return ProtocolError(f"{host} sent an answer that is no valid HTTP")  # two lengths: requests blames the caller
    if any(isinstance(link, _SETUP) for link in chain):
        return _setup_error(chain)
    if any(isinstance(link, HeadersTruncated) for link in chain):
        return StreamTruncated(f"{host} closed the connection in the middle of the answer's headers")
    if (untrusted := _trust_error(chain, host)) is not None:
        return untrusted
    if any(isinstance(link, urllib3.exceptions.ProxyError) for link in chain):
        return _proxy_error(chain, host)
    # The limit that a library for SOCKS was given is that of the connect clock; the system's own has a number.
    if connecting and any(isinstance(link, TimeoutError) and link.errno is None for link in chain):
        return ClockExpired(f"no connection to {host} was made in time", clock="connect")
    if connecting or (not connected and any(isinstance(link, requests.exceptions.SSLError) for link in chain)):
        return ConnectFailed(f"no connection to {host}: {_reason(chain)}")
    return _connection_error(chain, host)


def _trust_error(chain: list[BaseException], host: str) -> LLMBridgeError | None:
    """What is wrong with whom is trusted, if anything is."""
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError):
            return _final(
                f"the certificate of {host} is not trusted ({link.verify_message}): "
                "give the CA's file with verify=, or correct the base_url"
            )
        if type(link).__name__ == "CertificateError":  # urllib3's own check of names: a ValueError in a private module
            return _final(f"the certificate of {host} is not trusted (it is for another name): correct the base_url")
        if _is_unusable_ca(link):
            return ConfigError(
                "the CA file or folder to trust cannot be used: check verify=, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE"
            )
    return None


def _is_unusable_ca(link: BaseException) -> bool:
    if isinstance(link, ssl.SSLError):
        return getattr(link, "library", None) in ("X509", "PEM")  # of reading one; a handshake's are of "SSL"
    return isinstance(link, OSError) and "TLS CA certificate bundle" in str(link)  # requests' own: it leads nowhere


def _setup_error(chain: list[BaseException]) -> LLMBridgeError:
    if any("SOCKS" in str(link) for link in chain):
        return ConfigError("a SOCKS proxy needs one more package: pip install 'llmbridge[socks]'")
    return ConfigError("the URL, the proxy or a header cannot be used by requests: check base_url, proxy and headers")


def _proxy_error(chain: list[BaseException], host: str) -> LLMBridgeError:
    if any(str(link).startswith("Tunnel connection failed: 407") for link in chain):
        return _final(f"the proxy on the way to {host} asks for credentials: proxy='http://user:password@host:port'")
    for link in chain:
        if refused := re.match(r"Tunnel connection failed: (\d{3})\b", str(link)):
            return ConnectFailed(f"no connection to {host} through the proxy, which answered {refused[1]}")
    return ConnectFailed(f"no connection to {host} through the proxy: {_reason(chain)}")


def _connection_error(chain: list[BaseException], host: str) -> LLMBridgeError:
    names = urllib3.exceptions
    if any(isinstance(link, names.NewConnectionError) for link in chain):
        return ConnectFailed(f"no connection to {host}: {_reason(chain)}")
    if any(isinstance(link, (requests.exceptions.ConnectTimeout, names.ConnectTimeoutError)) for link in chain):
        return ClockExpired(f"no connection to {host} was made in time", clock="connect")
    if any(isinstance(link, (requests.exceptions.ReadTimeout, names.ReadTimeoutError)) for link in chain):
        return ClockExpired(f"{host} sent nothing in time", clock="first_content")
    if any(isinstance(link, http.client.RemoteDisconnected) for link in chain):
        return StreamTruncated(f"{host} closed the connection before it answered")
    if any(isinstance(link, (http.client.BadStatusLine, http.client.UnknownProtocol)) for link in chain):
        return ProtocolError(f"{host} does not speak HTTP: check the base_url's scheme and port")
    if any(isinstance(link, http.client.IncompleteRead) for link in chain):
        return StreamTruncated("the connection ended in the middle of the answer")
    if any(isinstance(link, (http.client.LineTooLong, http.client.HTTPException)) for link in chain):
        return ProtocolError(f"{host} sent an answer that is no valid HTTP")
    if any(isinstance(link, (ConnectionError, ssl.SSLError)) for link in chain):
        return StreamTruncated(f"the connection to {host} broke: {_reason(chain)}")
    return TransportError(f"the request to {host} failed: {_reason(chain)}")


def _final(message: str) -> ConnectFailed:
    error = ConnectFailed(message)
    error.final = True
    return error


def _reason(chain: list[BaseException]) -> str:
    """The system's own words, which come last in the chain."""
    for link in reversed(chain):
        # Only the interpreter gives them a reason: urllib3's pyOpenSSL and mocks raise some without even the attribute.
        if isinstance(link, ssl.SSLError) and (reason := getattr(link, "reason", None)):
            return f"TLS: {reason.lower().replace('_', ' ')}"
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
    return type(chain[-1]).__name__


def root_of(error: BaseException) -> BaseException:
    """The first cause, to chain to, without its frames: those in between hold requests, headers and pools."""
    # A TypeError at the bottom is of no interest: urllib3 1.26 tries arguments out.
    root = [link for link in _chain(error) if not isinstance(link, TypeError)][-1]
    if not (isinstance(root, OSError) and root.errno is not None):
        root.args = ()  # not the system's own words: they may quote what a server sent, or a URL
        root.__dict__.clear()
    root.__cause__ = None
    return without_frames(root)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it; urllib3 and requests also carry causes in their arguments."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = [arg for arg in (*error.args, getattr(error, "reason", None)) if isinstance(arg, BaseException)]
        error = inner[0] if inner else error.__cause__ or error.__context__
