"""Requests to Gemini: contents with parts, tools, and one configuration for everything else.

Source: Gemini API reference, models.generateContent and its guides on function calling, thinking, thought signatures
and file input; google-genai, which writes the same bodies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmbridge._json import remembered
from llmbridge.errors import InvalidRequest
from llmbridge.messages import ChatRequest, Message, call_of, json_copy
from llmbridge.providers._values import TEXTS, mapping, media_of, own_form

if TYPE_CHECKING:
    from llmbridge.events import ToolCall
    from llmbridge.parts import MediaPart
    from llmbridge.schema import Schema
    from llmbridge.tools import Tool, ToolChoice

__all__ = [
    "always_thinks",
    "encode_choice",
    "encode_contents",
    "encode_params",
    "encode_schema",
    "encode_tools",
    "is_gemini_3",
    "model_path",
]

FILES = "https://generativelanguage.googleapis.com/v1beta/"
_UNSIGNED = "skip_thought_signature_validator"  # the service's own word for another model's call
_YOUTUBE = ("https://www.youtube.com/", "https://youtube.com/", "https://youtu.be/", "https://m.youtube.com/")
_ALWAYS_THINKS = re.compile(r"gemini-(2\.5|3(\.\d+)?)-pro")
_NOT_MINIMAL = re.compile(r"gemini-3(\.\d+)?-pro|gemini-3\.[78]-flash(?!-lite)")
_NOT_ABOVE_HIGH = re.compile(r"gemini-3(?!\d)")
_GENERATION = re.compile(r"gemini-([12])(?:\.(\d+))?(?!\d)")
_MEDIA = ("image_url", "input_audio", "file")
_SOUNDS = {"audio/mpeg": "audio/mp3", "audio/x-wav": "audio/wav"}

_CONFIG = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "n": "candidateCount",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "stop": "stopSequences",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "top_logprobs": "logprobs",
}
_OWN_CONFIG = (
    "topP",
    "topK",
    "candidateCount",
    "maxOutputTokens",
    "stopSequences",
    "presencePenalty",
    "frequencyPenalty",
    "responseMimeType",
    "responseSchema",
    "responseJsonSchema",
    "responseLogprobs",
    "responseModalities",
    "thinkingConfig",
    "mediaResolution",
    "speechConfig",
    "imageConfig",
)
_OWN_FIELDS = ("generationConfig", "safetySettings", "cachedContent", "systemInstruction", "toolConfig", "serviceTier")
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH", "max": "XHIGH"}
_SCHEMAS = {"parameters", "parametersJsonSchema", "parameters_json_schema"}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def _spellings(names: Sequence[str]) -> dict[str, str]:
    """The service's own names, in the spelling of its reference and of its Python package."""
    snakes = {re.sub(r"[A-Z]", lambda match: f"_{match[0].lower()}", name): name for name in names}
    return {**snakes, **{name: name for name in names}}


_OWN_CONFIG_NAMES = _spellings(_OWN_CONFIG)
_OWN_FIELD_NAMES = _spellings(_OWN_FIELDS)


def is_gemini_3(model: str) -> bool:
    """Whether a model is newer than Gemini 1 and 2, which think by a budget of tokens and write no JSON beside tools.

    Example:
        >>> is_gemini_3("gemini-3-pro"), is_gemini_3("gemini-2.5-flash")
        (True, False)
    """
    return _GENERATION.search(model) is None


def always_thinks(model: str) -> bool:
    """Whether a model's thinking cannot be turned off.

    Example:
        >>> [always_thinks(f"gemini-{name}") for name in ("2.5-pro", "3.1-pro-preview", "3-flash")]
        [True, True, False]
    """
    return _ALWAYS_THINKS.search(model) is not None


def model_path(model: str) -> str:
    """A model's name as part of a path.

    Raises:
        InvalidRequest: It is empty.

    Example:
        >>> model_path("gemini-3.5-flash"), model_path("tunedModels/mine")
        ('models/gemini-3.5-flash', 'tunedModels/mine')
    """
    kind, slash, name = model.partition("/")
    if not slash or kind not in ("models", "tunedModels"):
        kind, name = "models", model
    if not name:
        raise InvalidRequest("the model's name is empty")
    if not (name.isascii() and name.replace("-", "").replace(".", "").replace("_", "").isalnum()):
        from urllib.parse import quote

        name = quote(name, safe="")
    return f"{kind}/{name}"


