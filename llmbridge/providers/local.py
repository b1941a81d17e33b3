"""Whatever model server runs on this computer: the first of the usual ones that answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from llmbridge.errors import ConnectFailed, InvalidRequest, LLMBridgeError
from llmbridge.options import Timeout
from llmbridge.provider import Encoded
from llmbridge.providers.openai import OpenAICompatible

__all__ = ["Local"]

_ANY = "any"
_PATIENCE = Timeout(connect=1.0, total=3.0)
_SHOWN = 5


class Local(OpenAICompatible):
    """Ollama, llama.cpp, LM Studio or vLLM on its usual port; asked in this order, through OpenAI's dialect.

    `local` takes the first model of the first server that has one for chats, `local:NAME` the first server that has the
    model of that name. The servers' own environment variables (`OLLAMA_HOST`, `LLAMACPP_BASE_URL` ...) are respected,
    proxies are not used.

    Example:
        >>> Local.servers[0]
        'ollama-v1'
    """

    name = "local"
    default_model = _ANY
    direct = True
    note = "the first of Ollama, llama.cpp, LM Studio and vLLM that answers on this computer"
    servers: ClassVar[tuple[str, ...]] = ("ollama-v1", "llamacpp", "lmstudio", "vllm")

    @classmethod
    def encode_embeddings(cls, model: str, texts: Sequence[str], params: Mapping[str, Any]) -> Encoded:
        if model == _ANY:
            raise InvalidRequest("name a model that makes embeddings, like 'local:nomic-embed-text'", provider=cls.name)
        return super().encode_embeddings(model, texts, params)

    @classmethod
    def locate(cls, model: str) -> tuple[str, str]:
        """The first server that answers, and its model. Blocks for some seconds at the most.

        Args:
            model: Its name, "any" for any that chats, or "" for a question that is about none.

        Raises:
            ConnectFailed: None answers, or none has the model; the message says who was asked.
        """
        from llmbridge._listing import models
        from llmbridge.providers.compatible import SERVICES

        silent, answered = [], []
        for name in cls.servers:
            where = name
            try:
                base_url = SERVICES[name].resolve_base_url()
                where = f"{name} at {base_url}"
                found = models(name, base_url=base_url, proxy=False, timeout=_PATIENCE, retries=0)
            except ConnectFailed:
                silent.append(where)
                continue
            except LLMBridgeError as error:  # somebody else's port, a key that is needed, a variable that is no URL
                answered.append(f"{where}: {error}")
                continue
            if (chosen := _chosen(model, found)) is not None:
                return base_url, chosen
            answered.append(f"{where} has {_shown(found)}")
        if not answered:
            raise _final(f"no local server answers (tried {', '.join(silent)}): start one, for example `ollama serve`")
        wanted = "a model for chats" if model == _ANY else f"the model {model!r}"
        raise _final(f"no local server has {wanted}: {'; '.join(answered)}")


def _chosen(model: str, found: Sequence[str]) -> str | None:
    """The model to ask, if the server has it. Ollama lists `llama3` as `llama3:latest`."""
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
