"""What breaks the promises about calls: errors, clocks, retries, how they end, secrets and the way (P10 to P25)."""

from __future__ import annotations

from benchmarks.mutations.mutation import Mutation

__all__ = ["ON_CALLS"]

_AS_REQUESTS_DOES = """return self._session().send(
            self._session().prepare_request(
                requests.Request(request.method, request.url, headers=request.headers, data=body)
            ),"""
_OWN_SEND = """return adapter.send(
            self._prepared(request, body),"""

_BUFFERS = (
    Mutation(
        "P25",
        "what exceeds 64 KiB stays in the buffer of the headers",
        "_transport/body.py",
        'return response.fp.read1() or b""',
        'return response.fp.read1(READ_SIZE) or b""',
    ),
    Mutation(
        "P25",
        "a length that was not fulfilled passes behind the end mark",
        "_pipeline.py",
        "if not whole and exchange.short and not known:",
        "if False:",
    ),
)

_ERRORS = (
    Mutation(
        "P10",
        "foreign errors of a request escape",
        "_transport/__init__.py",
        "failure = Failure(error, call, host)",
        "raise",
    ),
    Mutation(
        "P10",
        "foreign errors of a read escape",
        "_transport/__init__.py",
        "failure = Failure(error, call, self.host)",
        "raise",
    ),
    Mutation(
        "P10",
        "a refused argument is no ValueError",
        "errors.py",
        "class ConfigError(LLMBridgeError, ValueError):",
        "class ConfigError(LLMBridgeError):",
    ),
    Mutation(
        "P10",
        "deep nesting is a RecursionError",
        "provider.py",
        '    except (ValueError, RecursionError):\n        raise ProtocolError(f"the service sent no valid JSON: '
        '{_excerpt(text)}") from None\n    try:',
        '    except ValueError:\n        raise ProtocolError(f"the service sent no valid JSON: '
        '{_excerpt(text)}") from None\n    try:',
    ),
    Mutation("P11", "an error loses its fields", "errors.py", "error.__dict__.update(fields)", "pass"),
    Mutation(
        "P11",
        "the cause keeps its request",
        "_transport/failures.py",
        "root = [link for link in _chain(error) if not isinstance(link, TypeError)][-1]",
        "return error",
    ),
    Mutation(
        "P12",
        "no clock but the total",
        "_transport/call.py",
        "limit: float | None = getattr(self._timeout, self._clock)",
        "limit: float | None = None",
    ),
    Mutation("P12", "no total", "_transport/call.py", "deadline = total_at", "deadline = _NEVER"),
    Mutation(
        "P12",
        "pings are content",
        "_transport/call.py",
        "        if self._since is None:",
        "        if self._since is not self:",
    ),
    Mutation(
        "P12",
        "connecting has no clock of its own",
        "_transport/__init__.py",
        'call.start("connect")',
        'call.start("total")',
    ),
    Mutation(
        "P12",
        "an error's body takes the time it takes",
        "_attempts.py",
        "call.ends_within(_ERROR_BODY_SECONDS)",
        "call.wait_begins()",
    ),
    Mutation("P13", "a wait past the total is begun", "_attempts.py", "if not call.leaves(wait):", "if wait < 0:"),
    Mutation("P13", "three retries by default", "retry.py", "times: int = 2", "times: int = 3"),
    Mutation(
        "P13",
        "repeated after the first piece",
        "_pipeline.py",
        "if self._attempts.settled or isinstance(error, Cancelled):",
        "if isinstance(error, Cancelled):",
    ),
    Mutation(
        "P13",
        "an empty account is worth a retry",
        "service_errors.py",
        "if kind in _FINAL or never_passes(report):",
        "if kind is AuthError:",
    ),
    Mutation("P13", "425 is final", "service_errors.py", "(408, 409, 425, 429)", "(408, 409, 429)"),
    Mutation(
        "P13",
        "Retry-After has no cap",
        "retry.py",
        "return retry_after if retry_after <= self.max_retry_after else None",
        "return retry_after",
    ),
    Mutation("P13", "milliseconds are seconds", "_waits.py", "return milliseconds / 1000", "return milliseconds"),
    Mutation("P13", "a date is not understood", "_waits.py", "date = parsedate_to_datetime(text)", "return None"),
    Mutation(
        "P13", "no free attempt on a stale connection", "_transport/__init__.py", "in (False, True):", "in (True,):"
    ),
)

