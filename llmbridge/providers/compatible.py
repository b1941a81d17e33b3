"""Services and servers that speak OpenAI's dialect: one row of data each.

To add one, add a class below, or, in another package, one line:
`Acme = compatible("acme", base_url="https://api.acme.example/v1", key_env="ACME_API_KEY")`, named in an entry point.

Source: the services' own documentation; answers recorded from llama.cpp, transformers and LiteLLM; refusals reported by
users (litellm#9720, open-webui#21266, pydantic-ai#7653, nanobot#4967, lmstudio-bug-tracker#670; Databricks and
`stream_options`: continue#12936; Snowflake and `max_tokens`: langchain-snowflake#132).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from llmbridge.errors import ConfigError
from llmbridge.messages import ChatRequest, Message
from llmbridge.options import checked_base_url
from llmbridge.providers import did_you_mean
from llmbridge.providers.openai import OpenAICompatible

__all__ = ["SERVICES", "Compatible", "compatible"]

_PATHS = ("path", "models_path", "embeddings_path")


class Compatible(OpenAICompatible):
    """What the rows share. A row sets what is different for its service.

    It may set these attributes, and those of `OpenAI` and `Provider`.

    Attributes:
        key_header: The header that carries the key; "" for `Authorization: Bearer`.
        host_env: Another environment variable with the server's address, written like Ollama's: a host, optionally with
            a port or a scheme, without the path. `base_url_env` comes first.
        host_url: The base URL with `{}` for the value of `host_env`, if that is an account or not a host like Ollama's.
        needs_key: Whether it requires a key; True by default if the row has a `key_env`.
        refused: Parameters that it is known to reject, each with what to do instead. `n` is refused unless it is 1,
            `parallel_tool_calls` unless it is True, `tool_choice` unless it is "auto".
        refused_by: The same for some models: a regular expression for the start of their names, and what they reject.
        harmless: Values of those parameters that are accepted nevertheless.
        named_roles: The roles whose messages may have a `name`; None for all.
    """

    key_header: ClassVar[str] = ""
    host_env: ClassVar[str] = ""
    host_url: ClassVar[str] = ""
    refused_by: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    harmless: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    named_roles: ClassVar[tuple[str, ...] | None] = None
    reasoning_field = ""
    embeddings_batch = 512

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        given = vars(cls)
        if given.get("key_env") and "needs_key" not in given:
            cls.needs_key = True
        if "name" in given and "note" not in given:
            cls.note = f"set {' or '.join(cls.key_env)}" if cls.key_env else "speaks OpenAI's dialect"
        cls.__doc__ = cls.__doc__ or f"{cls.name}: {cls.note}."

    @classmethod
    def auth_headers(cls, key: str) -> dict[str, str]:
        return {cls.key_header: key} if cls.key_header else super().auth_headers(key)

    @classmethod
    def address_variables(cls) -> tuple[str, ...]:
        return tuple(filter(None, (cls.base_url_env, cls.host_env)))

    @classmethod
    def resolve_base_url(cls) -> str:
        host = os.environ.get(cls.host_env, "").strip() if cls.host_env else ""
        if not host or os.environ.get(cls.base_url_env, "").strip():
            return super().resolve_base_url()
        if cls.host_url:
            name = host.partition("://")[2] or host
            return checked_base_url(cls.host_url.format(name.rstrip("/")), f"the base URL with {cls.host_env} in it")
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


def compatible(name: str, **attributes: Any) -> type[Compatible]:
    """A provider for a service that speaks OpenAI's dialect.

    Args:
        name: The part before the colon in "name:model".
        **attributes: Attributes of `Compatible`, `OpenAI` and `Provider` that are different for this service; see those
            classes. Most services need `base_url` and `key_env`, which may be one str; `schema_mode` is short for
            `best_schema_mode`. None keeps the default.

    Raises:
        ConfigError: An attribute is unknown, a value has another type, or a path does not begin with a slash.

    Example:
        >>> Acme = compatible("acme", base_url="https://api.acme.example/v1", key_env="ACME_API_KEY")
        >>> Acme.encode(ChatRequest.checked("a1", "Hi", {"max_tokens": 5})).body["max_tokens"]
        5
    """
    data: dict[str, Any] = {"__module__": sys._getframe(1).f_globals.get("__name__", __name__)}
    hints = get_type_hints(Compatible)
    for given, value in {"name": name, **attributes}.items():
        attribute = "best_schema_mode" if given == "schema_mode" else given
        if attribute not in hints:
            raise ConfigError(f"compatible({name!r}): unknown attribute {given!r}{did_you_mean(given, hints)}")
        if attribute == "key_env" and isinstance(value, str):
            value = (value,)
        elif isinstance(value, list):
            value = tuple(value)
        if value is None and not _fits(None, hints[attribute]):
            continue  # keep the default
        if not _fits(value, hints[attribute]) or (attribute in _PATHS and value and not value.startswith("/")):
            raise ConfigError(f"compatible({name!r}): {given} cannot be {str(value)[:40]!r}")
        data[attribute] = value
    return type("".join(word.capitalize() for word in re.split("[-_]", name)), (Compatible,), data)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value has the type that an annotation names. Items are not checked.

    Example:
        >>> _fits("json", ClassVar[Literal["json", "tool"]]), _fits(["a"], ClassVar[tuple[str, ...]])
        (True, False)
    """
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        return value in arguments
    if kind in (ClassVar, Union, UnionType):
        return any(_fits(value, argument) for argument in arguments)
    return isinstance(value, kind)


