"""The services and servers that speak OpenAI's dialect: one row of data each.

A new one is one entry of `SERVICES`, or, in another package, one line:
`Acme = compatible("acme", base_url="https://api.acme.example/v1", key_env="ACME_API_KEY")`, named in an entry point.

Source: the services' own documentation; answers recorded from llama.cpp, transformers and LiteLLM; what users were
refused (litellm#9720, open-webui#21266, pydantic-ai#7653, nanobot#4967, lmstudio-bug-tracker#670).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from llmbridge.messages import ChatRequest, Message, SchemaMode
from llmbridge.providers._row import MAPPINGS, check_row
from llmbridge.providers.openai import OpenAICompatible

__all__ = ["SERVICES", "Compatible", "compatible"]


class Compatible(OpenAICompatible):
    """What the rows have in common; see `compatible`.

    Attributes:
        key_header: The header that carries the key; "" for `Authorization: Bearer`.
        host_env: Another environment variable of the server's address, as Ollama writes it: a host, perhaps with a
            port or a scheme, without the path. `base_url_env` comes first.
    """

    key_header: ClassVar[str] = ""
    host_env: ClassVar[str] = ""
    refused_by: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    harmless: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    named_roles: ClassVar[tuple[str, ...] | None] = None

    @classmethod
    def auth_headers(cls, key: str) -> dict[str, str]:
        return {cls.key_header: key} if cls.key_header else super().auth_headers(key)

    @classmethod
    def resolve_base_url(cls) -> str:
        host = os.environ.get(cls.host_env, "").strip() if cls.host_env else ""
        if not host or os.environ.get(cls.base_url_env, "").strip():
            return super().resolve_base_url()
        from llmbridge.providers.ollama import host_url

        return host_url(host) + "/v1"

    @classmethod
    def encode_message(cls, message: Message) -> dict[str, Any]:
        encoded = super().encode_message(message)
        if cls.named_roles is not None and message.role not in cls.named_roles:
            encoded.pop("name", None)
        return encoded

    @classmethod
    def refusals(cls, request: ChatRequest) -> Mapping[str, str]:
        refused = dict(super().refusals(request))
        for models, advice in cls.refused_by.items():
            if re.match(models, request.model):
                refused.update({name: advice[name] for name in advice.keys() & request.params.keys()})
        for name in refused.keys() & request.params.keys():
            if request.params[name] in (None, *cls.harmless.get(name, ())):
                del refused[name]
        choice = request.tool_choice
        if "tool_choice" in cls.refused and choice is not None and (choice.mode != "auto" or choice.raw is not None):
            refused["tool_choice"] = cls.refused["tool_choice"]
        return refused


def compatible(
    name: str,
    *,
    base_url: str = "",
    key_env: str | tuple[str, ...] = (),
    base_url_env: str = "",
    host_env: str = "",
    url: str = "",
    note: str = "",
    needs_key: bool | None = None,
    key_header: str = "",
    path: str = "/chat/completions",
    headers: Mapping[str, str] | None = None,
    renamed: Mapping[str, str] | None = None,
    refused: Mapping[str, str] | None = None,
    refused_by: Mapping[str, Mapping[str, str]] | None = None,
    harmless: Mapping[str, tuple[Any, ...]] | None = None,
    named_roles: tuple[str, ...] | None = None,
    reasoning_field: str = "",
    no_reasoning: str | None = None,
    reasoning_proofs: str = "",
    schema_mode: SchemaMode = "native",
    schema_bounds: bool = True,
    names_tools: bool = True,
    json_mode: bool = True,
    schema_grammar: bool = False,
    asks_usage: bool = True,
    think_tags: bool = True,
    done_needs_finish: bool = True,
    models_path: str = "/models",
    embeddings_path: str = "/embeddings",
    embeddings_batch: int = 512,
    base_url_example: str = "http://127.0.0.1:8080/v1",
) -> type[Compatible]:
    """A provider that speaks OpenAI's dialect.

    Args:
        name: What stands before the colon in "name:model".
        base_url: What the paths are appended to; "" if a caller must give it.
        key_env: The environment variable of the key, or several in order.
        base_url_env: The environment variable that may hold another base URL.
        host_env: The environment variable that may hold the server's address without the path.
        url: The service's home page.
        note: One line for people.
        needs_key: Whether it refuses to work without a key; by default if `key_env` is given.
        key_header: The header that carries the key; "" for `Authorization: Bearer`.
        path: Of the chat endpoint.
        headers: Sent with every request.
        renamed: Parameters that the service knows by another name.
        refused: Parameters that it is known to refuse, each with what to do instead. `n` is refused unless it is 1,
            `parallel_tool_calls` unless it is True, `tool_choice` unless it is "auto".
        refused_by: The same for some of its models: a regular expression that matches the beginnings of their names,
            and what they refuse.
        harmless: Values of those parameters that are taken nevertheless.
        named_roles: The roles whose messages may have a `name`, which others lose; None for all.
        reasoning_field: Where it wants the reasoning of earlier turns back; "" if it does not.
        no_reasoning: What stands there in a turn without reasoning; None if it may lack the field.
        reasoning_proofs: The list in which reasoning comes with its proofs, and goes back: `reasoning_details` or
            `thinking_blocks`; "" if there is none.
        schema_mode: Its best way to be held to a schema.
        schema_bounds: Whether it takes bounds (`minimum`, `maxItems`) in a schema; else they are told in descriptions.
        names_tools: Whether `tool_choice` may name a tool; if not, that one alone is sent, and "required".
        json_mode: Whether it knows the response format `json_object`.
        schema_grammar: Whether it makes a grammar of schemas, as llama.cpp does: patterns are told in descriptions.
        asks_usage: Whether `stream_options` asks for the tokens.
        think_tags: Whether reasoning may stand between `<think>` tags at the start of the answer.
        done_needs_finish: Whether `[DONE]` without a reason to finish is doubted when the body was cut short.
        models_path: Of the list of models; "" if there is none.
        embeddings_path: Of the embeddings.
        embeddings_batch: How many texts one request for embeddings may hold; 0 if there are none.
        base_url_example: What a base URL looks like.

    Raises:
        ConfigError: A path does not begin with a slash, or what has to be a mapping is none.

    Example:
        >>> Acme = compatible("acme", base_url="https://api.acme.example/v1", key_env="ACME_API_KEY")
        >>> Acme.encode(ChatRequest.checked("a1", "Hi", {"max_tokens": 5})).body["max_tokens"]
        5
    """
    given = locals()
    check_row(given)
    keys = (key_env,) if isinstance(key_env, str) else key_env
    data: dict[str, Any] = {
        **given,
        "__doc__": f"{name}: {note or 'a service that speaks the dialect of OpenAI'}.",
        "__module__": sys._getframe(1).f_globals.get("__name__", __name__),
        "key_env": keys,
        "needs_key": bool(keys) if needs_key is None else needs_key,
        "note": note or (f"set {' or '.join(keys)}" if keys else "a service that speaks OpenAI's dialect"),
        **{name: given[name] or {} for name in MAPPINGS},
        "best_schema_mode": schema_mode,
    }
    return type("".join(word.capitalize() for word in re.split("[-_]", name)), (Compatible,), data)


# Both names of the limit are known to some; a name that is not known is refused, or worse, looked away from.
_ONLY_MAX_TOKENS = {"max_completion_tokens": "max_tokens"}
_LOCAL_NOTE = "a server on this computer; base_url= for another"
_GROK = r"grok-(3-mini|[4-9]|code)"
_NO_PENALTY = "Grok knows no penalties any more"  # refused with the value 0 too
_FIXED = "Kimi sets it itself: temperature 1, or 0.6 where it does not think, and top_p 0.95"

_ROWS = (
    compatible(
        "openrouter",
        url="https://openrouter.ai",
        base_url="https://openrouter.ai/api/v1",
        key_env="OPENROUTER_API_KEY",
        reasoning_field="reasoning",
        reasoning_proofs="reasoning_details",
        embeddings_batch=256,
    ),
    compatible(
        "groq",
        url="https://groq.com",
        base_url="https://api.groq.com/openai/v1",
        key_env="GROQ_API_KEY",
        refused={
            "logprobs": "Groq does not give them",
            "top_logprobs": "Groq does not give them",
            "logit_bias": "Groq does not take it",
            "n": "Groq gives one answer a request: ask once for each",
        },
        named_roles=(),
        schema_bounds=False,
        embeddings_batch=0,
    ),
    compatible(
        "deepseek",
        url="https://www.deepseek.com",
        base_url="https://api.deepseek.com/v1",
        key_env="DEEPSEEK_API_KEY",
        renamed=_ONLY_MAX_TOKENS,
        reasoning_field="reasoning_content",  # turns without it are refused, also those of another service
        no_reasoning="",
        schema_mode="json",
        embeddings_batch=0,
    ),
    compatible(
        "xai",
        url="https://x.ai",
        base_url="https://api.x.ai/v1",
        key_env="XAI_API_KEY",
        refused_by={
            _GROK: {"presence_penalty": _NO_PENALTY, "frequency_penalty": _NO_PENALTY},
            _GROK + "(?!.*non-reasoning)": {"stop": "Grok knows no stop sequences where it reasons"},
        },
        named_roles=("user",),
        embeddings_batch=128,
    ),
    compatible(
        "together",
        url="https://www.together.ai",
        base_url="https://api.together.ai/v1",
        key_env="TOGETHER_API_KEY",
        renamed=_ONLY_MAX_TOKENS,
        embeddings_batch=128,
    ),
    compatible(
        "fireworks",
        url="https://fireworks.ai",
        base_url="https://api.fireworks.ai/inference/v1",
        key_env="FIREWORKS_API_KEY",
        embeddings_batch=8,
    ),
    compatible(
        "cerebras",
        url="https://www.cerebras.ai",
        base_url="https://api.cerebras.ai/v1",
        key_env="CEREBRAS_API_KEY",
        refused={"logit_bias": "Cerebras does not apply it"},
        schema_bounds=False,
        embeddings_batch=0,
    ),
    compatible(
        "nvidia",
        url="https://build.nvidia.com",
        base_url="https://integrate.api.nvidia.com/v1",
        key_env="NVIDIA_API_KEY",
        renamed=_ONLY_MAX_TOKENS,
        embeddings_batch=50,
        note="set NVIDIA_API_KEY; embed() mostly needs input_type='query' or 'passage'",
    ),
    compatible(
        "huggingface",
        url="https://huggingface.co/docs/inference-providers",
        base_url="https://router.huggingface.co/v1",
        key_env="HF_TOKEN",
        renamed=_ONLY_MAX_TOKENS,
        embeddings_batch=0,
    ),
    compatible(
        "moonshot",
        url="https://platform.moonshot.ai",
        base_url="https://api.moonshot.ai/v1",
        key_env="MOONSHOT_API_KEY",
        refused_by={r"kimi-k2\.[56]": {"temperature": _FIXED, "top_p": _FIXED}},
        harmless={"temperature": (1, 0.6), "top_p": (0.95,)},
        reasoning_field="reasoning_content",  # turns with tool calls are refused without it, or with an empty one
        no_reasoning=" ",
        embeddings_batch=0,
    ),
    compatible(
        "zai",
        url="https://z.ai",
        base_url="https://api.z.ai/api/paas/v4",
        key_env="ZAI_API_KEY",
        renamed=_ONLY_MAX_TOKENS,
        refused={"tool_choice": "Z.ai knows only 'auto'"},
        reasoning_field="reasoning_content",
        schema_mode="json",
        asks_usage=False,
        embeddings_batch=0,
    ),
    compatible(
        "dashscope",
        url="https://www.alibabacloud.com/help/en/model-studio",
        base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        base_url_env="DASHSCOPE_BASE_URL",
        key_env="DASHSCOPE_API_KEY",
        renamed=_ONLY_MAX_TOKENS,
        embeddings_batch=10,
        note="Alibaba Cloud's Qwen in Singapore; set DASHSCOPE_API_KEY; DASHSCOPE_BASE_URL for a region or workspace",
    ),
    compatible(
        "deepinfra",
        url="https://deepinfra.com",
        base_url="https://api.deepinfra.com/v1/openai",
        key_env=("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"),
        renamed=_ONLY_MAX_TOKENS,
    ),
    compatible(
        "sambanova",
        url="https://sambanova.ai",
        base_url="https://api.sambanova.ai/v1",
        key_env="SAMBANOVA_API_KEY",
        renamed=_ONLY_MAX_TOKENS,
        embeddings_batch=32,
    ),
    compatible(
        "llamacpp",
        url="https://github.com/ggml-org/llama.cpp",
        base_url="http://127.0.0.1:8080/v1",
        base_url_env="LLAMACPP_BASE_URL",
        reasoning_field="reasoning_content",
        note=_LOCAL_NOTE,
        schema_grammar=True,
    ),
    compatible(
        "llamafile",
        url="https://github.com/mozilla-ai/llamafile",
        base_url="http://127.0.0.1:8080/v1",
        base_url_env="LLAMAFILE_BASE_URL",
        renamed=_ONLY_MAX_TOKENS,
        note=_LOCAL_NOTE,
        schema_grammar=True,
    ),
    compatible(
        "vllm",
        url="https://docs.vllm.ai",
        base_url="http://127.0.0.1:8000/v1",
        base_url_env="VLLM_BASE_URL",
        key_env="VLLM_API_KEY",
        needs_key=False,
        note=_LOCAL_NOTE,
    ),
    compatible(
        "lmstudio",
        url="https://lmstudio.ai",
        base_url="http://127.0.0.1:1234/v1",
        base_url_env="LMSTUDIO_BASE_URL",
        renamed=_ONLY_MAX_TOKENS,
        names_tools=False,
        json_mode=False,
        note=_LOCAL_NOTE,
        schema_grammar=True,
    ),
    compatible(
        "ollama-v1",
        url="https://ollama.com",
        base_url="http://127.0.0.1:11434/v1",
        base_url_env="OLLAMA_V1_BASE_URL",
        host_env="OLLAMA_HOST",
        renamed=_ONLY_MAX_TOKENS,
        refused={
            "tool_choice": "Ollama does not know it",
            "logit_bias": "Ollama does not know it",
            "n": "Ollama gives one answer a request: ask once for each",
            "user": "Ollama does not know it",
        },
        note="Ollama's OpenAI-compatible endpoint; `ollama` speaks its own",
        schema_grammar=True,
    ),
    compatible(
        "transformers",
        url="https://huggingface.co/docs/transformers",
        base_url="http://127.0.0.1:8000/v1",
        base_url_env="TRANSFORMERS_BASE_URL",
        renamed=_ONLY_MAX_TOKENS,
        asks_usage=False,
        done_needs_finish=False,
        embeddings_batch=0,
        note="transformers serve; " + _LOCAL_NOTE,
    ),
    compatible(
        "litellm",
        url="https://docs.litellm.ai",
        base_url="http://127.0.0.1:4000/v1",
        base_url_env="LITELLM_BASE_URL",
        key_env=("LITELLM_API_KEY", "LITELLM_PROXY_API_KEY"),
        needs_key=False,
        reasoning_proofs="thinking_blocks",
        note="a LiteLLM proxy; " + _LOCAL_NOTE,
    ),
)

SERVICES: dict[str, type[Compatible]] = {row.name: row for row in _ROWS}
"""The rows by name."""


def __getattr__(name: str) -> Any:
    """A row by its class name, as pickle looks for it."""
    if found := [row for row in _ROWS if row.__name__ == name]:
        return found[0]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
