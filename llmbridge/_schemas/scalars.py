"""The plain types: their schema, and how a value of JSON becomes one of them."""

from __future__ import annotations

import datetime as dt
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

__all__ = ["SCALARS", "Scalar", "is_scalar"]

_FRACTION = re.compile(r"(:[0-9]{2})[.,]([0-9]+)")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A plain type.

    Args:
        schema: Its JSON schema.
        wanted: What it is called in a message to the model.
        convert: Gives its value; TypeError for a JSON value of another type, ValueError for one that cannot be read.
    """

    schema: Mapping[str, Any]
    wanted: str
    convert: Callable[[Any], Any]


def _only(cls: type) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if type(value) is not cls:
            raise TypeError
        return value

    return convert


def _integer(value: Any) -> int:
    if type(value) is int or (type(value) is float and value.is_integer()):  # JSON knows one kind of number
        return int(value)
    raise TypeError


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(error) from None


def _decimal(value: Any) -> Decimal:
    if type(value) not in (str, int, float):
        raise TypeError
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        raise ValueError(value) from None
    if not number.is_finite():
        raise ValueError(value)
    return number


def _from_text(read: Callable[[str], Any]) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if type(value) is not str:
            raise TypeError
        return read(value)

    return convert


def _iso(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Python 3.10 reads neither a Z nor fractions of other than 3 or 6 digits."""

    def convert(text: str) -> Any:
        text = text.strip()
        if text[-1:] in ("Z", "z"):
            text = f"{text[:-1]}+00:00"
        return read(_FRACTION.sub(lambda match: f"{match[1]}.{match[2][:6]:0<6}", text))

    return convert


def _text(form: str) -> dict[str, str]:
    return {"type": "string", "format": form}


_MOMENT = Scalar(
    _text("date-time"), "a date and time like 2026-01-31T12:00:00Z", _from_text(_iso(dt.datetime.fromisoformat))
)
_PATH = Scalar(_text("path"), "a path as a string", _from_text(Path))

SCALARS: dict[Any, Scalar] = {
    str: Scalar({"type": "string"}, "a string", _only(str)),
    bool: Scalar({"type": "boolean"}, "true or false", _only(bool)),
    int: Scalar({"type": "integer"}, "an integer", _integer),
    float: Scalar({"type": "number"}, "a number", _number),
    types.NoneType: Scalar({"type": "null"}, "null", _only(types.NoneType)),
    dt.datetime: _MOMENT,
    dt.date: Scalar(_text("date"), "a date like 2026-01-31", _from_text(dt.date.fromisoformat)),
    dt.time: Scalar(_text("time"), "a time like 12:00:00", _from_text(_iso(dt.time.fromisoformat))),
    UUID: Scalar(_text("uuid"), "a UUID", _from_text(UUID)),
    Decimal: Scalar(_text("decimal"), 'a decimal number as a string like "12.50"', _decimal),
    Path: _PATH,
    PurePath: _PATH,
}


def is_scalar(hint: Any) -> bool:
    """Whether the hint is one of the plain types."""
    return typing.get_origin(hint) is None and hint in SCALARS  # what stands in an alias may not be hashable
