"""What breaks the promises about edges, from P29 on."""

from __future__ import annotations

from benchmarks.mutations.mutation import Mutation

__all__ = ["ON_EDGES"]

_PROXIES = (
    Mutation(
        "P29",
        "what breaks behind a proxy was never sent",
        "_mapped",
        "if not (connecting or connected) and _is_of_proxy(chain):",
        "if way.proxy and any(isinstance(link, urllib3.exceptions.ProxyError) for link in chain):",
    ),
    Mutation("P29", "urllib3 is believed", "_mapped", "_is_of_proxy(chain)", "way.proxy"),
    Mutation(
        "P29",
        "a connection that breaks has not come past the proxy",
        "_is_of_proxy",
        "isinstance(link, before) or _refusal(link)",
        "True",
    ),
    Mutation("P29", "407 is asked again", "unauthorized", "return _final(", "return ConnectFailed("),
    Mutation(
        "P29",
        "407 to a plain request is the service's",
        "Transport.send",
        "exchange.status == _PROXY_ASKS and",
        "exchange.status == 0 and",
    ),
    Mutation(
        "P29",
        "wrong credentials for SOCKS are tried again",
        "_proxy_error",
        "str(link).startswith(_SOCKS_CREDENTIALS)",
        "str(link) in _SOCKS_CREDENTIALS[3:]",
    ),
    Mutation("P29", "SOCKS gives no reason", "_proxy_error", "way.closed(str(link))", 'way.closed("OSError")'),
    Mutation("P29", "no variable is named", "named_proxy", "if chosen else name", "if not chosen else name"),
    Mutation(
        "P29",
        "a proxy that speaks TLS is trusted blindly",
        "WatchedAdapter.cert_verify",
        '"https:" if conn.scheme == "https" else url',
        "url",
    ),
    Mutation(
        "P29",
        "a proxy that speaks TLS is verified by other CAs",
        "_Interruptible.connect",
        "and not self._speaks_tls_to_proxy",
        "",
    ),
    Mutation("P29", "501 is sent again", "_UNKNOWN_THERE", "501", "599"),
    Mutation("P29", "g4f's fields are lost", "_message", 'or "loc" in value', ""),
    Mutation("P29", "LiteLLM's cause is not said", "advice", '"no_db_connection"', '"no_db"'),
)

_LOOPS = (
    Mutation(
        "P30",
        "reads that bring nothing follow one another",
        "Pipeline._read",
        "if not (may_block or answer.ended):",
        "if False:",
    ),
    Mutation("P30", "what unpacks to nothing has no end", "_UNPACKING_SECONDS", "0.005", "1e9"),
    Mutation("P30", "what was left of a read is lost", "Answer._take_slices", "else data[begin:]", 'else b""'),
)

_OF_SESSION = 'if settings["verify"] is True and session.trust_env:'

_ECOSYSTEM = (
    Mutation(
        "P44",
        "the connection class of a pool is found once",
        "_watched_pool",
        "_ConnectionClass(plain, own)",
        "_watched_connection(plain.ConnectionCls, own)",
    ),
    Mutation(
        "P44",
        "a recorder's connection reports to nobody",
        "_watched_connection",
        '{"_baseclass": _watched_connection(recorded, own)}',
        "{}",
    ),
    Mutation(
        "P44",
        "a recorder gets masked headers",
        "_Recorder.request",
        "str(value) if isinstance(value, str) else value",
        "value",
    ),
    Mutation("P44", "a replaced send is passed by", "Transport._send", "if _is_replaced(", "if not callable("),
    Mutation(
        "P44",
        "a tracer's wrapper counts as the plain send",
        "_is_replaced",
        "or send.__globals__ is not vars(requests.sessions)",
        "",
    ),
    Mutation(
        "P44", "a session's hooks see no answer yet", "Transport._send_foreign", "call.answers_later = False", "pass"
    ),
    Mutation("P44", "a tracer sees no answer yet", "Transport._send", "call.answers_later = False", "pass"),
    Mutation("P44", "a recorder sees no answer yet", "_Recorder.request", "call.answers_later = False", "pass"),
    Mutation(
        "P44",
        "what was read already is lost",
        "Exchange._decoded_body",
        "isinstance(content, bytes)",
        "content is None",
    ),
    Mutation("P44", "a response made by hand cannot be closed", "Exchange.close", "if raw is not None:", "if True:"),
    Mutation(
        "P44",
        "any raw file with a stream is urllib3's",
        "SoftBody.__init__",
        "isinstance(raw, HTTPResponse)",
        'hasattr(raw, "stream")',
    ),
    Mutation("P44", "hooks take the answer for Latin-1", "_set_utf8", '"utf-8"', "response.encoding"),
    Mutation("P44", "a cache keeps the key", "_stay", "isinstance(value, MaskedStr)", "not name"),
    Mutation("P44", "a mock's list of calls has no key", "_stay", "response.request.copy()", "response.request"),
    Mutation("P44", "OpenSSL's file is not looked at", "CA_VARIABLES", '"SSL_CERT_FILE",', ""),
    Mutation("P44", "OpenSSL's folder is not looked at", "CA_VARIABLES", ', "SSL_CERT_DIR"', ""),
    Mutation(
        "P44",
        "OpenSSL's variables come first",
        "trusted_by_environment",
        "map(os.environ.get, variables)",
        "map(os.environ.get, reversed(variables))",
    ),
    Mutation(
        "P44",
        "a session that ignores the environment does not",
        "Transport._foreign_settings",
        _OF_SESSION,
        'if settings["verify"] is True:',
    ),
    Mutation(
        "P44", "OpenSSL's variables are not for a session", "Transport._foreign_settings", _OF_SESSION, "if False:"
    ),
    Mutation(
        "P44",
        "one folder is all that is trusted",
        "WatchedAdapter.cert_verify",
        "any(map(os.path.isdir, verify.split(os.pathsep)[1:]))",
        "not verify",
    ),
)

