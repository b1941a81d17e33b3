"""Images, sound and documents in a message, from bytes, paths or URLs.

Messages hold them in the form of OpenAI's dialect; the other dialects translate that form with `MediaPart`.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Union

from llmbridge.errors import InvalidRequest

__all__ = ["Audio", "Document", "Image", "MediaPart", "Source", "audio_format", "media_type_of"]

Source = Union[str, bytes, bytearray, "os.PathLike[str]"]

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,]*)*)(;base64)?,", re.ASCII)
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_LARGEST = 64 * 1024 * 1024
_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"\xff\xf2", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
)
_ENDINGS = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".pdf": "application/pdf",
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".html": "text/html",
    ".csv": "text/csv",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
}
_EXAMPLES = {"image/": "image/png", "audio/": "audio/wav", "": "application/pdf"}
_AUDIO_FORMATS = {"audio/mpeg": "mp3", "audio/wav": "wav", "audio/x-wav": "wav", "audio/mp4": "m4a"}


@dataclass(frozen=True, slots=True)
class MediaPart:
    """An image, sound or document, ready for a dialect to translate.

    Args:
        kind: What it is.
        media_type: Like image/png; "" if only a URL is known.
        data: Base64 without line breaks; "" if there is a URL.
        url: An http or https URL; "" if there is data.
        filename: A document's name; "" if it has none.
        detail: How closely the model looks at an image: auto, low or high; "" if unspecified.
    """

    kind: Literal["image", "audio", "document"]
    media_type: str = ""
    data: str = field(default="", repr=False)
    url: str = ""
    filename: str = ""
    detail: str = ""

    @property
    def data_url(self) -> str:
        """The URL, or the data as a data URL."""
        return self.url or f"data:{self.media_type};base64,{self.data}"

    @classmethod
    def of(cls, part: Mapping[str, Any]) -> MediaPart | None:
        """The image, sound or document in a part of a message; None if it is a part of another kind.

        Raises:
            InvalidRequest: The part looks like one but lacks what makes it one.

        Example:
            >>> MediaPart.of({"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}).url
            'https://example.com/cat.png'
        """
        kind = part.get("type")
        if kind == "image_url":
            return cls._of_image(part.get("image_url"))
        if kind == "input_audio":
            sound = _mapping(part, "input_audio")
            form = _text(sound, "format", "input_audio")
            media_type = next((name for name, short in _AUDIO_FORMATS.items() if short == form), f"audio/{form}")
            return cls("audio", media_type, _split_data_url(_text(sound, "data", "input_audio"))[1])
        if kind == "file" and "file_id" not in _mapping(part, "file"):
            return cls._of_file(_mapping(part, "file"))
        return None

    @classmethod
    def _of_image(cls, image: Any) -> MediaPart:
        image = {"url": image} if isinstance(image, str) else image
        if not isinstance(image, Mapping):
            raise InvalidRequest("an image_url part needs {'image_url': {'url': ...}}")
        url, detail = _text(image, "url", "image_url"), str(image.get("detail") or "")
        if not url.startswith("data:"):
            return cls("image", _type_of_name(url), url=url, detail=detail)
        media_type, data = _split_data_url(url)
        return cls("image", media_type or "image/png", data, detail=detail)

    @classmethod
    def _of_file(cls, file: Mapping[str, Any]) -> MediaPart:
        url, filename = _text(file, "file_data", "file"), str(file.get("filename") or "")
        if _is_web(url):
            return cls("document", _type_of_name(url) or "application/pdf", url=url, filename=filename)
        media_type, data = _split_data_url(url)
        return cls("document", media_type or _type_of_name(filename) or "application/pdf", data, filename=filename)


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a user's message.

    Args:
        source: The bytes, a path, an http(s) URL or a data URL. A str that is not a URL is a path.
        detail: How closely the model looks at it: "auto", "low" or "high", if the service supports that.
        media_type: Like "image/png"; detected from the bytes or the file's name if missing.

    Raises:
        InvalidRequest: The file is missing or too large, or its media type is unknown or not an image.

    Example:
        >>> Image("https://example.com/cat.png").to_part()
        {'type': 'image_url', 'image_url': {'url': 'https://example.com/cat.png'}}
    """

    source: Source
    detail: str | None = None
    media_type: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", _loaded(self.source, self.media_type, "image", "image/"))

    def __repr__(self) -> str:
        return f"Image({_shown(self.source)})"

    def to_part(self) -> dict[str, Any]:
        """The image as a part of a message."""
        image = {"url": self.source, "detail": self.detail} if self.detail else {"url": self.source}
        return {"type": "image_url", "image_url": image}


@dataclass(frozen=True, slots=True)
class Audio:
    """Sound in a user's message, for models that can hear.

    Args:
        source: The bytes, a path or a data URL.
        media_type: Like "audio/wav"; detected from the bytes or the file's name if missing.

    Raises:
        InvalidRequest: It is a URL, the file is missing or too large, or its media type is unknown or not audio.

    Example:
        >>> Audio(b"ID3...").to_part()["input_audio"]["format"]
        'mp3'
    """

    source: Source
    media_type: str | None = None

    def __post_init__(self) -> None:
        loaded = _loaded(self.source, self.media_type, "audio", "audio/")
        if not loaded.startswith("data:"):
            raise InvalidRequest("audio cannot be a URL: pass its bytes or a path")
        object.__setattr__(self, "source", loaded)

    def __repr__(self) -> str:
        return f"Audio({_shown(self.source)})"

    def to_part(self) -> dict[str, Any]:
        """The sound as a part of a message."""
        media_type, data = _split_data_url(str(self.source))
        return {"type": "input_audio", "input_audio": {"data": data, "format": audio_format(media_type)}}


@dataclass(frozen=True, slots=True)
class Document:
    """A document in a user's message: a PDF, or text.

    Args:
        source: The bytes, a path, a data URL, or an http(s) URL if the service downloads documents.
        filename: The name shown to the model; that of the path if missing.
        media_type: Like "application/pdf"; detected from the bytes or the file's name if missing.

    Raises:
        InvalidRequest: The file is missing or too large, or its media type is unknown.

    Example:
        >>> Document(b"%PDF-1.7", filename="bridge.pdf").to_part()["file"]["filename"]
        'bridge.pdf'
    """

    source: Source
    filename: str | None = None
    media_type: str | None = None

    def __post_init__(self) -> None:
        loaded = _loaded(self.source, self.media_type, "document", "", self.filename or "")
        if self.filename is None and isinstance(self.source, (str, os.PathLike)):
            path = os.fsdecode(self.source)
            path = re.split(r"[?#]", path)[0] if _is_web(path) else path
            name = "" if path.startswith("data:") else os.path.basename(path)
            object.__setattr__(self, "filename", name or None)
        object.__setattr__(self, "source", loaded)

    def __repr__(self) -> str:
        return f"Document({_shown(self.source)})"

    def to_part(self) -> dict[str, Any]:
        """The document as a part of a message."""
        media_type = "" if _is_web(str(self.source)) else _split_data_url(str(self.source))[0]
        ending = next((ending for ending, known in _ENDINGS.items() if known == media_type), ".pdf")
        return {"type": "file", "file": {"filename": self.filename or f"document{ending}", "file_data": self.source}}


def _loaded(source: Any, media_type: str | None, what: str, family: str, name: str = "") -> str:
    """The source as a URL: its own, or a data URL made of its bytes."""
    if media_type is not None and not (isinstance(media_type, str) and _MEDIA_TYPE.fullmatch(media_type)):
        raise InvalidRequest(f"media_type must be like {_EXAMPLES[family]!r}")
    if isinstance(source, str) and _is_web(source):
        return source
    if isinstance(source, str) and source.startswith("data:"):
        given, data = _split_data_url(source)
        if _BASE64.fullmatch(data) is None:
            raise InvalidRequest(f"the {what} is a data URL without base64 in it")
        return f"data:{_checked_type(media_type or given, what, family)};base64,{data}"
    path = ""
    if isinstance(source, (bytes, bytearray)):
        content = bytes(source)
    elif isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        content = _read(path, what)
    else:
        raise InvalidRequest(f"{what} must be bytes, a path or a URL, not {type(source).__name__}")
    if not content:
        raise InvalidRequest(f"the {what} is empty")
    if len(content) > _LARGEST:
        raise InvalidRequest(f"the {what} exceeds the limit of {_LARGEST} bytes")
    if media_type is None and path:
        _refuse_text(content, path)
    media_type = _checked_type(media_type or media_type_of(content, path) or _type_of_name(name), what, family)
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _checked_type(media_type: str, what: str, family: str) -> str:
    if not media_type:
        raise InvalidRequest(
            f"cannot tell the media type of the {what} from its first bytes or its name: pass media_type=, like "
            f"{_EXAMPLES[family]!r}"
        )
    if not media_type.startswith(family):
        raise InvalidRequest(f"expected {what}, got {media_type}: pass media_type= if that is wrong")
    return media_type


def _refuse_text(content: bytes, path: str) -> None:
    """Refuses text in a file named like a picture, such as the error page of a failed download."""
    promised, start = _type_of_name(path), content[:16]
    if promised.startswith("image/") and media_type_of(content) == "" and start.isascii() and _is_text(start.decode()):
        raise InvalidRequest(f"{path[-80:]!r} is not {promised}: its bytes begin with {content[:8]!r}")


def _is_text(start: str) -> bool:
    return start.replace("\n", " ").replace("\r", " ").replace("\t", " ").isprintable()


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LARGEST + 1)  # not by its size: a device has none
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidRequest(f"cannot read the {what}: {reason}: {path[:200]!r}") from None


def audio_format(media_type: str) -> str:
    """OpenAI's name for an audio format.

    Example:
        >>> audio_format("audio/mpeg"), audio_format("audio/ogg")
        ('mp3', 'ogg')
    """
    return _AUDIO_FORMATS.get(media_type, media_type.partition("/")[2])


def media_type_of(content: bytes, name: str = "") -> str:
    """The media type shown by the first bytes, or by the file's name; "" if unknown.

    Example:
        >>> media_type_of(b"%PDF-1.7"), media_type_of(b"?", "a.png")
        ('application/pdf', 'image/png')
    """
    for beginning, media_type in _BEGINNINGS:
        if content.startswith(beginning):
            return media_type
    if content[:4] == b"RIFF" and content[8:12] in (b"WEBP", b"WAVE"):
        return "image/webp" if content[8:12] == b"WEBP" else "audio/wav"
    if content[4:8] == b"ftyp" and content[8:11] == b"M4A":
        return "audio/mp4"
    return _type_of_name(name)


def _type_of_name(name: str) -> str:
    """The media type for the extension of a path or URL; "" if unknown."""
    return _ENDINGS.get(os.path.splitext(re.split(r"[?#]", name)[0] if _is_web(name) else name)[1].lower(), "")


def _is_web(source: str) -> bool:
    return source[:8].lower().startswith(("http://", "https://"))


def _split_data_url(url: str) -> tuple[str, str]:
    """Media type and base64 text of a data URL; any other text counts as base64."""
    if not url.startswith("data:"):
        return "", url
    match = _DATA_URL.match(url)
    if match is None:
        raise InvalidRequest("the data URL is not of the form data:image/png;base64,...")
    data = url[match.end() :]
    if match[3] is None or "%" in data:
        from urllib.parse import unquote_to_bytes

        content = unquote_to_bytes(data)
        data = base64.b64encode(content).decode("ascii") if match[3] is None else content.decode("ascii", "replace")
    # Some programs break lines, which services reject.
    return (match[1] or "text/plain"), "".join(data.split())


def _mapping(part: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = part.get(key)
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"a part of type {part.get('type')!r} needs {key!r}, a mapping")
    return value


def _text(mapping: Mapping[str, Any], key: str, where: str) -> str:
    value = mapping.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{where} needs {key!r}, a str that is not empty")
    return value


def _shown(source: Any) -> str:
    text = str(source)
    return repr(text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)")