def encode_contents(request: ChatRequest) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The turns of the conversation, and the parts of the system instruction.

    Raises:
        InvalidRequest: Gemini does not support a part of a message. The message says which, and what to do.
    """
    system: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    seen: list[dict[str, Any]] = []  # images from tools whose results cannot hold them
    last = ""
    for number, message in enumerate(request.messages):
        where = f"messages[{number}]"
        if message.role in ("system", "developer"):
            system.append({"text": message.text})
            continue
        if seen and message.role != "tool":
            contents.append({"role": "user", "parts": seen})
            seen, last = [], "user"
        if message.role == "assistant":
            parts = _model_parts(message, where, request.model)
            names.update({call.id: call.name for call in message.tool_calls})
        elif message.role == "tool":
            parts, media = _function_response(message, names, where, request.model)
            seen += media
        else:
            parts = _parts(message, where, request.model)
        if contents and last == message.role:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": "model" if message.role == "assistant" else "user", "parts": parts})
            last = message.role
    if seen:
        contents.append({"role": "user", "parts": seen})
    if not contents:
        raise InvalidRequest("messages hold only instructions: Gemini needs a user message")
    return contents, system


def _model_parts(message: Message, where: str, model: str) -> list[dict[str, Any]]:
    """The parts of a model's turn, in order; the service's own ones unchanged."""
    parts: list[dict[str, Any]] = []
    called = False
    for place, given in enumerate(message.parts):
        kind, raw = given["type"], given.get("raw")
        if kind == "tool_call":
            parts.append(_call(call_of(given), where, first=not called, model=model))
            called = True
        elif kind == "opaque" or (kind == "text" and isinstance(raw, Mapping)):
            parts.append(own_form(given))
        elif kind == "reasoning":
            _add_thought(given, parts)
        elif kind in _MEDIA and isinstance(raw, Mapping):
            parts.append(_own_media(given, raw))
        else:
            made = _of_model(given, f"{where}: content[{place}]", model)
            parts += [part for part in made if part != {"text": ""}]
    return parts


def _add_thought(given: Mapping[str, Any], parts: list[dict[str, Any]]) -> None:
    """Adds a thought with its signature, or the signature of a text; the service ignores thoughts without one."""
    raw, text, signature = given.get("raw"), given.get("text") or "", given.get("signature")
    if isinstance(raw, Mapping):
        parts.append({**raw, "text": text} if "text" in raw else dict(raw))
    elif text and signature:
        parts.append({"text": text, "thought": True, "thoughtSignature": signature})
    elif signature := given.get("redacted") or signature:
        if not (parts and parts[-1].keys() == {"text"}):  # it belongs to the text before it, or to an empty one
            parts.append({"text": ""})
        parts[-1]["thoughtSignature"] = signature


def _of_model(given: Mapping[str, Any], where: str, model: str) -> Iterator[dict[str, Any]]:
    """A part made by another service's model or the caller; media that cannot be sent are left out."""
    media = media_of(given, where)
    if words := given.get("transcript") if media is not None else None:
        yield {"text": str(words)}
    elif media is None or not media.url or _fetches(media.url, model):
        yield from _part(given, where, model)


