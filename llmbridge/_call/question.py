"""Requests answered with one JSON document instead of a stream: embeddings, lists of models."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Union, overload

from llmbridge._call.pipeline import Pipeline
from llmbridge._call.reading import EventView, Reading, finished
from llmbridge._call.route import Route
from llmbridge._json import check_text, json_copy
from llmbridge.errors import ConfigError, InvalidRequest, ProtocolError
from llmbridge.events import Event, Usage
from llmbridge.options import Timeout, TotalClock, TransportOptions, checked_extra
from llmbridge.provider import Encoded
from llmbridge.secret import discreet
from llmbridge.stream import EventStream

if TYPE_CHECKING:
    from llmbridge._call.route import Connections
    from llmbridge.provider import Provider

__all__ = ["MOST_TEXTS", "DocumentCall", "Embeddings", "EmbeddingsCall"]

T = TypeVar("T")

MOST_TEXTS = 512
"""The most texts in one request, whatever the service allows: 50 MB of JSON with the longest vectors."""
_BYTES = 500_000
"""The most UTF-8 bytes in one request, unless a single text is longer: services limit the tokens of all texts."""

_DIMENSIONS = ("dimensions", "output_dimension", "outputDimensionality", "output_dimensionality")
_Decoded = tuple[list[list[float]], Union[Usage, None]]


class DocumentCall(Generic[T]):
    """A request that is answered with one document, with the retries and limits of a chat.

    Args:
        connections: Keeps the connections, and has the limits.
        provider: Receives the request.
        model: For errors; "" if there is none.
        encode: Makes path and body from the model's name at the time of sending.
        options: The transport options.
        decode: Makes the result from the document.
        method: POST or GET.
        total: The total timeout, if this is one of several requests.
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
            return Encoded(made.body, made.path, {"Accept": "application/json", **made.headers}, made.base_url)

        self._found: list[T] = []
        route = Route(
            provider,
            model,
            encoded,
            options,
            connections,
            method=method,
            read=lambda document: self._found.append(decode(document)),
        )
        self._pipeline = Pipeline([route], options.timeout or Timeout(), connections.limiter, total=total)

    @discreet
    def result(self) -> T:
        """The decoded document. Blocks.

        Raises:
            LLMBridgeError: See `llmbridge.errors`.
        """
        return finished(self.steps())

    def steps(self) -> Generator[EventStream[Event], None, T]:
        """See `finished`."""
        yield EventStream(Reading(self._pipeline), EventView)
        return self._found[0]

    def cancel(self) -> None:
        """Ends the call at once, from any thread."""
        self._pipeline.close()


