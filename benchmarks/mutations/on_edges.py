"""What breaks the promises about edges: proxies, event loops, refusals, pickles and schemas (P29 to P40)."""

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
        "if answer.waiting or (may_skip_read and not answer.ended):",
        "if answer.waiting:",
    ),
    Mutation("P30", "what unpacks to nothing has no end", "_UNPACKING_SECONDS", "0.005", "1e9"),
    Mutation("P30", "what was left of a read is lost", "Answer._take_slices", "else data[begin:]", 'else b""'),
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
        "nobody ever waits for others' refusals",
        "Attempts._end_ticket",
        "ticket.refuse(error.retry_after)",
        "pass",
    ),
    Mutation("P38", "old refusals count", "Limiter._take_in_answers", "if other.began + _MINUTE > now", ""),
    Mutation("P38", "a pause may take hours", "Limiter._take_in_answers", "until <= now + _LONGEST_PAUSE", "True"),
    Mutation("P38", "who waited returns in a herd", "_SPREAD", "0.25", "0.0"),
    Mutation("P38", "who was refused returns in a herd", "_MOST_SPREAD", "0.25", "0.0"),
    Mutation("P38", "a wait is shortened", "Retry.spread", "(1 + min(", "(1 - min("),
    Mutation(
        "P38", "a spread wait does not fit", "Attempts._next_step", "spread if call.leaves(spread) else wait", "spread"
    ),
    Mutation("P38", "a wait that is not enough stays", "Retry.spread", "2 ** min(", "1 ** min("),
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
        "P39", "a copy is no other client", "Client.__copy__", "again.connections = Connections(self._limits)", "pass"
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
        "it is lost the second time",
        "ChatStream._second_answer",
        "self._second_failure.__cause__ = error.__cause__",
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
        "P40", "it is lost where nothing can be sent", "ChatStream._second_asking", "self._keep_first(failure)", "pass"
    ),
    Mutation("P40", "a call has no result", "ChatStream._second_asking", "(*results, Message(", "(Message("),
    Mutation("P40", "an unknown tool is a turn", "_may_be_called", "return named or", "return True or"),
    Mutation("P40", "a tool of the caller is unknown", "_may_be_called", "tool.name == call.name or", ""),
    Mutation("P40", "a service's own tool is unknown", "_may_be_called", "or tool.raw is not None", ""),
    Mutation("P40", "re is asked for everything", "Patterns.found", "ways <= _FEW", "True"),
    Mutation("P40", "a search has no end", "Patterns._take", "self._left < 0", "False"),
    Mutation("P40", "a repetition is made once", "_Search._repeated", "found |= new", "break"),
    Mutation("P40", "what looks behind looks ahead", "_Search._ends", "direction < 0", "False"),
)

ON_EDGES = (*_PROXIES, *_LOOPS, *_REFUSALS, *_PICKLES, *_SCHEMAS)
