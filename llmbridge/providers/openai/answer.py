"""The answers of OpenAI's Chat Completions, streamed or whole, including what other services do differently.

Source: OpenAI API reference, chat completions; the streams of llama.cpp, vLLM, transformers, LiteLLM, OpenRouter, Groq,
DeepSeek, xAI, Mistral, Ollama and llama-cpp-python.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmbridge._text import shortened
from llmbridge.errors import ProtocolError
from llmbridge.events import (
    END,
    End,
    Finish,
    Item,
    Logprobs,
    Other,
    OtherChoice,
    Reasoning,
    Refusal,
    Summary,
    ToolCallDelta,
    Usage,
)
from llmbridge.provider import parsed_json, scan_json
from llmbridge.providers._values import count, finish_of, floats, is_report, mapping, string
from llmbridge.service_errors import error_in_stream

if TYPE_CHECKING:
    from llmbridge.provider import Frame

__all__ = ["ChunkReader", "decode_chunk", "decode_completion", "decode_embeddings", "decode_models"]

_NESTED = 4  # levels of lists and objects around reasoning
_REASONING = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details")

# Fields read below, and fields without information: padding, IDs, times, copies of what is read.
_IN_CHUNK = frozenset(
    """
    annotations choices citations created error id kv_transfer_params model nvext object obfuscation p padding
    prompt_filter_results prompt_logprobs prompt_progress prompt_token_ids provider request_id search_results
    service_tier system_fingerprint time_info timings type usage web_search x_groq
    """.split()  # noqa: SIM905 - a table of words
)
_IN_CHOICE = frozenset(
    """
    annotations citations content_filter_offsets content_filter_result content_filter_results delta error finish_reason
    hidden_states index logprobs matched_stop message native_finish_reason prompt_token_ids search_results seed
    stop_reason text token_ids usage
    """.split()  # noqa: SIM905
)
_IN_DELTA = frozenset(
    """
    annotations audio citations content error function_call image images index name obfuscation padding parsed refusal
    role search_results text thinking_blocks token_ids tool_calls
    """.split()  # noqa: SIM905
).union(_REASONING)
_IN_CALL = frozenset(("arguments", "custom", "function", "id", "index", "input", "name", "type"))
_AROUND_CHOICE = _IN_CHUNK - {"annotations", "citations", "error", "search_results", "web_search", "x_groq"}
_AROUND_DELTA = _IN_CHOICE - {"annotations", "citations", "error", "message", "search_results", "text", "usage"}
_AROUND_MESSAGE = (_AROUND_DELTA | {"message"}) - {"delta"}
_USUAL_CALL, _USUAL_FUNCTION = frozenset(("function", "id", "index", "type")), frozenset(("arguments", "name"))
_ALIVE = re.compile("ping|heart.?beat|keep.?alive")
_IN_PART = frozenset(("annotations", "citations", "index", "text", "type"))
_TEXTS = (None, "", "input_text", "output_text", "summary_text", "text")
_SOURCES = frozenset(
    ("annotations", "citations", "context", "provider_specific_fields", "search_results", "web_search")
)
_FLAT = ("content", "refusal", "tool_calls", *_REASONING)
_FLAT_CHOICE = _IN_CHOICE.union(_FLAT)
_OF_CHOICE = frozenset(("delta", "finish_reason", "message", "text", *_FLAT))


class ChunkReader:
    """Reads the events of one chat completions stream.

    It remembers how many keys two pieces of text in a row had: an event with another number is decoded completely, as
    it may hold more.

    Args:
        proofs: The field for reasoning with its signatures; see `reasoning`.
    """

    __slots__ = ("_around", "_inside", "_last", "_proofs")

    def __init__(self, proofs: str = "") -> None:
        self._proofs = proofs
        self._around = self._inside = -1
        self._last = (-1, -1)

    def read(self, frame: Frame) -> Iterable[Item | End]:
        """The content of one event.

        Raises:
            ServiceError: It reports an error, in any of the forms in use.
            ProtocolError: It is not a JSON object.
        """
        end = -1
        try:
            # The common event, recognized quickly: one choice with only a piece of text.
            chunk, end = scan_json(frame.data, 0)
            (choice,) = chunk["choices"]
            delta = choice["delta"]
            content = delta["content"]
            if (
                content.__class__ is str
                and content
                and len(delta) == 1
                and len(chunk) == self._around
                and len(choice) == self._inside
                and not (choice.get("finish_reason") or choice.get("index") or choice.get("logprobs"))
                and not (chunk.get("usage") or chunk.get("x_groq"))
                and "error" not in chunk
                and "citations" not in chunk
                and frame.event != "error"
                and end == len(frame.data)
            ):
                return (content,)
            sizes = len(chunk), len(choice)
            (self._around, self._inside), self._last = sizes if sizes == self._last else (-1, -1), sizes
        except (StopIteration, RecursionError, ValueError, TypeError, LookupError, AttributeError):
            pass  # not the common case: fall through to the full decoder
        if end != len(frame.data):
            return _decode_frame(frame, self._proofs)
        said = _one_choice(chunk, "delta", _AROUND_DELTA) if frame.event != "error" else None
        return _decode_any(chunk, frame.event, "delta", self._proofs) if said is None else said


def decode_chunk(frame: Frame, proofs: str = "") -> Iterable[Item | End]:
    """The content of one event, without the ones before; see `ChunkReader`."""
    return ChunkReader(proofs).read(frame)


def _one_choice(chunk: Any, field: str, around: frozenset[str]) -> list[Item] | None:
    """The items of a plain event, or of a whole answer, with only the first choice; None for any other.

    Some services write a role or nulls beside each piece, so this case must be fast.
    """
    try:
        (choice,) = chunk["choices"]
        delta = choice[field]
        if not (chunk.keys() <= _AROUND_CHOICE and choice.keys() <= around) or choice.get("logprobs"):
            return None
        if choice.get("index") not in (0, None) or chunk.get("object") == "error":
            return None
        items: list[Item] = []
        for name, value in delta.items():
            if value is None or value == [] or name == "role":
                continue
            if name == "content" and value.__class__ is str and not (value and delta.get("tool_calls")):
                items += (value,) if value else ()
            elif name in ("reasoning_content", "reasoning") and value.__class__ is str and not items:
                items += (Reasoning(value),) if value else ()
            elif name == "tool_calls" and None not in (calls := _usual_calls(value, whole=field == "message")):
                items += calls  # type: ignore[arg-type]  # none of them is None
            else:
                return None
        items += finish_of(choice.get("finish_reason"), {})
        if usage := chunk.get("usage"):
            items += (_usage(usage),)
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    return items


def _usual_calls(calls: Any, whole: bool) -> list[ToolCallDelta | None]:
    return [_usual_call(call, position if whole else call["index"]) for position, call in enumerate(calls)]


def _usual_call(call: Any, index: Any) -> ToolCallDelta | None:
    id, function = call.get("id"), call["function"]
    name, arguments = function.get("name"), function["arguments"]
    if not (call.keys() <= _USUAL_CALL and function.keys() <= _USUAL_FUNCTION and arguments.__class__ is str):
        return None
    if index.__class__ is not int or index < 0 or call.get("type", "function") not in ("function", None):
        return None
    known = (id is None or id.__class__ is str) and (name is None or name.__class__ is str)
    return ToolCallDelta(index, id, name, arguments) if known and (id or name or arguments) else None


def _decode_frame(frame: Frame, proofs: str = "") -> Iterator[Item | End]:
    """The content of any event."""
    if frame.data.startswith("[DONE]"):
        yield END
        return
    if not frame.data.strip() and frame.event != "error":
        return  # a heartbeat
    try:
        chunk = parsed_json(frame.data)
    except ProtocolError:
        if frame.event == "error":
            raise error_in_stream(frame.data) from None
        raise
    yield from _decode_any(chunk, frame.event, "delta", proofs)


def _decode_any(chunk: Any, event: str, field: str, proofs: str) -> Iterator[Item | End]:
    if event == "error" or not isinstance(chunk, Mapping):
        if event == "error" or (isinstance(chunk, list) and chunk) or isinstance(chunk, str):
            raise error_in_stream(chunk)
        raise ProtocolError(f"expected a JSON object in a stream event, got {type(chunk).__name__}")
    choices = list(_numbered(listed)) if (listed := chunk.get("choices")) else []
    for index, choice in choices:
        said = _said(choice, field, proofs, index, chunk.get("object") == "chat.completion")
        yield from said if not index else (OtherChoice.of(index, item) for item in said)
    yield from _beside(chunk, _IN_CHUNK) if "choices" in chunk else _unknown_event(chunk, event)
    usages = (choice.get("usage") for _, choice in choices)  # Moonshot puts usage beside the finish reason
    for usage in (chunk.get("usage"), mapping(chunk.get("x_groq")).get("usage"), *usages):
        if isinstance(usage, Mapping) and usage:
            yield _usage(usage)
            break
    if chunk.get("error") or chunk.get("object") == "error" or ("choices" not in chunk and is_report(chunk)):
        raise error_in_stream(dict(chunk))
    for index, choice in choices:
        if not index and (error := choice.get("error")):
            raise error_in_stream({"error": error})


def _numbered(choices: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The choices with their indexes. The first is the answer; services may leave out the index, or write it "0"."""
    listed = [choice for choice in _listed(choices, _OF_CHOICE, "choices") if choice is not None]
    given = [_index(mapping(choice).get("index"), "a choice") for choice in listed]
    free = (number for number in range(len(listed)) if number not in given)
    for index, choice in zip(given, listed, strict=True):
        if not isinstance(choice, Mapping):
            raise _unreadable("a choice", choice)
        yield next(free) if index is None else index, choice


