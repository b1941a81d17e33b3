"""What breaks the promises about the edges of the network: proxies, addresses, headers, clocks, forks (P32 to P36)."""

from __future__ import annotations

from benchmarks.mutations.mutation import Mutation

__all__ = ["ON_NETWORK"]

_PROXIES = (
    Mutation(
        "P32",
        "what breaks behind a proxy was never sent",
        "_mapped",
        "if not (connecting or connected) and _is_of_proxy(chain):",
        "if way.proxy and any(isinstance(link, urllib3.exceptions.ProxyError) for link in chain):",
    ),
    Mutation("P32", "urllib3 is believed", "_mapped", "_is_of_proxy(chain)", "way.proxy"),
    Mutation(
        "P32",
        "a connection that breaks has not come past the proxy",
        "_Way.peer",
        'self.step == "proxy" else',
        "self.proxy else",
    ),
    Mutation("P32", "407 is asked again", "unauthorized", "return _final(", "return ConnectFailed("),
    Mutation(
        "P32",
        "407 to a plain request is the service's",
        "Transport.send",
        "exchange.status == _PROXY_ASKS and",
        "exchange.status == 0 and",
    ),
    Mutation(
        "P32",
        "wrong credentials for SOCKS are tried again",
        "_proxy_error",
        "str(link).startswith(_SOCKS_CREDENTIALS)",
        "str(link) in _SOCKS_CREDENTIALS[3:]",
    ),
    Mutation("P32", "SOCKS gives no reason", "_proxy_error", "way.closed(str(link))", 'way.closed("OSError")'),
    Mutation("P32", "no variable is named", "named_proxy", "if chosen else name", "if not chosen else name"),
    Mutation(
        "P32",
        "a proxy that speaks TLS is trusted blindly",
        "WatchedAdapter.cert_verify",
        '"https:" if conn.scheme == "https" else url',
        "url",
    ),
    Mutation(
        "P32",
        "a proxy that speaks TLS is verified by other CAs",
        "_Interruptible.connect",
        "and not self._speaks_tls_to_proxy",
        "",
    ),
    Mutation("P32", "501 is sent again", "_UNKNOWN_THERE", "501", "599"),
    Mutation("P32", "g4f's fields are lost", "_unwrapped", '{"msg", "loc"}', '{"msg"}'),
    Mutation("P32", "LiteLLM's cause is not said", "advice", '"no_db_connection"', '"no_db"'),
)

ON_NETWORK = (*_PROXIES,)
