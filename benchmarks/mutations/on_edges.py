"""Mutations that break the promises about edges, from P29 on."""

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
        "if not (may_block or answer.ended or",
        "if False and (may_block or answer.ended or",
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
    Mutation("P44", "a replaced send is passed by", "Transport._send", "if _is_replaced(", "if not callable("),
    Mutation(
        "P44",
        "a tracer's wrapper counts as the plain send",
        "_is_replaced",
        "or send.__globals__ is not vars(module)",
        "",
    ),
    Mutation(
        "P44",
        "a session's hooks see no answer yet",
        "Transport._send_foreign",
        "call.unseen = False",
        "call.unseen = True",
    ),
    Mutation("P44", "a tracer sees no answer yet", "Transport._send", "not _is_seen()", "True"),
    Mutation("P44", "a tracer blocks the event loop", "Transport.send_at_once", "or _is_seen()", ""),
    Mutation("P44", "a recorder sees no answer yet", "_Recorder.request", "call.unseen = False", "pass"),
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
    Mutation("P44", "a cache keeps the key", "_staying", "isinstance(value, MaskedStr)", "not name"),
    Mutation("P44", "a mock's list of calls has no key", "_staying", "response.request.copy()", "response.request"),
    Mutation("P44", "OpenSSL's file is not read", "CA_VARIABLES", '"SSL_CERT_FILE",', ""),
    Mutation("P44", "OpenSSL's folder is not read", "CA_VARIABLES", ', "SSL_CERT_DIR"', ""),
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
    Mutation("P44", "a clock of a test stops waits", "monotonic", "partial(getattr(", "(getattr("),
    Mutation(
        "P44", "OpenSSL's variables are not for a session", "Transport._foreign_settings", _OF_SESSION, "if False:"
    ),
    Mutation(
        "P44",
        "only one folder is trusted",
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
        "isinstance(error, cancellation())",
        "False",
    ),
    Mutation("P31", "an exception of a handler looks like the end", "View._behind", "if self._broken:", "if False:"),
    Mutation(
        "P31",
        "a call that was left goes to the end of the queue",
        "Pipeline.leave",
        "self._call.listen(lambda: soon(self._step_back))",
        "self._attempts.step_back()",
    ),
    Mutation("P31", "a call that was left holds up the queue", "Attempts.in_queue", '== "waiting"', '== "nobody"'),
    Mutation("P31", "a step that was left is made again", "Hop._run", "self._steps.pop()", "self._steps[0]"),
    Mutation(
        "P31",
        "a thread's last word counts behind the end",
        "_Watch.__init__",
        "if self._descriptor is not None:",
        "if self._descriptor != -1:",
    ),
    Mutation("P31", "too short a wait begins anew", "Hop.outcome", "not self._begun", "True"),
    Mutation("P31", "a call that is continued is given up", "Call.come_back", "self._left = None", "pass"),
    Mutation("P31", "reading what was there gives the call up", "_coming_back", "source.come_back()", "pass"),
    Mutation("P31", "a traceback keeps the stream", "AsyncResult.__anext__", "del self", "pass"),
    Mutation("P32", "a thread waits for the headers", "Watched.getresponse", "and call.unseen", "and not call"),
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

_WATCHES = (
    Mutation(
        "P31",
        "what came for a task that was cancelled stays behind",
        "_Watch.must_wait",
        "bool(self._done or self._failed) or ",
        "",
    ),
    Mutation("P31", "one event loop waits for another", "_Watch.is_here", "and self._loop is running_loop()", ""),
    Mutation("P31", "a forked child ends its parent's wait", "_Watch.end", "self._pid == os.getpid()", "self._pid"),
    Mutation("P14", "the end of an answer is not seen by its watch", "_Watch.holds", "self.end()", "pass"),
    Mutation("P14", "what nobody waits for wakes the loop for ever", "_Watch._arrived", "self.end()", "pass"),
    Mutation("P14", "what nobody waits for is closed by nobody", "_Watch._arrived", "self._call.close()", "pass"),
    Mutation(
        "P14",
        "a dropped iterator closes what is still watched",
        "AsyncResult.__del__",
        "self._watch.end_anywhere(self._view.abandon)",
        "self._view.abandon()",
    ),
    Mutation("P14", "others close what is watched", "Pipeline.close", "not self._attempts.watched", "True"),
    Mutation("P15", "Ctrl-C is for the reader alone", "_Watch._arrived", "not isinstance(error, Exception)", "False"),
)