def _index(value: Any, what: str) -> int | None:
    if value is None or value == "":
        return None
    number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else value
    if number.__class__ is not int or number < 0:
        raise _unreadable(f"the index of {what}", value)
    return int(number)


def _listed(value: Any, marks: frozenset[str], what: str) -> list[Any]:
    """A list; any other value as its only element, or an object whose keys are the indexes."""
    if isinstance(value, list):
        return value
    if not value:
        return []
    if isinstance(value, Mapping):
        if marks & value.keys():
            return [value]
        if all(key.isdecimal() and isinstance(inner, Mapping) for key, inner in value.items()):
            return [{"index": key, **inner} for key, inner in value.items()]
    raise _unreadable(what, value)


def _unreadable(what: str, value: Any) -> ProtocolError:
    return ProtocolError(f"cannot read {what} in the answer: {shortened(_json_text(value), 200)}")


def _beside(fields: Mapping[str, Any], known: frozenset[str]) -> Iterator[Item]:
    """Sources and unknown fields."""
    if fields.keys() <= known and not (fields.keys() & _SOURCES):
        return
    from llmbridge.providers.openai.extras import sources, unknown

    yield from sources(fields)
    yield from unknown(fields, known)


def _unknown_event(chunk: Mapping[str, Any], event: str) -> Iterator[Item]:
    """An event without choices: of another kind, unless it only counts tokens or identifies the answer."""
    yield from _beside({name: chunk[name] for name in _SOURCES & chunk.keys()}, _SOURCES)
    named = (string(chunk.get("type")), string(chunk.get("object")), event if event != "message" else "")
    kind = next(filter(None, named), "")
    unknown = [name for name, value in chunk.items() if name not in _IN_CHUNK and value not in (None, "", [], {})]
    if chunk.get("error") or "error" in named or is_report(chunk) or any(map(_ALIVE.search, named)):
        return
    if unknown or (named[0] and "usage" not in chunk):
        yield Other(kind or unknown[0], dict(chunk))


