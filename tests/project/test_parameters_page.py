"""docs/parameters.md: which of the usual parameters each service takes, refuses and renames, by the requests sent.

`python tests/project/test_parameters_page.py` renews the tables of the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llmbridge.messages import ChatRequest
from llmbridge.options import _USUAL_NAMES
from llmbridge.provider import Provider
from llmbridge.providers import known
from llmbridge.providers.compatible import Compatible

PAGE = Path(__file__).resolve().parents[2] / "docs" / "parameters.md"
MARK = "<!-- Made by: python tests/project/test_parameters_page.py -->\n"
TABLE = re.compile(rf"{MARK}\n(?:\|.*\n)*\n?")

DIALECTS = {
    "OpenAI": ("openai", "openai"),
    "OpenAI-compatible": ("openai-compatible", "openai"),
    "OpenAI Responses": ("openai-responses", "openai-responses"),
    "Anthropic": ("anthropic", "anthropic"),
    "Gemini": ("gemini", "gemini"),
    "Mistral": ("mistral", "mistral"),
    "Ollama": ("ollama", "ollama"),
    "Cohere": ("cohere", "cohere"),
}
"""The columns: the provider's name and its page."""

TOOL = {"name": "f", "description": "Does it.", "parameters": {"type": "object", "properties": {}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
VALUES: dict[str, Any] = {
    "max_tokens": 4000,
    "max_completion_tokens": 4000,
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "stop": ["END"],
    "seed": 5,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "reasoning_effort": "high",
    "n": 2,
    "logprobs": True,
    "top_logprobs": 5,
    "tools": [TOOL],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "schema": SCHEMA,
    "response_format": {"type": "json_object"},
    "user": "u",
    "metadata": {"a": "b"},
    "logit_bias": {"5": 1},
}
"""A value of each parameter that asks for something unusual."""

BESIDE: dict[str, dict[str, Any]] = {
    "tool_choice": {"tools": [TOOL]},
    "parallel_tool_calls": {"tools": [TOOL]},
    "top_logprobs": {"logprobs": True},
}
"""What a parameter needs beside it."""

MODELS = [
    "openai:o1", "openai:o4-mini", "openai:gpt-5-mini", "openai:gpt-5.1", "openai-responses:gpt-5-mini",
    "anthropic:claude-sonnet-4-5", "anthropic:claude-opus-4-7", "gemini:gemini-2.5-pro", "gemini:gemini-3-pro-preview",
    "xai:grok-4", "moonshot:kimi-k2.6",
]  # fmt: skip
REASONING = {"reasoning_effort": "high"}
TRIALS: list[tuple[str, str, dict[str, Any]]] = [
    *((name, f"`{name}`", {**BESIDE.get(name, {}), name: value}) for name, value in VALUES.items()),
    ("reasoning_effort", "`reasoning_effort` as a number", {"reasoning_effort": 4000}),
    ("reasoning_effort", '`reasoning_effort="none"`', {"reasoning_effort": "none"}),
    *(
        (name, f"`{name}` while it reasons", {**BESIDE.get(name, {}), name: VALUES[name], **REASONING})
        for name in ("temperature", "top_p", "top_k", "logprobs", "top_logprobs", "tool_choice")
    ),
    ("top_p", "`top_p` beside `temperature`", {"temperature": 0.5, "top_p": 0.5}),
]
"""What may be refused: the parameter, its description, and a request; a parameter alone before combinations."""


def request(params: Mapping[str, Any], model: str = "m") -> ChatRequest:
    """A request with these parameters."""
    return ChatRequest.checked(model, "Hi", params)


def leaves(body: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a body by where they are, two levels deep where a service puts parameters into groups."""
    found: dict[str, Any] = {}
    for name, value in body.items():
        grouped = isinstance(value, Mapping) and name not in (*VALUES, "format")
        found.update({f"{name}.{below}": deep for below, deep in value.items()} if grouped else {name: value})
    return found


def places(provider: type[Provider], name: str) -> str:
    """What becomes of a parameter."""
    beside = BESIDE.get(name, {})
    asked = request({**beside, name: VALUES[name]})
    if name in provider.refusals(asked):
        return "refused"
    before, after = (leaves(provider.encode(asking).body) for asking in (request(beside), asked))
    found = [place for place, value in after.items() if before.get(place) != value]
    if name == "reasoning_effort" and "max_tokens" in found:
        found.remove("max_tokens")  # Anthropic's has to have room for the thinking
    if found == [name]:
        return "yes"
    return ", ".join("an instruction" if place in ("messages", "system") else f"`{place}`" for place in found)


def rows(head: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    """A table as Markdown."""
    lines = [list(head), ["---" for _ in head], *body]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def usual() -> str:
    """What each dialect makes of each parameter."""
    providers = [known()[name] for name, _ in DIALECTS.values()]
    head = [f"[{title}](providers/{page}.md#parameters)" for title, (_, page) in DIALECTS.items()]
    body = [[f"`{name}`", *(places(provider, name) for provider in providers)] for name in VALUES]
    return rows(["parameter", *head], body)


def services() -> str:
    """What those that speak OpenAI's dialect do otherwise; those that do the same stand together."""
    usual, alike = known()["openai-compatible"], dict[tuple[str, str], list[str]]()
    for name, provider in sorted(known().items()):
        if issubclass(provider, Compatible) and provider.__module__.startswith("llmbridge."):
            renamed, refused = list[str](), dict[str, list[str]]()
            for parameter in VALUES:
                place = places(provider, parameter)
                if place == "refused":
                    refused.setdefault(provider.refused[parameter], []).append(f"`{parameter}`")
                elif place != places(usual, parameter):
                    renamed.append(f"`{parameter}` as {place}")
            told = "; ".join(f"{', '.join(names)}: {advice}" for advice, names in refused.items())
            alike.setdefault((", ".join(renamed), told), []).append(f"`{name}`")
    body = [[", ".join(names), *cells] for cells, names in alike.items() if any(cells)]
    return rows(["service", "sends", "refuses, and what the error says"], body)


def models() -> str:
    """What single models refuse; those that say the same stand together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for model in MODELS:
        service, _, own_name = model.partition(":")
        provider, told, found = known()[service], dict[str, list[str]](), set[str]()
        for name, words, params in TRIALS:
            advice = provider.refusals(request(params, own_name)).get(name)
            if advice and name not in found and places(provider, name) != "refused":
                told.setdefault(advice.replace(own_name, "MODEL"), []).append(words)
                found |= {name} if words == f"`{name}`" else set()
        for advice, refused in told.items():
            alike.setdefault((", ".join(refused), advice), []).append(f"`{model}`")
    body = [[", ".join(names), *cells] for cells, names in alike.items()]
    return rows(["model", "refuses", "what the error says"], body)


def renewed(page: str) -> str:
    """The page with the tables that the code makes."""
    tables = iter([usual(), services(), models()])
    return TABLE.sub(lambda _: f"{MARK}\n{next(tables)}\n", page).rstrip("\n") + "\n"


def test_the_page_is_up_to_date() -> None:
    """Its tables are those that the code makes."""
    page = PAGE.read_text(encoding="utf-8")
    assert page.count(MARK) == 3
    assert page == renewed(page), "the tables are old: python tests/project/test_parameters_page.py"


def test_no_usual_parameter_is_left_out() -> None:
    """The first table has a row for each that llmbridge knows by name; `dimensions` is one of embeddings."""
    assert set(_USUAL_NAMES) - set(VALUES) == {"dimensions"}


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
