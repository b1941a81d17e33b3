"""What the calls of a client share: kept connections, the memory of models that failed, and limits."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from llmbridge._call.route import Breaker
from llmbridge._locks import keep_lock_free
from llmbridge.secret import MaskedStr

if TYPE_CHECKING:
    import requests

    from llmbridge._transport import Transport
    from llmbridge.limits import Limiter, Limits

__all__ = ["SHARED", "Connections"]

_TRANSPORTS = 32  # ways to travel whose connections are kept
_BREAKERS = 256  # models of lists whose last failures are remembered


class Connections:
    """Belongs to one process, and is safe to share between its threads.

    Args:
        limits: How fast its calls may ask; None for no limits.

    Attributes:
        transports: Those with kept connections, by proxy and verify.
        breakers: By model.
        limiter: Lets requests through as the limits allow; None without limits.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.transports: dict[Any, Transport] = {}
        self.breakers: dict[str, Breaker] = {}
        self._lock: threading.Lock
        keep_lock_free(self)
        self.limiter: Limiter | None = None
        if limits is not None:
            from llmbridge.limits import Limiter

            self.limiter = Limiter(limits)

    def transport(self, session: requests.Session | None, proxy: str | bool | None, verify: bool | str) -> Transport:
        """Calls that travel in the same way share their connections."""
        from llmbridge._transport import Transport

        if session is not None:
            return Transport(session, proxy, verify)
        if isinstance(proxy, str):
            proxy = MaskedStr(proxy)  # whoever shows this object shows the keys of its dict
        with self._lock:
            transport = self.transports.get((proxy, verify))
            if transport is None:
                if len(self.transports) >= _TRANSPORTS:
                    self.transports.pop(next(iter(self.transports))).close()
                transport = self.transports[proxy, verify] = Transport(None, proxy, verify)
            return transport

    def breaker_of(self, model: str) -> Breaker:
        """The memory of how a model did lately."""
        with self._lock:
            breaker = self.breakers.get(model)
            if breaker is None:
                if len(self.breakers) >= _BREAKERS:
                    del self.breakers[next(iter(self.breakers))]
                breaker = self.breakers[model] = Breaker()
            return breaker

    def close(self) -> None:
        """Closes the kept connections. New ones are made when they are needed."""
        with self._lock:
            transports = list(self.transports.values())
            self.transports.clear()
        for transport in transports:
            transport.close()


SHARED = Connections()
"""Of the module's functions, and of providers that are used as classes."""