# Some services know both names of the limit; an unknown name is rejected, or worse, ignored.
_ONLY_MAX_TOKENS = {"max_completion_tokens": "max_tokens"}
_LOCAL_NOTE = "a server on this computer; base_url= for another one"
_UNTRIED = "made from documentation, never tried live"
_GROK = r"grok-(3-mini|[4-9]|code)"
_NO_PENALTY = "Grok no longer supports penalties"  # not even the value 0
_FIXED = "Kimi sets it: temperature 1, or 0.6 without thinking, and top_p 0.95"


class Openrouter(Compatible):
    name = "openrouter"
    url = "https://openrouter.ai"
    base_url = "https://openrouter.ai/api/v1"
    key_env = ("OPENROUTER_API_KEY",)
    reasoning_field = "reasoning"
    reasoning_proofs = "reasoning_details"
    embeddings_batch = 256


class Groq(Compatible):
    name = "groq"
    url = "https://groq.com"
    base_url = "https://api.groq.com/openai/v1"
    key_env = ("GROQ_API_KEY",)
    refused = {
        "logprobs": "Groq does not support it",
        "top_logprobs": "Groq does not support it",
        "logit_bias": "Groq does not support it",
        "n": "Groq gives one answer per request: send several requests",
    }
    named_roles = ()
    schema_bounds = False
    embeddings_batch = 0


class Deepseek(Compatible):
    name = "deepseek"
    url = "https://www.deepseek.com"
    base_url = "https://api.deepseek.com/v1"
    key_env = ("DEEPSEEK_API_KEY",)
    renamed = _ONLY_MAX_TOKENS
    reasoning_field = "reasoning_content"  # turns without it are rejected, even another service's
    no_reasoning = ""
    best_schema_mode = "json"
    embeddings_batch = 0


class Xai(Compatible):
    name = "xai"
    url = "https://x.ai"
    base_url = "https://api.x.ai/v1"
    key_env = ("XAI_API_KEY",)
    refused_by = {
        _GROK: {"presence_penalty": _NO_PENALTY, "frequency_penalty": _NO_PENALTY},
        _GROK + "(?!.*non-reasoning)": {"stop": "Grok does not support stop sequences while reasoning"},
    }
    named_roles = ("user",)
    embeddings_batch = 128


class Together(Compatible):
    name = "together"
    url = "https://www.together.ai"
    base_url = "https://api.together.ai/v1"
    key_env = ("TOGETHER_API_KEY",)
    renamed = _ONLY_MAX_TOKENS
    embeddings_batch = 128


class Fireworks(Compatible):
    name = "fireworks"
    url = "https://fireworks.ai"
    base_url = "https://api.fireworks.ai/inference/v1"
    key_env = ("FIREWORKS_API_KEY",)
    embeddings_batch = 8


