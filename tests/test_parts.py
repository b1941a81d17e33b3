"""Images, sound and documents in messages: every form of input, and the parts that are sent."""

from __future__ import annotations

import base64
import copy
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge import parts
from llmbridge.errors import InvalidRequest, LLMBridgeError
from llmbridge.messages import Message
from llmbridge.parts import Audio, Document, Image, MediaPart

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"
PDF = b"%PDF-1.7 words"
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt "
WEB = "https://example.com/a/cat.png?size=9#top"


def b64(content: bytes) -> str:
    """The bytes in base64."""
    return base64.b64encode(content).decode()


def data_url(media_type: str, content: bytes) -> str:
    """The bytes as a data URL."""
    return f"data:{media_type};base64,{b64(content)}"


# Name: the first bytes of a file, and its kind.
BEGINNINGS: dict[str, tuple[bytes, str]] = {
    "png": (PNG, "image/png"),
    "jpeg": (b"\xff\xd8\xff\xe0JFIF", "image/jpeg"),
    "gif of 1987": (b"GIF87a..", "image/gif"),
    "gif of 1989": (b"GIF89a..", "image/gif"),
    "webp": (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "image/webp"),
    "wav": (WAV, "audio/wav"),
    "mp3 with a tag": (b"ID3\x04\x00", "audio/mpeg"),
    "mp3 without a tag": (b"\xff\xfb\x90\x44", "audio/mpeg"),
    "mp3 of a low rate": (b"\xff\xf3\x40\xc0", "audio/mpeg"),
    "ogg": (b"OggS\x00\x02", "audio/ogg"),
    "flac": (b"fLaC\x00", "audio/flac"),
    "m4a": (b"\x00\x00\x00\x20ftypM4A \x00", "audio/mp4"),
    "pdf": (PDF, "application/pdf"),
}
KINDS: dict[str, Callable[..., Any]] = {"image": Image, "audio": Audio, "application": Document}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_the_kind_is_found_out_from_the_first_bytes(name: str) -> None:
    """The type need not be given if the bytes show it."""
    content, media_type = BEGINNINGS[name]
    made = KINDS[media_type.partition("/")[0]](content)
    assert made.source == data_url(media_type, content)


@pytest.mark.parametrize(
    ("name", "media_type", "kind"),
    [
        ("a.PNG", "image/png", Image),
        ("a.b.jpg", "image/jpeg", Image),
        ("a.jpeg", "image/jpeg", Image),
        ("a.webp", "image/webp", Image),
        ("a.mp3", "audio/mpeg", Audio),
        ("a.m4a", "audio/mp4", Audio),
        ("a.pdf", "application/pdf", Document),
        ("a.txt", "text/plain", Document),
        ("a.md", "text/markdown", Document),
        ("a.csv", "text/csv", Document),
        ("a.html", "text/html", Document),
    ],
)
def test_the_kind_is_found_out_from_the_name(
    name: str, media_type: str, kind: Callable[..., Any], tmp_path: Path
) -> None:
    """Otherwise the file's name decides, as a path or as a str."""
    path = tmp_path / name
    path.write_bytes(b"\0 no known beginning")
    assert kind(path).source == kind(str(path)).source == data_url(media_type, b"\0 no known beginning")


def test_the_bytes_count_more_than_the_name(tmp_path: Path) -> None:
    """A file with a wrong name is sent with its true type."""
    path = tmp_path / "cat.jpg"
    path.write_bytes(PNG)
    assert Image(path).source == data_url("image/png", PNG)


def test_the_caller_counts_more_than_both(tmp_path: Path) -> None:
    """A given media type is sent unchanged, for bytes, a path and a data URL."""
    path = tmp_path / "cat.jpg"
    path.write_bytes(PNG)
    for source in (path, PNG, data_url("image/png", PNG)):
        assert Image(source, media_type="image/heic").source == data_url("image/heic", PNG)


