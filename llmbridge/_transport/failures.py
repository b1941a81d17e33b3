"""Maps errors of requests, urllib3, http.client, ssl and the system to errors of llmbridge, in one place."""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NoReturn

import requests
import urllib3

from llmbridge._transport.call import Call, Step
from llmbridge._transport.connections import HEADERS_LIMIT, HeadersTooLong, HeadersTruncated, ended
from llmbridge._transport.environment import CA_VARIABLES
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

_ASKS_FOR_CREDENTIALS = 407
_NEVER_TUNNELS = (405, 501)  # the proxy does not support CONNECT
_SOCKS_CREDENTIALS = ("SOCKS5 authentication failed", "All offered SOCKS5", "No username/password", "0x5c", "0x5d")
# ssl's reasons for bytes that are not TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG")
_TLS_RECORD = ("\x15\x03", "\x16\x03")  # an alert, a part of a handshake

FOREIGN = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError)
"""What a request or a read may raise, to be mapped. (ValueError: a read of a closed file.)"""

_SETUP = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidHeader,
    urllib3.exceptions.LocationParseError,
)


class Failure:
    """A failure, kept until the foreign error has been handled: otherwise that would be its `__context__`.

    Args:
        error: The foreign error, or one of llmbridge.
        call: If it has ended, that explains the error: its own socket was shut down.
        host: The host that the request was for.
        proxy: The proxy, as errors name it; "" if there is none.
        tls: Whether TLS was requested; None once there is an answer, which shows that this was right.
    """

    def __init__(self, error: BaseException, call: Call, host: str, proxy: str = "", tls: bool | None = None) -> None:
        reason = call.reason()
        connected = call.reused_connection is not None
        way = _Way(host, proxy, call.step if call.connecting else None, tls)
        if isinstance(reason, ClockExpired) and reason.clock == "connect":
            reason = way.late(call.connect_limit)
        elif isinstance(reason, ClockExpired) and call.connecting:
            reason.message += f": {way.late(None).message}"
        self._error = Pending(without_frames(reason or _mapped(error, way, call.connecting, connected)))
        self._cause = None if reason is not None or isinstance(error, LLMBridgeError) else root_of(error)

    @property
    def broken(self) -> bool:
        """Whether the connection broke before any answer."""
        return ended(self._cause)

    def throw(self) -> NoReturn:
        """Raises it, once."""
        raise self._error.taken() from self._cause


@dataclass(frozen=True, slots=True)
class _Way:
    """Where a request was to go, and how far it got.

    Args:
        host: The host that it was for.
        proxy: The proxy, as errors name it; "" if there is none.
        step: The step of connecting that failed; None if connected, or if unknown.
        tls: Whether TLS was requested; None once there is an answer, which shows that this was right.
    """

    host: str
    proxy: str = ""
    step: Step | None = None
    tls: bool | None = None

    @property
    def peer(self) -> str:
        """The other end of the connection: the proxy or the host."""
        return self.proxy or "the proxy" if self.step == "proxy" else self.host

    @property
    def perhaps_tls(self) -> str:
        """A hint for a connection that ended without an answer. A proxy that speaks HTTP would have answered."""
        plain = self.tls is False and not self.proxy.startswith("the HTTP proxy")
        return ": is it an https:// server?" if plain else ""

    @property
    def perhaps_plain(self) -> str:
        """A hint for a connection that ended during TLS."""
        return ": does it speak plain http://?" if self.step == "tls" and self.tls else ""

    def closed(self, reason: str) -> str:
        """The message that nothing was sent, and why."""
        through = f" through {self.peer}" if self.step == "proxy" else ""
        return f"no connection to {self.host}{through}: {reason}"

    def late(self, limit: float | None) -> ClockExpired:
        """The error for the connect timeout."""
        within = "in time" if limit is None else f"within {limit:g} s"
        message = f"no connection to {self.host} was made {within}"
        if self.step == "proxy":
            message = f"{self.peer} did not connect to {self.host} {within}"
        elif self.step == "tls" and self.tls:
            message = f"no TLS answer from {self.host} {within}{self.perhaps_plain}"
        return ClockExpired(message, clock="connect")


def mapped(error: BaseException, host: str, connecting: bool = False, connected: bool = False) -> LLMBridgeError:
    """The error of llmbridge that `error` means for a caller.

    Only the system's own words of the foreign message are used: the rest quotes URLs, headers and passwords.

    Args:
        error: One of FOREIGN, as raised by the request or a read.
        host: The host that the request was for.
        connecting: No connection had been made yet.
        connected: There was a connection, so that TLS failed after its handshake.
    """
    return _mapped(error, _Way(host), connecting, connected)