class Cerebras(Compatible):
    name = "cerebras"
    url = "https://www.cerebras.ai"
    base_url = "https://api.cerebras.ai/v1"
    key_env = ("CEREBRAS_API_KEY",)
    refused = {"logit_bias": "Cerebras ignores it"}
    schema_bounds = False
    embeddings_batch = 0


class Nvidia(Compatible):
    name = "nvidia"
    url = "https://build.nvidia.com"
    base_url = "https://integrate.api.nvidia.com/v1"
    key_env = ("NVIDIA_API_KEY",)
    renamed = _ONLY_MAX_TOKENS
    embeddings_batch = 50
    note = "set NVIDIA_API_KEY; embed() mostly needs input_type='query' or 'passage'"


class Huggingface(Compatible):
    name = "huggingface"
    url = "https://huggingface.co/docs/inference-providers"
    base_url = "https://router.huggingface.co/v1"
    key_env = ("HF_TOKEN",)
    renamed = _ONLY_MAX_TOKENS
    embeddings_batch = 0


class Moonshot(Compatible):
    name = "moonshot"
    url = "https://platform.moonshot.ai"
    base_url = "https://api.moonshot.ai/v1"
    key_env = ("MOONSHOT_API_KEY",)
    refused_by = {r"kimi-k2\.[56]": {"temperature": _FIXED, "top_p": _FIXED}}
    harmless = {"temperature": (1, 0.6), "top_p": (0.95,)}
    reasoning_field = "reasoning_content"  # required, and not empty, in turns with tool calls
    no_reasoning = " "
    embeddings_batch = 0


class Zai(Compatible):
    name = "zai"
    url = "https://z.ai"
    base_url = "https://api.z.ai/api/paas/v4"
    key_env = ("ZAI_API_KEY",)
    renamed = _ONLY_MAX_TOKENS
    refused = {"tool_choice": "Z.ai supports only 'auto'"}
    reasoning_field = "reasoning_content"
    best_schema_mode = "json"
    asks_usage = False
    embeddings_batch = 0


class Dashscope(Compatible):
    name = "dashscope"
    url = "https://www.alibabacloud.com/help/en/model-studio"
    base_url = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"
    base_url_env = "DASHSCOPE_BASE_URL"
    key_env = ("DASHSCOPE_API_KEY",)
    renamed = _ONLY_MAX_TOKENS
    embeddings_batch = 10
    note = "Alibaba Cloud's Qwen in Singapore; set DASHSCOPE_API_KEY; DASHSCOPE_BASE_URL for a region or workspace"


class Deepinfra(Compatible):
    name = "deepinfra"
    url = "https://deepinfra.com"
    base_url = "https://api.deepinfra.com/v1/openai"
    key_env = ("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN")
    renamed = _ONLY_MAX_TOKENS


class Sambanova(Compatible):
    name = "sambanova"
    url = "https://sambanova.ai"
    base_url = "https://api.sambanova.ai/v1"
    key_env = ("SAMBANOVA_API_KEY",)
    renamed = _ONLY_MAX_TOKENS
    embeddings_batch = 32


class Perplexity(Compatible):
    name = "perplexity"
    url = "https://docs.perplexity.ai"
    base_url = "https://api.perplexity.ai"
    key_env = ("PERPLEXITY_API_KEY", "PPLX_API_KEY")
    renamed = _ONLY_MAX_TOKENS
    asks_usage = False
    models_path = ""
    embeddings_batch = 0
    note = "Sonar, never tried live; for its Agent API: openai-responses with base_url=https://api.perplexity.ai/v1"


class Cloudflare(Compatible):
    name = "cloudflare"
    url = "https://developers.cloudflare.com/workers-ai"
    base_url_env = "CLOUDFLARE_BASE_URL"
    base_url_example = "https://api.cloudflare.com/client/v4/accounts/ACCOUNT/ai/v1"
    host_env = "CLOUDFLARE_ACCOUNT_ID"
    host_url = "https://api.cloudflare.com/client/v4/accounts/{}/ai/v1"
    key_env = ("CLOUDFLARE_API_KEY", "CLOUDFLARE_API_TOKEN")
    renamed = _ONLY_MAX_TOKENS
    models_path = ""
    embeddings_batch = 100
    note = "Workers AI, never tried live; set CLOUDFLARE_ACCOUNT_ID and CLOUDFLARE_API_KEY"


