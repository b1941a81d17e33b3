"""A catalogue of faults of chat services and networks, to play to any client in any test.

`FAULTS` holds them by name. Each fault says in one line what happens, and what a correct client makes of it::

    from llmbridge.testing.faults import FAULTS

    @pytest.mark.parametrize("fault", FAULTS.values(), ids=str)
    def test_my_app_survives(fault):
        with fault.serve() as base_url:     # a server that does nothing but this
            my_app(base_url)                # fault.expected: "error" or "text"; fault.hangs: needs a timeout

Faults that are answers can also be queued on a server of your own, between good ones::

    server.script(FAULTS["cut-in-chunk"].reply(), Reply("Hello"))

The answers are in OpenAI's chat format. `HTTPProxy` and `SocksProxy` are proxies that record their requests, `Listener`
is the bare listener under them, and `self_signed_context()` makes an `LLMServer` speak TLS with a certificate whose key
is public. `python -m llmbridge.testing.faults` prints the catalogue. Only the standard library is needed, and
everything listens on 127.0.0.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .cuts import CUTS
from .excess import FLOODS, SLOW
from .fault import Fault
from .listener import Listener, read_head
from .network import NETWORK
from .proxies import HTTPProxy, Passed, SocksProxy
from .selfsigned import SELF_SIGNED_CERTIFICATE, SELF_SIGNED_TEST_KEY, self_signed_context
from .wrong import WRONG

__all__ = [
    "FAULTS",
    "SELF_SIGNED_CERTIFICATE",
    "SELF_SIGNED_TEST_KEY",
    "Fault",
    "HTTPProxy",
    "Listener",
    "Passed",
    "SocksProxy",
    "read_head",
    "self_signed_context",
]

FAULTS: Mapping[str, Fault] = MappingProxyType(
    {fault.name: fault for fault in (*NETWORK, *SLOW, *FLOODS, *CUTS, *WRONG)}
)
"""All faults by name."""
