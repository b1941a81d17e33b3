"""What answers hold beside text and calls: sources, images, sound, unknown fields; and how it is sent back.

Few events hold any of it, so `answer` and `request` import this module only then.

Source: OpenAI API reference, chat completions (`annotations`, `audio`); answers of OpenRouter (`images`), Perplexity
    and
xAI (`citations`, `search_results`), Azure (`context`), LiteLLM (`provider_specific_fields`), Zhipu (`web_search`) and
Mistral (parts of the content).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from llmbridge.errors import InvalidRequest
from llmbridge.events import Citation, Item, Media, MediaDelta, Other
from llmbridge.providers._values import mapping, string

__all__ = ["filled", "media_of_part", "pictures", "references", "sound", "sources", "unknown", "write_media"]

_LISTS = ("annotations", "citations", "search_results", "web_search")
_HOLDERS = ("context", "provider_specific_fields")  # whose `citations` are lists of sources as well
_URLS = ("url", "uri", "link", "source_url", "source")
_DOCUMENTS = ("file_id", "document_id", "document_index", "filename", "filepath", "id", "index")
_TITLES = ("title", "document_title", "name", "filename")
_QUOTES = ("cited_text", "quote", "snippet", "content", "text")

_Kind = Literal["image", "audio", "video", "document"]
_KINDS: dict[str, _Kind] = {
    "image_url": "image",
    "image": "image",
    "output_image": "image",
    "input_audio": "audio",
    "output_audio": "audio",
    "audio": "audio",
    "audio_url": "audio",
    "video_url": "video",
    "video": "video",
    "document_url": "document",
    "file": "document",
}
_SOURCES = ("url", "data", "b64_json", "file_data", "image_url")
_TYPES = ("mime_type", "media_type", "mimeType", "content_type")


def unknown(fields: Mapping[str, Any], known: frozenset[str]) -> Iterator[Other]:
    """The unknown fields of an object of an answer."""
    for name, value in fields.items():
        if name not in known and value not in (None, "", [], {}):
            yield Other(name, {name: value})


def sources(fields: Mapping[str, Any]) -> Iterator[Item]:
    """The sources of the answer, from any of the lists that may name them.

    Example:
        >>> list(sources({"citations": ["https://a.example"]}))
        [Citation(url='https://a.example', document=None, title=None, quote=None, start=None, end=None)]
    """
    found = [entry for name in _LISTS for entry in _entries(fields.get(name))]
    for holder in map(mapping, map(fields.get, _HOLDERS)):
        found += [entry for name in ("citations", "citation") for entry in _entries(holder.get(name))]
    read = list(map(_citation, found))
    better = {item.url for item in read if isinstance(item, Citation) and (item.title or item.quote)}
    for item in read:
        if isinstance(item, Other) or item.title or item.quote or item.url not in better:
            yield item  # skip a bare address if another entry says more


def _entries(value: Any) -> Iterator[Any]:
    """The sources in a list, which may be nested."""
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, list):
            yield from (inner for inner in entry if not isinstance(inner, list))
        elif entry:
            yield entry


def _citation(entry: Any) -> Citation | Other:
    if isinstance(entry, str):
        return Citation(url=entry) if "://" in entry else Citation(document=entry)
    fields = mapping(entry)
    kind = string(fields.get("type"))
    inner = mapping(fields.get(kind)) or fields
    url = _first(inner, _URLS)
    document = None if url else _first(inner, _DOCUMENTS)
    title, quote = _first(inner, _TITLES), _first(inner, _QUOTES)
    if kind == "file":  # OpenRouter's: sent back, it saves parsing the document again
        return Other(kind, {"annotations": [dict(fields)]}, in_turn=True)
    if not (url or document or title or quote):
        return Other(kind or "citation", dict(fields) or {"citation": entry})
    start, end = (value if value.__class__ is int else None for value in map(inner.get, ("start_index", "end_index")))
    return Citation(url, document, title, quote, start, end, dict(fields))


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = fields.get(name)
        if value.__class__ is int or (isinstance(value, str) and value):
            return str(value)
    return None


def references(part: Mapping[str, Any]) -> Iterator[Item]:
    """A part of Mistral's that names the documents or pages for the text before it."""
    ids = part.get("reference_ids")
    if not ids and "reference" in string(part.get("type")) and isinstance(page := _citation(part), Citation):
        yield page
    for id in ids if isinstance(ids, list) else []:
        if isinstance(id, (str, int)):
            yield Citation(document=str(id), title=string(part.get("title")) or None, raw=dict(part))


def sound(audio: Any) -> Iterator[Item]:
    """A piece of the spoken answer, or all of it."""
    fields = mapping(audio)
    raw = {name: value for name, value in fields.items() if name not in ("data", "transcript") and value is not None}
    data, transcript = string(fields.get("data")), string(fields.get("transcript"))
    if data or transcript or raw:
        mime = f"audio/{form}" if (form := string(fields.get("format"))) else ""
        yield MediaDelta("audio", mime, data, transcript, string(fields.get("id")) or None, raw)