class Databricks(Compatible):
    name = "databricks"
    url = "https://docs.databricks.com/machine-learning/model-serving"
    base_url_env = "DATABRICKS_BASE_URL"
    base_url_example = "https://WORKSPACE.cloud.databricks.com/serving-endpoints"
    host_env = "DATABRICKS_HOST"
    host_url = "https://{}/serving-endpoints"
    key_env = ("DATABRICKS_TOKEN",)
    renamed = _ONLY_MAX_TOKENS
    asks_usage = False
    models_path = ""
    embeddings_batch = 150
    note = "the model is the endpoint's name; never tried live; set DATABRICKS_HOST and DATABRICKS_TOKEN"


class Snowflake(Compatible):
    name = "snowflake"
    url = "https://docs.snowflake.com/en/user-guide/snowflake-cortex"
    base_url_env = "SNOWFLAKE_BASE_URL"
    base_url_example = "https://ORGANIZATION-ACCOUNT.snowflakecomputing.com/api/v2/cortex/v1"
    host_env = "SNOWFLAKE_ACCOUNT"
    host_url = "https://{}.snowflakecomputing.com/api/v2/cortex/v1"
    key_env = ("SNOWFLAKE_PAT", "SNOWFLAKE_TOKEN")
    renamed = {"max_tokens": "max_completion_tokens"}
    models_path = ""
    embeddings_batch = 0
    note = "Cortex, never tried live; set SNOWFLAKE_ACCOUNT and SNOWFLAKE_PAT (a programmatic access token)"


class Nebius(Compatible):
    name = "nebius"
    url = "https://tokenfactory.nebius.com"
    base_url = "https://api.tokenfactory.nebius.com/v1"
    key_env = ("NEBIUS_API_KEY",)
    renamed = _ONLY_MAX_TOKENS
    note = f"Token Factory, {_UNTRIED}; set NEBIUS_API_KEY"


class Novita(Compatible):
    name = "novita"
    url = "https://novita.ai"
    base_url = "https://api.novita.ai/openai/v1"
    key_env = ("NOVITA_API_KEY",)
    renamed = _ONLY_MAX_TOKENS
    embeddings_batch = 32
    note = f"{_UNTRIED}; set NOVITA_API_KEY"


class Baseten(Compatible):
    name = "baseten"
    url = "https://www.baseten.co"
    base_url = "https://inference.baseten.co/v1"
    key_env = ("BASETEN_API_KEY",)
    renamed = _ONLY_MAX_TOKENS
    embeddings_batch = 0
    note = f"its Model APIs, {_UNTRIED}; set BASETEN_API_KEY"


class Ovh(Compatible):
    name = "ovh"
    url = "https://endpoints.ai.cloud.ovh.net"
    base_url = "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1"
    key_env = ("OVH_AI_ENDPOINTS_ACCESS_TOKEN", "OVHCLOUD_API_KEY")
    needs_key = False
    renamed = _ONLY_MAX_TOKENS
    embeddings_batch = 32
    note = "AI Endpoints, never tried live; without OVH_AI_ENDPOINTS_ACCESS_TOKEN only a few requests a minute"


class Scaleway(Compatible):
    name = "scaleway"
    url = "https://www.scaleway.com/en/generative-apis"
    base_url = "https://api.scaleway.ai/v1"
    base_url_env = "SCALEWAY_BASE_URL"
    key_env = ("SCW_SECRET_KEY",)
    renamed = _ONLY_MAX_TOKENS
    embeddings_batch = 32
    note = f"{_UNTRIED}; set SCW_SECRET_KEY; SCALEWAY_BASE_URL for a project or a deployment"


class Minimax(Compatible):
    name = "minimax"
    url = "https://platform.minimax.io"
    base_url = "https://api.minimax.io/v1"
    base_url_env = "MINIMAX_BASE_URL"
    key_env = ("MINIMAX_API_KEY",)
    refused = {
        "n": "MiniMax gives one answer per request: send several requests",
        "logit_bias": "MiniMax ignores it",
        "presence_penalty": "MiniMax ignores it",
        "frequency_penalty": "MiniMax ignores it",
    }
    embeddings_batch = 0
    note = f"{_UNTRIED}; set MINIMAX_API_KEY; MINIMAX_BASE_URL for the host in China"