def _own_media(given: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """A medium in the service's own form, with its data filled in again."""
    key = next((name for name in ("inlineData", "inline_data") if isinstance(raw.get(name), Mapping)), None)
    if key is None:
        return dict(raw)
    inner = given.get(given["type"])
    data = next((inner[name] for name in ("url", "data", "file_data") if name in inner), "") if inner else ""
    return {**raw, key: {**raw[key], "data": str(data).rpartition(",")[2]}}


def _call(call: ToolCall, where: str, first: bool, model: str) -> dict[str, Any]:
    function = {"name": call.name, "args": json_copy(call.arguments, f"{where}: the arguments of a call")}
    raw = mapping(call.raw)
    function = {**({"id": call.id} if call.id else {}), **function, **mapping(raw.get("functionCall"))}
    part: dict[str, Any] = {**raw, "functionCall": function}
    if call.signature:
        part["thoughtSignature"] = call.signature
    elif first and is_gemini_3(model):
        part["thoughtSignature"] = _UNSIGNED  # without one the service rejects the whole request
    return part


def _function_response(
    message: Message, names: Mapping[str, str], where: str, model: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The part with a tool's result, and what must follow it: Gemini 1 and 2 reject images inside a result."""
    call_id = str(message.extra.get("tool_call_id") or "")
    name = message.extra.get("name") or names.get(call_id)
    if not name:
        raise InvalidRequest(
            f"{where} is the result of a call that no earlier message made: "
            "add the tool's 'name' beside 'tool_call_id', or include the assistant's message with the call"
        )
    parts = _parts(message, where, model)
    text = "".join(part.get("text", "") for part in parts)
    response: dict[str, Any] = {"name": name, "response": _response(text, bool(message.extra.get("is_error")))}
    media = [part for part in parts if "text" not in part]
    if media and is_gemini_3(model):
        response["parts"], media = media, []
    answer = {"functionResponse": {"id": call_id, **response} if call_id else response}
    return [answer], [{"text": f"From the answer of {name}:"}, *media] if media else []


def _response(text: str, failed: bool) -> dict[str, Any]:
    """A tool's result as the object that the service requires; text that is a JSON object is sent as that object.

    The service would take a "$ref" in it for the name of a part of the result, and reject it.
    """
    if failed:
        return {"error": text}
    if text.lstrip().startswith("{") and '"$ref"' not in text:
        try:
            value = json_copy(json.loads(text), "a tool's result")
        except (ValueError, RecursionError, InvalidRequest):
            return {"result": text}
        return dict(value)
    return {"result": text}


def _parts(message: Message, where: str, model: str) -> list[dict[str, Any]]:
    return [
        made for place, part in enumerate(message.parts) for made in _part(part, f"{where}: content[{place}]", model)
    ]


def _part(part: Mapping[str, Any], where: str, model: str) -> Iterator[dict[str, Any]]:
    """A part of a message in the service's form; unknown types are sent unchanged."""
    kind = part["type"]
    if kind in (*TEXTS, "refusal"):
        text = part.get("refusal" if kind == "refusal" else "text")
        if not isinstance(text, str):
            raise InvalidRequest(f"{where}: a part of type {kind!r} has no text")
        yield {"text": text}
    elif kind == "file" and isinstance(file := part.get("file"), Mapping) and "file_id" in file:
        name = str(file["file_id"])
        yield {"fileData": {"fileUri": name if "://" in name else FILES + name}}
    elif kind != "reasoning":
        media = media_of(part, where)
        own = {key: value for key, value in part.items() if key != "type"}
        if media is None and not own:
            raise InvalidRequest(f"{where}: a part of type {kind!r} is empty")
        yield own if media is None else _media(media, where, model)


def _media(media: MediaPart, where: str, model: str) -> dict[str, Any]:
    if media.url:
        return {"fileData": _file(media, where, model)}
    return {"inlineData": {"mimeType": _SOUNDS.get(media.media_type, media.media_type), "data": media.data}}


def _file(media: MediaPart, where: str, model: str) -> dict[str, Any]:
    """What the service downloads itself: uploaded files, YouTube videos, and since Gemini 2.5 any https URL."""
    if media.url.startswith(_YOUTUBE):
        return {"fileUri": media.url}  # rejected with a media type
    if not _fetches(media.url, model):
        raise InvalidRequest(
            f"{where}: {'this model' if media.url.startswith('https://') else 'Gemini'} does not download such URLs: "
            f"pass the {media.kind}'s bytes or path, upload it with the Files API"
            f"{'' if media.url.startswith('https://') else ', or pass an https URL'}"
        )
    return {"mimeType": media.media_type, "fileUri": media.url} if media.media_type else {"fileUri": media.url}


def _fetches(url: str, model: str) -> bool:
    if url.startswith((*_YOUTUBE, FILES.removesuffix("v1beta/"), "gs://")):
        return True
    generation = _GENERATION.search(model)
    return url.startswith("https://") and (generation is None or generation[0].startswith("gemini-2.5"))


def encode_tools(tools: Sequence[Tool], schema_tool: Schema | None) -> list[dict[str, Any]]:
    """The functions that the model may call, in one entry, and the service's own tools unchanged."""
    functions: list[dict[str, Any]] = []
    own: list[dict[str, Any]] = []
    for tool in tools:
        if tool.raw is not None and _SCHEMAS.isdisjoint(tool.raw):
            own.append(dict(tool.raw))
            continue
        given = {name: value for name, value in (tool.raw or {}).items() if name not in _SCHEMAS}
        functions.append({**given, **_function(tool.name, tool.description, tool.parameters)})
    if schema_tool is not None:
        description = schema_tool.description or "Give the answer by calling this."
        functions.append(_function(schema_tool.name, description, schema_tool.json_schema))
    return [*([{"functionDeclarations": functions}] if functions else []), *own]


@remembered
def _function(name: str, description: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A function that the model may call.

    Raises:
        InvalidRequest: The service rejects its name.
    """
    from llmbridge._schemas.subsets import tool_form

    if not (name[0].isalpha() or name[0] == "_"):
        raise InvalidRequest(f"tool {name}: Gemini needs a name that starts with a letter or an underscore: rename it")
    described, schema = tool_form(name, description, parameters)
    return {"name": name, **described, "parametersJsonSchema": encode_schema(schema)}


@remembered
def encode_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema in the service's form.

    Source: the service's error "items: missing field" for arrays without them; `with_lone_references` for references.
    """
    from llmbridge._schemas.subsets import object_form, with_items, with_lone_references

    return with_lone_references(with_items(object_form(schema)))


def encode_choice(choice: ToolChoice) -> dict[str, Any]:
    """Whether the model may, must or must not call a function."""
    if choice.raw is not None:
        raw = dict(choice.raw)
        return {"functionCallingConfig": raw} if "mode" in raw else raw
    if choice.mode == "tool":
        return {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [choice.name]}}
    return {"functionCallingConfig": {"mode": _MODES[choice.mode]}}


def encode_params(params: Mapping[str, Any], model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The generation configuration, and the fields beside it.

    The service's own names win over llmbridge's, and `generationConfig` wins over both.

    Raises:
        InvalidRequest: A value cannot be translated.
    """
    config: dict[str, Any] = {}
    own: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    for name, value in params.items():
        if name in _CONFIG:
            config[_CONFIG[name]] = [value] if name == "stop" and isinstance(value, str) else value
        elif name == "logprobs":
            config.update({"responseLogprobs": value} if isinstance(value, bool) else {"logprobs": value})
        elif name == "reasoning_effort":
            if value is not None:
                config["thinkingConfig"] = _thinking(value, model)
        elif name == "response_format":
            config.update(_response_format(value))
        elif name in _OWN_CONFIG_NAMES:
            own[_OWN_CONFIG_NAMES[name]] = value
        else:
            fields[_OWN_FIELD_NAMES.get(name, name)] = value
    given = fields.pop("generationConfig", None)
    if given is not None and not isinstance(given, Mapping):
        raise InvalidRequest("generationConfig must be a mapping")
    return {**config, **own, **(given or {})}, fields


def _thinking(effort: Any, model: str) -> dict[str, Any]:
    if isinstance(effort, int) and not isinstance(effort, bool):
        return {"thinkingBudget": effort, **({"includeThoughts": True} if effort else {})}
    if not isinstance(effort, str) or effort not in _BUDGETS:
        raise InvalidRequest(
            f"reasoning_effort must be a number of tokens or one of {', '.join(_BUDGETS)}, not {str(effort)[:40]!r}"
        )
    if effort == "none":
        return {"thinkingBudget": 0}
    if is_gemini_3(model):
        level = _LEVELS[effort]
        if level == "MINIMAL" and _NOT_MINIMAL.search(model):
            level = "LOW"
        elif level == "XHIGH" and _NOT_ABOVE_HIGH.search(model):
            level = "HIGH"
        return {"thinkingLevel": level, "includeThoughts": True}
    return {"thinkingBudget": _BUDGETS[effort], "includeThoughts": True}


def _response_format(form: Any) -> dict[str, Any]:
    kind = form.get("type") if isinstance(form, Mapping) else None
    if form is None or kind == "text":
        return {}
    if kind == "json_object":
        return {"responseMimeType": "application/json"}
    inner = form.get("json_schema") if isinstance(form, Mapping) else None
    if kind == "json_schema" and isinstance(inner, Mapping) and isinstance(inner.get("schema"), Mapping):
        return {"responseMimeType": "application/json", "responseJsonSchema": inner["schema"]}
    raise InvalidRequest(
        "response_format must be {'type': 'json_object'}, {'type': 'text'} or "
        "{'type': 'json_schema', 'json_schema': {'schema': {...}}}"
    )