_CONNECTIONS = (
    Mutation("P33", "no more are kept than usual", "_Idle.put", "watch(self)", "self._kept.popleft().close()"),
    Mutation("P33", "the surplus is kept for ever", "_Idle.put", "watch(self)", "pass"),
    Mutation("P33", "the usual ones go as well", "WatchedAdapter.__init__", "pool_maxsize=_IDLE_CONNECTIONS", ""),
    Mutation("P33", "the surplus goes at once", "_Idle.deadline", "+ _SURPLUS_SECONDS", "- _SURPLUS_SECONDS"),
    Mutation("P33", "the watchdog sleeps on", "watch", "if expiring.deadline < _watchdog.wakes_at:", "if False:"),
    Mutation("P33", "a fork ends what is not a call", "_Watchdog.calls", "if isinstance(call, Call)", ""),
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
    Mutation("P34", "one that refuses has its head start", "_first_of", "failed(connecting.pop(sock))", "continue"),
    Mutation("P34", "the winner is not remembered", "_first_of", "-monotonic()", "0"),
    Mutation(
        "P34",
        "a dead one is tried first again",
        "_first_of",
        "sock.close()\nif not call.cancelled:",
        "sock.close()\nif False:",
    ),
    Mutation("P34", "losers stay open", "_first_of", "continue\n            sock.close()", "continue"),
    Mutation("P34", "a cancel does not end the wait", "_first_of", "call.attach([*connecting][-1])", ""),
    Mutation("P34", "families do not take turns", "_in_turn", "address[0], []", "0, []"),
    Mutation("P34", "the last failure is raised", "_first_of", "max(failures, key=_informative)", "failures[-1]"),
    Mutation("P34", "the first failure is raised", "_first_of", "max(failures, key=_informative)", "failures[0]"),
    Mutation(
        "P34", "a refusal tells no more than silence", "_informative", "isinstance(failure, ConnectionError)", "False"
    ),
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
    Mutation("P35", "the total timeout says nothing", "Failure.__init__", "and call.connecting:", "and False:"),
    Mutation("P35", "an alert does not count as TLS", "_TLS_RECORD", '"\\x15\\x03", ', ""),
    Mutation("P35", "a page about TLS is not read", "advice", "if status in (400, 403) and", "if status == 426 and"),
    Mutation("P35", "a redirect to TLS says nothing", "error_for_status", '" http://" in asked', "not asked"),
    Mutation("P35", "405 names no address", "_NOTHING_THERE", "(404, 405)", "(404,)"),
    Mutation("P35", "a model's 404 names the address", "error_for_status", "and not names_model(report)", ""),
    Mutation("P35", "a page of HTML names no address", "_NOT_THE_API", "check the base_url$|", ""),
    Mutation("P35", "one version too many", "hint", "leave one {last} out", "leave {last} out"),
    Mutation("P35", "no version too many", "hint", "re.fullmatch(_VERSION, last) or (first", "(first"),
    Mutation("P35", "it does not say how to start it", "start_hint", "not provider.start_command or", "True or"),
    Mutation("P35", "no scheme is asked for", "_split", "if not _SCHEME.match(url) and", "if _SCHEME.match(url) and"),
)

