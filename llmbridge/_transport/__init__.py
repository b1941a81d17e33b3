"""HTTP: sends a request, and yields the bytes of its answer the moment they arrive.

The only package that imports requests and urllib3. `Transport.post` sends a request over a `requests.Session` (its own,
or the caller's) and returns an `Exchange`, whose `read()` blocks until something has arrived. Every failure becomes an
error of llmbridge. `call` has the timeouts and cancelling, `body` the decoding, `connections` the additions to
urllib3, `environment` the proxies and CAs, `failures` the mapping of errors.
"""

from __future__ import annotations

import functools
import http.client
import io
import json
import os
import re
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3.connection
import urllib3.connectionpool
from requests.utils import select_proxy
from urllib3.connectionpool import HTTPConnection, HTTPConnectionPool  # type: ignore[attr-defined]

from llmbridge._locks import keep_lock_free
from llmbridge._transport.adapter import Template, WatchedAdapter
from llmbridge._transport.body import WOULD_BLOCK, Body, Inflated, SoftBody, WireBody
from llmbridge._transport.call import Call, WouldWait, serving
from llmbridge._transport.connections import RETURNS_ANY, watch_pool
from llmbridge._transport.environment import (
    CA_VARIABLES,
    ProxySetting,
    named_proxy,
    passwords_of,
    proxies_for,
    trusted_by_environment,
)
from llmbridge._transport.failures import FOREIGN, Failure, unauthorized
from llmbridge._transport.later import Later
from llmbridge.errors import InvalidRequest, LLMBridgeError, ProtocolError, StreamTruncated
from llmbridge.options import is_sensitive
from llmbridge.secret import MASK, MaskedStr, callers_frames_only, masked, revealed, scrub

__all__ = ["Call", "Exchange", "HTTPRequest", "ProxySetting", "Transport", "passwords_of"]

_DRAIN_SECONDS = 0.1
_DRAIN_BYTES = 64 * 1024
_TEMPLATES = 64
_SHORT = 4096  # characters of a request that are quickly put into JSON
_AROUND = 16  # characters of JSON around each value
_FOLD = re.compile(r"\s*\n\s*")  # a header that goes on in the next line
_ZIPPED = ("gzip", "x-gzip", "deflate")
_SUCCESS = range(200, 300)
_PROXY_ASKS = 407
_NO_CODING = ("identity", "", "none", "utf-8")  # "none" keeps some servers from compressing; "utf-8" is a mistake


class HTTPRequest:
    """A request to send.

    Args:
        url: The full URL.
        headers: All headers except those that follow from the body.
        body: Sent as JSON; not with GET.
        secrets: Masked wherever the server repeats them.
        method: POST or GET.
        base_url: The beginning of the URL, for errors.
    """

    __slots__ = ("base_url", "body", "headers", "method", "secrets", "url")

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        body: Mapping[str, Any],
        secrets: tuple[str, ...] = (),
        method: str = "POST",
        base_url: str = "",
    ) -> None:
        self.url = url
        self.headers = headers
        self.body = body
        self.secrets = secrets
        self.method = method
        self.base_url = base_url


