"""What breaks the promises about edges: proxies, event loops beside a stream, secrets, words and signals."""

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

ON_EDGES = (*_PROXIES, *_LOOPS, *_SECRETS, *_WORDS, *_SIGNALS)
