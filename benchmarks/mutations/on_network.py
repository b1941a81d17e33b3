"""What breaks the promises about the edges of the network: proxies, addresses, headers, clocks, forks (P31 to P36)."""

from __future__ import annotations

from benchmarks.mutations.mutation import Mutation

__all__ = ["ON_NETWORK"]

_PROXIES = (
    Mutation(
        "P31",
        "what breaks behind a proxy was never sent",
        "_mapped",
        "if not (connecting or connected) and _is_of_proxy(chain):",
        "if way.proxy and any(isinstance(link, urllib3.exceptions.ProxyError) for link in chain):",
    ),
    Mutation("P31", "urllib3 is believed", "_mapped", "_is_of_proxy(chain)", "way.proxy"),
    Mutation(
        "P31",
        "a connection that breaks has not come past the proxy",
        "_Way.peer",
        'self.step == "proxy" else',
        "self.proxy else",
    ),
    Mutation("P31", "407 is asked again", "unauthorized", "return _final(", "return ConnectFailed("),
    Mutation(
        "P31",
        "407 to a plain request is the service's",
        "Transport.send",
        "exchange.status == _PROXY_ASKS and",
        "exchange.status == 0 and",
    ),
    Mutation(
        "P31",
        "wrong credentials for SOCKS are tried again",
        "_proxy_error",
        "str(link).startswith(_SOCKS_CREDENTIALS)",
        "str(link) in _SOCKS_CREDENTIALS[3:]",
    ),
    Mutation("P31", "SOCKS gives no reason", "_proxy_error", "way.closed(str(link))", 'way.closed("OSError")'),
    Mutation("P31", "no variable is named", "named_proxy", "if chosen else name", "if not chosen else name"),
    Mutation(
        "P31",
        "a proxy that speaks TLS is trusted blindly",
        "WatchedAdapter.cert_verify",
        '"https:" if conn.scheme == "https" else url',
        "url",
    ),
    Mutation(
        "P31",
        "a proxy that speaks TLS is verified by other CAs",
        "_Interruptible.connect",
        "and not self._speaks_tls_to_proxy",
        "",
    ),
    Mutation("P31", "501 is sent again", "_UNKNOWN_THERE", "501", "599"),
    Mutation("P31", "g4f's fields are lost", "_unwrapped", '{"msg", "loc"}', '{"msg"}'),
    Mutation("P31", "LiteLLM's cause is not said", "advice", '"no_db_connection"', '"no_db"'),
)

ON_NETWORK = (*_PROXIES,)
