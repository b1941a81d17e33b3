"""Embeddings: texts to vectors, in as few requests as the service allows, in the order of the texts."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from llmbridge._call.pipeline import TotalClock
from llmbridge._call.plan import refuse_of_client
from llmbridge._call.question import DocumentCall
from llmbridge._model import resolve_model
from llmbridge.errors import ConfigError, InvalidRequest, ProtocolError
from llmbridge.events import Usage
from llmbridge.messages import check_text, json_copy
from llmbridge.options import OPTION_NAMES, CallOptions, Timeout
from llmbridge.secret import discreet

if TYPE_CHECKING:
    from llmbridge.client import Client
    from llmbridge.provider import Encoded, Provider

__all__ = ["MOST_TEXTS", "Embeddings", "aembed", "aembed_with", "embed", "embed_with"]

MOST_TEXTS = 512
"""Texts in a request at the most, whatever the service takes: the longest vectors of as many are 50 MB of JSON."""
_BYTES = 500_000
"""UTF-8 in a request at the most, unless one text alone is longer: services limit the tokens of all texts together."""


@dataclass(frozen=True, slots=True)
class Embeddings(Sequence[list[float]]):
    """The vectors of some texts, in their order. A sequence of lists of float.

    Args:
        vectors: One for each text, all of the same length.
        usage: Counted tokens, or None if the service did not say.
        model: The model that was asked.
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
        """The vectors as a numpy array of shape (texts, length) and type float32; of no texts, (0, 0).

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
            raise ValueError("embeddings are lists of float: an array of them is always a copy")
        array = self.array
        return array if dtype is None else array.astype(dtype)


@discreet
def embed(texts: str | Iterable[str], model: str | None = None, **options: Any) -> Embeddings:
    """The embeddings of texts.

    Args:
        texts: Any number of them, in as many requests as the service's limits demand, one after the other; a str is
            one text. For none, nothing is asked.
        model: "provider:model". If missing, the environment variable LLMBRIDGE_MODEL.
        **options: `dimensions`, where the model has a choice, and other parameters of the service; `api_key`,
            `base_url`, `timeout` and the others that `Client` takes about how a request travels. The total of the
            timeout is that of all requests together, retries are counted for each.

    Returns:
        The vectors in the order of the texts.

    Raises:
        ConfigError: The model, a text or an option cannot be used; nothing was sent.
        LLMBridgeError: The service did not answer, or not with one vector for each text.

    Example:
        >>> vectors = embed(["one", "two"], model="demo")
        >>> len(vectors), len(vectors[0]) == len(vectors[1])
        (2, True)
    """
    from llmbridge._api import shared_client

    return embed_with(shared_client(), texts, model, options)


@discreet
def aembed(texts: str | Iterable[str], model: str | None = None, **options: Any) -> Coroutine[Any, Any, Embeddings]:
    """`embed` for async code: await it. Bad arguments are refused at the call.

    Example:
        >>> import asyncio
        >>> len(asyncio.run(aembed("one", model="demo")))
        1
    """
    from llmbridge._api import shared_client

    return aembed_with(shared_client(), texts, model, options)


def aembed_with(
    client: Client, texts: str | Iterable[str], model: str | None, options: Mapping[str, Any]
) -> Coroutine[Any, Any, Embeddings]:
    """`aembed` with the defaults of a client."""
    from llmbridge._aio import in_thread

    work = _Work(client, texts, model, options)
    return in_thread(work.result, work.cancel, left=work.left)


def embed_with(client: Client, texts: str | Iterable[str], model: str | None, options: Mapping[str, Any]) -> Embeddings:
    """`embed` with the defaults of a client."""
    return _Work(client, texts, model, options).result()


class _Work:
    """All requests for the texts, one after the other."""

    def __init__(
        self, client: Client, texts: str | Iterable[str], model: str | None, options: Mapping[str, Any]
    ) -> None:
        asked = {name: value for name, value in options.items() if name in OPTION_NAMES}
        self._client = client
        travel = CallOptions.checked(asked)
        named = client.default_model if model is None else model
        if named is None and client.several:
            raise ConfigError("this client has several models: say with model= which one makes the embeddings")
        has_base_url = travel.base_url is not None or client.options.base_url is not None
        self._provider, self._model = resolve_model(named, has_base_url)
        self._options = client.options_for(self._provider, travel)
        if not self._provider.embeddings_batch:
            raise ConfigError(f"{self._provider.name} makes no embeddings", provider=self._provider.name)
        plain = {name: value for name, value in options.items() if name not in OPTION_NAMES}
        refuse_of_client(plain)
        params = {**client.settings_for(self._provider), **plain}
        self._params = json_copy({name: value for name, value in params.items() if value is not None}, "", root=True)
        self._batches = _batches(_checked_texts(texts), min(self._provider.embeddings_batch, MOST_TEXTS))
        for batch in self._batches:
            self._encode(batch, self._model)  # errors come at the call, before anything is paid for
        self._total = TotalClock((self._options.timeout or Timeout()).total)
        self._call: DocumentCall | None = None
        self._cancelled = False

    def _encode(self, texts: Sequence[str], model: str) -> Encoded:
        return self._provider.encode_embeddings(model, texts, self._params)

    def result(self) -> Embeddings:
        vectors: list[list[float]] = []
        counts: list[Usage | None] = []
        for batch in self._batches:
            more, counted = self._ask(batch)
            if len(more) != len(batch):
                raise ProtocolError(
                    f"{len(batch)} texts were sent and {len(more)} embeddings came back",
                    provider=self._provider.name,
                    model=self._model,
                )
            vectors += more
            counts.append(counted)
        if len({len(vector) for vector in vectors}) > 1:
            raise ProtocolError("the embeddings are not of one length", provider=self._provider.name, model=self._model)
        return Embeddings(vectors, _sum(counts), self._model, self._provider.name)

    def _ask(self, texts: Sequence[str]) -> tuple[list[list[float]], Usage | None]:
        provider: type[Provider] = self._provider
        self._call = DocumentCall(
            self._client,
            provider,
            self._model,
            lambda model: self._encode(texts, model),
            self._options,
            "POST",
            provider.decode_embeddings,
            self._total.start(),
        )
        if self._cancelled:
            self._call.cancel()
        answer: tuple[list[list[float]], Usage | None] = self._call.result()
        return answer

    def left(self) -> float:
        """Seconds until the total limit, for all requests together."""
        return self._total.left

    def cancel(self) -> None:
        self._cancelled = True
        if self._call is not None:
            self._call.cancel()


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
    """The texts in their order, in groups that one request may hold."""
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
