"""The content of a request, read from the JSON of any dialect: turns, tools, the form of the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Tool",
    "Turn",
    "camel",
    "camel_keys",
    "embedding_inputs",
    "json_asked",
    "reasoning_asked",
    "schema",
    "text_of",
    "tool_choice",
    "tools",
    "turns",
]

_ODD = (AttributeError, LookupError, TypeError, ValueError, RecursionError)


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation: its role as the dialect calls it (`tool` for every tool result), and its text."""

    role: str
    text: str


@dataclass(frozen=True)
class Tool:
    """A tool in a request: name, description and the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


def turns(request: Any) -> list[Turn]:
    """Every turn of a request of any dialect, instructions first; empty if it is not a chat request."""
    try:
        if isinstance(request.get("conversation"), str):
            history = json.loads(request["conversation"])["history"]
            return [Turn(str(turn["speaker"]), text_of(turn["text"])) for turn in history]
        if "contents" in request:
            return list(_gemini_turns(request))
        if "messages" not in request and "input" in request:
            return list(_response_turns(request))
        return [*_system(request.get("system")), *(turn for one in request["messages"] for turn in _message(one))]
    except _ODD:
        return []


def tools(request: Any) -> list[Tool]:
    """The tools in a request of any dialect; tools without a name are left out."""
    try:
        offered = [one for entry in request.get("tools") or [] for one in _declarations(entry)]
        return [
            Tool(one["name"], str(one.get("description") or ""), _parameters(one))
            for one in offered
            if isinstance(one.get("name"), str)
        ]
    except _ODD:
        return []


def tool_choice(request: Any) -> str:
    """`none`, `auto`, `required`, or `name:` and the one tool that must be called."""
    config = _dig(request, "toolConfig", "functionCallingConfig") or {}
    choice = config.get("mode") if isinstance(config, dict) and config else _dig(request, "tool_choice")
    if isinstance(choice, dict):
        name = _dig(choice, "function", "name") or choice.get("name")
        choice = f"name:{name}" if isinstance(name, str) else choice.get("type")
    if not isinstance(choice, str):
        return "auto"
    allowed = config.get("allowedFunctionNames") if isinstance(config, dict) else None
    if choice == "ANY" and isinstance(allowed, list) and len(allowed) == 1:
        return f"name:{allowed[0]}"
    return {"ANY": "required", "any": "required", "NONE": "none", "REQUIRED": "required"}.get(choice, choice)


def schema(request: Any) -> Mapping[str, Any] | None:
    """The JSON schema that the answer must match, if one was sent."""
    places: tuple[tuple[str, ...], ...] = (
        ("response_format", "json_schema", "schema"),
        ("text", "format", "schema"),
        ("output_config", "format", "schema"),
        ("generationConfig", "responseJsonSchema"),
        ("generationConfig", "responseSchema"),
        ("format",),
        ("response_format", "schema"),
    )
    if _dig(request, "response_format", "type") == "json_object":  # Cohere's schema is one level higher
        places = (("response_format", "json_schema"), *places)
    found = (_dig(request, *place) for place in places)
    return next((one for one in found if isinstance(one, dict)), None)


def json_asked(request: Any) -> bool:
    """Whether the answer must be JSON of any form."""
    return bool(
        _dig(request, "response_format", "type") == "json_object"
        or _dig(request, "generationConfig", "responseMimeType") == "application/json"
        or _dig(request, "format") == "json"
        or _dig(request, "text", "format", "type") == "json_object"
    )


def reasoning_asked(request: Any) -> bool:
    """Whether the request asks for reasoning."""
    return bool(
        _dig(request, "reasoning_effort") not in (None, "none")
        or _dig(request, "reasoning", "effort") not in (None, "none")
        or _dig(request, "thinking", "type") in ("enabled", "adaptive")
        or _dig(request, "generationConfig", "thinkingConfig", "includeThoughts")
        or _dig(request, "think")
    )


def embedding_inputs(request: Any) -> list[str]:
    """The texts to embed; a list of tokens counts as its JSON text."""
    if isinstance(request.get("requests"), list):
        return [text_of(_dig(one, "content", "parts")) for one in request["requests"]]
    if isinstance(request.get("content"), dict):
        return [text_of(request["content"].get("parts"))]
    given = request.get("texts") if "texts" in request else request.get("input")
    if isinstance(given, list) and given and not isinstance(given[0], int):
        return [one if isinstance(one, str) else json.dumps(one) for one in given]
    if isinstance(given, list):
        return [json.dumps(given)] if given else []
    return [given] if isinstance(given, str) else []


def text_of(content: Any) -> str:
    """The text of a message's content: a str, or its text parts."""
    if isinstance(content, str):
        return content
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str) and not part.get("thought"))


