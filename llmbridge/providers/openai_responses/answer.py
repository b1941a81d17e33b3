"""The answers of the Responses API, as events or as one document.

Most services send everything in pieces and repeat it at the end; some send a part, or all, only then. So the content at
the end of a part, an item and the answer is compared with what came before.

Source: OpenAI API reference, responses, "Streaming events"; the streams of OpenAI, transformers, llama.cpp and vLLM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmbridge.errors import ProtocolError
from llmbridge.events import (
    END,
    End,
    Finish,
    FinishReason,
    Item,
    Logprobs,
    MediaDelta,
    Other,
    Reasoning,
    Refusal,
    ToolCallDelta,
    Usage,
)
from llmbridge.provider import parsed_json, scan_json
from llmbridge.providers._values import count, finish_of, is_report, mapping, string
from llmbridge.providers.openai_responses.items import (
    INPUTS,
    call_input,
    call_kind,
    call_name,
    call_raw,
    cited,
    end_of_message,
    kept,
    message_parts,
    part_text,
    read_text,
    server_tool,
    thought_texts,
    tool_items,
    unknown_keys,
    whole_text,
)
from llmbridge.providers.openai_responses.so_far import Calls, TextSoFar, missing, name_of
from llmbridge.service_errors import error_in_stream

if TYPE_CHECKING:
    from llmbridge.provider import Frame

__all__ = ["ResponseDecoder", "decode_event", "decode_response"]

_PIECES: Mapping[str, type[str] | type[Refusal] | type[Reasoning]] = {
    "response.output_text.delta": str,
    "response.refusal.delta": Refusal,
    "response.reasoning_text.delta": Reasoning,
    "response.reasoning_summary_text.delta": Reasoning,
    "response.reasoning.delta": Reasoning,
    "response.reasoning_summary.delta": Reasoning,
}
_WHOLE_TEXTS = {f"{kind.removesuffix('delta')}done": made for kind, made in _PIECES.items()}
_PARTS = ("response.content_part.done", "response.reasoning_summary_part.done")
_THOUGHT_PARTS = ("reasoning_text", "summary_text")
_INPUT_PIECES: Mapping[str, str] = {
    "response.function_call_arguments.delta": "function",
    "response.custom_tool_call_input.delta": "custom",
}
_INPUTS = {f"{kind.removesuffix('delta')}done": called for kind, called in _INPUT_PIECES.items()}
_TOOL_PIECES = ("response.code_interpreter_call_code.delta", "response.mcp_call_arguments.delta")
_SOUND: Mapping[str, str] = {
    "response.audio.delta": "data",
    "response.output_audio.delta": "data",
    "response.audio.transcript.delta": "transcript",
    "response.output_audio_transcript.delta": "transcript",
}
_BEGINNINGS = ("response.created", "response.in_progress", "response.queued")
# A stream ends with one of these events, which holds the whole response.
_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
# They only report progress, or repeat what the end of the item says.
_NOISE = frozenset(
    """
    response.content_part.added response.reasoning_summary_part.added
    response.audio.done response.audio.transcript.done
    response.output_audio.done response.output_audio_transcript.done
    response.web_search_call.in_progress response.web_search_call.searching response.web_search_call.completed
    response.file_search_call.in_progress response.file_search_call.searching response.file_search_call.completed
    response.code_interpreter_call.in_progress response.code_interpreter_call.interpreting
    response.code_interpreter_call.completed response.code_interpreter_call_code.done
    response.image_generation_call.in_progress response.image_generation_call.generating
    response.image_generation_call.completed
    response.mcp_call.in_progress response.mcp_call.completed response.mcp_call.failed response.mcp_call_arguments.done
    response.mcp_list_tools.in_progress response.mcp_list_tools.completed response.mcp_list_tools.failed
    response.shell_call_command.added response.shell_call_command.delta response.shell_call_command.done
    response.compaction.compacting
    """.split()  # noqa: SIM905 - a table of words
)
_ALIVE = ("ping", "heartbeat", "keep")
_KEYS = frozenset(
    """
    type sequence_number output_index item_id content_index summary_index command_index delta text refusal part item
    response annotation annotation_index arguments input name code logprobs obfuscation call_id status error event_id
    response_id
    """.split()  # noqa: SIM905 - a table of words
)
_REASONS: Mapping[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_NOT_OVER = ("queued", "in_progress")


def decode_event(frame: Frame) -> Iterable[Item | End]:
    """The content of one event, without the ones before; see `ResponseDecoder`."""
    return ResponseDecoder().decode(frame)


def decode_response(document: Any) -> Iterable[Item | End]:
    """The content of a whole answer; errors as for `ResponseDecoder`."""
    fields = mapping(document)
    output = _output(fields)
    if output is None and fields.get("status") not in _NOT_OVER:
        if any(fields.get(name) for name in ("error", "detail", "message")) or (
            isinstance(document, list) and document
        ):
            raise error_in_stream(document)
        raise ProtocolError("the service's JSON is not a response: check the base_url")
    return ResponseDecoder().document(fields, output or [])


class ResponseDecoder:
    """Reads the events of one answer.

    Raises:
        ServiceError: An event reports an error.
        ProtocolError: An event is not a JSON object, or the answer is not ready.

    Example:
        >>> from llmbridge._call.framing import Record
        >>> decode = ResponseDecoder().decode
        >>> for event in ('{"type": "response.output_text.delta", "delta": "Hel"}',
        ...               '{"type": "response.output_text.done", "text": "Hello"}'):
        ...     print(list(decode(Record(event))))
        ['Hel']
        ['lo']
    """

    def __init__(self) -> None:
        self._text, self._thought = TextSoFar(), TextSoFar()
        self._say = self._text.pieces.append
        self._usual = -1  # number of keys of a plain piece of text
        self._calls = Calls()
        self._code: dict[Any, list[str]] = {}
        self._begun: dict[tuple[str, Any], Mapping[str, Any]] = {}
        self._over: dict[tuple[str, Any], Mapping[str, Any]] = {}
        self._ended: list[Mapping[str, Any]] = []
        self._odd: list[tuple[int | None, Mapping[str, Any]]] = []  # unknown parts of the current message
        self._before = 0  # characters of finished messages
        self._stored = True
        self._proved = False

    def decode(self, frame: Frame) -> Iterable[Item | End]:
        """The content of one event."""
        data, end = frame.data, -1
        try:
            # The common event, recognized quickly: a piece of text.
            event, end = scan_json(data, 0)
            if (
                event["type"] == "response.output_text.delta"
                and not event.get("logprobs")
                and end == len(data)
                and len(event) == self._usual
            ):
                text = event["delta"]
                if text.__class__ is str and text:
                    self._say(text)
                    return (text,)
        except (StopIteration, RecursionError, ValueError, TypeError, LookupError, AttributeError):
            pass  # not the common case: fall through to the full decoder
        if end == len(data) and frame.event != "error":
            return self._read(event, frame.event)
        return self._read_frame(frame)

    def document(self, response: Mapping[str, Any], output: list[Any]) -> Iterator[Item | End]:
        """The content of a whole answer."""
        self._stored = response.get("store") is not False
        for place, item in enumerate(output):
            yield from self._whole(mapping(item), place)
        yield from self._end(response, string(response.get("status")))

    def _read_frame(self, frame: Frame) -> Iterator[Item | End]:
        """The content of any event."""
        if frame.data.startswith("[DONE]"):
            yield END  # from gateways; the service has a final event
            return
        if not frame.data.strip() and frame.event != "error":
            return
        if frame.event == "error":
            raise error_in_stream(_report(frame.data))
        yield from self._read(parsed_json(frame.data), frame.event)

    def _read(self, event: Any, name: str) -> Iterator[Item | End]:
        if not isinstance(event, Mapping):
            if isinstance(event, (list, str)) and event:
                raise error_in_stream(event)
            raise ProtocolError(f"expected a JSON object in a stream event, got {type(event).__name__}")
        kind = event.get("type") or (name if name.startswith("response.") else None)
        if kind == "error" or (event.get("error") and not event.get("response")):
            raise error_in_stream(_report(event))
        if isinstance(kind, str):
            yield from self._read_kind(kind, event)
        elif is_report(event):
            raise error_in_stream(dict(event))
        elif event:
            yield Other(next(iter(event)), event)

    def _read_kind(self, kind: str, event: Mapping[str, Any]) -> Iterator[Item | End]:
        if kind in _ENDS:
            yield from self._last(mapping(event.get("response")), kind.partition(".")[2])
            return
        if kind in _PIECES:
            yield from self._piece(_PIECES[kind], event)
        elif kind in _INPUT_PIECES:
            yield from self._piece_of_input(_INPUT_PIECES[kind], event)
        elif kind == "response.output_item.added":
            yield from self._begin(mapping(event.get("item")), event.get("output_index"))
        elif kind == "response.output_item.done":
            item, place = mapping(event.get("item")), event.get("output_index")
            if not self._is_over(item, place):
                yield from self._whole(item, place)
        elif kind in _WHOLE_TEXTS or kind in _PARTS:
            yield from self._end_of_text(kind, event)
        elif kind in _INPUTS:
            yield from self._end_of_input(_INPUTS[kind], event)
        elif kind == "response.reasoning_summary_part.added" and event.get("summary_index"):
            self._thought.separate(("before", *_key(event)), "\n\n")
            yield Reasoning("\n\n")
        elif kind in _BEGINNINGS:
            self._stored = mapping(event.get("response")).get("store") is not False
        else:
            yield from self._read_rare(kind, event)
            if kind not in _NOISE:
                return
        yield from unknown_keys(event, _KEYS)

    def _read_rare(self, kind: str, event: Mapping[str, Any]) -> Iterator[Item]:
        if kind == "response.output_text.annotation.added":
            yield cited(mapping(event.get("annotation")), self._before + self._text.before(_key(event)))
        elif kind in _SOUND:
            if delta := string(event.get("delta")):
                id = string(event.get("item_id")) or "audio"  # one sound: OpenAI's pieces have no ID
                said = _SOUND[kind] == "transcript"
                yield MediaDelta("audio", data="" if said else delta, transcript=delta if said else "", id=id)
        elif kind in _TOOL_PIECES:
            name = name_of(event.get("item_id")) or _index(event.get("output_index"))
            self._code.setdefault(name, []).append(string(event.get("delta")))
        elif kind not in _NOISE and not kind.startswith(_ALIVE):
            yield Other(kind, event)

    def _piece(self, made: type[str] | type[Refusal] | type[Reasoning], event: Mapping[str, Any]) -> Iterator[Item]:
        if delta := read_text(event.get("delta"), string(event.get("type"))):
            (self._thought if made is Reasoning else self._text).pieces.append(delta)
            yield made(delta)
        if made is str and "error" not in event and not any(unknown_keys(event, _KEYS)):
            self._usual = len(event)
        yield from _logprobs(event.get("logprobs"))

    def _end_of_text(self, kind: str, event: Mapping[str, Any]) -> Iterator[Item]:
        """What the end of a part adds to its pieces."""
        made, part = _WHOLE_TEXTS.get(kind), mapping(event.get("part"))
        if made is None:
            made, event = _made_of(part), {**event, **part}
        if made is None:
            self._odd.append((_index(event.get("content_index")), part))
            yield Other(string(part.get("type")), part)
            return
        field = "refusal" if made is Refusal else "text"
        told = self._thought if made is Reasoning else self._text
        whole = read_text(event.get(field), kind)
        if new := told.missing(_key(event), whole):
            yield made(new)
            if new == whole:
                yield from _logprobs(event.get("logprobs"))

    def _piece_of_input(self, kind: str, event: Mapping[str, Any]) -> Iterator[Item]:
        if delta := read_text(event.get("delta"), string(event.get("type"))):
            call = self._calls.of(_index(event.get("output_index")), event.get("item_id"))
            call.pieces.append(delta)
            yield ToolCallDelta(call.index, call.known_by, None, delta, kind=_marked(kind))

    def _end_of_input(self, kind: str, event: Mapping[str, Any]) -> Iterator[Item]:
        call = self._calls.find(_index(event.get("output_index")), event.get("item_id"))
        whole = event.get(INPUTS[kind])
        if call is not None and isinstance(whole, str) and (new := call.missing(whole)):
            yield ToolCallDelta(call.index, call.known_by, None, new, kind=_marked(kind))

    def _begin(self, item: Mapping[str, Any], place: Any) -> Iterator[Item]:
        kind = string(item.get("type"))
        called = call_kind(item)
        if called in INPUTS:
            call = self._calls.begin(item, _index(place))
            if call is not None:
                call.name, given = call_name(item), call_input(item)
                call.pieces += [given] * bool(given)
                yield ToolCallDelta(call.index, call.id, call.name, given, kind=_marked(called))
            return
        if kind in ("message", "reasoning"):
            (self._text if kind == "message" else self._thought).open += 1
            return
        self._begun[kind, name_of(item.get("id")) or _index(place)] = item
        if called is None and kind.endswith("_call") and kind != "image_generation_call":
            yield server_tool(item, {})

    # -- whole items ----------------------------------------------------------------------------------------------

    def _is_over(self, item: Mapping[str, Any], place: Any) -> bool:
        """Whether this end of an item has come before."""
        kind = string(item.get("type"))
        if id := string(item.get("id")) or string(item.get("call_id")):
            return (kind, id) in self._over
        return _index(place) is not None and self._over.get((kind, place)) == item

    def _whole(self, item: Mapping[str, Any], place: Any) -> Iterator[Item]:
        """What an item adds at its end."""
        kind = string(item.get("type"))
        self._ended.append(item)
        for name in map(name_of, (place, item.get("id"), item.get("call_id"))):
            self._begun.pop((kind, name), None)
            if name is not None:
                self._over[kind, name] = item
        if kind == "message":
            yield from self._message(item)
        elif kind == "reasoning":
            yield from self._reasoning(item)
        elif (called := call_kind(item)) is not None:
            yield self._call(called, item, _index(place))
        elif item:
            written = self._code.pop(name_of(item.get("id")), None) or self._code.pop(name_of(place), None) or []
            yield from tool_items(item, kept(item, self._stored), "".join(written))

    def _message(self, item: Mapping[str, Any], ended: Mapping[str, Any] | None = None) -> Iterator[Item]:
        """The content of a message; if it ended before, only what is new."""
        parts = message_parts(item)
        over = ended is not None
        shown: list[tuple[int | None, Mapping[str, Any]]] = []
        if ended is None:
            shown, self._odd = self._odd, []
            for place, part in shown:
                if part not in parts:
                    parts.insert(len(parts) if place is None else place, part)
        whole = whole_text(parts)
        new = self._text.end(whole) if ended is None else missing(whole_text(message_parts(ended)), 0, whole) or ""
        known = len(whole) - len(new)
        for part in parts:
            text = part_text(part)
            if text is not None:
                yield from self._text_part(part, text, known, over)
                known = max(0, known - len(text))
                self._before += len(text)
            elif not over and all(part != known_part for _, known_part in shown):
                yield Other(string(part.get("type")), part)
        if not over:
            yield from unknown_keys(item)
            yield end_of_message(item, parts, self._stored)

    def _text_part(self, part: Mapping[str, Any], text: str, known: int, over: bool) -> Iterator[Item]:
        if new := text[known:]:
            yield Refusal(new) if part.get("type") == "refusal" else new
        if new == text:
            yield from _logprobs(part.get("logprobs"))
        annotations = part.get("annotations")
        for annotation in annotations if isinstance(annotations, list) else ():
            about = cited(mapping(annotation), self._before)
            if not (over and isinstance(about, Other)):
                yield about
        if not over:
            yield from unknown_keys(part)

    def _reasoning(self, item: Mapping[str, Any]) -> Iterator[Item]:
        """A thought, together with its item if the service can find or read it later."""
        summary, content = thought_texts(item)
        if new := self._thought.end(content if content and self._thought.begins(content) else summary or content):
            yield Reasoning(new)
        if self._stored or item.get("encrypted_content"):
            self._proved = True
            yield Reasoning("", raw=item)

    def _call(self, kind: str, item: Mapping[str, Any], place: int | None) -> ToolCallDelta:
        """The end of a call; its start, or all of it, may have come before."""
        call = self._calls.end(item, place)
        named, nobody = bool(call.name), bool(call.pieces and not call.name and call.index is None)
        call.name = call.name or call_name(item)
        return ToolCallDelta(
            call.index,
            None if nobody else call.known_by if named else call.id,
            "" if named else call.name,
            call.missing(call_input(item)),
            whole=True,
            kind=_marked(kind),
            raw=call_raw(item, self._proved, self._stored),
        )

    # -- the end of the answer ------------------------------------------------------------------------------------

    def _last(self, response: Mapping[str, Any], word: str) -> Iterator[Item | End]:
        """The content of the last event: what its items add."""
        if "store" in response:
            self._stored = response["store"] is not False
        output = [mapping(item) for item in _output(response) or ()]
        over = self._known(output)
        self._before = 0
        for place, item in enumerate(output):
            yield from self._once_more(item, over[place]) if place in over else self._whole(item, place)
        for begun in list(self._begun.values()):
            yield from self._whole(begun, None)
        yield from self._end(response, _status(response, word))

    def _known(self, output: list[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
        """The items of the last event that ended before, by place, as they were then.

        Some services change the IDs at the end, so items count as known by their number per kind.
        """
        found: dict[int, Mapping[str, Any]] = {}
        left = {id(ended): ended for ended in self._ended}
        for place, item in enumerate(output):
            names = map(name_of, (item.get("id"), item.get("call_id"), place))
            keys = ((string(item.get("type")), name) for name in names)
            same = next((self._over[key] for key in keys if key in self._over), None)
            if same is not None:
                found[place] = same
                left.pop(id(same), None)
        renamed: dict[str, list[Mapping[str, Any]]] = {}
        for ended in reversed(left.values()):
            renamed.setdefault(string(ended.get("type")), []).append(ended)
        for place, item in enumerate(output):
            if place not in found and (known := renamed.get(string(item.get("type")))):
                found[place] = known.pop()
        return found

    def _once_more(self, item: Mapping[str, Any], ended: Mapping[str, Any]) -> Iterator[Item]:
        """What the last event adds to an item that ended before."""
        if item.get("type") == "message":
            yield from self._message(item, ended)
        elif item.get("type") == "reasoning":
            before, text = (next(filter(None, thought_texts(each)), "") for each in (ended, item))
            if new := missing(before, 0, text):
                yield Reasoning(new)
            if item.get("encrypted_content") and not (self._stored or ended.get("encrypted_content")):
                yield Reasoning("", raw=item)

    def _end(self, response: Mapping[str, Any], status: str) -> Iterator[Item | End]:
        """Usage and finish reason."""
        usage = response.get("usage")
        if isinstance(usage, Mapping) and usage:
            yield _usage(usage)
        if status == "failed" or response.get("error"):
            raise error_in_stream(_report(response.get("error") or {"message": "the response failed, no reason given"}))
        if status in _NOT_OVER:
            id = string(response.get("id")) or "ID"
            raise ProtocolError(
                f"the response {id} is not ready (status {status}): fetch it later with GET /responses/{id}, "
                "or leave out background=True"
            )
        if status == "incomplete":
            reason = mapping(response.get("incomplete_details")).get("reason")
            yield from list(finish_of(reason, _REASONS)) or [Finish("other", status)]
        else:
            finish = list(finish_of(status, {"completed": "stop"}, again=False))
            yield from finish or [Finish("stop", status)]
        yield END


def _status(response: Mapping[str, Any], word: str) -> str:
    """How the answer ended, from the last event's name or content."""
    return string(response.get("status")) or word if word == "completed" else word


