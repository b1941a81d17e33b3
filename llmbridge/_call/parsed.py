"""The value that a whole answer is by the `schema` that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmbridge.errors import InvalidOutput

if TYPE_CHECKING:
    from llmbridge._call.notes import Notes
    from llmbridge.events import ToolCall
    from llmbridge.schema import Schema
    from llmbridge.tools import Tool

__all__ = ["parsed_answer"]


def parsed_answer(schema: Schema, notes: Notes, tools: Sequence[Tool], provider: str, model: str) -> Any:
    """The value parsed from a turn's text by a schema; None if the turn calls tools instead of answering.

    Raises:
        InvalidOutput: It does not match, or calls only tools that were not offered. The message says if the answer was
            cut off or refused.
    """
    try:
        if notes.tool_calls and not notes.turn_text.strip():
            if any(_may_be_called(call, tools) for call in notes.tool_calls):
                return None
            raise _unknown_tool(notes.tool_calls[0], tools)
        return schema.parse(notes.turn_text)
    except InvalidOutput as error:
        error.provider, error.model, error.partial = provider, model, notes.partial()
        reason = notes.finish.reason if notes.finish else None
        if notes.refusal:
            error.message = "the model refused to answer"
        elif reason == "length":
            error.message += " (the answer was cut off at the token limit: raise max_tokens)"
        elif reason == "content_filter":
            error.message += " (the service's content policy cut the answer off)"
        error.args = (error.message,)
        raise


def _may_be_called(call: ToolCall, tools: Sequence[Tool]) -> bool:
    """Whether a call may be answered. Tools defined by the service have names and kinds of their own."""
    named = any(tool.name == call.name or tool.raw is not None for tool in tools)
    return named or call.kind not in ("function", "custom")


def _unknown_tool(call: ToolCall, tools: Sequence[Tool]) -> InvalidOutput:
    known = ", ".join(tool.name for tool in tools)
    problem = f"(root): expected an answer, got a call of the unknown tool {call.name!r}"
    problem += f"; known tools are {known}" if known else ""
    return InvalidOutput(f"the answer does not fit the schema: {problem}", problems=[problem])