def test_an_image_becomes_a_part() -> None:
    """OpenAI's form, with the detail only if it was given."""
    url = data_url("image/png", PNG)
    assert Image(PNG).to_part() == {"type": "image_url", "image_url": {"url": url}}
    assert Image(bytearray(PNG), "low").to_part() == {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    assert Image(url).to_part() == Image(PNG).to_part()
    assert Image(WEB).to_part() == {"type": "image_url", "image_url": {"url": WEB}}
    assert Image("HTTPS://EXAMPLE.COM/x").source == "HTTPS://EXAMPLE.COM/x"


@pytest.mark.parametrize(
    ("content", "media_type", "form"),
    [
        (WAV, None, "wav"),
        (b"ID3", None, "mp3"),
        (b"OggS", None, "ogg"),
        (b"fLaC", None, "flac"),
        (b"?", "audio/x-wav", "wav"),
        (b"?", "audio/mp4", "m4a"),
        (b"?", "audio/aac", "aac"),
    ],
)
def test_sound_becomes_a_part(content: bytes, media_type: str | None, form: str) -> None:
    """OpenAI's form names the format by a short word."""
    part = Audio(content, media_type).to_part()
    assert part == {"type": "input_audio", "input_audio": {"data": b64(content), "format": form}}


def test_a_document_becomes_a_part(tmp_path: Path) -> None:
    """The name is the given one, the file's, or one that suits its kind."""
    path = tmp_path / "offer.pdf"
    path.write_bytes(PDF)
    url = data_url("application/pdf", PDF)
    assert Document(path).to_part() == {"type": "file", "file": {"filename": "offer.pdf", "file_data": url}}
    assert Document(PDF).to_part()["file"] == {"filename": "document.pdf", "file_data": url}
    assert Document(PDF, "x.pdf").to_part()["file"] == {"filename": "x.pdf", "file_data": url}
    assert Document(url).to_part()["file"] == {"filename": "document.pdf", "file_data": url}
    assert Document(b"Hi", media_type="text/plain").to_part()["file"]["filename"] == "document.txt"
    web = "https://example.com/papers/one.pdf?v=2"
    assert Document(web).to_part()["file"] == {"filename": "one.pdf", "file_data": web}
    assert Document("https://example.com/").to_part()["file"]["filename"] == "document.pdf"


def test_a_message_takes_them_as_they_are() -> None:
    """Beside text, in a list; the message holds the parts."""
    message = Message("user", ["What is this?", Image(WEB), Audio(WAV), Document(PDF)])
    assert [part["type"] for part in message.parts] == ["text", "image_url", "input_audio", "file"]


# The mistake, and words of its error.
WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: Image(b""), "the image is empty"),
    (lambda: Image(b"no image"), "pass media_type=, like 'image/png'"),
    (lambda: Audio(b"no sound"), "pass media_type=, like 'audio/wav'"),
    (lambda: Document(b"no document"), "pass media_type=, like 'application/pdf'"),
    (lambda: Image(PDF), "expected image, got application/pdf"),
    (lambda: Audio(PNG), "expected audio, got image/png"),
    (lambda: Image(PNG, media_type="audio/wav"), "expected image, got audio/wav"),
    (lambda: Image(PNG, media_type="png"), "media_type must be like 'image/png'"),
    (lambda: Audio(WAV, "wav"), "media_type must be like 'audio/wav'"),
    (lambda: Document(PDF, media_type=5), "media_type must be like"),  # type: ignore[arg-type]
    (lambda: Image("/nowhere/cat.png"), "cannot read the image: No such file or directory: '/nowhere/cat.png'"),
    (lambda: Document(Path("/nowhere/a.pdf")), "cannot read the document"),
    (lambda: Image("/"), "cannot read the image: Is a directory"),
    (lambda: Image("a\0b"), "cannot read the image: embedded null"),
    (lambda: Audio("https://example.com/a.mp3"), "audio cannot be a URL"),
    (lambda: Image(None), "image must be bytes, a path or a URL, not NoneType"),  # type: ignore[arg-type]
    (lambda: Document(5), "document must be bytes, a path or a URL, not int"),  # type: ignore[arg-type]
    (lambda: Audio(memoryview(WAV)), "audio must be bytes, a path or a URL, not memoryview"),  # type: ignore[arg-type]
    (lambda: Image("data:image/png;base64"), "the data URL is not of the form data:image/png;base64,..."),
    (lambda: Image("data:image/png;base64,"), "the image is a data URL without base64 in it"),
    (lambda: Image("data:image/png;base64,???"), "the image is a data URL without base64 in it"),
    (lambda: Image("data:text/plain;base64,aGk="), "expected image, got text/plain"),
    (lambda: Image("data:,hello"), "expected image, got text/plain"),
]


@pytest.mark.parametrize(("make", "says"), WRONG, ids=[says for _, says in WRONG])
def test_what_cannot_be_sent_is_refused_at_once(make: Callable[[], Any], says: str) -> None:
    """The error says what is wrong, and what to do."""
    with pytest.raises(InvalidRequest) as caught:
        make()
    assert says in str(caught.value)