def _output(response: Mapping[str, Any]) -> list[Any] | None:
    """The items of a whole answer; None if it is not one."""
    output = response.get("output")
    if isinstance(output, Mapping):
        return [output]
    if output is None or isinstance(output, str):
        output = output or response.get("output_text")  # a field of OpenAI's packages; some gateways send it
        return [{"type": "message", "content": output}] if isinstance(output, str) else None
    return output if isinstance(output, list) else None


def _report(event: Any) -> Any:
    """The report in an error event, without the event's type, which is not the error's."""
    if isinstance(event, str):
        try:
            event = parsed_json(event)
        except ProtocolError:
            return event
    if isinstance(event, Mapping) and not event.get("error"):
        return {"error": {name: value for name, value in event.items() if name != "type" or value != "error"}}
    return dict(event) if isinstance(event, Mapping) else event


def _logprobs(entries: Any) -> Iterator[Logprobs]:
    if isinstance(entries, list) and entries:
        yield Logprobs(tuple(entries))


def _usage(usage: Mapping[str, Any]) -> Usage:
    read, written = mapping(usage.get("input_tokens_details")), mapping(usage.get("output_tokens_details"))
    return Usage(
        count(usage.get("input_tokens")),
        count(usage.get("output_tokens")),
        count(usage.get("total_tokens")),
        count(read.get("cached_tokens")),
        count(read.get("cache_write_tokens")),
        count(written.get("reasoning_tokens")),
        dict(usage),
    )


def _made_of(part: Mapping[str, Any]) -> type[str] | type[Refusal] | type[Reasoning] | None:
    """The item type for the text of a part; None for an unknown part."""
    if part.get("type") in _THOUGHT_PARTS:
        return Reasoning
    return None if part_text(part) is None else Refusal if part.get("type") == "refusal" else str


def _marked(kind: str | None) -> str:
    """The kind of a call as its pieces show it."""
    return "" if kind in (None, "function") else str(kind)


def _index(value: Any) -> int | None:
    return value if value.__class__ is int else None


def _key(event: Mapping[str, Any]) -> tuple[Any, ...]:
    """The key that identifies a part of an item."""
    names = ("output_index", "item_id", "content_index", "summary_index")
    return tuple(name_of(event.get(name)) for name in names)