def _said(choice: Mapping[str, Any], field: str, proofs: str, index: int, completion: bool) -> Iterator[Item]:
    """The content of a choice.

    In a stream the delta counts. Of a whole message, only what no delta has said is new; beside deltas only the last
    message is read, since some services repeat everything so far each time.
    """
    error = choice.get("error")
    finish = list(finish_of(choice.get("finish_reason"), {}))
    if index and error:  # the error of the first choice is raised
        finish = [Finish("error", "error", string(mapping(error).get("message")))]
    message = choice.get("message") if field == "delta" else None
    if choice.get("delta") is None and (message or (completion and choice.get("text") and field == "delta")):
        yield Summary([*_told(choice, "message", proofs), *finish], certain=completion and bool(finish))
    elif message and finish:
        yield from _told(choice, field, proofs)
        yield Summary([*_told({"message": message}, "message", proofs), *finish])
    else:
        yield from _told(choice, field, proofs)
        yield from finish


def _told(choice: Mapping[str, Any], field: str, proofs: str) -> Iterator[Item]:
    """The content of a choice without its finish reason."""
    delta = _fields(choice, field)
    if proofs and delta.get(proofs):
        yield from _proven(delta, proofs, whole=field == "message")
    elif reasoning := _reasoning(delta):
        yield Reasoning(reasoning)
    yield from _content(delta.get("content"))
    if isinstance(refusal := delta.get("refusal"), str) and refusal:
        yield Refusal(refusal)
    if not delta.get("content"):
        yield from _content(choice.get("text") or delta.get("text"))  # the older endpoint for plain completions
    yield from _calls(delta, whole=field == "message")
    if (images := delta.get("images") or delta.get("image")) or delta.get("audio"):
        from llmbridge.providers.openai.extras import pictures, sound

        yield from sound(delta.get("audio"))
        yield from pictures(images)
    yield from _beside(delta, _IN_DELTA)
    logprobs = choice.get("logprobs")
    entries = mapping(logprobs).get("content") or mapping(logprobs).get("refusal")
    if isinstance(entries, list) and entries:
        yield Logprobs(tuple(entries))
    elif entries or (logprobs and not {"content", "refusal"} & mapping(logprobs).keys()):
        yield Other("logprobs", {"logprobs": logprobs})
    yield from _beside(choice, _IN_CHOICE if choice.get("delta", choice.get("message")) is not None else _FLAT_CHOICE)


