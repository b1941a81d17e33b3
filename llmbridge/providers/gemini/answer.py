"""Gemini's answers: as events, as one document, or as a list of what would have been events.

Source: Gemini API reference, GenerateContentResponse; google-genai; streams of the service and its imitations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from llmbridge.errors import ContentFiltered, ProtocolError
from llmbridge.events import END, End, Finish, Item, Logprobs, Other, OtherChoice, Summary, Usage
from llmbridge.provider import parsed_json, scan_json
from llmbridge.providers._values import count, finish_of, floats, is_report, mapping, string
from llmbridge.providers.gemini.parts import CITING, Parts, beside_citations, dumped, in_camel_case
from llmbridge.service_errors import error_in_stream

if TYPE_CHECKING:
    from llmbridge.provider import Frame

__all__ = ["Reader", "decode_answer", "decode_event", "decode_models", "decode_vectors"]

# "error" only if there is no content: text without the requested picture is still an answer.
_NO_IMAGE = ("NO_IMAGE", "IMAGE_OTHER")
_HOPELESS = "MISSING_THOUGHT_SIGNATURE"  # a retry would fail; it may help in other cases
# The keys of an event and of a candidate with only a piece of text.
_USUAL_EVENT = frozenset(("candidates", "usageMetadata", "modelVersion", "responseId", "createTime"))
_USUAL_CANDIDATE = frozenset(("content", "index", "safetyRatings", "tokenCount", "avgLogprobs"))
_EVENT = _USUAL_EVENT.union(("promptFeedback", "error"))
_CANDIDATE = _USUAL_CANDIDATE.union(("finishReason", "finishMessage", "logprobsResult", *CITING))
_INSTEAD = ("message", "delta", "text", "output")  # where imitations put the content


class Reader:
    """Reads the events of one answer.

    Example:
        >>> from llmbridge._call.framing import Record
        >>> Reader().read(Record('{"candidates": [{"content": {"parts": [{"text": "Hi"}]}}]}'))
        ('Hi',)
    """

    __slots__ = ("_first", "_others", "_seen", "_size", "_texts")

    def __init__(self) -> None:
        self._first = Parts()
        self._others: dict[int, Parts] = {}
        self._seen: dict[str, Any] = {}
        self._size = 0  # number of fields of the last common event
        self._texts = 0  # common events since the last other event

    def read(self, frame: Frame) -> Iterable[Item | End]:
        """The content of one event; raises what `decode_event` raises."""
        end = -1
        try:
            # The common event, recognized quickly: one candidate with only a piece of text.
            chunk, end = scan_json(frame.data, 0)
            (candidate,) = chunk["candidates"]
            content = candidate["content"]
            (part,) = content["parts"]
            text = part["text"]
            if (
                text.__class__ is str
                and text
                and len(part) == 1
                and len(content) - ("role" in content) == 1
                and (candidate.get("index") == 0 if len(candidate) == 2 else _is_usual(candidate))
                and (len(chunk) == self._size or self._is_usual(chunk))
                and "error" not in chunk
                and "promptFeedback" not in chunk
                and frame.event != "error"
                and end == len(frame.data)
            ):
                self._texts += 1
                usage = chunk.get("usageMetadata")
                return (text, _usage(usage)) if usage else (text,)
        except (StopIteration, RecursionError, ValueError, TypeError, LookupError, AttributeError):
            pass  # not the common case: fall through to the full decoder
        if end == len(frame.data) and frame.event != "error":
            return self.chunk(chunk, frame.event)
        return self._other(frame)

    def _is_usual(self, chunk: Mapping[str, Any]) -> bool:
        usual = chunk.keys() <= _USUAL_EVENT
        self._size = len(chunk) if usual else 0
        return usual

    def check(self) -> None:
        """See `Parts.check`."""
        self._first.check()

    def _other(self, frame: Frame) -> Iterator[Item | End]:
        if frame.event == "error":
            raise error_in_stream(frame.data)
        if frame.data.startswith("[DONE]"):
            yield END  # from gateways; the service has no end mark
        elif frame.data.strip():
            yield from self.chunk(parsed_json(frame.data), frame.event)

    def chunk(self, chunk: Any, event: str = "message") -> Iterator[Item]:
        """The content of a response, or of a list of them."""
        if isinstance(chunk, list) and chunk and all(isinstance(inner, Mapping) for inner in chunk):
            for inner in chunk:
                yield from self.chunk(inner, event)
            return
        if not isinstance(chunk, Mapping):
            raise ProtocolError(f"expected a JSON object in a stream event, got {type(chunk).__name__}")
        self._first.said += self._texts
        self._first.texts += self._texts
        self._texts = 0
        fields = in_camel_case(chunk)
        for index, candidate in _numbered(fields.get("candidates")):
            for item in self._candidate(candidate, index):
                yield OtherChoice.of(index, item) if index else item
        usage = fields.get("usageMetadata")
        if isinstance(usage, Mapping) and usage:
            yield _usage(usage)
        if fields.get("error") or (fields.get("candidates") is None and is_report(fields)):
            raise error_in_stream(dict(chunk))
        reason = mapping(fields.get("promptFeedback")).get("blockReason")
        if isinstance(reason, str) and reason:
            raise _blocked(reason, chunk)
        if chunk and not fields.keys() & _EVENT:
            yield Other(string(chunk.get("type")) or (next(iter(chunk)) if event == "message" else event), chunk)
        else:
            yield from self._unknown(fields, _EVENT, "")

    def _unknown(self, fields: Mapping[str, Any], known: frozenset[str], of: int | str) -> Iterator[Item]:
        """Unknown fields, each once: the service repeats them in every event."""
        for name, value in fields.items():
            place = f"{of} {name}"
            if name not in known and value is not None and self._seen.get(place) != value:
                self._seen[place] = value
                yield Other(name, {name: value})

    def _candidate(self, candidate: Any, index: int) -> Iterator[Item]:
        parts = self._first if index == 0 else self._others.setdefault(index, Parts())
        if not isinstance(candidate, Mapping):
            parts.unread = candidate if parts.unread is None else parts.unread
            return
        fields = in_camel_case(candidate)
        content = fields.get("content")
        instead = next((name for name in _INSTEAD if fields.get(name)), "") if content is None else ""
        word = fields.get("finishReason")
        finish = next(finish_of(word, {}, string(fields.get("finishMessage")), word != _HOPELESS), None)
        content = fields[instead] if instead else content
        known = _CANDIDATE.union((instead,))
        if finish and parts.may_repeat(content):  # some gateways do at the end
            yield Summary(self._said(parts, content, fields, known, index, finish), certain=False)
        else:
            yield from self._said(parts, content, fields, known, index, finish)
        if finish:
            parts.check()

    def _said(
        self,
        parts: Parts,
        content: Any,
        fields: Mapping[str, Any],
        known: frozenset[str],
        index: int,
        finish: Finish | None,
    ) -> Iterator[Item]:
        yield from parts.read(content)
        yield from _logprobs(mapping(fields.get("logprobsResult")))
        yield from parts.citations(fields)
        yield from self._unknown(beside_citations(fields), frozenset(), index)
        yield from self._unknown(fields, known, index)
        if finish is not None:
            failed = finish.raw in _NO_IMAGE and not parts.said
            yield replace(finish, reason="error", again=True) if failed else finish


def decode_event(frame: Frame) -> Iterable[Item | End]:
    """The content of one stream event.

    Raises:
        ServiceError: It reports an error.
        ContentFiltered: The prompt is refused.
        ProtocolError: It is not a JSON object.
    """
    return Reader().read(frame)


def decode_answer(document: Any) -> Iterable[Item | End]:
    """The content of a whole answer; errors as for `decode_event`."""
    chunks = document if isinstance(document, list) else [document]
    known = ("candidates", "promptFeedback", "error", "usageMetadata")
    if not any(name in in_camel_case(mapping(chunk)) for chunk in chunks for name in known):
        _refuse(document, "is not an answer in Gemini's form")
    reader = Reader()
    for chunk in chunks:
        yield from reader.chunk(chunk)
    reader.check()
    yield END


def _is_usual(candidate: Mapping[str, Any]) -> bool:
    return candidate.keys() <= _USUAL_CANDIDATE and not candidate.get("index")


def _numbered(candidates: Any) -> Iterator[tuple[int, Any]]:
    """The candidates with their indexes; the service leaves out 0, imitations leave out all."""
    if isinstance(candidates, Mapping) and candidates and all(map(str.isdecimal, candidates)):
        candidates = [{"index": index, **mapping(candidate)} for index, candidate in candidates.items()]
    if candidates is None:
        return
    if not isinstance(candidates, list):
        candidates = [candidates]
    given = [_index(mapping(candidate).get("index")) for candidate in candidates]
    free = (number for number in range(len(candidates)) if number not in given)
    for index, candidate in zip(given, candidates, strict=True):
        yield next(free) if index is None else index, candidate


def _index(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and value.isascii():
        return int(value[:9])
    return count(value)


def _blocked(reason: str, chunk: Mapping[str, Any]) -> ContentFiltered:
    words = mapping(chunk.get("promptFeedback")).get("blockReasonMessage")
    return ContentFiltered(
        f"the service refuses the prompt: {words if isinstance(words, str) and words else reason} "
        "(reword it, or set safetySettings)",
        code=reason,
        body=dumped(chunk),
    )


def _logprobs(result: Mapping[str, Any]) -> Iterator[Logprobs]:
    """The chosen tokens, each with the likeliest ones at its place."""
    chosen, top = result.get("chosenCandidates"), result.get("topCandidates")
    if not isinstance(chosen, list) or not chosen:
        return
    others = top if isinstance(top, list) else []
    yield Logprobs(
        tuple(
            {**mapping(token), "topCandidates": mapping(others[place]).get("candidates") or []}
            if place < len(others)
            else token
            for place, token in enumerate(chosen)
        )
    )


def _usage(usage: Mapping[str, Any]) -> Usage:
    """The counts. The service leaves out zeros; thoughts are counted apart from the answer, and cost the same."""
    get = usage.get
    prompt, of_tools = count(get("promptTokenCount")), count(get("toolUsePromptTokenCount"))
    answer, thoughts = count(get("candidatesTokenCount")), count(get("thoughtsTokenCount"))
    return Usage(
        of_tools if prompt is None else prompt + (of_tools or 0),
        thoughts if answer is None else answer + (thoughts or 0),
        count(get("totalTokenCount")),
        count(get("cachedContentTokenCount")),
        None,
        thoughts,
        usage,
    )


def decode_models(document: Any) -> list[str]:
    """The model names in a list of models, without the prefix "models/".

    Raises:
        ServiceError: The document reports an error.
        ProtocolError: It is not a list of models.
    """
    entries = mapping(document).get("models")
    if not isinstance(entries, list):
        _refuse(document, "is not a list of models")
    return [name.removeprefix("models/") for entry in entries if isinstance(name := mapping(entry).get("name"), str)]


def decode_vectors(document: Any) -> tuple[list[list[float]], Usage | None]:
    """The vectors in an answer, and the tokens; errors as for `decode_models`."""
    entries = mapping(document).get("embeddings")
    if not isinstance(entries, list):
        _refuse(document, "holds no embeddings")
    vectors = []
    for entry in entries:
        values = floats(mapping(entry).get("values"))
        if values is None:
            raise ProtocolError("an embedding is not a list of numbers")
        vectors.append(values)
    usage = mapping(document).get("usageMetadata")
    return vectors, _usage(usage) if isinstance(usage, Mapping) and usage else None


def _refuse(document: Any, what: str) -> NoReturn:
    report = document[0] if isinstance(document, list) and document else document
    if any(mapping(report).get(name) for name in ("error", "message", "detail")):
        raise error_in_stream(report)
    raise ProtocolError(f"the service's JSON {what}: check the base_url")
