"""What a request to Gemini must look like, with the words in which the service says that it does not."""

from __future__ import annotations

import re
from typing import Any

from .base import Refused

__all__ = ["check", "check_embedding", "check_embeddings", "dimensions"]

_ROLES = ("user", "model", "function")
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_DATA = {
    "text": str,
    "inlineData": dict,
    "fileData": dict,
    "functionCall": dict,
    "functionResponse": dict,
    "executableCode": dict,
    "codeExecutionResult": dict,
}
_BESIDES = {"thought", "thoughtSignature", "videoMetadata", "mediaResolution", "partMetadata"}


def check(request: dict[str, Any]) -> None:
    """Refuses a request without contents, or with contents or tools of a wrong shape."""
    contents = request.get("contents")
    if not isinstance(contents, list) or not contents:
        raise Refused(400, "* GenerateContentRequest.contents: contents is not specified\n")
    for index, content in enumerate(contents):
        _check_content(content, f"contents[{index}]")
    if request.get("systemInstruction") is not None:
        _check_content(request["systemInstruction"], "system_instruction", roles=(*_ROLES, "system"))
    _check_results(contents)
    tools = request.get("tools") or []
    for index, tool in enumerate(tools if isinstance(tools, list) else [tools]):
        _check_tool(tool, f"tools[{index}]")


def check_embedding(request: dict[str, Any]) -> None:
    """Refuses a request for one embedding that has nothing to embed."""
    if not isinstance(request.get("content"), dict):
        raise Refused(400, "* EmbedContentRequest.content: contents is not specified\n")
    _check_content(request["content"], "content")


def check_embeddings(request: dict[str, Any]) -> None:
    """Refuses a request for several embeddings that has none, or one of a wrong shape."""
    requests = request.get("requests")
    if not isinstance(requests, list) or not requests:
        raise Refused(400, "* BatchEmbedContentsRequest.requests: at least one request is required\n")
    for index, one in enumerate(requests):
        if not isinstance(one, dict) or not isinstance(one.get("model"), str):
            raise Refused(400, f"* BatchEmbedContentsRequest.requests[{index}].model: model is not specified\n")
        check_embedding(one)


def dimensions(request: dict[str, Any]) -> Any:
    """How many numbers one request for an embedding wants: in the newer place, or the older one."""
    config = request.get("embedContentConfig")
    inner = config.get("outputDimensionality") if isinstance(config, dict) else None
    return request.get("outputDimensionality") if inner is None else inner


def _check_content(content: Any, where: str, roles: tuple[str, ...] = _ROLES) -> None:
    if not isinstance(content, dict):
        raise Refused(400, f"Invalid value at '{where}' (type.googleapis.com/google.ai.generativelanguage.Content)")
    if content.get("role", "user") not in roles:
        raise Refused(400, "Please use a valid role: user, model.")
    parts = content.get("parts")
    if not isinstance(parts, list) or not parts:
        raise Refused(400, f"* GenerateContentRequest.{where}.parts: contents.parts must not be empty.\n")
    for index, part in enumerate(parts):
        _check_part(part, f"{where}.parts[{index}]")


def _check_part(part: Any, where: str) -> None:
    if not isinstance(part, dict):
        raise Refused(400, f"Invalid value at '{where}' (type.googleapis.com/google.ai.generativelanguage.Part)")
    for name in part:
        if name not in _DATA and name not in _BESIDES:
            text = f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field."
            raise Refused(400, text)
    given = [name for name in _DATA if name in part]
    if len(given) != 1 or not isinstance(part[given[0]], _DATA[given[0]]):
        raise Refused(400, f"* GenerateContentRequest.{where}.data: required oneof field 'data' must have one field\n")
    kind = given[0]
    if kind in ("functionCall", "functionResponse") and not isinstance(part[kind].get("name"), str):
        raise Refused(400, f"* GenerateContentRequest.{where}.{kind}.name: Name cannot be empty.\n")
    if kind == "functionResponse" and not isinstance(part[kind].get("response"), dict):
        raise Refused(400, f"Invalid value at '{where}.function_response.response' (google.protobuf.Struct)")
    if kind == "inlineData" and not all(isinstance(part[kind].get(name), str) for name in ("mimeType", "data")):
        raise Refused(400, f"* GenerateContentRequest.{where}.inline_data: mimeType and data are required\n")


def _check_results(contents: list[dict[str, Any]]) -> None:
    """Calls are answered by as many responses in the next turn, and nothing else is a response."""
    waiting = 0
    for content in contents:
        answered = sum("functionResponse" in part for part in content["parts"])
        if answered != waiting:
            text = "Please ensure that the number of function response parts is equal to the number of function "
            raise Refused(400, f"{text}call parts of the function call turn.")
        waiting = sum("functionCall" in part for part in content["parts"])


def _check_tool(tool: Any, where: str) -> None:
    declared = tool.get("functionDeclarations") if isinstance(tool, dict) else None
    if declared is None and isinstance(tool, dict) and tool:
        return  # a tool of the service's own, such as its search
    if not isinstance(declared, list) or not declared:
        raise Refused(400, f"* GenerateContentRequest.{where}.tool_type: required one_of 'tool_type' must have one\n")
    for index, one in enumerate(declared):
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            at = f"GenerateContentRequest.{where}.function_declarations[{index}].name"
            raise Refused(400, f"* {at}: Invalid function name. Must start with a letter or an underscore.\n")
