"""The parts of Gemini's answers, in order, and the sources of the answer.

Source: Gemini API reference, Part, GroundingMetadata, CitationMetadata and UrlContextMetadata; its guides on thought
signatures, code execution and grounding; google-genai, which takes both spellings of every name.
"""

from __future__ import annotations

import json
import re
from binascii import Error as BinasciiError
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmbridge._text import shown
from llmbridge.errors import ProtocolError
from llmbridge.events import (
    Citation,
    CitationInBytes,
    EndOfPart,
    Item,
    Media,
    MediaDelta,
    Other,
    Reasoning,
    ServerTool,
    ToolCallDelta,
)
from llmbridge.providers._values import count, mapping, string

__all__ = ["CITING", "Parts", "beside_citations", "dumped", "in_camel_case", "media_kind"]

CITING = ("groundingMetadata", "citationMetadata", "urlContextMetadata")
"""The fields of a candidate that hold sources."""

_OF_TEXT = frozenset(("text", "thought", "thoughtSignature"))
_OF_CALL = frozenset(("id", "name", "args"))
_RAW_SOUND = ("audio/l16", "audio/pcm")  # no header: pieces can be joined
_SNAKE = re.compile("_([a-z])")


def in_camel_case(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields with their names in camelCase, as in the reference.

    Example:
        >>> in_camel_case({"inline_data": 1, "text": 2})
        {'inlineData': 1, 'text': 2}
    """
    if "_" not in "".join(fields):
        return fields
    return {_SNAKE.sub(lambda found: found[1].upper(), name): value for name, value in fields.items()}


class Parts:
    """Reads the parts of one candidate of an answer.

    Attributes:
        said: How many of them had content.
        texts: How many pieces of text came.
        calls: How many calls.
        unread: The first thing of an unknown form, or None.
    """

    __slots__ = ("_chunks", "_cut", "_media", "_sound", "_tools", "calls", "said", "texts", "unread")

    def __init__(self) -> None:
        self.said = 0
        self.texts = 0
        self.calls = 0
        self.unread: Any = None
        self._cut = 0  # `said` after the last part that is not plain text
        self._tools: dict[str, ServerTool] = {}
        self._sound = ""
        self._media = 0
        self._chunks: list[Any] = []

    def check(self) -> None:
        """Raises if a part of the answer could not be read.

        Raises:
            ProtocolError: A part has an unknown form.
        """
        if self.unread is not None:
            raise ProtocolError(f"the service's content is not in Gemini's form: {shown(self.unread)}")

    def read(self, content: Any) -> Iterator[Item]:
        """The content of a candidate.

        Raises:
            ProtocolError: A call does not name its function.
        """
        for part in self._parts_of(content):
            if isinstance(part, str):
                part = {"text": part}
            if isinstance(part, Mapping):
                for item in self._part(part):
                    if item.__class__ is not EndOfPart:
                        self.said += 1
                    self.texts += isinstance(item, str)
                    self.calls += isinstance(item, ToolCallDelta)
                    if not isinstance(item, str):
                        self._cut = self.said
                    yield item
            elif part is not None and self.unread is None:
                self.unread = part
        if isinstance(content, Mapping):
            for name, value in content.items():
                if name not in ("parts", "role", "content", "text") and value is not None:
                    yield Other(name, {name: value})

    def may_repeat(self, content: Any) -> bool:
        """Whether a content may repeat everything so far, which came in two or more pieces (two equal pieces may be
        real)."""
        parts = [in_camel_case(mapping(part)) for part in self._parts_of(content)]
        again = any(part.get("text") for part in parts) and (
            not self.calls or any(part.get("functionCall") for part in parts)
        )
        return again and self.texts > 0 and self.texts + self.calls > 1

    @staticmethod
    def _parts_of(content: Any) -> list[Any]:
        """The list of parts, which imitations may send as one part or as text."""
        if isinstance(content, Mapping):
            inner = content.get("parts", content.get("content"))
            content = [content] if inner is None and "text" in content else inner
        return content if isinstance(content, list) else [] if content is None else [content]

    def _part(self, part: Mapping[str, Any]) -> Iterator[Item]:
        """Text, a thought, or one of `_KINDS`, with the service's signature."""
        fields = in_camel_case(part)
        kind = next((name for name in fields if name in _KINDS and fields[name] is not None), None)
        text = fields.get("text")
        if text is not None and not isinstance(text, str):
            self.unread = part if self.unread is None else self.unread
        elif kind is None and (others := [name for name in fields if name not in _OF_TEXT]) and not text:
            yield Other(others[0], part, in_turn=True)
        elif kind is None:
            yield from self._text(part, fields, bool(others))
        else:
            if text:
                yield text
            inner = fields[kind]
            if isinstance(inner, Mapping):
                yield from _KINDS[kind](self, part, fields, in_camel_case(inner))
            elif self.unread is None:
                self.unread = part

    def _text(self, part: Mapping[str, Any], fields: Mapping[str, Any], more: bool) -> Iterator[Item]:
        text, signature = string(fields.get("text")), string(fields.get("thoughtSignature")) or None
        if fields.get("thought"):
            if text or signature:
                yield Reasoning(text, signature, None, {**part, "text": ""} if more else None)
        elif more or signature:
            if text and self.said > self._cut:
                yield EndOfPart()  # signed and unsigned texts must not be joined
            if text:
                yield text
            if more:
                yield EndOfPart({**part, "text": ""})
                for name in fields.keys() - _OF_TEXT:
                    yield Other(name, {name: fields[name]})
            else:  # a signature would count as that of the thoughts before it
                yield Reasoning("", None, signature, part if self.said and not text else None)
        elif text:
            yield text

    def _call(self, part: Mapping[str, Any], fields: Mapping[str, Any], call: Mapping[str, Any]) -> Iterator[Item]:
        """A whole call. Its id may be missing; an empty call only ends the calls."""
        if not call:
            return
        name, arguments = string(call.get("name")), call.get("args")
        if "partialArgs" in call:
            raise ProtocolError("arguments in pieces are not supported: leave streamFunctionCallArguments out")
        if not name:
            raise ProtocolError("a function call in the answer has no name")
        text = arguments if isinstance(arguments, str) else dumped({} if arguments is None else arguments)
        kept = {key: value for key, value in call.items() if key not in _OF_CALL}
        more = kept or fields.keys() - _OF_TEXT - {"functionCall"}
        raw = {**fields, "functionCall": kept} if more else None
        signature = string(fields.get("thoughtSignature")) or None
        yield ToolCallDelta(None, string(call.get("id")) or None, name, text, signature, whole=True, raw=raw)

    def _data(self, part: Mapping[str, Any], fields: Mapping[str, Any], blob: Mapping[str, Any]) -> Iterator[Item]:
        """An image, sound or file. The part is sent back without its data, which the message holds anyway."""
        data, mime = string(blob.get("data")), string(blob.get("mimeType"))
        if not data:
            yield Other("inlineData", part, in_turn=True)
            return
        kind = media_kind(mime or _type_of(data))
        goes_on = mime.lower().startswith(_RAW_SOUND) and mime == self._sound and self._cut == self.said
        self._media += not goes_on
        self._sound = mime
        key = "inlineData" if "inlineData" in part else "inline_data"
        raw = {**part, key: {**part[key], "data": ""}}
        yield MediaDelta(kind, mime, data, "", f"{kind}-{self._media}", raw)

    def _file(self, part: Mapping[str, Any], fields: Mapping[str, Any], file: Mapping[str, Any]) -> Iterator[Item]:
        from llmbridge.parts import media_type_of

        mime, url = string(file.get("mimeType")), string(file.get("fileUri"))
        if url:
            yield Media(media_kind(mime or media_type_of(b"", url)), mime, url=url, raw=part)
        else:
            yield Other("fileData", part, in_turn=True)

    def _tool(self, part: Mapping[str, Any], fields: Mapping[str, Any], call: Mapping[str, Any]) -> Iterator[Item]:
        """A call of the service's own tool: code that it runs, or the `toolType`."""
        code = "executableCode" in fields
        name = "code_execution" if code else string(call.get("toolType"))
        arguments = {key: call[key] for key in call if key != "id"} if code else mapping(call.get("args"))
        id = string(call.get("id")) or f"{name}-{len(self._tools) + 1}"
        made = self._tools[id] = ServerTool(id, name, arguments, None, part)
        yield made

    def _result(self, part: Mapping[str, Any], fields: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[Item]:
        """The result of such a call: of the last one if it names none."""
        code = "codeExecutionResult" in fields
        name = "code_execution" if code else string(result.get("toolType"))
        last = next((id for id, tool in reversed(self._tools.items()) if tool.name == name), f"{name}-1")
        id = string(result.get("id")) or last
        given = {key: result[key] for key in result if key != "id"} if code else result.get("response")
        called = self._tools.get(id)
        yield ServerTool(id, called.name if called else name, called.arguments if called else {}, given, part)

    def citations(self, fields: Mapping[str, Any]) -> Iterator[Item]:
        """A candidate's sources, including pages that were only read."""
        grounding = in_camel_case(mapping(fields.get("groundingMetadata")))
        self._chunks = _list(grounding.get("groundingChunks")) or self._chunks
        if grounding:
            yield from _grounded(self._chunks, _list(grounding.get("groundingSupports")))
        cited = in_camel_case(mapping(fields.get("citationMetadata")))
        for entry in [*_list(cited.get("citationSources")), *_list(cited.get("citations"))]:
            source = in_camel_case(mapping(entry))
            start, end = count(source.get("startIndex")), count(source.get("endIndex"))
            url, title = string(source.get("uri")) or None, string(source.get("title")) or None
            yield CitationInBytes(Citation(url, None, title, None, start, end, mapping(entry)))
        read = in_camel_case(mapping(fields.get("urlContextMetadata")))
        for entry in _list(read.get("urlMetadata")):
            page = in_camel_case(mapping(entry))
            if (url := string(page.get("retrievedUrl"))) and "ERROR" not in string(page.get("urlRetrievalStatus")):
                yield Citation(url, raw=mapping(entry))


_Kind = Callable[[Parts, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], Iterator[Item]]
_KINDS: dict[str, _Kind] = {
    "functionCall": Parts._call,
    "inlineData": Parts._data,
    "fileData": Parts._file,
    "executableCode": Parts._tool,
    "codeExecutionResult": Parts._result,
    "toolCall": Parts._tool,
    "toolResponse": Parts._result,
}


def beside_citations(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The other content of the fields with sources: search queries, pages that could not be read.

    Example:
        >>> beside_citations({"groundingMetadata": {"groundingChunks": [], "webSearchQueries": ["bridges"]}})
        {'groundingMetadata': {'webSearchQueries': ['bridges']}}
    """
    cited = ("groundingChunks", "groundingSupports", "citationSources", "citations")
    rest: dict[str, Any] = {}
    for name in CITING:
        given = in_camel_case(mapping(fields.get(name)))
        if name == "urlContextMetadata" and "ERROR" not in repr(given):
            given = {key: value for key, value in given.items() if key != "urlMetadata"}
        if left := {key: value for key, value in given.items() if key not in cited}:
            rest[name] = left
    return rest


def _grounded(chunks: list[Any], supports: list[Any]) -> Iterator[Item]:
    """Each source with each place that it supports, or once without a place."""
    used = set()
    for support in supports:
        fields = in_camel_case(mapping(support))
        segment = in_camel_case(mapping(fields.get("segment")))
        start, end = count(segment.get("startIndex")), count(segment.get("endIndex"))
        for number in _list(fields.get("groundingChunkIndices")):
            if count(number) is not None and number < len(chunks):
                used.add(number)
                raw = {"groundingChunks": [chunks[number]], "groundingSupports": [support]}
                yield CitationInBytes(_source(chunks[number], raw, start, end), string(segment.get("text")))
    for number, chunk in enumerate(chunks):
        if number not in used:
            yield _source(chunk, {"groundingChunks": [chunk]})


def _source(chunk: Any, raw: Mapping[str, Any], start: int | None = None, end: int | None = None) -> Citation:
    """A chunk as a citation; its one field shows if it is a page, a place on the map, an image or a document."""
    kinds = in_camel_case(mapping(chunk))
    fields = in_camel_case(next((inner for inner in kinds.values() if isinstance(inner, Mapping)), {}))
    url = string(fields.get("uri")) or string(fields.get("sourceUri")) or None
    title = string(fields.get("title")) or None
    if "retrievedContext" not in kinds:
        return Citation(url, None, title, None, start, end, raw)
    document = string(fields.get("documentName")) or (None if url else title)
    words = string(fields.get("text")) or string(mapping(fields.get("ragChunk")).get("text"))
    return Citation(url, document, title, words or None, start, end, raw)


def media_kind(mime: str) -> str:
    """The kind of a media type.

    Example:
        >>> media_kind("audio/wav"), media_kind("application/pdf")
        ('audio', 'document')
    """
    kind = mime.partition("/")[0].lower()
    return kind if kind in ("image", "audio", "video") else "document"


def _type_of(data: str) -> str:
    """The media type shown by the first bytes."""
    from base64 import b64decode

    from llmbridge.parts import media_type_of

    try:
        return media_type_of(b64decode(data[:64]))
    except BinasciiError:
        return ""  # an error is raised when the whole is decoded


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def dumped(value: Any) -> str:
    """JSON text that UTF-8 can carry: lone surrogates stay escaped.

    Raises:
        ProtocolError: It is nested too deeply.
    """
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    except (RecursionError, ValueError):
        raise ProtocolError("the service sent JSON that is nested too deeply") from None
    return text