_FORKS = (
    Mutation("P36", "a fork waits for nothing", "wait_for_imports", "not any(map(_imports, _others()))", "True"),
    Mutation("P36", "what llmbridge calls may import", "_imports", "elif importing and", "elif not importing and"),
    Mutation("P36", "the caller may import llmbridge", "_imports", '"_find_and_load" and', '"" and'),
    Mutation("P36", "imports are never let go on", "imports_may_go_on", "_imp.release_lock()", "pass"),
    Mutation("P36", "the lock of logging is kept", "_without_logs_lock", "before is not None and", "False and"),
    Mutation("P36", "the lock of logging is given back twice", "_without_logs_lock", "not (took_part", "not (True"),
    Mutation(
        "P36",
        "half of logging counts as all",
        "_without_logs_lock",
        'sys.modules.get("logging"), "LogRecord"',
        'before, "release"',
    ),
)

_CLOCKS = (
    Mutation("P37", "an error ends the watchdog", "_Watchdog._run", "except BaseException", "except ZeroDivisionError"),
    Mutation("P37", "SystemExit ends the watchdog", "_Watchdog._run", "except BaseException", "except Exception"),
    Mutation(
        "P37", "one call ends others' timeouts", "_Watchdog._look", "except BaseException", "except ZeroDivisionError"
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
        "a log handler ends the watchdog",
        "_Watchdog._went_wrong",
        "contextlib.suppress(Exception)",
        "contextlib.nullcontext()",
    ),
    Mutation("P37", "a thread that ended is trusted", "_Watchdog._runs", "and self._thread.is_alive()", ""),
)

_REFUSALS = (
    Mutation("P38", "one refusal stops all", "_FEWEST_REFUSALS", "3", "1"),
    Mutation(
        "P38",
        "a few refusals stop all",
        "Limiter._take_in_answers",
        "2 * sum(recent) > len(recent)",
        "sum(recent) >= 1",
    ),
    Mutation(
        "P38", "the headers of a refusal stop all", "Attempts._take_headers", "exchange.status in _SUCCESS", "True"
    ),
    Mutation("P38", "answers do not count", "Attempts._take_headers", "self._ticket.answered()", "pass"),
    Mutation(
        "P38",
        "calls do not wait for others' refusals",
        "Attempts._end_ticket",
        "ticket.refuse(error.retry_after)",
        "pass",
    ),
    Mutation("P38", "old refusals count", "Limiter._take_in_answers", "if other.began + _MINUTE > now", ""),
    Mutation("P38", "a pause may take hours", "Limiter._take_in_answers", "until <= now + _LONGEST_PAUSE", "True"),
    Mutation("P38", "waiting calls return at the same time", "_SPREAD", "0.25", "0.0"),
    Mutation("P38", "refused calls return at the same time", "_MOST_SPREAD", "0.25", "0.0"),
    Mutation("P38", "a wait is shortened", "Retry.spread", "(1 + min(", "(1 - min("),
    Mutation(
        "P38", "a spread wait does not fit", "Attempts._next_step", "spread if call.leaves(spread) else wait", "spread"
    ),
    Mutation("P38", "a wait that is not enough stays", "Retry.spread", "2 ** min(", "1 ** min("),
    Mutation("P38", "a retry without a wait never waits", "Retry.spread", "max(asked, self.backoff)", "asked"),
    Mutation(
        "P38",
        "the minute goes at once",
        "Limiter._delay_by_limits",
        "until = self._even_at - ahead * _MINUTE / requests - _MINUTE",
        "ahead = 0.0",
    ),
    Mutation("P38", "nothing goes at once", "Limiter._delay_by_limits", "self.limits.burst or _BURST", "1"),
    Mutation("P38", "a second gets more than its share", "_SECOND", "1.05", "0.0"),
    Mutation(
        "P38", "the rest of a minute comes twice", "Limiter._delay_by_limits", "len(self._begun) >= requests", "False"
    ),
)

