"""Masked keys: never shown, checked before use, removed from a server's echoes."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from llmbridge import ConfigError
from llmbridge.secret import MASK, MaskedStr, Secret, scrub

KEY = "sk-canary-0123456789"


class TestShown:
    """P18: a key appears in no text."""

    @pytest.mark.parametrize(
        "show",
        [
            str,
            repr,
            format,
            "{}".format,
            "{!r}".format,
            "%s".__mod__,
            "%r".__mod__,
            ascii,
            lambda s: f"{[s]} { ({'k': s}) }",
        ],
    )
    def test_a_secret_shows_as_a_mask(self, show: Any) -> None:
        """In every conversion to text."""
        text = show(Secret(KEY))
        assert KEY not in text
        assert MASK in text

    def test_a_secret_is_not_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """Neither as an argument nor in an exception."""
        with caplog.at_level(logging.DEBUG):
            logging.getLogger("test").debug("key: %s %r", Secret(KEY), Secret(KEY))
        assert KEY not in caplog.text

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_secret_is_not_pickled(self, protocol: int) -> None:
        """Pickling raises, without the value."""
        with pytest.raises(TypeError) as caught:
            pickle.dumps(Secret(KEY), protocol)
        assert KEY not in str(caught.value)

    def test_a_secret_is_not_serialized(self) -> None:
        """JSON does not support it."""
        with pytest.raises(TypeError) as caught:
            json.dumps({"key": Secret(KEY)})
        assert KEY not in str(caught.value)

    def test_a_secret_has_no_dict(self) -> None:
        """`vars()` shows nothing, nor do debuggers."""
        assert not hasattr(Secret(KEY), "__dict__")

    def test_only_reveal_gives_the_value(self) -> None:
        """For the one place that needs it."""
        assert Secret(KEY).reveal() == KEY

    def test_secrets_compare_by_value(self) -> None:
        """Calls with the same key can share connections."""
        assert Secret(KEY) == Secret(f" {KEY}\n")
        assert hash(Secret(KEY)) == hash(Secret(KEY))
        assert Secret(KEY) != Secret("sk-other")
        assert Secret(KEY) != KEY


class TestChecked:
    """P19: keys are checked first, and never quoted."""

    @pytest.mark.parametrize(
        "around", ["{}\n", "\r\n{}\r\n", "  {}\t", "\ufeff{}".replace("\ufeff", " "), "\x0b{}\x0c"]
    )
    def test_outer_white_space_is_stripped(self, around: str) -> None:
        """Often left from reading a file."""
        assert Secret(around.format(KEY)).reveal() == KEY

    @pytest.mark.parametrize(
        "bad",
        ["\r", "\n", "\r\nX-Evil: 1", "\x00", "\x07", "\x7f", "ü", "ключ", "\u2028", "\u200b", "\ud800", "\t"],
    )
    def test_characters_that_no_header_carries_are_refused(self, bad: str) -> None:
        """Inside the key; the error does not show any of it."""
        with pytest.raises(ConfigError, match="api_key holds") as caught:
            Secret(f"{KEY}{bad}{KEY}")
        assert "canary" not in str(caught.value)
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize("value", ["", " ", "\n\t", "\r\n"])
    def test_an_empty_key_is_refused(self, value: str) -> None:
        """It would become a header without a value."""
        with pytest.raises(ConfigError, match="empty"):
            Secret(value)

    @pytest.mark.parametrize("value", [7, b"sk-canary", ["sk-canary"], True, 1.5, {"k": "sk-canary"}])
    def test_a_key_of_another_type_is_rejected(self, value: Any) -> None:
        """The error names its type, without its value."""
        with pytest.raises(ConfigError, match="must be a str") as caught:
            Secret(value)
        assert "canary" not in str(caught.value)

    def test_the_error_names_the_variable(self) -> None:
        """The source of the key, if it was not the argument."""
        with pytest.raises(ConfigError, match=r"^OPENAI_API_KEY holds"):
            Secret("a\nb", "OPENAI_API_KEY")

    def test_printable_ascii_is_taken(self) -> None:
        """Any of it, including spaces inside."""
        value = "".join(map(chr, range(33, 127))) + " x"
        assert Secret(value).reveal() == value


class TestMaskedStr:
    """A header value that is sent unmasked."""

    def test_it_is_its_text(self) -> None:
        """It can be sent and compared as its text."""
        assert MaskedStr(f"Bearer {KEY}") == f"Bearer {KEY}"
        assert MaskedStr(KEY).encode() == KEY.encode()

    def test_its_repr_is_a_mask(self) -> None:
        """In a dict of headers, and in the locals of a traceback."""
        assert KEY not in repr({"Authorization": MaskedStr(f"Bearer {KEY}")})
        assert repr(MaskedStr(KEY)) == f"'{MASK}'"

    def test_its_copy_keeps_the_mask(self) -> None:
        """Options are copied on their way."""
        assert repr(copy.copy(MaskedStr(KEY))) == repr(copy.deepcopy(MaskedStr(KEY))) == f"'{MASK}'"


class TestScrub:
    """P18: also when the server repeats it."""

    def test_every_occurrence_is_replaced(self) -> None:
        """Of every secret."""
        text = f"bad key {KEY}; you sent {KEY} with hunter2"
        assert scrub(text, (KEY, "hunter2")) == f"bad key {MASK}; you sent {MASK} with {MASK}"

    def test_other_text_stays(self) -> None:
        """Without a secret in it, or without secrets."""
        assert scrub("nothing here", (KEY,)) == "nothing here"
        assert scrub("nothing here", ()) == "nothing here"

    def test_an_empty_secret_replaces_nothing(self) -> None:
        """The empty string is in every text."""
        assert scrub("abc", ("",)) == "abc"

    @pytest.mark.parametrize("order", [("sk-canary", KEY), (KEY, "sk-canary")])
    def test_a_secret_that_begins_with_another_is_replaced_whole(self, order: tuple[str, ...]) -> None:
        """Masking the shorter one first would leave the rest of the longer one."""
        assert "0123" not in scrub(f"key {KEY}!", order)

    @pytest.mark.parametrize(
        "key", ["sk-ab/cdefghijkl", 'sk-"quoted"', "sk-back\\slash\\", 'a/b+c\\d"e/f\\\\"', "plain-key"]
    )
    @pytest.mark.parametrize("rounds", [1, 2, 3])
    @pytest.mark.parametrize(
        "escape",
        [
            lambda text: text,
            lambda text: text.replace("/", "\\/"),
            lambda text: re.sub(r"(?<!\\)[a-zA-Z/+-]", lambda c: f"\\u{ord(c[0]):04x}", text),
            lambda text: re.sub(r"(?<!\\)[a-zA-Z/+-]", lambda c: f"\\u{ord(c[0]):04X}", text),
        ],
        ids=["json.dumps", "slashes", "codes", "capital codes"],
    )
    def test_escapes_of_json_hide_nothing(self, key: str, rounds: int, escape: Callable[[str], str]) -> None:
        """In any escapes, also as JSON within a string of JSON; the rest is unchanged, and still JSON."""
        text = key
        for _ in range(rounds):
            text = escape(json.dumps(text)[1:-1])
        found = scrub(f"C:\\new \\u00e4 {text}\\n{text}", (key, "sk"))
        assert found == f"C:\\new \\u00e4 {MASK}\\n{MASK}"

    @pytest.mark.parametrize(
        "escape",
        [
            lambda key: quote(key, safe=""),
            lambda key: quote(key, safe="").lower(),
            lambda key: quote(quote(key, safe=""), safe=""),
            lambda key: key.replace("/", "&#x2F;").replace("=", "&#x3D;").replace("+", "&#43;"),
            lambda key: "".join(f"&#{ord(character)};" for character in key),
            lambda key: json.dumps(quote(key, safe="/")).replace("/", "\\/")[1:-1],
        ],
        ids=["URL", "URL in small letters", "URL twice", "templates of HTML", "HTML", "URL in JSON"],
    )
    def test_escapes_of_urls_and_html_hide_nothing(self, escape: Callable[[str], str]) -> None:
        """As in a redirect to a login, or in a page that quotes the request; the rest is unchanged."""
        key = "sk-ab/cd+ef=ghij="
        if "%2f" in escape(key):
            key = key.lower()
        assert scrub(f"100% sure, {escape(key)}&#33; %41", (key,)) == f"100% sure, {MASK}&#33; %41"
        assert scrub(escape(key), (key,)) == MASK

    def test_other_characters_than_ascii_may_be_escaped(self) -> None:
        """As in the password of a proxy."""
        assert scrub(json.dumps("is pä\U0001f511sswörd!"), ("pä\U0001f511sswörd",)) == f'"is {MASK}!"'

    def test_escapes_without_a_secret_stay(self) -> None:
        """Character by character."""
        text = json.dumps({"a": 'x\\y"z/\U0001f511\n', "b": "\\"}) + "\\"
        assert scrub(text, (KEY,)) == text
