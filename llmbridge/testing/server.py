"""The loopback server: accepts requests, records them, and sends the next scripted answer."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Union

from . import wire
from .connection import ClientGone, Connection, MalformedRequest, Selector
from .dialects import PATHS, words
from .received import Received, read_request
from .reply import Reply

__all__ = ["LLMServer", "Script"]

Script = Union[Reply, Callable[[Received], Reply]]

_BACKLOG = 4096
_PATIENCE = 1.0


def echo(received: Received) -> Reply:
    """The default answer: it says that it is a test, and repeats the last user text."""
    text = f"This is a test answer from llmbridge.testing; no model was asked. You wrote: {received.user_text}"
    return Reply(words(text))


class LLMServer:
    """A running loopback server that answers like chat services, with any fault you script.

    It listens on 127.0.0.1 until `close()`, and speaks the formats of OpenAI (with Azure's URLs), Anthropic, Gemini,
    Ollama, Mistral, Cohere, Vitalentum and CodeLinkAva, chosen by the request's path: chats, streamed or not, OpenAI's
    Responses, embeddings and lists of models. Requests that the real service would reject get its kind of error; keys
    are ignored. All threads are daemons.

    Args:
        default: The answer when nothing is scripted, a Reply or a function from Received to Reply; if missing, a text
            that says it is a test and repeats the last user text.
        port: The port to listen on; 0 takes a free one.
        ssl_context: A server-side context, to speak TLS.
        record: False records no requests, for servers that run long.

    Raises:
        OSError: The port is taken.
        ValueError: The port is not valid.
        TypeError: `default` is neither a Reply nor a function.

    Example:
        >>> import urllib.request
        >>> with LLMServer(Reply("Hello")) as server:
        ...     body = b'{"messages": [{"role": "user", "content": "Hi"}]}'
        ...     with urllib.request.urlopen(server.base_url("openai") + "/chat/completions", body) as answer:
        ...         "Hello" in answer.read().decode()
        ...     server.requests[0].json["messages"][0]["content"]
        True
        'Hi'
    """

    def __init__(
        self,
        default: Script | None = None,
        *,
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        record: bool = True,
    ) -> None:
        if not 0 <= port <= 65535:
            raise ValueError(f"port must be from 0 to 65535, not {port}")
        self._default = _checked(default) if default is not None else echo
        self._ssl_context = ssl_context
        self._record = record
        self._script: deque[Script] = deque()
        self._requests: list[Received] = []
        self._serial = 0
        self._accepted = 0
        self._open: set[Connection] = set()
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._changed = threading.Condition()
        self._closing = False
        self._pid = os.getpid()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name=f"llmbridge-testing-{self._port}", daemon=True)
        self._acceptor.start()

    @property
    def root(self) -> str:
        """The URL without a path, like `http://127.0.0.1:49152`."""
        return f"{'https' if self._ssl_context else 'http'}://127.0.0.1:{self._port}"

    def base_url(self, provider: str) -> str:
        """The `base_url` for a dialect.

        Args:
            provider: `openai` (also for providers with the same format), `openai-responses`, `azure`, `anthropic`,
                `gemini`, `vertex`, `vertex-anthropic`, `ollama`, `mistral`, `cohere`, `vitalentum` or `codelinkava`.

        Raises:
            ValueError: There is no such dialect.
        """
        if provider not in PATHS:
            raise ValueError(f"unknown format {provider!r}: known are {', '.join(PATHS)}")
        return self.root + PATHS[provider]

    def script(self, *answers: Script) -> None:
        """Queues answers: each request, in order of arrival, takes the next one; after the last, `default` applies."""
        checked = [_checked(answer) for answer in answers]
        with self._changed:
            self._script.extend(checked)

    @property
    def default(self) -> Script:
        """The answer when nothing is scripted; can be set."""
        return self._default

    @default.setter
    def default(self, answer: Script) -> None:
        self._default = _checked(answer)

    @property
    def requests(self) -> list[Received]:
        """All requests so far, in order of arrival."""
        with self._changed:
            return list(self._requests)

    @property
    def connections(self) -> int:
        """How many TCP connections were accepted so far."""
        return self._accepted

    @property
    def open_connections(self) -> int:
        """How many of them are still open on both sides."""
        with self._changed:
            return sum(connection.open for connection in self._open)

    def wait_for_requests(self, count: int, timeout: float = 5) -> list[Received]:
        """The first `count` requests, once they have come; TimeoutError after `timeout` seconds lists those that
        came."""
        with self._changed:
            if self._changed.wait_for(lambda: len(self._requests) >= count, timeout):
                return self._requests[:count]
            came = ", ".join(f"{request.method} {request.path}" for request in self._requests) or "none"
            raise TimeoutError(f"expected {count} requests within {timeout} s; came: {came}")

    def close(self) -> None:
        """Stops listening, drops all connections and ends the threads, within about a second. May be repeated."""
        if self._pid != os.getpid():
            # A forked child holds copies: shutting them down would stop the parent's server, closing them does not.
            self._listener.close()
            return
        with self._changed:
            if self._closing:
                return
            self._closing = True
        end = time.monotonic() + _PATIENCE
        with contextlib.suppress(OSError):  # wakes the acceptor on Linux; elsewhere it polls
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        with self._changed:
            connections = list(self._open)
        for connection in connections:
            connection.abandon()
        for thread in list(self._threads):
            thread.join(max(0.0, end - time.monotonic()))

    def __enter__(self) -> LLMServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LLMServer {self.root}{' (closed)' if self._closing else ''}>"

    def _accept(self) -> None:
        with Selector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._closing:
                if not selector.select(0.5) or self._closing:
                    continue
                try:
                    sock, _ = self._listener.accept()
                    self._start(sock)
                except BlockingIOError:
                    continue
                except (OSError, RuntimeError):
                    # The client left while waiting, or descriptors or threads ran out: accept others.
                    time.sleep(0.01)

    def _start(self, sock: socket.socket) -> None:
        try:
            connection = Connection(sock, self._accepted + 1, self._ssl_context)
        except OSError:
            sock.close()
            raise
        thread = threading.Thread(target=self._serve, args=(connection,), name="llmbridge-testing", daemon=True)
        with self._changed:
            self._accepted += 1
            self._open.add(connection)
        try:
            thread.start()
        except RuntimeError:
            self._forget(connection)
            raise
        self._threads.add(thread)

    def _serve(self, connection: Connection) -> None:
        try:
            with contextlib.suppress(ClientGone):
                connection.handshake()
                while connection.play(self._answer(connection)):
                    continue
        finally:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        with self._changed:
            self._open.discard(connection)
        connection.close()

    def _answer(self, connection: Connection) -> wire.Steps:
        try:
            received = read_request(connection)
        except MalformedRequest:
            return wire.BAD_REQUEST
        with self._changed:
            self._serial += 1
            serial = self._serial
            scripted = self._script.popleft() if self._script else self._default
            if self._record:
                self._requests.append(received)
            self._changed.notify_all()
        return wire.steps(_reply(scripted, received), received, serial)


def _checked(answer: Script) -> Script:
    if isinstance(answer, Reply) or callable(answer):
        return answer
    raise TypeError(f"an answer must be a Reply or a function from Received to Reply, not {type(answer).__name__}")


def _reply(scripted: Script, received: Received) -> Reply:
    if isinstance(scripted, Reply):
        return scripted
    try:
        reply = scripted(received)
        if not isinstance(reply, Reply):
            raise TypeError(f"the function returned {type(reply).__name__}, not Reply")
    except Exception as exc:  # noqa: BLE001 - a test's function failed: reported to its client
        return Reply(f"{type(exc).__name__}: {exc}".encode("utf-8", "replace").decode(), status=500)
    return reply