def _mapped(error: BaseException, way: _Way, connecting: bool, connected: bool) -> LLMBridgeError:
    chain = list(_chain(error))
    for own in chain:
        if isinstance(own, LLMBridgeError):
            return own
    if any(isinstance(link, urllib3.exceptions.InvalidHeader) for link in chain):
        # Two lengths in the headers: requests reports an invalid header of the caller.
        return ProtocolError(f"{way.host} sent an invalid HTTP response")
    if any(isinstance(link, _SETUP) for link in chain):
        return _setup_error(chain)
    if not (connecting or connected) and _is_of_proxy(chain):  # the connections of a caller's session may not report
        way, connecting = replace(way, step="proxy"), True
    if not connecting and any(isinstance(link, HeadersTruncated) for link in chain):
        return StreamTruncated(f"{way.host} closed the connection in the middle of the answer's headers")
    if any(isinstance(link, HeadersTooLong) for link in chain):
        return ProtocolError(f"{way.peer} sent more than {HEADERS_LIMIT // 1024} kB of headers")
    if (untrusted := _trust_error(chain, way)) is not None:
        return untrusted
    if way.step == "proxy" and (refused := _proxy_error(chain, way)) is not None:
        return refused
    # A SOCKS library got the connect timeout as its own; a timeout of the system has a number.
    if connecting and any(isinstance(link, TimeoutError) and link.errno is None for link in chain):
        return way.late(None)
    if connecting or (not connected and any(isinstance(link, requests.exceptions.SSLError) for link in chain)):
        return _not_connected(chain, way)
    return _connection_error(chain, way)


def _not_connected(chain: list[BaseException], way: _Way) -> ConnectFailed:
    message = way.closed(_reason(chain))
    if any(getattr(link, "reason", None) in _NO_TLS for link in chain if isinstance(link, ssl.SSLError)):
        who, where = ("the proxy", " in its URL") if way.step == "proxy" else ("the server", "")
        return _final(f"{message}: {who} speaks plain HTTP; write http://{where}")
    return ConnectFailed(message + way.perhaps_plain)


def _trust_error(chain: list[BaseException], way: _Way) -> LLMBridgeError | None:
    """The error about certificates or CAs, if it is one."""
    correct = "correct the proxy's URL" if way.step == "proxy" else "correct the base_url"
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError):
            return _final(
                f"the certificate of {way.peer} is not trusted ({link.verify_message}): "
                f"give the CA's file with verify=, or {correct}"
            )
        if type(link).__name__ == "CertificateError":  # urllib3's own check of names: a ValueError in a private module
            return _final(f"the certificate of {way.peer} is not trusted (it is for another name): {correct}")
        if isinstance(link, ssl.SSLError) and "CERTIFICATE_REQUIRED" in str(link):
            return _final(
                f"{way.peer} demands a client certificate: pass session= with a requests.Session whose cert is set"
            )
        if _is_unusable_ca(link):
            return ConfigError(
                f"the CA file or folder to trust cannot be used: check verify=, {', '.join(CA_VARIABLES)}"
            )
    return None


def _is_unusable_ca(link: BaseException) -> bool:
    if isinstance(link, ssl.SSLError):
        return getattr(link, "library", None) in ("X509", "PEM")  # of reading one; a handshake's are of "SSL"
    return isinstance(link, OSError) and "TLS CA certificate bundle" in str(link)  # requests: there is no such path


def _setup_error(chain: list[BaseException]) -> LLMBridgeError:
    if any("SOCKS" in str(link) for link in chain):
        return ConfigError("a SOCKS proxy needs another package: pip install 'llmbridge[socks]'")
    return ConfigError("the URL, the proxy or a header cannot be used by requests: check base_url, proxy and headers")


def _is_of_proxy(chain: list[BaseException]) -> bool:
    """Whether urllib3 blames the proxy, and is right: it does so for any connection that breaks behind a proxy."""
    names = urllib3.exceptions
    before = (names.NewConnectionError, names.ConnectTimeoutError, names.SSLError)
    return any(isinstance(link, names.ProxyError) for link in chain) and any(
        isinstance(link, before) or _refusal(link) for link in chain
    )