class Exchange:
    """An answered request: status, headers, and the body as it comes.

    Attributes:
        status: The HTTP status.
        host: Host and port that answered.
        secrets: Masked in everything that is shown.
        headers: Names in lower case to values; the caller's secrets are masked.
        legible: Whether the body's coding is known; if not, only the status counts.
        paused: The last `read()` returned None although there is more to decompress.
    """

    def __init__(self, call: Call, response: requests.Response | Later, host: str, secrets: tuple[str, ...]) -> None:
        self._call = call
        self._response: Any = response
        self.host = host
        self.secrets = secrets
        self._closed = self.paused = False
        self.status = response.status_code
        self.legible = True
        self.headers: dict[str, str] = {}
        for name, value in response.headers.items():
            name, value = name.lower(), _FOLD.sub(" ", value) if "\n" in value else value
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value
        shown = "\n".join(map(str, self.headers.values()))
        if scrub(shown, secrets) != shown:
            self.headers = {name: scrub(value, secrets) for name, value in self.headers.items()}
        original = getattr(response.raw, "_original_response", None)
        self._wire = original if isinstance(original, http.client.HTTPResponse) and original.fp is not None else None
        if location := getattr(response, _LOCATION, None):
            self.headers["location"] = location
        sock = getattr(getattr(self._wire and self._wire.fp, "raw", None), "_sock", None)
        call.adopt(sock)
        # TLS within TLS has a file, but not a socket.
        self._socket = sock if isinstance(sock, socket.socket) and sock.fileno() >= 0 else None
        self._blocking = self._socket is None or self._socket.gettimeout() != 0
        self._body = self._decoded_body()

    def _decoded_body(self) -> Body:
        if self._wire is None:
            length = self.headers.get("content-length", "")
            counts = length.isdecimal() and not {"content-encoding", "transfer-encoding"} & self.headers.keys()
            content = self._response._content
            # A cache or a hook that has read the body kept it decoded; the raw file is at its end, or coded otherwise.
            raw = io.BytesIO(content) if isinstance(content, bytes) else self._response.raw
            chunks = functools.partial(self._response.iter_content, 1)
            return SoftBody(raw, chunks, int(length) if counts else None)
        lengths = self.headers.get("content-length", "")
        if "," in lengths and not self._wire.chunked and len({*lengths.replace(" ", "").split(",")}) > 1:
            raise ProtocolError(f"{self.host} sent an invalid HTTP response")
        coding = self.headers.get("content-encoding", "identity").strip().lower()
        transfer = self.headers.get("transfer-encoding", "identity").strip().lower()
        plain = transfer in ("identity", "chunked", "") or self._is_chunked_twice(transfer)
        self.legible = plain and coding in (*_NO_CODING, *_ZIPPED)
        if not self.legible and self.status in _SUCCESS:
            self._wire.close()
            self._response.close()
            unknown = transfer if coding in (*_NO_CODING, *_ZIPPED) else coding
            raise ProtocolError(f"the answer is compressed with {unknown[:40]}, which llmbridge did not accept")
        body = WireBody(self._wire, self._socket)
        return Inflated(body, coding) if coding in _ZIPPED else body

    def _is_chunked_twice(self, transfer: str) -> bool:
        """Whether a proxy repeated the header; within one line, it would mean two codings."""
        return bool(self._wire and self._wire.chunked) and set(transfer.replace(" ", "").split(",")) == {"chunked"}

    @property
    def readable(self) -> int | None:
        """The file descriptor that becomes readable when there is something to read; None if there is none."""
        return None if self._socket is None else self._socket.fileno()

    @property
    def complete(self) -> bool:
        """Whether the body was read to its end, so that `finish()` need not wait."""
        return self._body.reusable

    @property
    def exhausted(self) -> bool:
        """Whether `read()` would only find the end of the body: nothing is left to receive, or to decompress."""
        return self._body.reusable and not (isinstance(self._body, Inflated) and self._body.rest)

    @property
    def short(self) -> bool:
        """Whether the body ended before the length that the headers promised."""
        return self._body.short

    def must_wait(self) -> bool:
        """Whether a `read()` right now would find nothing, as far as is known without a system call.

        If so, the call's timeout begins to run, as in a `read()`.
        """
        if not isinstance(self._body, WireBody) or not self._body.emptied or isinstance(self._socket, ssl.SSLSocket):
            return False
        self._body.emptied = False
        self._call.check()
        self._call.wait_begins()
        return True

    def set_blocking(self, blocking: bool) -> None:
        """Whether `read()` waits for the server, or returns None instead."""
        if blocking != self._blocking and self._socket is not None:
            self._socket.settimeout(None if blocking else 0)
            self._blocking = blocking

    def read(self) -> bytes | None:
        """The next bytes as soon as there are some; b"" at the clean end of the body.

        None if the socket does not block and this would have to wait, or has decompressed for a while (see `paused`).

        Raises:
            StreamTruncated: The connection ended before the body did.
            ClockExpired, Cancelled: The call has ended.
            ProtocolError, TransportError: The body's coding is broken; the network failed otherwise.
        """
        call = self._call
        call.check()
        call.wait_begins()
        data: bytes | None
        data, failure = b"", None
        try:
            while (data := self._body.read()) is None and self._blocking:
                call.check()
        except WOULD_BLOCK:
            self.paused = False
            return None
        except (LLMBridgeError, *FOREIGN) as error:
            failure = Failure(error, call, self.host)
        call.wait_ends()
        if failure is not None:
            failure.throw()
        self.paused = data is None
        if not data:
            call.check()  # a socket that was shut down looks like a clean end if nothing marks the end of the body
        return data

    def finish(self) -> bool:
        """Reads to the end of the body within a small budget, and returns the connection for reuse.

        Returns:
            False if the body turned out to be truncated.
        """
        try:
            return self._drained()
        finally:
            self.close()

    def _drained(self) -> bool:
        if self._body.reusable or self._socket is None or self._closed:
            return True
        self.set_blocking(True)
        left = _DRAIN_BYTES
        self._call.ends_within(_DRAIN_SECONDS)
        try:
            while left > 0 and (data := self._body.read()):
                left -= len(data)
        except StreamTruncated:
            return self._call.reason() is not None  # it was truncated by this side
        except (LLMBridgeError, *FOREIGN):
            return True  # the answer was complete: an error after its end mark only costs the connection
        finally:
            self._call.wait_ends()
        return True

    def close(self) -> None:
        """Keeps the connection if its answer was read to the end, and closes it otherwise. May be repeated."""
        if self._closed:
            return
        self._closed = True
        sound = self._call.detach(abort=not self._body.reusable)
        raw = self._response.raw
        if self._wire is not None:
            reusable = sound and self._body.reusable
            if not RETURNS_ANY:
                self.set_blocking(True)  # later versions of urllib3 do so before they send
            self._wire.close()
            if reusable:
                self._call.let_go()
                raw.release_conn()
                return
        if raw is not None:  # None in a response made by hand
            self._response.close()
        self._call.let_go()