_PICKLES = (
    Mutation("P39", "each pickle is a client of its own", "_Travellers.named", "self._alive.get(name)", "None"),
    Mutation("P39", "the first one is apart", "_Travellers.name_of", "self._alive[connections.name] = connections", ""),
    Mutation(
        "P39",
        "limits are forgotten between two tasks",
        "_Travellers.named",
        "self._memories.get(name, (made.limiter, made.breakers))",
        "(made.limiter, made.breakers)",
    ),
    Mutation("P39", "all are remembered", "_Travellers._remember", "len(self._memories) > _TRAVELLERS", "False"),
    Mutation(
        "P39",
        "a copy is not another client",
        "Client.__copy__",
        "again.connections = Connections(self._limits)",
        "pass",
    ),
    Mutation(
        "P39",
        "a lock of the parent is waited for",
        "_Travellers.__init__",
        "keep_lock_free(self)",
        "self._lock = threading.Lock()",
    ),
)

_SCHEMAS = (
    Mutation("P40", "the first answer is lost", "ChatStream._keep_first", "error.partial = first.partial", "pass"),
    Mutation(
        "P40",
        "the turns of the first are lost",
        "ChatStream._keep_first",
        "(*notes.all_turns(), *self._correction, *second.turns)",
        "second.turns",
    ),
    Mutation(
        "P40", "what was wrong is lost", "ChatStream._keep_first", "last.__cause__, first", "None, last.__cause__"
    ),
    Mutation(
        "P40",
        "the first answer is lost at a second complete()",
        "ChatStream._retried",
        "raise copy(self._second_failure)",
        "pass",
    ),
    Mutation(
        "P40",
        "the cause of an error is lost",
        "ChatStream._keep_first",
        "while isinstance(last.__cause__, LLMBridgeError):",
        "while False:",
    ),
    Mutation(
        "P40", "it is lost if nothing can be sent", "ChatStream._schema_retry", "self._keep_first(failure)", "pass"
    ),
    Mutation("P40", "a call has no result", "ChatStream._schema_retry", "(*results, Message(", "(Message("),
    Mutation("P40", "an unknown tool is a turn", "_may_be_called", "return named or", "return True or"),
    Mutation("P40", "a tool of the caller is unknown", "_may_be_called", "tool.name == call.name or", ""),
    Mutation("P40", "a service's own tool is unknown", "_may_be_called", "or tool.raw is not None", ""),
    Mutation("P40", "re is asked for everything", "Patterns.found", "ways > _FEW", "False"),
    Mutation("P40", "pydantic may search for ages", "Conversion._pydantic", "if checked.slow", "if False"),
    Mutation("P40", "re repeats nothing for ever", "_ways", "least // length", "1"),
    Mutation("P40", "nothing is repeated for ever", "_Search._repeated", "begins == before", "not begins"),
    Mutation(
        "P40", "a copy has no cause", "LLMBridgeError.__reduce__", "dict(self.__dict__), cause)", "dict(self.__dict__))"
    ),
    Mutation("P40", "a search has no end", "Patterns._take", "self._left < 0", "False"),
    Mutation("P40", "a repetition is made once", "_Search._repeated", "found |= new", "break"),
    Mutation("P40", "what looks behind looks ahead", "_Search._ends", "direction < 0", "False"),
)

_SECRETS = (
    Mutation("P41", "our frames stay", "discreet", "callers_frames_only(error)\nraise error", "raise error"),
    Mutation("P41", "those of what led to it stay", "callers_frames_only", "(link.__cause__, link.__context__)", "()"),
    Mutation("P41", "those of libraries stay", "_callers_own", "if package not in _LIBRARIES:", "if package:"),
    Mutation("P41", "the caller's go too", "_callers_own", "kept = TracebackType(", "TracebackType("),
    Mutation("P41", "what the caller handles loses some", "_callers_own", "not frames or (", "not frames or not ("),
    Mutation("P41", "a Ctrl-C while reading shows all", "View._step", "callers_frames_only(error)", "pass"),
    Mutation(
        "P41",
        "a provider's frame shows the key",
        "_auth",
        'drop_frames(error, f"{provider.__name__}.{headers_of.__name__}()")',
        "del drop_frames",
    ),
    Mutation("P41", "parts of a URL stay", "_callers_own", 'package.startswith("namedtuple_")', "False"),
    Mutation("P41", "steps of a coroutine stay", "finished", "@discreet", ""),
    Mutation("P41", "a slice of a header shows", "MaskedStr.__new__", "(cls, MASK)", "(cls, text)"),
    Mutation("P41", "two keys are one", "MaskedStr.__eq__", "self._text == revealed(other)", "True"),
    Mutation("P41", "a session sees the mask", "_revealed", "revealed(value)", "value"),
    Mutation("P41", "half a client has no repr", "Client.__repr__", 'getattr(self, "_model", None)', "self._model"),
)