def _fields(choice: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A delta or message; some gateways send the bare text, or put its fields into the choice."""
    value = choice.get("delta") if choice.get(name) is None else choice[name]
    if isinstance(value, Mapping):
        return value
    if isinstance(value, (str, list)):
        return {"content": value}
    if value is None:
        return {name: choice[name] for name in _FLAT if name in choice}
    raise _unreadable(f"a {name}", value)


def _calls(delta: Mapping[str, Any], whole: bool) -> Iterator[ToolCallDelta]:
    if calls := _listed(delta.get("tool_calls"), _IN_CALL, "tool_calls"):
        pieces = [_call(call, position if whole else None) for position, call in enumerate(calls) if call is not None]
    else:  # the older form, which some services send beside the newer one
        pieces = [_call({"function": delta.get("function_call")}, 0)]
    yield from (piece for piece in pieces if piece.id or piece.name or piece.arguments or piece.kind)


def _call(call: Any, position: int | None) -> ToolCallDelta:
    if not isinstance(call, Mapping):
        raise _unreadable("a tool call", call)
    kind, custom, function = string(call.get("type")), mapping(call.get("custom")), call.get("function")
    if kind == "custom" or (custom and not function):
        called = custom or mapping(function) or call
        return _piece(call, position, called, called.get("input") or called.get("arguments"), "custom")
    called = {**call, "name": function} if isinstance(function, str) else mapping(function) or call
    if kind in ("", "function"):
        return _piece(call, position, called, called.get("arguments"), "")
    called = mapping(function) or mapping(call.get(kind)) or call
    arguments = called.get("arguments") or called.get("input")
    return _piece(call, position, {"name": kind, **called}, arguments, kind)


def _piece(
    call: Mapping[str, Any], position: int | None, called: Mapping[str, Any], arguments: Any, kind: str
) -> ToolCallDelta:
    """A piece of a call, with the service's extra fields, which are sent back with it."""
    if arguments is not None and not isinstance(arguments, str):
        arguments = _json_text(arguments)
    raw: Mapping[str, Any] | None = None
    if kind not in ("", "custom"):
        raw = {name: value for name, value in call.items() if name != "index"}
    elif not (call.keys() <= _IN_CALL and called.keys() <= _IN_CALL):
        raw = _said_beyond(call)
        if called is call.get(kind or "function") and (inner := _said_beyond(called)):
            raw = {**raw, kind or "function": inner}
    return ToolCallDelta(
        index=_index(call.get("index"), "a tool call") if position is None else position,
        id=_str(call.get("id")),
        name=_str(called.get("name")),
        arguments=arguments or "",
        kind=kind,
        raw=raw or None,
    )


def _said_beyond(call: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in call.items() if name not in _IN_CALL and value not in (None, "", [], {})}


def _json_text(arguments: Any) -> str:
    try:
        return json.dumps(arguments)
    except RecursionError:
        raise ProtocolError("the service sent JSON that is nested too deeply") from None


def decode_completion(document: Any, proofs: str = "") -> Iterable[Item | End]:
    """The content of a whole chat completion; arguments and errors as for `decode_chunk`."""
    said = _one_choice(document, "message", _AROUND_MESSAGE)
    return _decode_completion(document, proofs) if said is None else (*said, END)


def _decode_completion(document: Any, proofs: str) -> Iterator[Item | End]:
    """The content of any answer."""
    document = document[0] if isinstance(document, list) and len(document) == 1 else document
    fields = mapping(document)
    if not fields.get("error") and not isinstance(fields.get("choices"), (list, dict)):
        if fields.get("detail") or fields.get("object") == "error" or fields.get("message"):
            raise error_in_stream(document)
        raise ProtocolError("the service's JSON is not a chat completion: check the base_url")
    yield from _decode_any(document, "message", "message", proofs)
    yield END


def decode_models(document: Any) -> list[str]:
    """The model names in a list of models.

    Raises:
        ServiceError: The document reports an error.
        ProtocolError: It is not a list of models.
    """
    entries = document if isinstance(document, list) else mapping(document).get("data")
    if not isinstance(entries, list):
        if mapping(document).get("error"):
            raise error_in_stream(document)
        raise ProtocolError("the service's JSON is not a list of models: check the base_url")
    return [name for entry in entries if isinstance(name := mapping(entry).get("id"), str)]


def decode_embeddings(document: Any) -> tuple[list[list[float]], Usage | None]:
    """The vectors in an answer, sorted by index, and the tokens; errors as for `decode_models`."""
    fields = mapping(document)
    entries = fields.get("data")
    if fields.get("error") or not isinstance(entries, list):
        if fields.get("error") or fields.get("detail") or fields.get("message"):
            raise error_in_stream(document)
        raise ProtocolError("the service's JSON has no embeddings: check the base_url")
    numbered = [(index if isinstance(index := mapping(entry).get("index"), int) else place, mapping(entry))
                for place, entry in enumerate(entries)]  # fmt: skip
    vectors = [_vector(entry.get("embedding")) for _, entry in sorted(numbered, key=lambda pair: pair[0])]
    usage = fields.get("usage")
    return vectors, _usage(usage) if isinstance(usage, Mapping) and usage else None


def _vector(value: Any) -> list[float]:
    if isinstance(value, str):
        import base64
        from array import array

        try:
            numbers = array("f", base64.b64decode(value, validate=True))
        except ValueError:
            raise ProtocolError("an embedding is not base64 of 32-bit numbers") from None
        return numbers.tolist()
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]  # llama.cpp without /v1
    vector = floats(value)
    if vector is None:
        raise ProtocolError("an embedding is not a list of numbers")
    return vector