class Transport:
    """Sends requests over connections that are kept for the next one. Safe to share between threads.

    Args:
        session: The caller's own: its adapters, auth, headers, cookies, CA and proxies apply. It is never closed here.
        proxy: See `ProxySetting`.
        verify: True, False, or the path of a CA file or folder.
    """

    def __init__(
        self, session: requests.Session | None = None, proxy: ProxySetting = None, verify: bool | str = True
    ) -> None:
        self._foreign = session
        self._own: requests.Session | None = None
        self._pid = 0
        self._lock: threading.Lock
        keep_lock_free(self)
        self._proxy = revealed(proxy) if isinstance(proxy, str) else proxy
        self._verify = verify
        self._templates: dict[Any, Template] = {}

    def send(self, call: Call, request: HTTPRequest, begun: Later | None = None) -> Exchange | Later:
        """The answer to a request, whatever its status, as soon as its headers are there.

        With `call.answers_later` it may return a `Later` as soon as the request is sent; call it again with that once
        something has arrived.

        A kept connection that the server has closed shows that only when it is used: then the request is sent once more
        over a new one.

        Raises:
            ConnectFailed, ClockExpired, Cancelled, StreamTruncated, ProtocolError, TransportError: No answer.
            ConfigError: The URL, proxy or a header cannot be used.
        """
        host = _host(request.url)
        body = None
        for last in (False, True):
            response: requests.Response | Later | None = None
            exchange, failure, last = None, None, last or (begun is not None and (call.takes_new or begun.whole))
            if begun is None:
                body = None if request.method == "GET" else _json_bytes(request.body)
                call.check()
                call.reused_connection, call.takes_new = None, last
                call.start("connect")
            try:
                with serving(call):
                    answer = begun or self._send(call, request, body)
                    if isinstance(answer, Later):
                        if begun is None and call.answers_later:
                            return answer
                        answer.begin()
                    response = answer
                exchange = Exchange(call, response, host, self._secrets(request, response))
            except (LLMBridgeError, *FOREIGN) as error:
                failure = Failure(error, call, host, self._proxy_name(request), request.url.startswith("https:"))
            except BaseException as error:  # noqa: BLE001 - raised again; Ctrl-C: the frames below hold the headers as they are sent
                raise callers_frames_only(error) from None
            begun = None
            call.wait_ends()
            if exchange is not None:
                if exchange.status == _PROXY_ASKS and (proxy := self._proxy_name(request)):
                    exchange.close()
                    raise unauthorized(host, proxy)
                return exchange
            call.detach()
            if response is not None:
                response.close()
            call.let_go()
            if failure is not None and (last or response or not (call.reused_connection and failure.broken)):
                failure.throw()
        raise AssertionError("the second attempt either answers or fails")

    def send_at_once(self, call: Call, request: HTTPRequest) -> Exchange | Later | None:
        """Like `send`, for an event loop: never blocks. None if it might: then call `send` in a thread.

        Only a short request over a kept connection can be sent so, only if nothing has replaced what sends it, and not
        with urllib3 1.26, which waits for the answer.
        """
        if self._own is None or self._pid != os.getpid() or _is_seen():
            return None
        if _room_left(request.body, _SHORT) < 0:
            return None
        call.at_once = True
        try:
            return self.send(call, request)
        except WouldWait:
            call.detach()
            call.let_go()
            return None
        finally:
            call.at_once = False

    def close(self) -> None:
        """Closes the kept connections of its own session."""
        own, self._own = self._own, None
        if own is not None and self._pid == os.getpid():
            own.close()

    def _send(self, call: Call, request: HTTPRequest, body: bytes | None) -> requests.Response | Later:
        if self._foreign is not None:
            return self._send_foreign(self._foreign, call, request, body)
        verify = self._verify
        if verify is True:
            verify = trusted_by_environment(CA_VARIABLES)
        proxies = proxies_for(request.url, self._proxy)
        session, template = self._session(), self._template(request)
        call.unseen = call.at_once or not _is_seen()
        if call.unseen and not proxies:
            later: Later | None = self._adapter.send_over_kept(template, body, verify, call.at_once)
            if later is not None:
                return later
            if call.at_once:
                raise WouldWait
        prepared = _filled(template.request, body, proxies)
        # Not Session.send: it costs more, and would read the whole body of a redirect, however long it is.
        send: Any = self._adapter.send
        if _is_replaced(requests.Session.send, requests.sessions):
            send = functools.partial(session.send, allow_redirects=False)
            prepared.hooks = {"response": [_set_utf8, _staying(request)]}
            delattr(prepared, _SENSITIVE)  # a session's auth may add secrets
        response: requests.Response = send(
            prepared,
            stream=True,
            timeout=None,  # the call's own timeouts cover every phase
            proxies=proxies,
            verify=verify,
            cert=None,
        )
        if not isinstance(response.raw, Later):
            return response
        response.raw.request = prepared
        return response.raw

    def _send_foreign(
        self, session: requests.Session, call: Call, request: HTTPRequest, body: bytes | None
    ) -> requests.Response:
        call.unseen = False  # auth, hooks, caches and adapters get the whole response
        prepared = session.prepare_request(
            requests.Request(
                request.method,
                request.url,
                headers=_revealed(request.headers),
                data=body,
                auth=session.auth or _no_auth,
            )
        )
        settings = self._foreign_settings(session, request.url)
        adapter = session.get_adapter(url=request.url)
        if hasattr(adapter, "get_connection_with_tls_context"):
            proxied = settings["proxies"], settings["cert"]
            watch_pool(adapter.get_connection_with_tls_context(prepared, settings["verify"], *proxied))
        # The caller's connections may not report, nor may those made earlier: requests itself limits connecting.
        settings["timeout"] = call.socket_timeouts()
        call.start("first_content")
        prepared.hooks["response"] = [_set_utf8, *prepared.hooks["response"], _staying(request)]
        return session.send(prepared, allow_redirects=False, **settings)

    def _foreign_settings(self, session: requests.Session, url: str) -> dict[str, Any]:
        proxies = proxies_for(url, self._proxy if self._proxy is not None or session.trust_env else False)
        verify = session.verify if self._verify is True else self._verify
        settings = dict(session.merge_environment_settings(url, proxies, True, verify, None))
        if settings["verify"] is True and session.trust_env:
            settings["verify"] = trusted_by_environment(CA_VARIABLES[2:])  # requests itself reads the first two
        return settings if self._proxy is not False else {**settings, "proxies": {}}

    def _proxy_name(self, request: HTTPRequest) -> str:
        """The proxy of the request, as errors name it; "" if there is none."""
        url, session = request.url, self._foreign
        try:
            if session is None:
                proxies = proxies_for(url, self._proxy)
            else:
                proxies = self._foreign_settings(session, url)["proxies"]
            proxy = select_proxy(url, proxies)
        except (LLMBridgeError, ValueError):
            return ""  # an invalid one: the error about to be raised says so
        return named_proxy(url, proxy, self._proxy) if proxy else ""

    def _session(self) -> requests.Session:
        """The session of this process: sockets from before a fork belong to the parent."""
        with self._lock:
            if self._own is None or self._pid != os.getpid():
                session = requests.Session()
                self._adapter = adapter = WatchedAdapter()
                session.mount("https://", adapter)
                session.mount("http://", adapter)
                self._own, self._pid = session, os.getpid()
                weakref.finalize(self, session.close)  # urllib3 1.26 leaves idle sockets to the garbage collector
            return self._own

    def _template(self, request: HTTPRequest) -> Template:
        """The request without its body: an earlier one for the same URL and headers if there is one."""
        key = (request.method, request.url, tuple(request.headers.items()))
        template = self._templates.get(key)
        if template is None:
            auth = _no_auth if any(name.lower() == "authorization" for name in request.headers) else None
            data = None if request.method == "GET" else b"-"
            prepared = requests.Request(
                request.method, request.url, headers=_revealed(request.headers), data=data, auth=auth
            ).prepare()
            prepared.headers.pop("Content-Length", None)
            setattr(prepared, _SENSITIVE, _sensitive_words(prepared))
            if len(self._templates) >= _TEMPLATES:
                self._templates.clear()
            self._templates[key] = template = Template(prepared, self._adapter.request_url(prepared, None))
        return template

    def _secrets(self, request: HTTPRequest, response: requests.Response | Later) -> tuple[str, ...]:
        """Everything to mask in what the server sends, including what a caller's session or proxy added."""
        sent = response.request
        added = getattr(sent, _SENSITIVE, None)
        if added is None:
            added = *_sensitive_words(sent), *_passwords(proxies_for(request.url, self._proxy))
        return tuple(dict.fromkeys((*request.secrets, *added)))