def camel(name: str) -> str:
    """A name in camelCase, as in Google's JSON; Google accepts both spellings.

    Example:
        >>> camel("inline_data"), camel("inlineData")
        ('inlineData', 'inlineData')
    """
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def camel_keys(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with its names in camelCase, one level deep except for free JSON."""
    free = ("args", "response", "parameters", "parametersJsonSchema", "responseJsonSchema", "responseSchema")
    made = {camel(name): value for name, value in fields.items()}
    return {
        name: {camel(key): part for key, part in value.items()}
        if isinstance(value, dict) and name not in free
        else value
        for name, value in made.items()
    }


def _dig(value: Any, *path: str) -> Any:
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _system(system: Any) -> list[Turn]:
    return [Turn("system", text_of(system))] if system else []


def _message(message: dict[str, Any]) -> Iterator[Turn]:
    content, role = message.get("content"), str(message["role"])
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    results = [block for block in blocks if block.get("type") == "tool_result"]
    yield from (Turn("tool", text_of(block.get("content"))) for block in results)
    if not results or text_of(content):
        yield Turn(role, text_of(content))


def _response_turns(request: dict[str, Any]) -> Iterator[Turn]:
    yield from _system(request.get("instructions"))
    given = request["input"]
    if isinstance(given, str):
        yield Turn("user", given)
        return
    for item in given:
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if kind == "message":
            yield Turn(str(item["role"]), text_of(item.get("content")))
        elif kind in ("function_call", "custom_tool_call"):
            yield Turn("assistant", "")
        elif kind in ("function_call_output", "custom_tool_call_output"):
            yield Turn("tool", text_of(item.get("output")))


def _gemini_turns(request: dict[str, Any]) -> Iterator[Turn]:
    yield from _system(text_of(_dig(camel_keys(request), "systemInstruction", "parts")))
    for content in request["contents"]:
        parts = [camel_keys(part) for part in content["parts"] if isinstance(part, dict)]
        results = [part["functionResponse"] for part in parts if isinstance(part.get("functionResponse"), dict)]
        yield from (Turn("tool", _result(one.get("response"))) for one in results)
        if not results or text_of(parts):
            yield Turn(str(content.get("role") or "user"), text_of(parts))


def _result(response: Any) -> str:
    """The text of a functionResponse: its one value if that is a str, or else all of it as JSON."""
    values = list(response.values()) if isinstance(response, dict) else []
    return values[0] if len(values) == 1 and isinstance(values[0], str) else json.dumps(response, ensure_ascii=False)


def _declarations(entry: dict[str, Any]) -> list[dict[str, Any]]:
    if "functionDeclarations" in camel_keys(entry):
        return [camel_keys(one) for one in camel_keys(entry)["functionDeclarations"]]
    return [entry["function"]] if "function" in entry else [entry]


def _parameters(declaration: dict[str, Any]) -> Mapping[str, Any]:
    names = ("parameters", "input_schema", "parametersJsonSchema")
    found = (declaration.get(name) for name in names)
    return next((one for one in found if isinstance(one, dict)), {})