@dataclass(frozen=True, slots=True)
class Embeddings(Sequence[list[float]]):
    """The vectors of some texts, in their order. A sequence of lists of float.

    Args:
        vectors: One for each text, all of the same length.
        usage: Counted tokens, or None if the service did not say.
        model: The model's name in the request.
        provider: The provider's name.
    """

    vectors: list[list[float]] = field(repr=False)
    usage: Usage | None = None
    model: str = ""
    provider: str = ""

    def __len__(self) -> int:
        return len(self.vectors)

    @overload
    def __getitem__(self, index: int) -> list[float]: ...

    @overload
    def __getitem__(self, index: slice) -> list[list[float]]: ...

    def __getitem__(self, index: int | slice) -> list[float] | list[list[float]]:
        return self.vectors[index]

    def __iter__(self) -> Iterator[list[float]]:
        return iter(self.vectors)

    @property
    def array(self) -> Any:
        """The vectors as a numpy array of shape (texts, length) and type float32; (0, 0) without texts.

        Raises:
            ConfigError: numpy is not installed.
        """
        try:
            import numpy as np  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            raise ConfigError("embeddings.array needs numpy: pip install numpy, or use .vectors") from None
        length = len(self.vectors[0]) if self.vectors else 0
        return np.asarray(self.vectors, dtype=np.float32).reshape(len(self.vectors), length)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Lets `numpy.asarray(embeddings)` work."""
        if copy is False:
            raise ValueError("embeddings are lists of float, so an array always copies them: leave out copy=False")
        array = self.array
        return array if dtype is None else array.astype(dtype)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from llmbridge.notebook.views import of_embeddings

        return of_embeddings(self)


class EmbeddingsCall:
    """All requests for the embeddings of some texts, one after the other.

    Args:
        connections: Keeps the connections, and has the limits.
        provider: Receives the requests.
        model: The model's name.
        options: The transport options.
        texts: Any number of them; a str is one text.
        params: Parameters of the service.
        extra: Added to each body unchanged.

    Raises:
        ConfigError: The service has no embeddings, or a text or a parameter cannot be used; nothing was sent.
    """

    def __init__(
        self,
        connections: Connections,
        provider: type[Provider],
        model: str,
        options: TransportOptions,
        texts: str | Iterable[str],
        params: Mapping[str, Any],
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if not provider.embeddings_batch:
            raise ConfigError(f"{provider.name} has no embeddings", provider=provider.name)
        self._connections = connections
        self._provider = provider
        self._model = model
        self._options = options
        self._params = json_copy({name: value for name, value in params.items() if value is not None}, "", root=True)
        self._extra = checked_extra(extra or {})
        self._batches = _batches(_checked_texts(texts), min(provider.embeddings_batch, MOST_TEXTS))
        for batch in self._batches:
            self._encode(batch, model)  # errors come at the call, before anything is paid for
        self._total = TotalClock((options.timeout or Timeout()).total)

    def _encode(self, texts: Sequence[str], model: str) -> Encoded:
        return self._provider.encode_embeddings(model, texts, self._params).with_extra(self._extra)

    def steps(self) -> Generator[EventStream[Event], None, Embeddings]:
        """Runs the requests, for `finished`; returns the vectors of all texts.

        Raises:
            LLMBridgeError: See `llmbridge.errors`.
        """
        vectors: list[list[float]] = []
        counts: list[Usage | None] = []
        for batch in self._batches:
            more, counted = yield from self._question(batch).steps()
            if len(more) != len(batch):
                raise ProtocolError(
                    f"{len(batch)} texts were sent, but {len(more)} embeddings came back",
                    provider=self._provider.name,
                    model=self._model,
                )
            vectors += more
            counts.append(counted)
        self._check(vectors)
        return Embeddings(vectors, _sum(counts), self._model, self._provider.name)

    def _check(self, vectors: list[list[float]]) -> None:
        """Rejects useless vectors now, rather than when a search finds nothing: not finite, empty, or too short."""
        found, asked = {len(vector) for vector in vectors}, _dimensions(self._params)
        problem = "the embeddings have different lengths" if len(found) > 1 else ""
        if asked and not found <= asked:
            lengths = ", ".join(map(str, sorted(found)))
            problem = f"{max(asked)} dimensions were requested, but embeddings of {lengths} came back"
        if not all(vectors):
            problem = "an embedding is an empty list: does the service support this encoding_format?"
        elif not all(map(_is_finite, vectors)):
            problem = "an embedding holds a number that is not finite"
        if problem:
            raise ProtocolError(problem, provider=self._provider.name, model=self._model)

    def _question(self, texts: Sequence[str]) -> DocumentCall[_Decoded]:
        return DocumentCall(
            self._connections,
            self._provider,
            self._model,
            lambda model: self._encode(texts, model),
            self._options,
            self._provider.decode_embeddings,
            total=self._total,
        )


def _is_finite(vector: list[float]) -> bool:
    try:
        return all(map(math.isfinite, vector))
    except OverflowError:  # an int too large for a float
        return False


def _dimensions(params: Mapping[str, Any]) -> set[int]:
    """The lengths that fit the request's parameters; empty if any does.

    Example:
        >>> _dimensions({"dimensions": 256}), _dimensions({"output_dimension": 256, "output_dtype": "binary"})
        ({256}, {256, 32})
    """
    fields = {**next((value for value in params.values() if isinstance(value, Mapping)), {}), **params}
    asked = next((fields[name] for name in _DIMENSIONS if name in fields), None)
    if not isinstance(asked, int) or isinstance(asked, bool):
        return set()
    packed = "binary" in f"{params.get('output_dtype')} {params.get('embedding_types')}"  # eight in a byte
    return {asked, asked // 8} if packed else {asked}


def _checked_texts(texts: Any) -> list[str]:
    found = [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, Iterable) else None
    if found is None or isinstance(texts, (bytes, Mapping)):
        raise InvalidRequest(f"texts must be a str or several of them, not {type(texts).__name__}")
    for position, text in enumerate(found):
        if not isinstance(text, str):
            raise InvalidRequest(f"texts[{position}] must be a str, not {type(text).__name__}")
        check_text(text, f"texts[{position}]")
    return found


def _batches(texts: Sequence[str], most: int) -> list[list[str]]:
    """The texts in order, in groups that fit into one request each."""
    batches: list[list[str]] = []
    room = 0
    for text in texts:
        size = len(text.encode())
        if not batches or len(batches[-1]) == most or size > room:
            batches.append([])
            room = _BYTES
        batches[-1].append(text)
        room -= size
    return batches


def _sum(counts: Sequence[Usage | None]) -> Usage | None:
    """The tokens of all requests; None if one of them was not counted."""
    total: Usage | None = None
    for counted in counts:
        if counted is None:
            return None
        total = counted if total is None else total.plus(counted)
    return total