def test_what_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most the limit is read, whatever size the file claims to have."""
    monkeypatch.setattr(parts, "_LARGEST", 20)
    path = tmp_path / "cat.png"
    path.write_bytes(PNG.ljust(20, b"."))
    assert Image(path).source == data_url("image/png", PNG.ljust(20, b"."))
    path.write_bytes(PNG.ljust(21, b"."))
    for source in (path, PNG.ljust(21, b"."), Path("/dev/zero")):
        with pytest.raises(InvalidRequest, match="limit of 20 bytes"):
            Image(source)


def test_a_path_may_be_of_bytes(tmp_path: Path) -> None:
    """Some path objects hold bytes: names that are not text are opened too."""

    class Odd(os.PathLike[bytes]):
        def __fspath__(self) -> bytes:
            return os.fsencode(tmp_path / "cat.png")

    (tmp_path / "cat.png").write_bytes(PNG)
    assert Image(Odd()).source == data_url("image/png", PNG)  # type: ignore[arg-type]
    assert Document(Odd()).to_part()["file"]["filename"] == "cat.png"  # type: ignore[arg-type]


def test_a_repr_is_short() -> None:
    """A picture of megabytes does not fill a screen or a log; a URL is shown."""
    for made in (Image(PNG * 9999), Audio(WAV * 9999), Document(PDF * 9999)):
        assert len(repr(made)) < 100
        assert len(repr(MediaPart.of(made.to_part()))) < 150
    assert repr(Image("https://example.com/cat.png")) == "Image('https://example.com/cat.png')"


def test_they_are_values() -> None:
    """Equal by content, hashable, immutable and picklable."""
    assert Image(PNG) == Image(data_url("image/png", PNG)) != Image(PNG, "low")
    assert len({Image(PNG), Image(PNG)}) == 1
    for made in (Image(PNG, "low"), Audio(WAV), Document(PDF, "a.pdf")):
        assert copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made
        with pytest.raises(AttributeError):
            made.source = b""  # type: ignore[misc]


# Name: a part, and the dialect's view of it.
MEDIA: dict[str, tuple[dict[str, Any], MediaPart | None]] = {
    "an image by URL": (
        {"type": "image_url", "image_url": {"url": WEB, "detail": "high"}},
        MediaPart("image", "image/png", url=WEB, detail="high"),
    ),
    "an image by a URL that says nothing": (
        {"type": "image_url", "image_url": {"url": "https://example.com/cat"}},
        MediaPart("image", "", url="https://example.com/cat"),
    ),
    "a URL alone": ({"type": "image_url", "image_url": WEB}, MediaPart("image", "image/png", url=WEB)),
    "an image as data": (Image(PNG).to_part(), MediaPart("image", "image/png", b64(PNG))),
    "data with parameters": (
        {"type": "image_url", "image_url": {"url": "data:image/png;charset=utf-8;name=a.png;base64,aGk="}},
        MediaPart("image", "image/png", "aGk="),
    ),
    "data with line breaks": (
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aG\r\n k=\n"}},
        MediaPart("image", "image/png", "aGk="),
    ),
    "data with escapes": (
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk%3D"}},
        MediaPart("image", "image/png", "aGk="),
    ),
    "data without base64": (
        {"type": "image_url", "image_url": {"url": "data:image/svg+xml,%3Csvg/%3E"}},
        MediaPart("image", "image/svg+xml", b64(b"<svg/>")),
    ),
    "sound": (Audio(WAV).to_part(), MediaPart("audio", "audio/wav", b64(WAV))),
    "sound in mp3": (Audio(b"ID3").to_part(), MediaPart("audio", "audio/mpeg", b64(b"ID3"))),
    "sound of a rare kind": (Audio(b"?", "audio/aac").to_part(), MediaPart("audio", "audio/aac", b64(b"?"))),
    "sound as a data URL": (
        {"type": "input_audio", "input_audio": {"format": "wav", "data": "data:audio/wav;base64,aGk="}},
        MediaPart("audio", "audio/wav", "aGk="),
    ),
    "a document": (Document(PDF, "a.pdf").to_part(), MediaPart("document", "application/pdf", b64(PDF), "", "a.pdf")),
    "a document by URL": (
        Document("https://example.com/notes.txt").to_part(),
        MediaPart("document", "text/plain", "", "https://example.com/notes.txt", "notes.txt"),
    ),
    "a document as mere base64": (
        {"type": "file", "file": {"file_data": "aGk="}},
        MediaPart("document", "application/pdf", "aGk="),
    ),
    "a named document as mere base64": (
        {"type": "file", "file": {"file_data": "aGk=", "filename": "a.csv"}},
        MediaPart("document", "text/csv", "aGk=", "", "a.csv"),
    ),
    "a file that the service has": ({"type": "file", "file": {"file_id": "f1"}}, None),
    "text": ({"type": "text", "text": "Hi"}, None),
    "a part of another service": ({"type": "video", "video": {}}, None),
    "no type": ({}, None),
}


@pytest.mark.parametrize("name", MEDIA)
def test_a_dialect_sees_what_is_in_a_part(name: str) -> None:
    """The same fields for any form of the part."""
    part, expected = MEDIA[name]
    before = copy.deepcopy(part)
    assert MediaPart.of(part) == expected
    assert part == before


def test_media_is_a_url_again() -> None:
    """For dialects that take images only by URL."""
    for made in (Image(PNG), Image(WEB)):
        media = MediaPart.of(made.to_part())
        assert media is not None
        assert media.data_url == made.source


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"type": "image_url"}, "an image_url part needs {'image_url': {'url': ...}}"),
        ({"type": "image_url", "image_url": {}}, "image_url needs 'url', a str that is not empty"),
        ({"type": "image_url", "image_url": {"url": ""}}, "image_url needs 'url'"),
        ({"type": "image_url", "image_url": {"url": 5}}, "image_url needs 'url'"),
        ({"type": "image_url", "image_url": {"url": "data:nonsense"}}, "the data URL is not of the form"),
        ({"type": "input_audio"}, "a part of type 'input_audio' needs 'input_audio', a mapping"),
        ({"type": "input_audio", "input_audio": {"format": "wav"}}, "input_audio needs 'data'"),
        ({"type": "input_audio", "input_audio": {"data": "aGk="}}, "input_audio needs 'format'"),
        ({"type": "file"}, "a part of type 'file' needs 'file', a mapping"),
        ({"type": "file", "file": {}}, "file needs 'file_data'"),
        ({"type": "file", "file": {"file_data": None}}, "file needs 'file_data'"),
    ],
)
def test_a_part_that_lacks_something_is_refused(part: dict[str, Any], says: str) -> None:
    """It resembles an image, sound or a document, but lacks a field, which the error names."""
    with pytest.raises(InvalidRequest) as caught:
        MediaPart.of(part)
    assert says in str(caught.value)


@given(content=st.binary(min_size=1, max_size=60))
def test_bytes_come_out_as_they_went_in(content: bytes) -> None:
    """Any bytes, to the last bit."""
    for made in (
        Image(content, media_type="image/x"),
        Audio(content, "audio/x"),
        Document(content, media_type="a/b"),
    ):
        media = MediaPart.of(made.to_part())
        assert media is not None
        assert base64.b64decode(media.data, validate=True) == content


ANY_JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(["data:image/png;base64,aGk=", "https://a.b/c"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["url", "data", "format", "file_data", "filename", "detail"]), inner)
    ),
    max_leaves=6,
)


@given(kind=st.sampled_from(["image_url", "input_audio", "file", "text"]), value=ANY_JSON)
def test_any_part_is_media_or_an_error_of_the_tree(kind: str, value: Any) -> None:
    """Any part is media or an error of the tree, never a KeyError or AttributeError."""
    try:
        media = MediaPart.of({"type": kind, kind: value})
    except LLMBridgeError:
        return
    assert media is None or media.data or media.url


def test_the_name_of_a_document_says_what_its_bytes_are() -> None:
    """If the bytes do not show it, and no type is given."""
    part = Document(b"hello", filename="a.txt").to_part()
    assert part["file"] == {"filename": "a.txt", "file_data": data_url("text/plain", b"hello")}
    assert Document(b"%PDF-1.7", filename="a.txt").to_part()["file"]["file_data"].startswith("data:application/pdf;")
    with pytest.raises(InvalidRequest, match="media_type="):
        Document(b"hello", filename="a.xyz")


def test_the_name_of_a_document_counts_where_its_path_says_nothing(tmp_path: Path) -> None:
    """The path's own ending comes first."""
    (tmp_path / "upload").write_bytes(b"hello")
    (tmp_path / "page.html").write_bytes(b"hello")
    assert "text/csv" in str(Document(tmp_path / "upload", filename="a.csv").to_part())
    assert "text/html" in str(Document(tmp_path / "page.html", filename="a.csv").to_part())