_SENSITIVE = "_llmbridge_sensitive"  # attribute of a prepared request: the secrets in its headers and its proxy's URL


def _filled(template: requests.PreparedRequest, body: bytes | None, proxies: Mapping[str, str]) -> Any:
    """A copy with a body."""
    prepared = template.copy()
    if body is not None:
        prepared.headers["Content-Length"] = str(len(body))
    prepared.body = body
    setattr(prepared, _SENSITIVE, (*getattr(template, _SENSITIVE), *_passwords(proxies)))
    return prepared


def _sensitive_words(request: requests.PreparedRequest | None) -> tuple[str, ...]:
    """The values of headers that are likely to hold a secret, masked."""
    values = [value for name, value in request.headers.items() if is_sensitive(name)] if request is not None else []
    texts = (value if isinstance(value, str) else value.decode("latin-1") for value in values)
    return masked(word for text in texts for word in text.split())


def _passwords(proxies: Mapping[str, str]) -> tuple[str, ...]:
    return masked(word for proxy in proxies.values() for word in passwords_of(proxy)) if proxies else ()


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An `auth` that changes nothing: without any, requests overwrites the key's header with one from ~/.netrc."""
    return request


def _is_seen() -> bool:
    """Whether others get the response: urllib3 1.26, which reads it, or what has replaced a function that sends."""
    pool, connection = HTTPConnectionPool, HTTPConnection
    return (
        not RETURNS_ANY
        or _is_replaced(requests.Session.send, requests.sessions)
        or _is_replaced(requests.adapters.HTTPAdapter.send, requests.adapters)
        or _is_replaced(pool.urlopen, urllib3.connectionpool)
        or _is_replaced(pool._make_request, urllib3.connectionpool)
        or _is_replaced(connection.request, urllib3.connection)
        or _is_replaced(connection.getresponse, urllib3.connection)
        or _is_replaced(http.client.HTTPConnection.putheader, http.client)
        or _is_replaced(http.client.HTTPConnection.send, http.client)
    )


