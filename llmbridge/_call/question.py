"""A question that is answered with one JSON document instead of a stream: embeddings, lists of models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from llmbridge._call.pipeline import Pipeline
from llmbridge._call.route import Route
from llmbridge.options import Timeout, TotalClock, TransportOptions
from llmbridge.provider import Encoded

if TYPE_CHECKING:
    from llmbridge._call.route import Connections
    from llmbridge.provider import Provider

__all__ = ["DocumentCall"]

T = TypeVar("T")


class DocumentCall(Generic[T]):
    """A question that is answered with one document, with the retries and limits of a chat.

    Args:
        connections: Keeps the connections, and has the limits.
        provider: Asked.
        model: For errors; "" if it is about none.
        encode: Makes path and body, of the model's name at the time of sending.
        options: How the request travels.
        decode: Makes the result of the document.
        method: POST or GET.
        total: The clock of the whole call, where this is one of several questions.
    """

    def __init__(
        self,
        connections: Connections,
        provider: type[Provider],
        model: str,
        encode: Callable[[str], Encoded],
        options: TransportOptions,
        decode: Callable[[Any], T],
        method: str = "POST",
        total: TotalClock | None = None,
    ) -> None:
        def encoded(name: str) -> Encoded:
            made = encode(name)
            return Encoded(made.body, made.path, {"Accept": "application/json", **made.headers})

        self._found: list[T] = []
        route = Route.to(
            provider,
            model,
            encoded,
            options,
            connections,
            method=method,
            read=lambda document: self._found.append(decode(document)),
        )
        self._pipeline = Pipeline([route], options.timeout or Timeout(), connections.limiter, total=total)

    def result(self) -> T:
        """What the document says. Blocks.

        Raises:
            LLMBridgeError: See `llmbridge.errors`.
        """
        try:
            while self._pipeline.advance() is not None:
                continue
        finally:
            self._pipeline.close()
        return self._found[0]

    def left(self) -> float:
        """Seconds until the total limit."""
        return self._pipeline.left

    def cancel(self) -> None:
        """Ends the call at once, from any thread."""
        self._pipeline.close()
