"""llmbridge's objects as MIME bundles of Markdown and plain text, as notebooks ask for them.

This module uses their attributes and does not import their classes, since their modules import it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmbridge._text import shortened
from llmbridge.notebook.markdown import code, fenced, literal, small, text_of

if TYPE_CHECKING:
    from llmbridge._call.question import Embeddings
    from llmbridge._tool_call import ToolCall
    from llmbridge.completion import Completion
    from llmbridge.conversations import Conversation
    from llmbridge.errors import LLMBridgeError, Partial
    from llmbridge.events import Citation, Media, ServerTool, ToolResult, Usage
    from llmbridge.many.totals import Totals
    from llmbridge.messages import Message
    from llmbridge.stream import ChatStream

__all__ = [
    "answer", "of_call", "of_completion", "of_conversation", "of_embeddings", "of_error", "of_media", "of_message",
    "of_partial", "of_result", "of_stream", "of_totals", "of_usage", "seconds", "status",
]  # fmt: skip

Bundle = dict[str, Any]

_MOST_OF_RESULT = 2000  # characters of a tool's result
_MOST_OF_QUOTE = 200
_IMAGES = ("data:image/png;base64,", "data:image/jpeg;base64,", "data:image/gif;base64,", "data:image/webp;base64,")
_COUNTS = {
    "input_tokens": "input", "cached_input_tokens": "input from a cache", "cache_write_tokens": "input into a cache",
    "output_tokens": "output", "reasoning_tokens": "output for reasoning", "total_tokens": "total",
}  # fmt: skip


def _bundle(value: object, *parts: str) -> Bundle:
    return {"text/plain": repr(value), "text/markdown": "\n\n".join(part for part in parts if part)}


def of_completion(answered: Completion[Any]) -> Bundle:
    """The answer with what came beside it, and a line that says what it took."""
    turns = answered.turns or (answered.message,)
    shown = answer(turns, answered.citations, answered.server_tools)
    tokens = answered.usage.total_tokens if answered.usage else None
    model = f"{answered.provider}:{answered.model}" if answered.provider else answered.model
    said = status(model, tokens, answered.total_seconds, answered.finish_reason)
    return _bundle(answered, shown or literal(answered.text), said)


def of_stream(stream: ChatStream[Any], state: str = "", images: bool = True) -> Bundle:
    """What came of an answer so far.

    Args:
        stream: In any state.
        state: For the last line; by default the stream's own state.
        images: False mentions images instead of embedding them.
    """
    partial = stream.partial
    begun = partial.message is not None or partial.turns
    turns = (*partial.turns, *([partial.message] if partial.message is not None else ()))
    shown = answer(turns, partial.citations, partial.server_tools, images, thinking=not partial) if begun else ""
    tokens = partial.usage.total_tokens if partial.usage else None
    return _bundle(stream, shown, status(f"{stream.provider}:{stream.model}", tokens, None, state or stream._state))


def of_partial(partial: Partial) -> Bundle:
    """The text of an answer that broke off, with what else had come."""
    turns = (*partial.turns, *([partial.message] if partial.message is not None else ()))
    shown = answer(turns, partial.citations, partial.server_tools) or literal(partial)
    return _bundle(partial, shown, small("broken off"))


def of_message(message: Message) -> Bundle:
    """The role and the parts."""
    return _bundle(message, f"**{message.role}**", _turn(message))


def of_conversation(talk: Conversation[Any]) -> Bundle:
    """The whole conversation, the user's words as quotes, and what it took together."""
    shown = []
    for message in talk.messages:
        said = _turn(message, images=message.role == "assistant")
        if message.role == "user":
            said = "\n".join(f"> {line}" for line in said.split("\n"))
        shown.append(said)
    tokens = talk.usage.total_tokens if talk.usage else None
    words = [repr(talk).strip("<>").removeprefix("Conversation "), _tokens(tokens)]
    return _bundle(talk, *shown, small(" · ".join(word for word in words if word)))


def of_usage(usage: Usage) -> Bundle:
    """A table of the counts that are known."""
    rows = [(name, getattr(usage, field)) for field, name in _COUNTS.items()]
    lines = ["| tokens | |", "|---|--:|", *(f"| {name} | {count:,} |" for name, count in rows if count is not None)]
    return _bundle(usage, "\n".join(lines))


def of_totals(totals: Totals) -> Bundle:
    """A table of what a run of `map` has done."""
    rows: list[tuple[str, object]] = [
        ("answered", f"{totals.done:,}"),
        ("of these, from the journal", f"{totals.resumed:,}" if totals.resumed else ""),
        *((f"failed: {name}", f"{count:,}") for name, count in totals.errors.items()),
        ("requests", f"{totals.requests:,}"),
        ("refused requests", f"{totals.refused:,}" if totals.refused else ""),
        ("input tokens", f"{totals.input_tokens:,}"),
        ("output tokens", f"{totals.output_tokens:,}"),
        ("tokens of failed attempts", f"{totals.wasted_tokens:,}" if totals.wasted_tokens else ""),
        ("time", f"{totals.seconds:.1f} s, {totals.rate:.1f} rows/s"),
    ]
    lines = ["| rows | |", "|---|--:|", *(f"| {text_of(name)} | {shown} |" for name, shown in rows if shown)]
    return {"text/plain": str(totals), "text/markdown": "\n".join(lines)}


def of_call(call: ToolCall) -> Bundle:
    """The call as it would be written."""
    return _bundle(call, _call(call.name, call.arguments), text_of(call.problem or ""))