_LIFE = (
    Mutation("P14", "an answer left early stays open", "_attempts.py", "exchange.close()", "exchange.complete"),
    Mutation(
        "P14",
        "cancelling wakes nobody",
        "_transport/call.py",
        "socket.socket.shutdown(sock, socket.SHUT_RDWR)",
        "sock.fileno()",
    ),
    Mutation(
        "P14",
        "the server sees no reset",
        "_transport/call.py",
        "socket.SO_LINGER, _ABORTIVE)",
        "socket.SO_KEEPALIVE, 1)",
    ),
    Mutation("P14", "an abandoned iterator stays open", "_aio.py", "if not sys.is_finalizing():", "if sys is None:"),
    Mutation(
        "P15",
        "the thread of a cancelled task stays blocked",
        "_aio.py",
        "            cancel()  # wakes",
        "            pass  # wakes",
    ),
    Mutation("P15", "a cancelled task waits", "_aio.py", "abandon_on_cancel=True", "abandon_on_cancel=False"),
    Mutation(
        "P15",
        "a cancel scope is open across pieces",
        "_aio.py",
        "        self._running = True",
        "        self._running = True\n        CancelScope().__enter__()",
    ),
    Mutation("P16", "as many threads as anyio's default", "_aio.py", "_THREADS = 2048", "_THREADS = 40"),
    Mutation(
        "P16",
        "anyio's own limit",
        "_aio.py",
        "if _in_tool.get() else _thread_limit()",
        'if _in_tool.get() else __import__("anyio").to_thread.current_default_thread_limiter()',
    ),
    Mutation(
        "P16",
        "reads ahead without limit",
        "_aio.py",
        "            await checkpoint()",
        "            while isinstance(more := await in_thread(steps.advance, steps.cancel), list):\n"
        "                outcome = [*outcome, *more]",
    ),
    Mutation(
        "P17",
        "a child uses its parent's connections",
        "_transport/__init__.py",
        "if self._own is None or self._pid != os.getpid():",
        "if self._own is None:",
    ),
    Mutation(
        "P17",
        "a lock stays locked in a child",
        "_forking.py",
        'if hasattr(os, "register_at_fork"):',
        "if _owners is None:",
    ),
    Mutation(
        "P17",
        "an answer nobody asked for is the next call's",
        "_transport/body.py",
        "self.reusable = self._done and not self._chunked.excess",
        "self.reusable = self._done",
    ),
    Mutation(
        "P17",
        "a call goes out with another one's headers",
        "_transport/__init__.py",
        "key = (request.method, request.url, tuple(request.headers.items()))",
        "key = (request.method, request.url)",
    ),
    Mutation("P17", "cookies are kept", "_transport/__init__.py", _OWN_SEND, _AS_REQUESTS_DOES),
)

_SECRETS = (
    Mutation("P18", "a Secret shows in its repr", "secret.py", "return f\"Secret('{MASK}')\"", "return self._value"),
    Mutation(
        "P18",
        "a header shows in its dict",
        "secret.py",
        "return f\"'{MASK}'\"",
        "return str.__repr__(self)",
    ),
    Mutation("P18", "an echo is quoted", "secret.py", "text = text.replace(secret, MASK)", "pass"),
    Mutation("P18", "an escaped echo is quoted", "secret.py", "if known and ", "if not known and "),
    Mutation("P18", "frames with the key stay", "secret.py", "failure = without_frames(error)", "failure = error"),
    Mutation(
        "P18",
        "http.client prints the headers",
        "_transport/connections.py",
        "return own if current_call() is None else 0",
        "return own",
    ),
    Mutation(
        "P18",
        "the key is pickled unasked",
        "client.py",
        "if key is not None and self._pickle_key else None",
        "if key is not None else None",
    ),
    Mutation("P19", "white space around a key stays", "secret.py", "stripped = value.strip()", "stripped = value"),
    Mutation("P19", "line ends in a key", "secret.py", "and stripped.isprintable()", "and stripped"),
    Mutation("P19", "line ends in a header", "options.py", 'value.replace("\\t", " ").isprintable()', "True"),
    Mutation("P20", "redirects are followed", "_transport/__init__.py", _OWN_SEND, _AS_REQUESTS_DOES),
    Mutation(
        "P20", "a redirect is an answer", "_attempts.py", "_SUCCESS = range(200, 300)", "_SUCCESS = range(200, 400)"
    ),
    Mutation("P20", "the other host is not named", "service_errors.py", "redirects to {host},", "redirects elsewhere,"),
)

_NETWORK = (
    Mutation("P21", "netrc counts", "_transport/__init__.py", "auth=session.auth or _no_auth", "auth=session.auth"),
    Mutation(
        "P21",
        "a bad proxy means a direct request",
        "_transport/proxies.py",
        'raise ConfigError(f"the environment',
        'return None\n            raise ConfigError(f"the environment',
    ),
    Mutation(
        "P21", "False does not mean none", "_transport/proxies.py", "    if proxy is False:", "    if proxy == 1:"
    ),
    Mutation(
        "P21",
        "NO_PROXY is not honoured",
        "_transport/proxies.py",
        "select_proxy(url, get_environ_proxies(url))",
        'select_proxy(url, __import__("urllib.request").request.getproxies())',
    ),
    Mutation(
        "P21",
        "a base URL's password is quoted",
        "_http_request.py",
        "secrets = [*passwords_of(base_url)]",
        "secrets: list[str] = []",
    ),
    Mutation("P22", "certificates are not verified", "_transport/__init__.py", "verify=verify,", "verify=False,"),
    Mutation(
        "P22",
        "the environment's CA beats the argument",
        "_transport/__init__.py",
        "if verify is True:",
        "if verify:",
    ),
    Mutation(
        "P22",
        "verify=False sticks",
        "client.py",
        "transport = self._transports.get((proxy, verify))",
        "transport = next(iter(self._transports.values()), None)",
    ),
    Mutation("P23", "NaN is taken", "messages.py", "if math.isfinite(value):", "if value or True:"),
    Mutation(
        "P23",
        "half a surrogate pair is sent",
        "messages.py",
        "    if text.isascii():\n        return",
        "    if text:\n        return",
    ),
    Mutation(
        "P24",
        "the prompt is logged",
        "_attempts.py",
        "self.headers = exchange.headers",
        'self.headers = exchange.headers\n        _log.debug("%s", self._request and self._request.body)',
    ),
    Mutation(
        "P24",
        "lines of the answer are logged",
        "_framing.py",
        "_logger = _Silent()",
        '_logger = __import__("logging").getLogger("sseclient")',
    ),
)

ON_CALLS = (*_ERRORS, *_LIFE, *_SECRETS, *_NETWORK, *_BUFFERS)
