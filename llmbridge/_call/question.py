"""One question, answered with one JSON document: for all that is no chat (embeddings, lists of models)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from llmbridge._call.pipeline import Pipeline
from llmbridge._call.plan import usable_key
from llmbridge._call.request import http_request
from llmbridge._call.route import Route, located
from llmbridge.errors import ProtocolError
from llmbridge.events import END, End, Item, Logprobs
from llmbridge.options import CallOptions, Timeout, checked_base_url
from llmbridge.provider import Encoded, Provider
from llmbridge.retry import Retry

if TYPE_CHECKING:
    from llmbridge._call.framing import Frame
    from llmbridge._transport import Call, HTTPRequest
    from llmbridge.client import Client

__all__ = ["DocumentCall"]

T = TypeVar("T")


class DocumentCall:
    """A question that is answered with one document; made with the connections, retries and limits of a client.

    Args:
        client: Whose.
        provider: Asked.
        model: For errors; "" if it is about none.
        encoded: Makes path and body, of the model's name at the time of sending.
        options: How the request travels.
        method: POST or GET.
        decode: Makes the result of the document.
        total_at: `time.monotonic()` of the end of the total, where this is not the first question of a call.
    """

    def __init__(
        self,
        client: Client,
        provider: type[Provider],
        model: str,
        encoded: Callable[[str], Encoded],
        options: CallOptions,
        method: str,
        decode: Callable[[Any], Any],
        total_at: float | None = None,
    ) -> None:
        key = usable_key(provider, options)
        proxy: str | bool | None = False if provider.direct and options.base_url is None else options.proxy
        verify = True if options.verify is None else options.verify

        def prepare(_: Route, call: Call) -> HTTPRequest:
            base_url, name = options.base_url, model
            if base_url is None:
                base_url, name = located(provider, model, call)
            made = encoded(name)
            asked = Encoded(made.body, made.path, {"Accept": "application/json", **made.headers})
            return http_request(provider, asked, options, key, checked_base_url(base_url), method)

        self._found: list[Any] = []
        route = Route(
            _reader(provider, lambda document: self._found.append(decode(document))),
            model,
            prepare,
            lambda: client.transport(options.session, proxy, verify),
            options.retries or Retry(),
        )
        self._pipeline = Pipeline([route], options.timeout or Timeout(), client.limiter, total_at=total_at)

    def result(self) -> Any:
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


def _reader(provider: type[Provider], read: Callable[[Any], None]) -> type[Provider]:
    """The provider, as one whose every answer is a document that `read` understands."""

    class Reader(Provider):
        name: ClassVar[str] = provider.name
        offline_since: ClassVar[str] = provider.offline_since

        @classmethod
        def decode(cls, frame: Frame) -> Iterable[Item | End]:
            raise ProtocolError("the service answered with a stream instead of one JSON document: check the base_url")

        @classmethod
        def decode_document(cls, document: Any) -> Iterable[Item | End]:
            read(document)
            return (Logprobs(()), END)

    return Reader