class Vercel(Compatible):
    name = "vercel"
    url = "https://vercel.com/docs/ai-gateway"
    base_url = "https://ai-gateway.vercel.sh/v1"
    key_env = ("AI_GATEWAY_API_KEY", "VERCEL_OIDC_TOKEN")
    note = f"Vercel's AI Gateway, {_UNTRIED}; set AI_GATEWAY_API_KEY"


class Llamacpp(Compatible):
    name = "llamacpp"
    url = "https://github.com/ggml-org/llama.cpp"
    base_url = "http://127.0.0.1:8080/v1"
    base_url_env = "LLAMACPP_BASE_URL"
    start_command = "llama-server"
    key_env = ("LLAMACPP_API_KEY",)
    needs_key = False
    reasoning_field = "reasoning_content"
    note = _LOCAL_NOTE
    schema_grammar = True


class Llamafile(Compatible):
    name = "llamafile"
    url = "https://github.com/mozilla-ai/llamafile"
    base_url = "http://127.0.0.1:8080/v1"
    base_url_env = "LLAMAFILE_BASE_URL"
    key_env = ("LLAMAFILE_API_KEY",)
    needs_key = False
    renamed = _ONLY_MAX_TOKENS
    note = _LOCAL_NOTE
    schema_grammar = True


class Vllm(Compatible):
    name = "vllm"
    url = "https://docs.vllm.ai"
    base_url = "http://127.0.0.1:8000/v1"
    base_url_env = "VLLM_BASE_URL"
    start_command = "vllm serve"
    key_env = ("VLLM_API_KEY",)
    needs_key = False
    note = _LOCAL_NOTE


class Lmstudio(Compatible):
    name = "lmstudio"
    url = "https://lmstudio.ai"
    base_url = "http://127.0.0.1:1234/v1"
    base_url_env = "LMSTUDIO_BASE_URL"
    start_command = "lms server start"
    key_env = ("LMSTUDIO_API_KEY",)
    needs_key = False
    renamed = _ONLY_MAX_TOKENS
    names_tools = False
    json_mode = False
    note = _LOCAL_NOTE
    schema_grammar = True


class OllamaV1(Compatible):
    name = "ollama-v1"
    url = "https://ollama.com"
    base_url = "http://127.0.0.1:11434/v1"
    base_url_env = "OLLAMA_V1_BASE_URL"
    host_env = "OLLAMA_HOST"
    start_command = "ollama serve"
    key_env = ("OLLAMA_V1_API_KEY",)
    needs_key = False
    renamed = _ONLY_MAX_TOKENS
    refused = {
        "tool_choice": "Ollama does not support it",
        "logit_bias": "Ollama does not support it",
        "n": "Ollama gives one answer per request: send several requests",
        "user": "Ollama does not support it",
    }
    note = "Ollama's OpenAI-compatible endpoint; `ollama` uses its own API"
    schema_grammar = True


class Transformers(Compatible):
    name = "transformers"
    url = "https://huggingface.co/docs/transformers"
    base_url = "http://127.0.0.1:8000/v1"
    base_url_env = "TRANSFORMERS_BASE_URL"
    start_command = "transformers serve"
    key_env = ("TRANSFORMERS_API_KEY",)
    needs_key = False
    renamed = _ONLY_MAX_TOKENS
    asks_usage = False
    done_needs_finish = False
    embeddings_batch = 0
    note = "transformers serve; " + _LOCAL_NOTE


class Litellm(Compatible):
    name = "litellm"
    url = "https://docs.litellm.ai"
    base_url = "http://127.0.0.1:4000/v1"
    base_url_env = "LITELLM_BASE_URL"
    start_command = "litellm"
    key_env = ("LITELLM_API_KEY", "LITELLM_PROXY_API_KEY")
    needs_key = False
    reasoning_proofs = "thinking_blocks"
    note = "a LiteLLM proxy; " + _LOCAL_NOTE


SERVICES: dict[str, type[Compatible]] = {row.name: row for row in Compatible.__subclasses__()}
"""The rows by name."""
