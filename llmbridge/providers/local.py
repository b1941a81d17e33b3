"""The model server on this computer: the first of the usual ones that answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from llmbridge.errors import Cancelled, ClockExpired, ConfigError, ConnectFailed, InvalidRequest, LLMBridgeError
from llmbridge.options import Timeout, TransportOptions
from llmbridge.provider import Encoded
from llmbridge.providers.compatible import SERVICES
from llmbridge.providers.openai import OpenAICompatible

if TYPE_CHECKING:
    from llmbridge._call.question import DocumentCall
    from llmbridge._transport import Call
    from llmbridge.secret import Key

__all__ = ["Local"]

_ANY = "any"
_CONNECT_SECONDS = 1.0
_SECONDS = 3.0  # for one server
_SHOWN = 5


class Local(OpenAICompatible):
    """Ollama, llama.cpp, LM Studio or vLLM on its usual port, tried in this order, through OpenAI's dialect.

    `local` uses the first chat model of the first server that has one, `local:NAME` the first server with that model.
    The servers' own environment variables (`OLLAMA_HOST`, `LLAMACPP_BASE_URL` ...) are respected, and so are their keys
    (`LLAMACPP_API_KEY` ..., or those in the keys file). Proxies are not used.

    Example:
        >>> Local.servers[0]
        'ollama-v1'
    """

    name = "local"
    default_model = _ANY
    direct = True
    schema_grammar = True
    note = "the first of Ollama, llama.cpp, LM Studio and vLLM that answers on this computer"
    servers: ClassVar[tuple[str, ...]] = ("ollama-v1", "llamacpp", "lmstudio", "vllm")

    @classmethod
    def encode_embeddings(cls, model: str, texts: Sequence[str], params: Mapping[str, Any]) -> Encoded:
        if model == _ANY:
            raise InvalidRequest("name an embedding model, like 'local:nomic-embed-text'", provider=cls.name)
        return super().encode_embeddings(model, texts, params)

    @classmethod
    def locate(cls, model: str) -> tuple[str, str]:
        """The first server that answers, and its model. Blocks for a few seconds at most.

        Args:
            model: Its name, "any" for any chat model, or "" if no model is needed.

        Raises:
            ConnectFailed: No server answers, or none has the model. The message names the servers that were tried.
        """
        return _Search(cls.servers, model, lambda: float("inf")).result()

    @classmethod
    def locate_during(cls, call: Call, model: str) -> tuple[str, str]:
        search = _Search(cls.servers, model, lambda: call.left)
        return call.search(search.result, search.stop)

    @classmethod
    def key_at(cls, base_url: str) -> Key | None:
        for name in cls.servers:
            with contextlib.suppress(ConfigError):  # a variable that is not a URL
                if SERVICES[name].resolve_base_url() == base_url:
                    return SERVICES[name].find_key(None, True)
        return None


class _Search:
    """Asks one server after the other for its models."""

    def __init__(self, servers: Sequence[str], model: str, left: Callable[[], float]) -> None:
        self._servers = servers
        self._model = model
        self._left = left
        self._question: DocumentCall[list[str]] | None = None
        self._stopped = False

    def stop(self) -> None:
        """Stops the search at once, from any thread."""
        self._stopped = True
        if (question := self._question) is not None:
            question.cancel()

    def result(self) -> tuple[str, str]:
        """See `Local.locate`. Blocks.

        Raises:
            Cancelled: `stop` was called.
            ClockExpired: The timeout ran out.
            ConnectFailed: No server answers, or none has the model.
        """
        silent, answered = [], []
        for name in self._servers:
            where = name
            try:
                base_url = SERVICES[name].resolve_base_url()
                where = f"{name} at {base_url}"
                found = self._ask(name, base_url)
            except ConnectFailed:
                silent.append(where)
                continue
            except LLMBridgeError as error:  # another program's port, a missing key, a bad variable
                self._check()
                answered.append(f"{where}: {error}")
                continue
            if (chosen := _chosen(self._model, found)) is not None:
                return base_url, chosen
            answered.append(f"{where} has {_shown(found)}")
        if not answered:
            raise _final(f"no local server answers: start one, like `ollama serve` (tried {', '.join(silent)})")
        wanted = "a chat model" if self._model == _ANY else f"the model {self._model!r}"
        raise _final(f"no local server has {wanted}: {'; '.join(answered)}")

    def _ask(self, name: str, base_url: str) -> list[str]:
        """The models of a server."""
        from llmbridge._call.question import DocumentCall
        from llmbridge._call.route import SHARED

        self._check()
        provider = SERVICES[name]
        patience = Timeout(connect=_CONNECT_SECONDS, total=min(_SECONDS, self._left()))
        options = TransportOptions.checked(base_url=base_url, proxy=False, timeout=patience, retries=0)
        encoded = provider.encode_models({})
        self._question = DocumentCall(
            SHARED, provider, "", lambda _: encoded, options, provider.decode_models, method="GET"
        )
        if self._stopped:  # stop() came before there was a request to cancel
            self._question.cancel()
        return self._question.result()

    def _check(self) -> None:
        if self._stopped:
            raise Cancelled("the search for a local server was stopped")
        if self._left() <= 0:
            raise ClockExpired("the total timeout ran out during the search for a local server", clock="total")


def _chosen(model: str, found: Sequence[str]) -> str | None:
    """The model to use, if the server has it. Ollama lists `llama3` as `llama3:latest`."""
    if not model:
        return model
    if model == _ANY:
        return next((name for name in found if "embed" not in name.lower()), None)
    return next((name for name in (model, f"{model}:latest") if name in found), None)


def _shown(found: Sequence[str]) -> str:
    return ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "") or "no models"


def _final(message: str) -> ConnectFailed:
    error = ConnectFailed(message, provider=Local.name)
    error.final = True
    return error
