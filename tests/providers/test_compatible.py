"""The rows of services and servers with OpenAI's dialect: requests, refusals and answers."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmbridge import (
    Client,
    ConfigError,
    InvalidRequest,
    MissingKey,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    UnsupportedParameter,
    Usage,
    chat,
    embed,
    models,
    providers,
)
from llmbridge.messages import ChatRequest
from llmbridge.options import checked_base_url
from llmbridge.providers import find as find_provider
from llmbridge.providers.azure import Azure
from llmbridge.providers.compatible import SERVICES, Compatible, compatible
from llmbridge.providers.local import Local
from llmbridge.providers.openai import OpenAICompatible
from llmbridge.testing import LLMServer, Reply

KEY = "sk-row-0123456789"
ROWS = pytest.mark.parametrize("row", SERVICES.values(), ids=list(SERVICES))
LOCAL = ("llamacpp", "llamafile", "vllm", "lmstudio", "ollama-v1", "transformers", "litellm")

# Name: base URL, variables of the key.
FACTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "openrouter": ("https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",)),
    "groq": ("https://api.groq.com/openai/v1", ("GROQ_API_KEY",)),
    "deepseek": ("https://api.deepseek.com/v1", ("DEEPSEEK_API_KEY",)),
    "xai": ("https://api.x.ai/v1", ("XAI_API_KEY",)),
    "together": ("https://api.together.ai/v1", ("TOGETHER_API_KEY",)),
    "fireworks": ("https://api.fireworks.ai/inference/v1", ("FIREWORKS_API_KEY",)),
    "cerebras": ("https://api.cerebras.ai/v1", ("CEREBRAS_API_KEY",)),
    "nvidia": ("https://integrate.api.nvidia.com/v1", ("NVIDIA_API_KEY",)),
    "huggingface": ("https://router.huggingface.co/v1", ("HF_TOKEN",)),
    "moonshot": ("https://api.moonshot.ai/v1", ("MOONSHOT_API_KEY",)),
    "zai": ("https://api.z.ai/api/paas/v4", ("ZAI_API_KEY",)),
    "dashscope": ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", ("DASHSCOPE_API_KEY",)),
    "deepinfra": ("https://api.deepinfra.com/v1/openai", ("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN")),
    "sambanova": ("https://api.sambanova.ai/v1", ("SAMBANOVA_API_KEY",)),
    "perplexity": ("https://api.perplexity.ai", ("PERPLEXITY_API_KEY", "PPLX_API_KEY")),
    "cloudflare": ("", ("CLOUDFLARE_API_KEY", "CLOUDFLARE_API_TOKEN")),
    "databricks": ("", ("DATABRICKS_TOKEN",)),
    "snowflake": ("", ("SNOWFLAKE_PAT", "SNOWFLAKE_TOKEN")),
    "nebius": ("https://api.tokenfactory.nebius.com/v1", ("NEBIUS_API_KEY",)),
    "novita": ("https://api.novita.ai/openai/v1", ("NOVITA_API_KEY",)),
    "baseten": ("https://inference.baseten.co/v1", ("BASETEN_API_KEY",)),
    "ovh": ("https://oai.endpoints.kepler.ai.cloud.ovh.net/v1", ("OVH_AI_ENDPOINTS_ACCESS_TOKEN", "OVHCLOUD_API_KEY")),
    "scaleway": ("https://api.scaleway.ai/v1", ("SCW_SECRET_KEY",)),
    "minimax": ("https://api.minimax.io/v1", ("MINIMAX_API_KEY",)),
    "vercel": ("https://ai-gateway.vercel.sh/v1", ("AI_GATEWAY_API_KEY", "VERCEL_OIDC_TOKEN")),
    "llamacpp": ("http://127.0.0.1:8080/v1", ("LLAMACPP_API_KEY",)),
    "llamafile": ("http://127.0.0.1:8080/v1", ("LLAMAFILE_API_KEY",)),
    "vllm": ("http://127.0.0.1:8000/v1", ("VLLM_API_KEY",)),
    "lmstudio": ("http://127.0.0.1:1234/v1", ("LMSTUDIO_API_KEY",)),
    "ollama-v1": ("http://127.0.0.1:11434/v1", ("OLLAMA_V1_API_KEY",)),
    "transformers": ("http://127.0.0.1:8000/v1", ("TRANSFORMERS_API_KEY",)),
    "litellm": ("http://127.0.0.1:4000/v1", ("LITELLM_API_KEY", "LITELLM_PROXY_API_KEY")),
}

# Name: a value for the variable of the account or host, and its base URL.
ACCOUNTS: dict[str, tuple[str, str]] = {
    "cloudflare": ("0a1b2c", "https://api.cloudflare.com/client/v4/accounts/0a1b2c/ai/v1"),
    "databricks": ("https://dbc-1.cloud.databricks.com/", "https://dbc-1.cloud.databricks.com/serving-endpoints"),
    "snowflake": ("org-account1", "https://org-account1.snowflakecomputing.com/api/v2/cortex/v1"),
}

THOUGHT = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": [{"type": "reasoning", "text": "I need the tool."}],
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "Rain"},
]


def streamed(*deltas: Mapping[str, Any], usage: Mapping[str, Any] | None = None, **last: Any) -> Reply:
    """A stream of these deltas in OpenAI's form."""
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], **last})
    if usage is not None:
        chunks.append({"choices": [], "usage": usage})
    return Reply(body="".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n")


class TestData:
    """The data of the rows."""

    def test_every_row_is_in_the_table_of_facts(self) -> None:
        """A new row needs a line there."""
        found = {name: (row.base_url, row.key_env) for name, row in SERVICES.items()}
        assert found == FACTS

    @ROWS
    def test_a_row_is_found_by_its_name(self, row: type[Compatible]) -> None:
        """Without a list of names, and by class name for `from llmbridge.providers import ...`."""
        assert providers.look_up(row.name) is row
        assert getattr(providers, row.__name__) is row
        assert pickle.loads(pickle.dumps(row)) is row

    def test_other_names_are_not_rows(self) -> None:
        """Neither of the module nor of the package."""
        with pytest.raises(ImportError):
            from llmbridge.providers.compatible import Nobody  # noqa: F401
        assert providers.look_up("nobody") is None

    @ROWS
    def test_a_service_needs_its_key_and_a_server_does_not(
        self, row: type[Compatible], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message names the variable."""
        for variable in row.key_env:
            monkeypatch.delenv(variable, raising=False)
        assert row.needs_key is (row.name not in (*LOCAL, "ovh"))
        if row.name in ACCOUNTS:
            monkeypatch.setenv(row.host_env, ACCOUNTS[row.name][0])
        if row.needs_key:
            with pytest.raises(MissingKey, match=row.key_env[0]):
                chat("Hi", f"{row.name}:m")

    @ROWS
    def test_only_services_use_tls(self, row: type[Compatible]) -> None:
        """A server on this computer speaks plain HTTP."""
        base_url = row.base_url or ACCOUNTS[row.name][1]
        assert checked_base_url(base_url) == base_url
        assert base_url.startswith("http://127.0.0.1:" if row.name in LOCAL else "https://")

    @pytest.mark.parametrize("name", ACCOUNTS)
    def test_an_account_makes_the_base_url(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """With or without a scheme, as in the services' own programs; the error for a missing one names it."""
        row, (account, expected) = SERVICES[name], ACCOUNTS[name]
        with pytest.raises(ConfigError, match=f"or set {row.base_url_env} or {row.host_env}"):
            chat("Hi", f"{name}:m", api_key=KEY)
        for given in (account, account.removeprefix("https://").rstrip("/")):
            monkeypatch.setenv(row.host_env, given)
            assert row.resolve_base_url() == expected
        monkeypatch.setenv(row.host_env, "x?y=1")
        with pytest.raises(ConfigError, match=row.host_env):
            chat("Hi", f"{name}:m", api_key=KEY)
        assert checked_base_url(row.base_url_example) == row.base_url_example

    @ROWS
    def test_the_key_of_each_variable_is_sent(
        self, row: type[Compatible], server: LLMServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a Bearer token; the first variable wins."""
        for variable in reversed(row.key_env):
            monkeypatch.setenv(variable, f"{KEY}-{variable}")
            chat("Hi", f"{row.name}:m", base_url=server.base_url("openai"), proxy=False, retries=0).complete()
            assert server.requests[-1].header("Authorization") == f"Bearer {KEY}-{variable}"

    @pytest.mark.parametrize("name", [name for name, row in SERVICES.items() if row.base_url_env])
    def test_the_base_url_may_come_from_the_environment(
        self, name: str, server: LLMServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For servers on other ports, and services with several regions."""
        monkeypatch.setenv(SERVICES[name].base_url_env, server.base_url("openai") + "/")
        assert chat("Hi", f"{name}:m", api_key=KEY, proxy=False, retries=0).complete().provider == name
        assert server.requests[0].path == "/v1/chat/completions"

    @pytest.mark.parametrize(
        ("host", "expected"),
        [
            ("", "http://127.0.0.1:11434/v1"),
            ("gpu.example.com", "http://gpu.example.com:11434/v1"),
            ("0.0.0.0:8080", "http://127.0.0.1:8080/v1"),
            ("https://ollama.com", "https://ollama.com/v1"),
        ],
    )
    def test_ollama_is_where_its_own_variable_says(
        self, host: str, expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """OLLAMA_HOST, in the form of Ollama's own programs; OLLAMA_V1_BASE_URL wins."""
        monkeypatch.setenv("OLLAMA_HOST", host)
        assert SERVICES["ollama-v1"].resolve_base_url() == expected
        monkeypatch.setenv("OLLAMA_V1_BASE_URL", "http://127.0.0.1:9/v1")
        assert SERVICES["ollama-v1"].resolve_base_url() == "http://127.0.0.1:9/v1"


@ROWS
class TestOnTheWire:
    """Each row's request and answer."""

    def test_a_chat(self, row: type[Compatible], server: LLMServer) -> None:
        """URL, headers, body, and the answer with its usage, requested or not."""
        server.script(Reply("Hello", usage={"prompt_tokens": 3, "completion_tokens": 1}))
        done = chat(
            [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            f"{row.name}:org/model:7b",
            base_url=server.base_url("openai"),
            api_key=KEY,
            proxy=False,
            max_tokens=5,
            temperature=0.5,
        ).complete()
        assert (done.text, done.finish_reason, done.provider) == ("Hello", "stop", row.name)
        assert done.usage is not None
        assert (done.usage.input_tokens, done.usage.output_tokens) == (3, 1)
        (received,) = server.requests
        assert (received.method, received.path) == ("POST", "/v1/chat/completions")
        assert received.header("Authorization") == f"Bearer {KEY}"
        assert received.header("Content-Type") == "application/json"
        assert received.json == {
            "model": "org/model:7b",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            "stream": True,
            row.renamed.get("max_tokens", "max_tokens"): 5,
            "temperature": 0.5,
            **({"stream_options": {"include_usage": True}} if row.asks_usage else {}),
        }

    def test_what_it_is_known_to_refuse(self, row: type[Compatible], server: LLMServer) -> None:
        """An error before sending, a warning, or left out, as the caller chooses."""

        def tool() -> str:
            return ""

        values: dict[str, Any] = {"n": 2, "tool_choice": "required"}
        for name, advice in row.refused.items():
            asked: dict[str, Any] = {name: values.get(name, 1)}
            if name == "tool_choice":
                asked["tools"] = [tool]
            with Client(f"{row.name}:m", base_url=server.base_url("openai"), api_key=KEY, proxy=False) as client:
                with pytest.raises(InvalidRequest, match=name) as caught:
                    client.chat("Hi", **asked)
                assert advice in str(caught.value)
                client.chat("Hi", unsupported="drop", **asked).complete()
                with pytest.warns(UnsupportedParameter, match=name):
                    client.chat("Hi", unsupported="warn", **asked).complete()
        assert all(not row.refused.keys() & received.json.keys() for received in server.requests)
        assert len(server.requests) == 2 * len(row.refused)

    def test_a_tool_call_and_its_answer(self, row: type[Compatible], server: LLMServer) -> None:
        """Reasoning is sent back if the service wants it, and to no other."""

        def weather() -> str:
            """Here."""
            return "Rain"

        server.script(
            Reply(reasoning="I need the tool.", tool_calls=[{"name": "weather", "arguments": {}}]), Reply("OK")
        )
        with Client(f"{row.name}:m", base_url=server.base_url("openai"), api_key=KEY, proxy=False) as client:
            assert client.run("Weather?", tools=[weather]).complete().text.endswith("OK")
        turn = server.requests[1].json["messages"][1]
        assert turn["tool_calls"][0]["function"] == {"name": "weather", "arguments": "{}"}
        assert turn.get(row.reasoning_field or "reasoning_content") == (
            "I need the tool." if row.reasoning_field else None
        )
        assert "reasoning" not in json.dumps(turn.get("content"))

    def test_a_schema(self, row: type[Compatible], server: LLMServer) -> None:
        """Natively, or as JSON mode with the schema in the prompt."""
        schema = {"title": "city", "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
        server.script(Reply('{"name": "Oslo"}'))
        with Client(f"{row.name}:m", base_url=server.base_url("openai"), api_key=KEY, proxy=False) as client:
            assert client.chat("City?", schema=schema).complete().parsed == {"name": "Oslo"}
        body = server.requests[0].json
        if row.best_schema_mode == "json":
            assert body["response_format"] == {"type": "json_object"}
            assert "JSON" in body["messages"][0]["content"]
        else:
            assert body["response_format"]["type"] == "json_schema"

    def test_think_tags(self, row: type[Compatible], server: LLMServer) -> None:
        """Reasoning inside the answer, with tags split over pieces."""
        server.script(Reply(["<th", "ink>Hm", "m</thi", "nk>\n\nHel", "lo"]))
        base_url = server.base_url("openai")
        events = list(chat("Hi", f"{row.name}:m", base_url=base_url, api_key=KEY, proxy=False).events())
        assert "".join(event.text for event in events if isinstance(event, Reasoning)) == "Hmm"
        texts = [event.text for event in events if isinstance(event, Text)]
        assert "".join(texts).strip() == "Hello"

    def test_its_list_of_models(self, row: type[Compatible], server: LLMServer) -> None:
        """Or an error before sending that it has none."""
        server.script(Reply(models=["b", "a"]))
        asked: dict[str, Any] = {"base_url": server.base_url("openai"), "api_key": KEY, "proxy": False}
        if not row.models_path:
            with pytest.raises(ConfigError, match=f"{row.name} cannot list its models"):
                models(row.name, **asked)
            return
        assert models(row.name, **asked) == ["b", "a"]
        (received,) = server.requests
        assert (received.method, received.path, received.body) == ("GET", "/v1/models", b"")
        assert received.header("Authorization") == f"Bearer {KEY}"
        assert received.header("Accept") == "application/json"
        assert received.header("Content-Type") is None

    def test_its_embeddings(self, row: type[Compatible], server: LLMServer) -> None:
        """In requests of the allowed size, or refused before sending."""
        texts = [f"text {number}" for number in range(min(row.embeddings_batch, 300) + 1)]
        asked: dict[str, Any] = {"base_url": server.base_url("openai"), "api_key": KEY, "proxy": False}
        if not row.embeddings_batch:
            with pytest.raises(ConfigError, match=f"{row.name} has no embeddings"):
                embed(texts, f"{row.name}:m", **asked)
            return
        assert len(embed(texts, f"{row.name}:m", dimensions=4, **asked)) == len(texts)
        assert [len(received.json["input"]) for received in server.requests] == (
            [row.embeddings_batch, 1] if row.embeddings_batch < 300 else [301]
        )
        assert server.requests[0].path == "/v1/embeddings"
        assert server.requests[0].json["dimensions"] == 4


def test_the_key_of_any_server_is_for_no_service_with_a_name(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only `openai-compatible` sends it, which also serves models without a provider."""
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "sk-any-server")

    class Named(OpenAICompatible):
        name = "named"

    class Inner(compatible("inner", key_env="INNER_API_KEY")):  # type: ignore[misc]
        name = "innermost"

    for provider in (Named, compatible("row"), Azure, Local):
        assert "OPENAI_COMPATIBLE_API_KEY" not in provider.key_env
    assert Inner.key_env == ("INNER_API_KEY",)
    base_url = server.base_url("openai")
    Named.create_completion("m", "Hi", stream=False, base_url=base_url, proxy=False)
    for model in ("some-model", "openai-compatible:m"):
        chat("Hi", model, base_url=base_url, proxy=False).complete()
    keys = [received.header("Authorization") for received in server.requests]
    assert keys == [None, "Bearer sk-any-server", "Bearer sk-any-server"]


class TestDeviations:
    """What single services do differently."""

    def test_deepseek_gets_its_reasoning_back(self, server: LLMServer) -> None:
        """Turns with tool calls are rejected without it; the history is the caller's here."""
        base_url = server.base_url("openai")
        chat(THOUGHT, "deepseek:deepseek-chat", base_url=base_url, api_key=KEY, proxy=False).complete()
        turn = server.requests[0].json["messages"][1]
        assert turn["reasoning_content"] == "I need the tool."
        assert not turn["content"]
        chat(THOUGHT, "groq:m", base_url=base_url, api_key=KEY, proxy=False).complete()
        assert "reasoning_content" not in server.requests[1].json["messages"][1]

    @pytest.mark.parametrize(("name", "instead"), [("deepseek", ""), ("moonshot", " "), ("groq", None)])
    def test_the_turns_of_other_services_lack_no_reasoning(
        self, name: str, instead: str | None, server: LLMServer
    ) -> None:
        """Two services require the field; Moonshot accepts an empty one."""
        call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
        conversation = [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "Let me see."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "sun", "tool_call_id": "c1"},
        ]
        chat(conversation, f"{name}:m", base_url=server.base_url("openai"), api_key=KEY, proxy=False).complete()
        turns = server.requests[0].json["messages"]
        assert [turn.get("reasoning_content") for turn in turns] == [None, instead, instead, None]

    def test_groq_counts_in_a_place_of_its_own(self, server: LLMServer) -> None:
        """`x_groq.usage`, in the last chunk."""
        used = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "queue_time": 0.1}
        server.script(streamed({"content": "Hi"}, x_groq={"id": "r1", "usage": used}))
        done = chat("Hi", "groq:m", base_url=server.base_url("openai"), api_key=KEY, proxy=False).complete()
        assert done.usage == Usage(5, 2, 7, raw=used)

    def test_moonshot_counts_in_a_place_of_its_own(self, server: LLMServer) -> None:
        """`usage` in the last choice."""
        used = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        events = (
            {"choices": [{"index": 0, "delta": {"content": "Hi"}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": used}]},
        )
        server.script(Reply(body="".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"))
        done = chat("Hi", "moonshot:m", base_url=server.base_url("openai"), api_key=KEY, proxy=False).complete()
        assert done.usage == Usage(5, 2, 7, raw=used)

    @pytest.mark.parametrize(
        ("total", "output"), [(135, 103), (41, 9), (136, 9), (None, 9)], ids=["beside it", "in it", "odd", "no total"]
    )
    def test_xai_counts_the_reasoning_beside_the_answer(
        self, server: LLMServer, total: int | None, output: int
    ) -> None:
        """The total tells whether reasoning is included; if it does not, the service's number stays."""
        used = {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": total,
            "completion_tokens_details": {"reasoning_tokens": 94},
        }
        server.script(streamed({"content": "Hi"}, usage=used))
        done = chat("Hi", "xai:grok-4", base_url=server.base_url("openai"), api_key=KEY, proxy=False).complete()
        assert done.usage is not None
        assert (done.usage.output_tokens, done.usage.reasoning_tokens) == (output, 94)
        assert done.usage.total_tokens == (41 if total is None else total)

    @pytest.mark.parametrize(
        ("model", "refused"),
        [
            ("grok-4.6", {"presence_penalty", "frequency_penalty", "stop"}),
            ("grok-code-fast-1", {"presence_penalty", "frequency_penalty", "stop"}),
            ("grok-4-fast-non-reasoning", {"presence_penalty", "frequency_penalty"}),
            ("grok-3", set()),
        ],
    )
    def test_what_grok_refuses_depends_on_the_model(self, server: LLMServer, model: str, refused: set[str]) -> None:
        """Penalties with the value 0 as well."""
        asked: dict[str, Any] = {"presence_penalty": 0, "frequency_penalty": 0.5, "stop": ["x"], "seed": 1}
        with Client(f"xai:{model}", base_url=server.base_url("openai"), api_key=KEY, proxy=False) as client:
            for name in refused:
                with pytest.raises(InvalidRequest, match=name):
                    client.chat("Hi", **{name: asked[name]})
            client.chat("Hi", unsupported="drop", **asked).complete()
        assert asked.keys() - server.requests[0].json.keys() == refused

    @pytest.mark.parametrize(
        ("model", "given", "refused"),
        [
            ("kimi-k2.6", {"temperature": 0.3}, True),
            ("kimi-k2.5", {"top_p": 0.5}, True),
            ("kimi-k2.6", {"temperature": 1.0, "top_p": 0.95}, False),
            ("kimi-k2.6", {"temperature": 0.6, "thinking": {"type": "disabled"}}, False),
            ("moonshot-v1-8k", {"temperature": 0.3}, False),
        ],
    )
    def test_kimi_sets_its_temperature_itself(
        self, server: LLMServer, model: str, given: dict[str, Any], refused: bool
    ) -> None:
        """Only its own values may be sent."""
        with Client(f"moonshot:{model}", base_url=server.base_url("openai"), api_key=KEY, proxy=False) as client:
            if refused:
                with pytest.raises(InvalidRequest, match="Kimi sets it"):
                    client.chat("Hi", **given)
                return
            client.chat("Hi", **given).complete()
        assert given.items() <= server.requests[0].json.items()

    @pytest.mark.parametrize(
        ("name", "named"), [("groq", []), ("xai", ["user"]), ("together", ["system", "user", "assistant"])]
    )
    def test_which_roles_may_have_a_name(self, server: LLMServer, name: str, named: list[str]) -> None:
        """Groq rejects names of speakers, xAI those of anyone but the user."""
        turns = [{"role": role, "content": "Hi", "name": "ann"} for role in ("system", "user", "assistant", "user")]
        chat(turns, f"{name}:m", base_url=server.base_url("openai"), api_key=KEY, proxy=False).complete()
        assert [turn["role"] for turn in server.requests[0].json["messages"][:3] if "name" in turn] == named

    def test_lm_studio_gets_no_tool_name_in_tool_choice(self, server: LLMServer) -> None:
        """It rejects that form: the tool is sent alone, and a tool call is required."""

        def weather() -> str:
            return ""

        def clock() -> str:
            return ""

        schema = {"title": "city", "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
        server.default = Reply('{"name": "Oslo"}')
        with Client("lmstudio:m", base_url=server.base_url("openai"), proxy=False) as client:
            client.chat("Hi", tools=[weather, clock], tool_choice="clock").complete()
            list(client.chat("Hi", schema=schema, schema_mode="tool"))
            client.chat("Hi", schema=schema, schema_mode="json").complete()
        named, tool, words = (received.json for received in server.requests)
        assert (named["tool_choice"], tool["tool_choice"]) == ("required", "required")
        assert [each["function"]["name"] for each in named["tools"]] == ["clock"]
        assert [each["function"]["name"] for each in tool["tools"]] == ["city"]
        assert "response_format" not in words
        assert "JSON" in words["messages"][0]["content"]

    def test_deepseek_counts_its_cache(self, server: LLMServer) -> None:
        """`prompt_cache_hit_tokens`."""
        used = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, "prompt_cache_hit_tokens": 8}
        server.script(streamed({"content": "Hi"}, usage=used))
        done = chat("Hi", "deepseek:m", base_url=server.base_url("openai"), api_key=KEY, proxy=False).complete()
        assert done.usage is not None
        assert done.usage.cached_input_tokens == 8

    @pytest.mark.parametrize(
        "delta",
        [
            {"reasoning_content": "Hm"},
            {"reasoning": "Hm"},
            {"reasoning": "Hm", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]},
        ],
        ids=["llama.cpp, DeepSeek", "vLLM, Groq, Ollama", "OpenRouter"],
    )
    def test_reasoning_has_many_names(self, server: LLMServer, delta: dict[str, Any]) -> None:
        """It is yielded once."""
        server.script(streamed({"role": "assistant", **delta}, {"content": "Hi"}))
        done = chat("Hi", "openrouter:m", base_url=server.base_url("openai"), api_key=KEY, proxy=False).complete()
        assert (done.reasoning, done.text) == ("Hm", "Hi")

    @pytest.mark.parametrize(("n", "sent"), [(1, 1), (None, None)])
    @pytest.mark.parametrize("name", ["groq", "ollama-v1"])
    def test_n_1_is_accepted(self, server: LLMServer, name: str, n: int | None, sent: Any) -> None:
        """All services give one."""
        chat("Hi", f"{name}:m", base_url=server.base_url("openai"), api_key=KEY, proxy=False, n=n).complete()
        assert server.requests[0].json.get("n") == sent

    @pytest.mark.parametrize(("given", "sent"), [({}, 5), ({"max_tokens": 7}, 7)], ids=["alone", "beside its own"])
    @pytest.mark.parametrize("name", [name for name, row in SERVICES.items() if "max_completion_tokens" in row.renamed])
    def test_the_newer_name_of_the_limit(self, server: LLMServer, name: str, given: dict[str, Any], sent: int) -> None:
        """Where only `max_tokens` is known; the service's own name wins."""
        asked: dict[str, Any] = {"base_url": server.base_url("openai"), "api_key": KEY, "proxy": False}
        chat("Hi", f"{name}:m", max_completion_tokens=5, **{**given, **asked}).complete()
        assert server.requests[0].json["max_tokens"] == sent
        assert "max_completion_tokens" not in server.requests[0].json

    @pytest.mark.parametrize(("given", "sent"), [({}, 5), ({"max_completion_tokens": 7}, 7)])
    def test_snowflake_looks_away_from_the_older_name(
        self, server: LLMServer, given: dict[str, Any], sent: int
    ) -> None:
        """Its answers would end at 4096 tokens."""
        asked: dict[str, Any] = {"base_url": server.base_url("openai"), "api_key": KEY, "proxy": False}
        chat("Hi", "snowflake:m", max_tokens=5, **given, **asked).complete()
        assert server.requests[0].json["max_completion_tokens"] == sent
        assert "max_tokens" not in server.requests[0].json

    def test_rows_that_know_only_max_tokens(self) -> None:
        """All others get both names as given."""
        assert {name for name, row in SERVICES.items() if not row.renamed} == {
            "openrouter", "groq", "xai", "fireworks", "cerebras", "moonshot", "llamacpp", "vllm", "litellm",
            "minimax", "vercel",
        }  # fmt: skip

    @pytest.mark.parametrize("name", [*SERVICES])
    @pytest.mark.parametrize("closed", [True, False])
    def test_bounds_that_are_rejected_go_into_descriptions(self, name: str, closed: bool) -> None:
        """Groq and Cerebras name the keyword in their error."""
        age = {"type": "integer", "minimum": 0}
        schema = {"type": "object", "properties": {"age": age}, "required": ["age"], "additionalProperties": not closed}
        request = ChatRequest.checked("m", "Hi", {"schema": schema, "schema_mode": "native"})
        body: Any = SERVICES[name].encode(request).body
        told = {"type": "integer", "description": "(minimum: 0)"} if name in ("groq", "cerebras") else age
        assert body["response_format"]["json_schema"]["schema"]["properties"] == {"age": told}

    @pytest.mark.parametrize("name", [*sorted(SERVICES.keys() - {"groq", "cerebras"}), "local"])
    @pytest.mark.parametrize("mode", ["native", "tool"])
    def test_a_schema_is_sent_as_a_grammar_can_be_made_of_it(self, name: str, mode: str) -> None:
        """llama.cpp fails at most patterns, and ignores order beside `items`; others require `items`."""

        def register(plate: str) -> str:
            return plate

        pair = {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}
        plate = {"type": "string", "pattern": "[0-9]"}
        schema = {"type": "object", "properties": {"plate": plate, "pair": pair}}
        tool = Tool("register", "Registers.", schema, function=register)
        request = ChatRequest.checked("m", "Hi", {"schema": schema, "schema_mode": mode, "tools": [tool]})
        body: Any = find_provider(name).encode(request).body
        sent = [item["function"]["parameters"]["properties"] for item in body["tools"]]
        if mode == "native":
            sent.append(body["response_format"]["json_schema"]["schema"]["properties"])
        assert len(sent) == 2
        in_words = {"plate": {"type": "string", "description": "(pattern: [0-9])"}, "pair": pair}
        as_given = {"plate": plate, "pair": {**pair, "items": {"anyOf": pair["prefixItems"]}}}
        grammars = ("llamacpp", "llamafile", "lmstudio", "ollama-v1", "local")
        assert sent == [in_words if name in grammars else as_given] * 2

    def test_documents_and_pictures_go_as_given(self, server: LLMServer) -> None:
        """Other services may accept what OpenAI rejects."""
        image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
        document = {"type": "file", "file": {"file_data": "https://example.com/a.pdf", "filename": "a.pdf"}}
        turns = [{"role": "system", "content": [image]}, {"role": "user", "content": [document]}]
        chat(turns, "vllm:m", base_url=server.base_url("openai"), proxy=False).complete()
        assert server.requests[0].json["messages"] == turns

    def test_the_default_choice_is_not_refused(self, server: LLMServer) -> None:
        """`tool_choice="auto"` is Z.ai's only value."""

        def tool() -> str:
            return ""

        base_url = server.base_url("openai")
        asked: dict[str, Any] = {"base_url": base_url, "api_key": KEY, "proxy": False, "tools": [tool]}
        chat("Hi", "zai:glm", tool_choice="auto", **asked).complete()
        with pytest.raises(InvalidRequest, match="only 'auto'"):
            chat("Hi", "zai:glm", tool_choice={"type": "allowed_tools", "mode": "auto"}, **asked)

    def test_tool_calls_without_an_index(self, server: LLMServer) -> None:
        """As from Gemini's endpoint and others: told apart by their ids."""
        calls = [{"id": f"c{number}", "function": {"name": f"f{number}", "arguments": "{}"}} for number in (1, 2)]
        server.script(streamed({"tool_calls": [calls[0]]}, {"tool_calls": [calls[1]]}))
        stream = chat("Hi", "openrouter:m", base_url=server.base_url("openai"), api_key=KEY, proxy=False)
        found = [event for event in stream.events() if isinstance(event, ToolCall)]
        assert [(call.id, call.name) for call in found] == [("c1", "f1"), ("c2", "f2")]


class TestRowsOfOthers:
    """`compatible()` in another package."""

    def test_all_that_a_row_may_say(self, server: LLMServer) -> None:
        """The key's header, headers, paths and names are sent."""
        row = compatible(
            "acme",
            key_env=("ACME_KEY", "ACME_TOKEN"),
            key_header="X-Acme-Key",
            path="/talk?stream=sse",
            headers={"X-Acme-App": "llmbridge"},
            renamed={"max_tokens": "limit"},
            refused={"seed": "it has none"},
            refused_by={"a": {"stop": "it knows none"}},
            harmless={"seed": (0,)},
            named_roles=("system",),
            asks_usage=False,
            embeddings_path="/vectors",
            embeddings_batch=2,
        )
        assert (row.__name__, row.__module__, row.note) == ("Acme", __name__, "set ACME_KEY or ACME_TOKEN")
        server.default = Reply(body='{"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}')
        asked: dict[str, Any] = {"base_url": server.root, "api_key": KEY, "proxy": False}
        assert row.create_completion("m", "Hi", stream=False, max_tokens=3, **asked) == "Hi"
        (received,) = server.requests
        assert received.path == "/talk?stream=sse"
        assert (received.header("X-Acme-Key"), received.header("Authorization")) == (KEY, None)
        assert received.header("X-Acme-App") == "llmbridge"
        assert received.json == {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "limit": 3,
        }
        conversation = [{"role": "user", "content": "Hi", "name": "ann"}]
        request = ChatRequest.checked("m", conversation, {"seed": 0, "stop": "x"})
        assert (dict(row.refusals(request)), row.encode(request).body["messages"]) == ({}, received.json["messages"])
        assert dict(row.refusals(ChatRequest.checked("a1", "Hi", {"seed": 1, "stop": "x"}))) == {
            "seed": "it has none",
            "stop": "it knows none",
        }

    @pytest.mark.parametrize(
        ("given", "what"),
        [
            ({"refused": ["n"]}, "refused"),
            ({"path": "chat"}, "path"),
            ({"models_path": "v1/models"}, "models_path"),
            ({"path": 7}, "path"),
            ({"base_url": None, "embeddings_batch": "64"}, "embeddings_batch"),
            ({"key_env": 7}, "key_env"),
            ({"needs_key": "yes"}, "needs_key"),
            ({"schema_mode": "strict"}, "schema_mode"),
        ],
    )
    def test_a_row_that_cannot_be(self, given: dict[str, Any], what: str) -> None:
        """It is refused when it is created, not at the first call."""
        with pytest.raises(ConfigError, match=rf"compatible\('acme'\): {what} cannot be"):
            compatible("acme", **given)

    @pytest.mark.parametrize(
        ("given", "meant"),
        [("embeding_batch", " (did you mean 'embeddings_batch'?)"), ("framing", ""), ("colour", ""), ("__doc__", "")],
    )
    def test_an_unknown_attribute(self, given: str, meant: str) -> None:
        """A misspelt attribute is an error; so is a method of the dialect."""
        with pytest.raises(ConfigError) as caught:
            compatible("acme", **{given: "x"})
        assert str(caught.value) == f"compatible('acme'): unknown attribute {given!r}{meant}"

    def test_an_invalid_name(self) -> None:
        """A name must be text."""
        wrong: Any = 7
        with pytest.raises(ConfigError, match="name cannot be '7'"):
            compatible(wrong)

    def test_every_word_of_the_first_version(self) -> None:
        """All keywords of `compatible` in 0.1 still work; None keeps the default."""
        given: dict[str, Any] = {
            "base_url": "https://a.example", "key_env": ["A", "B"], "base_url_env": "C", "host_env": "D", "url": "u",
            "note": "n", "needs_key": None, "key_header": "h", "path": "/p", "headers": None, "renamed": None,
            "refused": None, "refused_by": None, "harmless": None, "named_roles": ["user"], "reasoning_field": "r",
            "no_reasoning": " ", "reasoning_proofs": "s", "schema_mode": "json", "schema_bounds": False,
            "names_tools": False, "json_mode": False, "schema_grammar": True, "asks_usage": False, "think_tags": False,
            "done_needs_finish": False, "models_path": "", "embeddings_path": "/e", "embeddings_batch": 1,
            "base_url_example": "x",
        }  # fmt: skip
        row = compatible(name="acme", **given)
        usual = {"headers": {}, "renamed": {}, "refused": {}, "refused_by": {}, "harmless": {}, "needs_key": True}
        changed = {"key_env": ("A", "B"), "named_roles": ("user",)}
        given["best_schema_mode"] = given.pop("schema_mode")
        assert {name: getattr(row, name) for name in given} == {**given, **usual, **changed}

    def test_rows_do_not_share_their_data(self) -> None:
        """Each has its own."""
        first, second = compatible("first", headers={"A": "1"}), compatible("second", key_env="SECOND_KEY")
        assert (first.headers, second.headers) == ({"A": "1"}, {})
        assert (first.key_env, second.key_env) == ((), ("SECOND_KEY",))
        assert (first.needs_key, second.needs_key) == (False, True)


def test_the_page_of_all_providers_is_up_to_date() -> None:
    """docs/providers/README.md holds the current table."""
    run = subprocess.run(
        [sys.executable, "-m", "llmbridge.providers"], capture_output=True, encoding="utf-8", timeout=60
    )
    assert (run.returncode, run.stderr) == (0, "")
    page = Path(__file__).parents[2] / "docs" / "providers" / "README.md"
    found = [line for line in page.read_text(encoding="utf-8").splitlines(keepends=True) if line.startswith("|")]
    assert "".join(found) == run.stdout, (
        f"the table in {page.name} is out of date: replace it with the output of `python -m llmbridge.providers`"
    )