def _is_replaced(send: Any, module: Any) -> bool:
    """Whether it is not the module's own function, but one of a mock or a tracing library."""
    return type(send) is not FunctionType or send.__globals__ is not vars(module)


def _room_left(value: Any, room: int) -> int:
    """How many of `room` characters are left after the texts in an object or a list; below 0 if they are longer."""
    for inner in value if isinstance(value, list) else value.values():
        room -= len(inner) if isinstance(inner, str) else _AROUND
        if room >= 0 and isinstance(inner, (dict, list)):
            room = _room_left(inner, room)
        if room < 0:
            break
    return room


_LOCATION = "_llmbridge_location"


def _set_utf8(response: requests.Response, **_: Any) -> None:
    """Keeps hooks and caches that read `.text` from decoding the answer as Latin-1, as requests would."""
    response.encoding = "utf-8"


def _staying(request: HTTPRequest) -> Callable[..., None]:
    """A hook that hides a redirect from the session, which would read the whole body, however long, and not follow it.

    It also hides the keys from caches that store the request of a response. What was sent keeps them: a mock's list
    of calls, say.
    """
    masks = {name: MASK for name, value in request.headers.items() if isinstance(value, MaskedStr)}

    def stay(response: requests.Response, **_: Any) -> None:
        if response.is_redirect:
            setattr(response, _LOCATION, response.headers.pop("location"))
        if response.request is not None:
            response.request = response.request.copy()
            response.request.headers.update(masks)

    return stay


def _revealed(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers unmasked, as requests and a caller's own auth, hooks and adapters need them."""
    return {name: revealed(value) for name, value in headers.items()}


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


_encode = json.JSONEncoder(allow_nan=False).encode


def _json_bytes(body: Mapping[str, Any]) -> bytes:
    try:
        return _encode(body).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:  # from a provider's encode(): the rest was checked
        raise InvalidRequest(f"the request's body cannot be sent as JSON: {type(error).__name__}") from None
