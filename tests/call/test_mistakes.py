"""What a person gets wrong, and what the message says: nothing is sent, and the right spelling is in it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from llmbridge import Client, ConfigError, chat, conversation, embed, providers, register
from llmbridge import options as options_module
from llmbridge.options import refuse_misspelt
from llmbridge.providers.openai import OpenAI
from llmbridge.testing import LLMServer, Reply

SLIPS = {
    "api_kye": "api_key",
    "apiKey": "api_key",
    "base_ulr": "base_url",
    "timout": "timeout",
    "verfy": "verify",
    "proxi": "proxy",
    "retires": "retries",
    "header": "headers",
    "sesion": "session",
    "temprature": "temperature",
    "tempature": "temperature",
    "max_token": "max_tokens",
    "maxTokens": "max_tokens",
    "topp": "top_p",
    "sotp": "stop",
    "stops": "",
    "reasoning_efort": "reasoning_effort",
    "response_fromat": "response_format",
    "run_tool": "run_tools",
    "tool": "tools",
    "tool_choise": "tool_choice",
    "schem": "schema",
    "sytem": "system",
    "modle": "model",
    "unsuported": "unsupported",
    "extra_body": "extra",
    "extra_headers": "headers",
    "max_retries": "retries",
    "proxies": "proxy",
}
"""Slips, and what is meant; "" for one that is too near to what may be meant otherwise."""

TAKEN = """
    add_generation_prompt api_version audio background bad_words beta best_of cache_control cache_prompt cached_content
    chat_template chat_template_kwargs citation_options container context_management conversation country data_sources
    deferred details do_sample documents draft_model dry_base dry_multiplier dynatemp_range echo effort enable_thinking
    encoding_format fallbacks format frequencyPenalty functions function_call generationConfig grammar guardrails
    guided_json guided_regex ignore_eos include include_reasoning input_type instructions json_schema k keep_alive
    key labels language length_penalty limit location logit_bias logprob_start_len lora maxOutputTokens max_length
    max_new_tokens max_output_tokens max_prompt_tokens max_results max_thinking_tokens max_time max_tool_calls
    max_tokens_to_sample mcp_servers messages metadata minTokens min_keep min_p min_tokens mirostat modalities mode
    model_id models moderation n_predict n_probs n_keep num_beams num_ctx num_predict options output output_config
    p page parallel parameters persona prediction presencePenalty preset previous_response_id priority project
    prompt_cache_key prompt_logprobs prompt_mode provider query random_seed raw reasoning reasoning_format regex
    region rep_pen repeat_last_n repeat_penalty repetition_penalty request_id rerank responseLogprobs responseMimeType
    responseSchema response_logprobs role route safe_prompt safetySettings safety_identifier samplers schema_id
    search_parameters seeds separate_reasoning serviceTier service_tier session_id skip_special_tokens speed
    stopSequences stop_sequences stop_token_ids stop_words store stream stream_options structured_outputs style
    suffix summary systemInstruction system_prompt task template temp text tfs_z think thinking thinkingConfig
    thinking_budget token tokens toolConfig tool_resources tool_stream topK topP top_a top_k_return top_n top_n_sigma
    top_n_tokens transforms truncate truncation typical_p url user user_id verbosity version voice
    watermark web_search_options webhook xtc_threshold
""".split()
"""What services take, or may come to take."""


@pytest.mark.parametrize("name", SLIPS)
def test_a_misspelt_option_is_refused_before_anything_is_sent(server: LLMServer, client: Client, name: str) -> None:
    """It would go to the service, which ignores it; whatever asks, and also as a default."""
    if not SLIPS[name]:
        assert client.chat("Hi", **{name: "x"})
        return
    asks: list[Callable[..., Any]] = [
        lambda **asked: client.chat("Hi", **asked),
        lambda **asked: client.run("Hi", **asked),
        lambda **asked: client.embed("Hi", **asked),
        lambda **asked: client.aembed("Hi", **asked),
        lambda **asked: chat("Hi", "demo", **asked),
        lambda **asked: embed("Hi", "demo", **asked),
        lambda **asked: conversation("demo", **asked),
        lambda **asked: client.conversation().ask("Hi", **asked),
        lambda **asked: OpenAI.create_completion("m", "Hi", **asked),
        lambda **asked: OpenAI.create_async("m", "Hi", **asked),
        Client,
    ]
    for ask in asks:
        with pytest.raises(ConfigError) as caught:
            ask(**{name: "sk-not-to-be-shown"})
        assert f"{name!r} is not an option" in str(caught.value)
        assert f"did you mean {SLIPS[name]!r}?" in str(caught.value)
        assert f"extra={{{name!r}: ...}}" in str(caught.value)
        assert "not-to-be-shown" not in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize("ask", [Client.models, Client.amodels])
def test_a_misspelt_option_of_models_is_refused(client: Client, ask: Callable[..., Any]) -> None:
    """It has parameters of its own only, and says which."""
    with pytest.raises(ConfigError, match=r"models\(\) does not take 'timout' \(did you mean 'timeout'\?\)"):
        ask(client, timout=1)


def test_what_services_take_passes() -> None:
    """No name of theirs is taken for a slip, whatever it looks like."""
    refuse_misspelt(dict.fromkeys(TAKEN), tuple)
    own = {name for provider in providers.known().values() for name in (*provider.settings, *provider.refused)}
    refuse_misspelt(dict.fromkeys(own), tuple)


def test_what_a_provider_of_ones_own_takes_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings may be called as it likes."""

    class Own(OpenAI):
        name = "own-names"
        settings = frozenset({"toolz"})
        needs_key = False

    monkeypatch.setattr(providers, "_registered", dict(providers._registered))
    register(Own)
    assert chat("Hi", "own-names:m", toolz=1).model == "m"
    assert Own.create_completion("m", "Hi", toolz=1)


def test_every_named_argument_is_known_to_the_check() -> None:
    """A new one is added to the names that may be meant."""
    named = {*inspect.signature(Client.__init__).parameters, *inspect.signature(Client.embed).parameters}
    assert named - {"self", "texts", "params"} <= options_module._MEANT


def test_extra_goes_into_the_body_as_it_is(server: LLMServer, client: Client) -> None:
    """Nothing of it is checked, renamed or refused; a call's own wins over the client's, and over what stands there."""
    server.default = Reply("Hello")
    with Client(
        "openai:gpt-5-mini",
        api_key="k-0123456789",
        base_url=server.base_url("openai"),
        proxy=False,
        extra={"timout": 1, "tenant": "a"},
    ) as own:
        own.chat("Hi", max_tokens=9, extra={"temprature": 1, "tenant": "b", "user": "me"}).complete()
        body = server.requests[-1].json
        assert (body["timout"], body["temprature"], body["tenant"], body["user"]) == (1, 1, "b", "me")
        own.embed("Hi", extra={"timeout": 5})
        assert server.requests[-1].json["timeout"] == 5
    "".join(OpenAI.create_completion(
        "m", "Hi", api_key="k-0123456789", base_url=server.base_url("openai"), proxy=False, extra={"schema": "s"}
    ))  # fmt: skip
    assert server.requests[-1].json["schema"] == "s"


@pytest.mark.parametrize(
    ("extra", "says"), [("a", "extra must be a mapping"), ({"a": {1}}, "extra['a'] is of type set")]
)
def test_an_extra_that_no_body_can_hold_is_refused(client: Client, extra: Any, says: str) -> None:
    """At the call, as everything else is."""
    for ask in (client.chat, client.embed):
        with pytest.raises(ConfigError) as caught:
            ask("Hi", extra=extra)
        assert says in str(caught.value)