def _refusal(link: BaseException) -> int | None:
    """The status with which a proxy rejected CONNECT, if the error is about one."""
    found = re.match(r"Tunnel connection failed: (\d{3})\b", str(link))
    return int(found[1]) if found else None


def _proxy_error(chain: list[BaseException], way: _Way) -> LLMBridgeError | None:
    """The error for what the proxy itself has answered, if anything."""
    for link in chain:
        if (status := _refusal(link)) == _ASKS_FOR_CREDENTIALS:
            return unauthorized(way.host, way.peer)
        if status is not None:
            failed = _final if status in _NEVER_TUNNELS else ConnectFailed
            return failed(f"no connection to {way.host} through {way.peer}, which answered {status}")
        if type(link).__module__ == "socks" and getattr(link, "socket_err", None) is None:
            # PySocks' texts, from its tables of the proxy's error numbers.
            failed = _final if str(link).startswith(_SOCKS_CREDENTIALS) else ConnectFailed
            return failed(way.closed(str(link)))
    return None


def unauthorized(host: str, proxy: str) -> ConnectFailed:
    """The error for 407, in answer to CONNECT or to the request itself: a retry would not help.

    Args:
        host: The host that the request was for.
        proxy: The proxy, as errors name it.
    """
    return _final(
        f"no connection to {host} through {proxy}: it wants credentials, or other ones than it got (407); "
        "set proxy='http://user:password@host:port'"
    )


def _connection_error(chain: list[BaseException], way: _Way) -> LLMBridgeError:
    names, host = urllib3.exceptions, way.host
    if any(isinstance(link, names.NewConnectionError) for link in chain):
        return ConnectFailed(f"no connection to {host}: {_reason(chain)}")
    if any(isinstance(link, (requests.exceptions.ConnectTimeout, names.ConnectTimeoutError)) for link in chain):
        return ClockExpired(f"no connection to {host} was made in time", clock="connect")
    if any(isinstance(link, (requests.exceptions.ReadTimeout, names.ReadTimeoutError)) for link in chain):
        return ClockExpired(f"{host} sent nothing in time", clock="first_content")
    if any(isinstance(link, http.client.RemoteDisconnected) for link in chain):
        return StreamTruncated(f"{host} closed the connection before it answered{way.perhaps_tls}")
    if any(isinstance(link, http.client.BadStatusLine) and str(link).startswith(_TLS_RECORD) for link in chain):
        return ProtocolError(f"{host} speaks TLS: write https://")
    if any(isinstance(link, (http.client.BadStatusLine, http.client.UnknownProtocol)) for link in chain):
        return ProtocolError(f"{host} does not speak HTTP: check the base_url's scheme and port")
    if any(isinstance(link, http.client.IncompleteRead) for link in chain):
        return StreamTruncated("the connection ended in the middle of the answer")
    if any(isinstance(link, (http.client.LineTooLong, http.client.HTTPException)) for link in chain):
        return ProtocolError(f"{host} sent an invalid HTTP response")
    if any(isinstance(link, (ConnectionError, ssl.SSLError)) for link in chain):
        before = f" before it answered{way.perhaps_tls}" if way.perhaps_tls else ""
        return StreamTruncated(f"the connection to {host} broke: {_reason(chain)}{before}")
    return TransportError(f"the request to {host} failed: {_reason(chain)}")


def _final(message: str) -> ConnectFailed:
    error = ConnectFailed(message)
    error.final = True
    return error


def _reason(chain: list[BaseException]) -> str:
    """The system's own words, which come last in the chain."""
    for link in reversed(chain):
        if isinstance(link, http.client.RemoteDisconnected):
            return "the connection was closed without an answer"
        if isinstance(link, http.client.BadStatusLine):
            return "the answer is not HTTP"
        # Only the interpreter sets a reason: urllib3's pyOpenSSL and mocks raise some without even the attribute.
        if isinstance(link, ssl.SSLError) and (reason := getattr(link, "reason", None)):
            return f"TLS: {reason.lower().replace('_', ' ')}"
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
    return type(chain[-1]).__name__


def root_of(error: BaseException) -> BaseException:
    """The first cause, to chain to, without its frames: those in between hold requests, headers and pools."""
    # A TypeError at the bottom explains nothing: urllib3 1.26 tries out arguments.
    root = [link for link in _chain(error) if not isinstance(link, TypeError)][-1]
    if not (isinstance(root, OSError) and root.errno is not None):
        root.args = ()  # not the system's own words: it may quote what a server sent, or a URL
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