_IN_A_THREAD = "yield Wait.THREAD\ncall.rest({})"
_WAITING = (
    Mutation(
        "P31",
        "a step that is cancelled ends the stream",
        "AsyncResult._next_read",
        "isinstance(error, get_cancelled_exc_class())",
        "False",
    ),
    Mutation("P31", "an exception of a handler looks like the end", "View._behind", "if self._broken:", "if False:"),
    Mutation("P31", "who has left holds up the queue", "Attempts.step_back", '== "waiting"', '== "nobody"'),
    Mutation("P31", "a step that was left is made again", "_Hop._run", "self._steps.pop()", "self._steps[0]"),
    Mutation("P31", "who comes back is given up", "Call.come_back", "self._left = None", "pass"),
    Mutation("P31", "a traceback keeps the stream", "AsyncResult.__anext__", "del self", "pass"),
    Mutation("P32", "a thread waits for the headers", "POSSIBLE", ">= 2", ">= 99"),
    Mutation(
        "P32", "a thread waits for the first piece", "Pipeline._step", "if in_loop and may_block and", "if False and"
    ),
    Mutation("P32", "a thread waits for a retry", "Attempts._pause", "yield Wait.REST", _IN_A_THREAD.format("left")),
    Mutation(
        "P32", "a thread waits in the queue", "Attempts._queue_up", "yield Wait.REST", _IN_A_THREAD.format("delay")
    ),
    Mutation("P32", "a thread for each that begins", "_AT_ONCE", "32", "2048"),
    Mutation("P32", "no more threads where all hang", "_Threads._take", "places + places // 8 + 1", "places"),
)

_CONNECTIONS = (
    Mutation("P33", "no more are kept than usual", "_Idle.put", "watch(self)", "self._kept.popleft().close()"),
    Mutation("P33", "the surplus is kept for ever", "_Idle.put", "watch(self)", "pass"),
    Mutation("P33", "the usual ones go as well", "WatchedAdapter.__init__", "pool_maxsize=_IDLE_CONNECTIONS", ""),
    Mutation("P33", "the surplus goes at once", "_Idle.deadline", "+ _SURPLUS_SECONDS", "- _SURPLUS_SECONDS"),
    Mutation("P33", "the watchdog sleeps on", "watch", "if expiring.deadline < _watchdog.wakes_at:", "if False:"),
    Mutation("P33", "a fork ends what is no call", "_Watchdog.calls", "if isinstance(call, Call)", ""),
    Mutation("P33", "ten hosts are enough", "_HOSTS", "64", "10"),
    Mutation(
        "P33",
        "a session's pool is cut",
        "_replace_idle",
        "for _ in range(places):",
        "idle.maxsize = 0\nfor _ in range(0):",
    ),
)

_ADDRESSES = (
    Mutation("P34", "one address after the other", "_answered", "_HEAD_START", "None"),
    Mutation("P34", "one that refuses has its head start", "_first_of", "failed(knocking.pop(sock))", "continue"),
    Mutation("P34", "the winner is not remembered", "_first_of", "-monotonic()", "0"),
    Mutation(
        "P34",
        "a dead one is tried first again",
        "_first_of",
        "sock.close()\nif not call.cancelled:",
        "sock.close()\nif False:",
    ),
    Mutation("P34", "losers stay open", "_first_of", "continue\n            sock.close()", "continue"),
    Mutation("P34", "nobody can end the wait", "_first_of", "call.attach([*knocking][-1])", ""),
    Mutation("P34", "families do not take turns", "_in_turn", "address[0], []", "0, []"),
    Mutation("P34", "the last failure is told", "_first_of", "max(failures, key=_tells)", "failures[-1]"),
    Mutation("P34", "the first failure is told", "_first_of", "max(failures, key=_tells)", "failures[0]"),
    Mutation("P34", "a refusal tells no more than silence", "_tells", "isinstance(failure, ConnectionError)", "False"),
    Mutation(
        "P34", "an unknown family ends the search", "_first_of", "except OSError as error:", "except KeyError as error:"
    ),
    Mutation(
        "P34", "one that fails in TLS comes first again", "_Interruptible.connect", "failed(self._address)", "pass"
    ),
    Mutation("P34", "the memory grows", "_RANKED", "256", "10**9"),
)

