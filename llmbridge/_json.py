"""Checks JSON before it is sent, as strictly as services read it, and parses received JSON as leniently as is safe."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from typing import Any, TypeVar

from llmbridge._text import mended
from llmbridge.errors import InvalidRequest, ProtocolError

__all__ = ["check_text", "is_json", "json_copy", "mended_json", "parsed_json", "remembered", "scan_json"]

Made = TypeVar("Made")

_REMEMBERED = 32  # results of a function
_LONGEST = 64 * 1024  # characters of what they are made of: longer schemas would fill the memory
_LONGEST_INT = 4096  # bits; Python itself refuses to write numbers three times as long
_DEEPEST = 200  # less than the recursion limits of CPython's own JSON encoder and decoder


def json_copy(value: Any, where: str, *, root: bool = False, depth: int = 0) -> Any:
    """A deep copy, checked to be JSON in valid UTF-8.

    Args:
        value: Anything made of dict, list, tuple, str, int, float, bool and None.
        where: The place to name in an error.
        root: True names the keys of the outermost mapping as parameters of their own.

    Raises:
        InvalidRequest: A value in it is something else; the message says where and what.

    Example:
        >>> json_copy({"stop": ("a", "b")}, "options")
        {'stop': ['a', 'b']}
    """
    if isinstance(value, str):
        check_text(value, where)
        return value
    if value is None:
        return value
    if isinstance(value, int):
        if value.bit_length() > _LONGEST_INT:
            raise InvalidRequest(f"{where} is a number of {value.bit_length()} bits: services cannot read it")
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise InvalidRequest(f"{where} is {value}: JSON has neither NaN nor infinity")
    if depth >= _DEEPEST:
        raise InvalidRequest(f"{where.split('[')[0]} is nested too deeply, or contains itself")
    if isinstance(value, Mapping):
        return {
            _checked_key(key, where): json_copy(item, key if root else f"{where}[{key!r}]", depth=depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [json_copy(item, f"{where}[{i}]", depth=depth + 1) for i, item in enumerate(value)]
    raise InvalidRequest(f"{where} is of type {type(value).__name__}, which JSON cannot hold: convert it first")


def _checked_key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise InvalidRequest(f"{where or 'params'} has a key of type {type(key).__name__}: JSON keys are str")
    check_text(key, f"a key of {where or 'params'}")
    return key


def remembered(make: Callable[..., Made]) -> Callable[..., Made]:
    """Decorates a function of JSON that returns JSON: its last results are made only once, since the calls of a program
    have few different tools and schemas.

    Each call gets a copy. What JSON cannot hold, or is very long, is made each time; so is an error.

    Example:
        >>> @remembered
        ... def doubled(numbers):
        ...     print("made")
        ...     return [2 * number for number in numbers]
        >>> doubled([1, 2]), doubled([1, 2])
        made
        ([2, 4], [2, 4])
    """

    @lru_cache(maxsize=_REMEMBERED)
    def made(arguments: str) -> str:
        return json.dumps(make(*json.loads(arguments)))

    @wraps(make)
    def again(*arguments: Any) -> Made:
        try:
            written = json.dumps(arguments)
        except (TypeError, ValueError, RecursionError):
            return make(*arguments)
        if len(written) > _LONGEST:
            return make(*arguments)
        found: Made = json.loads(made(written))
        return found

    return again


def check_text(text: str, where: str) -> None:
    """Rejects a text that UTF-8 cannot encode.

    Raises:
        InvalidRequest: It holds half of a surrogate pair; the message says where.
    """
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{where} holds a lone surrogate at position {error.start}, which UTF-8 cannot encode: "
            "decode the text properly, or clean it with text.encode('utf-8', 'replace').decode()"
        ) from None


_decoder = json.JSONDecoder(strict=False)  # llama-cpp-python sends raw control characters in strings
scan_json: Any = getattr(_decoder, "scan_once")  # noqa: B009 - not in the type stubs; half the cost of decode()
"""`scan_json(text, 0)`: the value at the beginning of a text, and where it ends. For hot paths; it raises anything."""


def parsed_json(text: str) -> Any:
    """Parses a JSON text.

    Raises:
        ProtocolError: It is invalid.
    """
    try:
        value, end = scan_json(text, 0)
        if end == len(text) or not text[end:].strip():
            return value
        raise ValueError("more after the value")
    except StopIteration:
        pass  # leading white space, or invalid: left to the slower way
    except (ValueError, RecursionError):
        raise ProtocolError(f"the service sent invalid JSON: {_excerpt(text)}") from None
    try:
        return _decoder.decode(text)
    except (ValueError, RecursionError):
        raise ProtocolError(f"the service sent invalid JSON: {_excerpt(text)}") from None


def is_json(text: str) -> bool:
    """Whether `parsed_json` accepts it."""
    try:
        parsed_json(text)
    except ProtocolError:
        return False
    return True


def mended_json(value: Any) -> Any:
    r"""Parsed JSON with its texts repaired for UTF-8.

    Example:
        >>> mended_json({"a": ["\ud83d"]})
        {'a': ['�']}
    """
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, list):
        return [mended_json(item) for item in value]
    if isinstance(value, dict):
        return {mended(key): mended_json(item) for key, item in value.items()}
    return value


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:60]}...{text[-17:]}")