def of_result(result: ToolResult) -> Bundle:
    """The call, and what came of it."""
    return _bundle(result, _call(result.call.name, result.call.arguments), _result(result.text, result.failed))


def of_embeddings(vectors: Embeddings) -> Bundle:
    """How many there are, and how long."""
    length = len(vectors.vectors[0]) if vectors.vectors else 0
    words = f"**{len(vectors):,} vector{'' if len(vectors) == 1 else 's'}** of {length:,} numbers"
    tokens = vectors.usage.total_tokens if vectors.usage else None
    return _bundle(vectors, words, status(f"{vectors.provider}:{vectors.model}", tokens))


def of_media(media: Media) -> Bundle:
    """The image, or what it is."""
    return _bundle(media, _part(media.to_part(), images=True))


def of_error(error: LLMBridgeError) -> Bundle:
    """What went wrong, and what had come before."""
    name = f"**{type(error).__name__}**: {text_of(error.message)}"
    others = [f"- **{type(one).__name__}**: {text_of(one.message)}" for one in getattr(error, "errors", ())]
    return _bundle(error, name, "\n".join(others), literal(error.partial))


# -- the parts of it --------------------------------------------------------------------------------------------------


def answer(
    turns: Iterable[Message],
    citations: Sequence[Citation],
    server_tools: Sequence[ServerTool],
    images: bool = True,
    thinking: bool = False,
) -> str:
    """The turns of an answer in their order, calls of tools and their results included.

    Args:
        turns: All messages; the last one may still be growing.
        citations, server_tools: Those of the last turn.
        images: False mentions images instead of embedding them.
        thinking: Unfolds the reasoning of the last turn, as long as there is nothing else.
    """
    said = [*turns]
    shown = [_turn(turn, images) for turn in said[:-1]]
    shown += [_call(tool.name, tool.arguments) for tool in server_tools]
    shown += [_turn(turn, images, thinking) for turn in said[-1:]]
    return "\n\n".join(part for part in [*shown, _sources(citations)] if part)


def status(model: str, tokens: int | None = None, took: float | None = None, ended: str | None = None) -> str:
    """The grey line: model, tokens, seconds, how it ended."""
    words = (model, _tokens(tokens), seconds(took), ended)
    return small(" · ".join(word for word in words if word))


def seconds(took: float | None) -> str:
    """A time in words; "" for None."""
    return "" if took is None else f"{took:.1f} s"


def _tokens(count: int | None) -> str:
    return "" if count is None else f"{count:,} token{'' if count == 1 else 's'}"


def _turn(message: Message, images: bool = True, thinking: bool = False) -> str:
    if message.role == "tool":
        text = "".join(str(part["text"]) for part in message.parts if part["type"] == "text")
        parts = [_result(text, bool(message.extra.get("is_error")))]
        parts += [_part(part, images) for part in message.parts if part["type"] != "text"]
    else:
        parts = [_part(part, images, thinking) for part in message.parts]
    return "\n\n".join(part for part in parts if part)


def _part(part: Mapping[str, Any], images: bool, thinking: bool = False) -> str:
    kind = part["type"]
    if kind in ("text", "input_text", "output_text"):
        text = str(part.get("text") or "")
        return fenced(text, "json") if text.startswith("{") else literal(text)
    if kind == "reasoning":
        return _reasoning(str(part.get("text") or ""), thinking)
    if kind == "tool_call":
        return _call(str(part.get("name") or ""), part.get("arguments"))
    if kind == "image_url":
        return _image(str(_within(part, "image_url").get("url") or ""), images)
    if kind == "input_audio":
        return f"{small('sound')}\n\n{literal(str(part.get('transcript') or ''))}"
    if kind == "file":
        return small(f"file {shortened(str(_within(part, 'file').get('filename') or ''), 60)}")
    return ""  # what only the service understands


def _within(part: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = part.get(name)
    return inner if isinstance(inner, Mapping) else {}


def _reasoning(text: str, unfolded: bool) -> str:
    if not text.strip():
        return ""
    return (
        f"<details{' open' if unfolded else ''}><summary>Reasoning, {len(text):,} characters</summary>\n\n"
        f"{literal(text)}\n\n</details>"
    )


def _call(name: str, arguments: Any) -> str:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):  # cut off, or plain text
            return fenced(f"{name}({arguments})", "python")
    given = arguments.items() if isinstance(arguments, Mapping) else ()
    return fenced(f"{name}({', '.join(f'{key}={value!r}' for key, value in given)})", "python")


def _result(text: str, failed: bool) -> str:
    mark = "✗ " if failed else ""
    return fenced(f"{mark}{shortened(text, _MOST_OF_RESULT)}", "text")


def _image(url: str, images: bool) -> str:
    if not (url.startswith(_IMAGES) or url.startswith("https://")) or any(c in url for c in "()<> \n"):
        return small("image")
    if not images:
        return small(f"image, {len(url) * 3 // 4000:,} kB" if url.startswith("data:") else "image")
    return f"![image]({url})"


def _sources(citations: Sequence[Citation]) -> str:
    lines = []
    for number, cited in enumerate(citations, 1):
        name = text_of(shortened(cited.title or cited.document or cited.url or "a source", 100))
        url = cited.url or ""
        safe = url.startswith(("https://", "http://")) and not any(c in url for c in "()<> \n\\`")
        quote = f": {text_of(shortened(cited.quote, _MOST_OF_QUOTE))}" if cited.quote else ""
        source = f"[{name}]({url})" if safe else f"{name} {code(url)}" if url else name
        lines.append(f"{number}. {source}{quote}")
    return "\n".join(lines)