_HEADERS = (
    Mutation(
        "P35", "http.client counts the header lines", "_HeaderLines.readline", "if not self.in_headers:", "if True:"
    ),
    Mutation("P35", "a long line is not cut", "_LONGEST_LINE", "65536", "10**9"),
    Mutation("P35", "headers have no end", "HEADERS_LIMIT", "256 * 1024", "10**9"),
    Mutation("P35", "early answers cost nothing", "_HeaderLines.rest_of_headers", "self._left -= len(line)", "pass"),
    Mutation(
        "P35", "100 is left to http.client", "_Response._read_status", "_CONTINUE <= status", "_CONTINUE < status"
    ),
    Mutation("P35", "a cut status line is not HTTP", "_VERSION", 'b"HTTP/"', 'b"\\x15\\x03"'),
    Mutation("P35", "a long trailer is an error", "Chunked._count_trailers", "max(size, 1)", "max(size, 1) * 100"),
    Mutation("P35", "no TLS is tried again", "_not_connected", "return _final(f", "return ConnectFailed(f"),
    Mutation(
        "P35", "the proxy's URL is not meant", "_not_connected", 'if way.step == "proxy"', 'if way.step == "reach"'
    ),
    Mutation("P35", "TLS is not asked about", "_Way.perhaps_tls", "self.tls is False", "self.tls is None"),
    Mutation("P35", "plain HTTP is not asked about", "_Way.perhaps_plain", "and self.tls", "and not self.tls"),
    Mutation("P35", "an alert is no TLS", "_TLS_RECORD", '"\\x15\\x03", ', ""),
    Mutation("P35", "a page about TLS is not read", "advice", "if status in (400, 403) and", "if status == 426 and"),
    Mutation("P35", "a redirect to TLS says nothing", "error_for_status", '" http://" in asked', "not asked"),
    Mutation("P35", "405 names no address", "_NOTHING_THERE", "(404, 405)", "(404,)"),
    Mutation("P35", "a model's 404 names the address", "error_for_status", "and not names_model(report)", ""),
    Mutation("P35", "a page of HTML names no address", "_NOT_THE_API", "check the base_url$|", ""),
    Mutation("P35", "one version too many", "hint", "leave one {last} out", "leave {last} out"),
    Mutation("P35", "no version too many", "hint", "re.fullmatch(_VERSION, last) or (first", "(first"),
    Mutation("P35", "nobody says how to start it", "start_hint", "not provider.start_command or", "True or"),
    Mutation("P35", "no scheme is asked for", "_split", "if not _SCHEME.match(url) and", "if _SCHEME.match(url) and"),
)

_FORKS = (
    Mutation("P36", "a fork waits for nothing", "wait_for_imports", "not any(map(_imports, _others()))", "True"),
    Mutation(
        "P36", "what llmbridge calls may import", "_imports", "if importing and str(", "if not importing and str("
    ),
    Mutation("P36", "imports are never let go on", "imports_may_go_on", "_imp.release_lock()", "pass"),
    Mutation("P36", "the lock of logging is kept", "_without_logs_lock", "before is not None and", "False and"),
    Mutation("P36", "the lock of logging is given back twice", "_without_logs_lock", "before is None and", "False and"),
)

_CLOCKS = (
    Mutation("P37", "an error ends the clocks", "_Watchdog._run", "except BaseException", "except ZeroDivisionError"),
    Mutation("P37", "SystemExit ends the clocks", "_Watchdog._run", "except BaseException", "except Exception"),
    Mutation(
        "P37", "one call ends the others' clocks", "_Watchdog._look", "except BaseException", "except ZeroDivisionError"
    ),
    Mutation(
        "P37",
        "a failed end is not tried again",
        "Call.expire",
        "self._deadline = now",
        "pass",
    ),
    Mutation("P37", "the thread spins", "_PAUSE", "0.1", "0"),
    Mutation("P37", "said each time", "_Watchdog._went_wrong", "self._failed = True", "pass"),
    Mutation(
        "P37",
        "a log handler ends the clocks",
        "_Watchdog._went_wrong",
        "contextlib.suppress(Exception)",
        "contextlib.nullcontext()",
    ),
    Mutation("P37", "a thread that ended is trusted", "_Watchdog._runs", "and self._thread.is_alive()", ""),
)

ON_EDGES = (
    *_PROXIES,
    *_LOOPS,
    *_WAITING,
    *_CONNECTIONS,
    *_ADDRESSES,
    *_HEADERS,
    *_FORKS,
    *_CLOCKS,
    *_ECOSYSTEM,
)
