"""What breaks the promises about edges: proxies, event loops beside a stream, and others on the way (P29 to P44)."""

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

ON_EDGES = (*_PROXIES, *_LOOPS, *_ECOSYSTEM)