def _content(content: Any, depth: int = 0) -> Iterator[Item]:
    """Text, or a list of parts with text, reasoning and more."""
    if isinstance(content, str):
        if content:
            yield content
    elif isinstance(content, list) and depth < _NESTED:
        for part in content:
            yield from _part(part, depth + 1)
    elif isinstance(content, Mapping):
        yield from _part(content)
    elif content is not None:
        yield _json_text(content)  # a gateway parsed the text as JSON


def _part(part: Any, depth: int = 0) -> Iterator[Item]:
    if not isinstance(part, Mapping):
        yield from _content(part, depth)
        return
    kind = part.get("type")
    if kind in ("thinking", "reasoning"):
        text, signature = _joined(part.get(kind) or part.get("text")), _str(part.get("signature"))
        if text or signature:
            yield Reasoning(text, signature)
    elif kind == "refusal" and isinstance(part.get("refusal"), str):
        yield from (Refusal(part["refusal"]),) if part["refusal"] else ()
    elif kind in _TEXTS and (said := _text_of(part)) is not None:
        yield from _content(said)
        yield from _beside(part, _IN_PART)
    elif part:
        yield from _other_part(part, kind)


def _text_of(part: Mapping[str, Any]) -> str | None:
    """The text of a part, which may be wrapped; None if it has none."""
    held = next((part[name] for name in ("text", "value", "content", "parts") if part.get(name) is not None), None)
    return _joined({"text": held}) or (held if isinstance(held, str) else None)