def pictures(images: Any) -> Iterator[Item]:
    """The images of an answer, from OpenRouter's field."""
    for image in images if isinstance(images, list) else [images]:
        entry = (
            {"type": "image_url", "image_url": image}
            if isinstance(image, str)
            else {"type": "image_url", **mapping(image)}
        )
        if (found := media_of_part(entry)) is not None:
            yield replace(found, raw={"images": "" if isinstance(image, str) else found.raw})
        elif image:
            yield Other("images", {"images": image})


def media_of_part(part: Mapping[str, Any]) -> Media | MediaDelta | None:
    """The image, sound or file in a part of the content; None if it is something else.

    Example:
        >>> media_of_part({"type": "image_url", "image_url": "https://a.example/b.png"}).url
        'https://a.example/b.png'
    """
    kind = _KINDS.get(string(part.get("type")))
    raw, source = _split(part)
    if kind is None or not source:
        return None
    inner = mapping(part.get(part["type"]))
    holders = (inner, mapping(part.get("source")), part)
    mime = next((string(fields.get(name)) for fields in holders for name in _TYPES if fields.get(name)), "")
    if not source.startswith("data:") and ":" in source:
        return Media(kind, mime, url=source, raw=raw)
    if form := string(inner.get("format")):
        mime = mime or f"{kind}/{form}"
    if source.startswith("data:"):
        from llmbridge.parts import MediaPart

        try:
            read = MediaPart.of({"type": "image_url", "image_url": {"url": source}})
        except InvalidRequest:
            return None
        mime, source = (read.media_type, read.data) if read is not None else (mime, source)
    mime = mime or _type_of(source)
    # It is whole: what follows is another one, even if this one lacks its padding.
    padded = source + "=" * (-len(source) % 4)
    return MediaDelta(kind, mime, padded, string(inner.get("transcript")), string(inner.get("id")) or None, raw)


def _type_of(data: str) -> str:
    """The media type shown by the start of base64."""
    from base64 import b64decode

    from llmbridge.parts import media_type_of

    try:
        return media_type_of(b64decode("".join(data[:64].split())[:16]))
    except ValueError:
        return ""  # not base64: an error is raised when it is decoded


def _split(part: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A part with its URL or data replaced by "", and what was removed."""
    kind = string(part.get("type"))
    inner = part.get(kind)
    if isinstance(inner, str):
        return {**part, kind: ""}, inner
    for fields, within in ((mapping(inner), kind), (mapping(part.get("source")), "source"), (part, "")):
        for name in _SOURCES:
            if source := string(fields.get(name)):
                emptied = {**fields, name: ""}
                return ({**part, within: emptied} if within else emptied), source
    return dict(part), ""


def write_media(part: Mapping[str, Any], fields: dict[str, Any], parts: list[Any], own_images: bool) -> str:
    """Sends back an image, sound or file of an earlier answer, if it is the service's own and the service accepts it.

    Args:
        part: A part of an assistant's turn.
        fields: The message's other fields; added to.
        parts: The parts of its content; added to.
        own_images: Whether the service accepts its own images.

    Returns:
        The transcript, if only that is sent back.
    """
    raw = mapping(part.get("raw"))
    if part["type"] == "input_audio" and raw.get("id") and "type" not in raw:
        fields["audio"] = {"id": raw["id"]}
    elif own_images and "images" in raw:
        fields.setdefault("images", []).append(filled({**part, "raw": raw["images"]}))
    elif own_images and raw.get("type"):
        parts.append(filled(part))
    else:
        return string(part.get("transcript"))
    return ""


def filled(part: Mapping[str, Any]) -> Any:
    """The service's own object from an answer, with its URL or data filled in again.

    Example:
        >>> own = {"type": "image_url", "image_url": ""}
        >>> filled({"type": "image_url", "image_url": {"url": "https://a.example/b.png"}, "raw": own})["image_url"]
        'https://a.example/b.png'
    """
    inner = mapping(part.get(part["type"]))
    url = inner.get("url") or inner.get("file_data") or ""
    return _filled(part["raw"], url, inner.get("data") or url.partition(",")[2])


def _filled(raw: Any, url: str, data: str) -> Any:
    if not isinstance(raw, Mapping):
        return url
    kind = string(raw.get("type"))
    whole = dict(raw)
    for name in (kind, *_SOURCES):
        if whole.get(name) == "":
            whole[name] = data if name in ("data", "b64_json") or name in ("input_audio", "audio") else url
            return whole
    for name in (kind, "source"):
        if isinstance(whole.get(name), Mapping):
            whole[name] = _filled(whole[name], url, data)
    return whole
