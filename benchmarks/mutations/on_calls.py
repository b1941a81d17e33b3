"""Mutations that break the promises about calls: errors, timeouts, retries, how they end, secrets and the way (P10 to
P25)."""

from __future__ import annotations

from benchmarks.mutations.mutation import Mutation

__all__ = ["ON_CALLS"]

_AS_REQUESTS_DOES = """response: requests.Response = session.send(
    session.prepare_request(
        requests.Request(request.method, request.url, headers=request.headers, data=body)
    ),"""
_OWN_SEND = "response: requests.Response = send(prepared,"

_BUFFERS = (
    Mutation(
        "P25",
        "what exceeds 64 KiB stays in the buffer of the headers",
        "WireBody._read_ahead",
        "fp.read1()",
        "fp.read1(READ_SIZE)",
    ),
    Mutation(
        "P25", "the bytes of a mocked body are not counted", "SoftBody.read", "if not data and self._left", "if False"
    ),
    Mutation("P25", "a length that was not fulfilled passes", "WireBody._ended", "if self._left or", "if False or"),
    Mutation(
        "P25",
        "a length that was not fulfilled passes behind the end mark",
        "Pipeline._finish",
        "exchange.short and not known",
        "False",
    ),
)

_ERRORS = (
    Mutation(
        "P10",
        "foreign errors of a request escape",
        "Transport.send",
        'failure = Failure(error, call, host, self._proxy_name(request), request.url.startswith("https:"))',
        "raise",
    ),
    Mutation(
        "P10", "foreign errors of a read escape", "Exchange.read", "failure = Failure(error, call, self.host)", "raise"
    ),
    Mutation(
        "P10",
        "a refused argument is not a ValueError",
        "ConfigError",
        "(LLMBridgeError, ValueError)",
        "(LLMBridgeError)",
    ),
    Mutation(
        "P10",
        "deep nesting is a foreign error",
        "parsed_json",
        "value, end = scan_json(text, 0)",
        "try:\n    value, end = scan_json(text, 0)\nexcept RecursionError:\n    raise AssertionError from None",
    ),
    Mutation("P11", "an error loses its fields", "_rebuild", "error.__dict__.update(fields)", "pass"),
    Mutation("P11", "the cause keeps its request", "root_of", "root = [link for", "return error\nroot = [link for"),
    Mutation("P12", "no timeout but the total", "Call.wait_begins", "getattr(self._timeout, self._clock)", "None"),
    Mutation("P12", "no total", "Call.__init__", "deadline = total_at", "deadline = _NEVER"),
    Mutation("P12", "pings are content", "Call.wait_begins", "if self._since is None:", "if self._since is not self:"),
    Mutation("P12", "connecting has no own timeout", "Watched.connect", 'call.start("connect")', 'call.start("total")'),
    Mutation(
        "P12",
        "an error's body takes the time it takes",
        "Attempts._status_error",
        "call.ends_within(_ERROR_BODY_SECONDS)",
        "call.wait_begins()",
    ),
    Mutation(
        "P13", "a wait past the total is begun", "Attempts._next_step", "if not call.leaves(wait):", "if wait < 0:"
    ),
    Mutation(
        "P13", "a refused token is the end", "Attempts._next_step", "and not self._renewed:", "and self._renewed:"
    ),
    Mutation("P13", "three retries by default", "Retry.times", "2", "3"),
    Mutation("P13", "repeated after the first piece", "Pipeline._step", "self._attempts.settled or", ""),
    Mutation(
        "P13",
        "an empty account is retried",
        "_retryable",
        "if kind in FINAL or never_passes(report):",
        "if kind is AuthError:",
    ),
    Mutation("P13", "425 is final", "_PASSING", "425,", ""),
    Mutation("P13", "Retry-After has no cap", "Retry.wait", "if retry_after <= self.max_retry_after else None", ""),
    Mutation("P13", "milliseconds are seconds", "retry_after_seconds", "milliseconds / 1000", "milliseconds"),
    Mutation(
        "P13",
        "a date is not understood",
        "_seconds_until_date",
        "date = parsedate_to_datetime(text)",
        "return None",
    ),
    Mutation("P13", "no free attempt on a stale connection", "Transport.send", "in (False, True):", "in (True,):"),
)