def _other_part(part: Mapping[str, Any], kind: Any) -> Iterator[Item]:
    """An image, sound or file; Mistral's references; or an unknown part, which is sent back with the turn."""
    from llmbridge.providers.openai.extras import media_of_part, references

    if (media := media_of_part(part)) is not None:
        yield media
    elif isinstance(kind, str) and kind:
        yield from references(part)
        yield Other(kind, dict(part), in_turn=True)
    else:
        raise _unreadable("a part of the content", part)


def _reasoning(delta: Mapping[str, Any]) -> str:
    """The first field with reasoning: a service that sends two sends the same text twice."""
    return next((text for field in _REASONING if (text := _joined(delta.get(field)))), "")


def _proven(delta: Mapping[str, Any], proofs: str, whole: bool) -> Iterator[Reasoning]:
    """Reasoning with its signatures; its text from another field only if the entries have none."""
    from llmbridge.providers.openai.reasoning import read_entries

    pieces = list(read_entries(delta[proofs], whole))
    if not any(piece.text for piece in pieces) and (text := _reasoning(delta)):
        yield Reasoning(text)
    yield from pieces


def _joined(value: Any, depth: int = 0) -> str:
    if isinstance(value, str):
        return value
    if depth < _NESTED:
        if isinstance(value, Mapping):
            return _joined(value.get("text") or value.get("content") or value.get("value"), depth + 1)
        if isinstance(value, list):
            return "".join(_joined(item, depth + 1) for item in value)
    return ""


def _usage(usage: Mapping[str, Any]) -> Usage:
    prompt, answer = mapping(usage.get("prompt_tokens_details")), mapping(usage.get("completion_tokens_details"))
    cached, reasoned = count(prompt.get("cached_tokens")), count(answer.get("reasoning_tokens"))
    read, written = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    total = count(usage.get("total_tokens"))
    if reasoned and read is not None and written is not None and total == read + written + reasoned:
        written += reasoned  # xAI does not count reasoning as part of the answer (vercel/ai#12425)
    return Usage(
        input_tokens=read,
        output_tokens=written,
        total_tokens=total,
        cached_input_tokens=count(usage.get("prompt_cache_hit_tokens")) if cached is None else cached,
        cache_write_tokens=count(prompt.get("cache_write_tokens")),
        reasoning_tokens=reasoned,
        raw=dict(usage),
    )


def _str(value: Any) -> str | None:
    return value if isinstance(value, str) else None