_WORDS = (
    Mutation("P42", "a message is not cleaned", "LLMBridgeError.message", "harmless(words, _LONGEST_MESSAGE)", "words"),
    Mutation("P42", "its repr is not", "LLMBridgeError.message", "self.args = (words,)", "pass"),
    Mutation("P42", "problems are", "InvalidOutput.__init__", "harmless(problem, _LONGEST_MESSAGE)", "problem"),
    Mutation("P42", "C1 passes", "_BLANKED", "*range(0x7F, 0xA0),", ""),
    Mutation("P42", "bidi overrides pass", "_BLANKED", "*range(0x2028, 0x202F),", ""),
    Mutation(
        "P42",
        "lone surrogates pass",
        "harmless",
        '.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")',
        "",
    ),
    Mutation("P42", "60 kB pass", "harmless", "if len(text) <= limit", "if limit"),
    Mutation("P42", "a code is taken as it is", "ServiceReport.of", "harmless(text, _LONGEST_NAME)", "text"),
    Mutation(
        "P42",
        "a header's id is",
        "Attempts._take_headers",
        "harmless(self.headers[name], _LONGEST_ID)",
        "self.headers[name]",
    ),
    Mutation("P42", "a tool's name is logged", "_failure", "harmless(call.name, 200)", "call.name"),
    Mutation("P42", "a terminal obeys JSON", "as_json", "re.sub(_OBEYED", 're.sub("(?!)"'),
)

_SIGNALS = (
    Mutation(
        "P43",
        "a limiter stays locked",
        "Limiter._settle",
        "with self._lock:",
        "self._lock.acquire()\nself._lock.release()\nwith self._lock:",
    ),
    Mutation(
        "P43",
        "a breaker stays locked",
        "Breaker.admits",
        "with self._lock:",
        "self._lock.acquire()\nself._lock.release()\nwith self._lock:",
    ),
    Mutation("P43", "a lost socket stays open", "Call.end", "socket.close(held.detach())", "pass"),
    Mutation("P43", "a kept one is closed", "Exchange.close", "self._call.let_go()\nraw.release", "raw.release"),
    Mutation("P43", "an idle thread keeps the interpreter", "_end_threads", "stop()", "pass"),
)

_NOTEBOOKS = (
    Mutation(
        "P45", "nobody wakes the event loop", "_Cell._interrupt", "call_soon_threadsafe(_nothing)", "is_running()"
    ),
    Mutation("P45", "other threads go on", "_Cell._interrupt", "reading.source.cancel()", "pass"),
    Mutation("P45", "what waits is sent after all", "_Cell.reads", "reading.source.cancel()", "pass"),
    Mutation("P45", "answers of earlier cells end", "_Cell.begin", "self._readings = {}", "pass"),
    Mutation("P45", "the way to show errors stays", "_Cell.end", "if self._custom is not None:", "if False:"),
    Mutation("P45", "every interrupt is one of an answer", "_Cell._shown", "if not stopped:", "if False:"),
    Mutation("P45", "a process without a kernel has a handler", "install", "if shell is None:", "if False:"),
)

ON_EDGES = (
    *_PROXIES,
    *_LOOPS,
    *_ECOSYSTEM,
    *_WAITING,
    *_WATCHES,
    *_CONNECTIONS,
    *_ADDRESSES,
    *_HEADERS,
    *_FORKS,
    *_CLOCKS,
    *_REFUSALS,
    *_PICKLES,
    *_SCHEMAS,
    *_SECRETS,
    *_WORDS,
    *_SIGNALS,
    *_NOTEBOOKS,
)