_LIFE = (
    Mutation("P14", "an answer outlives its event loop", "_Orphaned.expire", "and self.loop.is_closed()", "and False"),
    Mutation(
        "P31",
        "an answer ends with the event loop before",
        "AsyncResult._hopped",
        "self._orphaned.loop = running_loop()",
        "pass",
    ),
    Mutation("P14", "an answer left early stays open", "Attempts._drop", "exchange.close()", "exchange.complete"),
    Mutation(
        "P14",
        "cancelling wakes no reader",
        "Call._wake",
        "socket.socket.shutdown(sock, socket.SHUT_RDWR)",
        "sock.fileno()",
    ),
    Mutation(
        "P14",
        "the server sees no reset",
        "Call.detach",
        "socket.SO_LINGER, _ABORTIVE)",
        "socket.SO_KEEPALIVE, 1)",
    ),
    Mutation(
        "P14",
        "an abandoned iterator stays open",
        "AsyncResult.__del__",
        "if sys.is_finalizing():",
        "if sys is not None:",
    ),
    Mutation("P15", "a call left by a cancelled task never ends", "Pipeline.leave", "self._call.leave(", "print("),
    Mutation("P15", "a cancelled task waits", "Hop._in_place", "abandon_on_cancel=True", "abandon_on_cancel=False"),
    Mutation(
        "P15",
        "a cancel scope is open across pieces",
        "AsyncResult._next_read",
        "self._running = True",
        "self._running = True\nCancelScope().__enter__()",
    ),
    Mutation(
        "P16",
        "reads ahead without limit",
        "AsyncResult._step",
        "self._ready = iter(outcome)",
        "while (more := await in_thread(view.advance, source.cancel)) is not None:\n"
        "    outcome = [*outcome, *more]\n"
        "self._ready = iter(outcome)",
    ),
    Mutation(
        "P17",
        "a child uses its parent's connections",
        "Transport._session",
        "if self._own is None or self._pid != os.getpid():",
        "if self._own is None:",
    ),
    Mutation("P17", "a lock stays locked in a child", "keep_lock_free", "_owners.add(owner)", "pass"),
    Mutation(
        "P17",
        "an unrequested answer goes to the next call",
        "WireBody._decoded",
        "self._done and not self._chunked.excess",
        "self._done",
    ),
    Mutation(
        "P17",
        "a call goes out with another one's headers",
        "Transport._template",
        "(request.method, request.url, tuple(request.headers.items()))",
        "(request.method, request.url)",
    ),
    Mutation("P17", "cookies are kept", "Transport._send", _OWN_SEND, _AS_REQUESTS_DOES),
)

_SECRETS = (
    Mutation("P18", "a Secret shows in its repr", "Secret.__repr__", "return", "return self._value or"),
    Mutation("P18", "a header shows in its dict", "MaskedStr.__new__", "(cls, MASK)", "(cls, text)"),
    Mutation("P18", "an echo is quoted", "scrub", "text = text.replace(secret, MASK)", "pass"),
    Mutation("P18", "an escaped echo is quoted", "scrub", "if known and", "if not known and"),
    Mutation("P18", "frames with the key stay", "discreet", "without_frames(callers_frames_only(error))", "error"),
    Mutation(
        "P18",
        "http.client prints the headers",
        "_Quiet.debuglevel",
        "return own if current_call() is None else 0",
        "return own",
    ),
    Mutation("P18", "a function's arguments show", "KeyFunction.__repr__", "{MASK}", "{self._function}"),
    Mutation("P18", "what a function raised has its frames", "_typed", 'drop_frames(error, "api_key()")', "pass"),
    Mutation("P18", "a key of before is quoted", "Attempts._keep_secret", "(*self._secrets,", "(*self._secrets[:0],"),
    Mutation("P18", "the key is pickled unasked", "Client.__getstate__", "and self._pickle_key else None", "else None"),
    Mutation("P19", "white space around a key stays", "Secret.__init__", "value.strip()", "value"),
    Mutation("P19", "line ends in a key", "Secret.__init__", "and stripped.isprintable()", "and stripped"),
    Mutation("P19", "line ends in a header", "_checked_value", r'value.replace("\t", " ").isprintable()', "True"),
    Mutation("P20", "redirects are followed", "Transport._send", _OWN_SEND, _AS_REQUESTS_DOES),
    Mutation("P20", "a redirect is an answer", "Attempts._attempt", "not in _SUCCESS", "not in range(200, 400)"),
    Mutation(
        "P20",
        "the other host is not named",
        "error_for_status",
        "redirects to {_host_of(location)},",
        "redirects elsewhere,",
    ),
)

_NETWORK = (
    Mutation("P21", "netrc counts", "Transport._send_foreign", "auth=session.auth or _no_auth", "auth=session.auth"),
    Mutation(
        "P21",
        "a bad proxy means a direct request",
        "_from_environment",
        "raise ConfigError",
        "return None\nraise ConfigError",
    ),
    Mutation("P21", "False does not mean none", "proxies_for", "if proxy is False:", "if proxy == 1:"),
    Mutation(
        "P21",
        "NO_PROXY is not honoured",
        "_from_environment",
        "get_environ_proxies(url)",
        '__import__("urllib.request").request.getproxies()',
    ),
    Mutation("P21", "a base URL's password is quoted", "http_request", "*passwords_of(base_url)", ""),
    Mutation("P22", "certificates are not verified", "Transport._send", "verify=verify,", "verify=False,"),
    Mutation("P22", "the environment's CA beats the argument", "Transport._send", "if verify is True:", "if verify:"),
    Mutation(
        "P22",
        "verify=False sticks",
        "Connections.transport",
        "self.transports.get((proxy, verify))",
        "next(iter(self.transports.values()), None)",
    ),
    Mutation("P23", "NaN is taken", "json_copy", "if math.isfinite(value):", "if value or True:"),
    Mutation("P23", "half a surrogate pair is sent", "check_text", "if text.isascii():", "if text:"),
    Mutation(
        "P24",
        "the prompt is logged",
        "Attempts._take_headers",
        "self.headers = exchange.headers",
        'self.headers = exchange.headers\n_log.debug("%s", self._request and self._request.body)',
    ),
    Mutation(
        "P24",
        "lines of the answer are logged",
        "_QuietClient._logger",
        "_Silent()",
        '__import__("logging").getLogger("sseclient")',
    ),
)

ON_CALLS = (*_ERRORS, *_LIFE, *_SECRETS, *_NETWORK, *_BUFFERS)
