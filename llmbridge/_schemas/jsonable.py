"""Python values to JSON: defaults in schemas, results of tools."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
from collections.abc import Callable, Generator, Mapping, Sequence, Set, ValuesView
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

__all__ = ["as_json", "result_text"]


def result_text(value: Any) -> str:
    """A tool's return value as text for the model: a str unchanged, else JSON if possible, else `str()`."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(as_json(value, otherwise=str), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # it contains itself, or its own dump failed
        return str(value)


def as_json(value: Any, otherwise: Callable[[Any], Any] | None = None) -> Any:
    """The value made of JSON types: dict, list, str, int, float, bool, None.

    Args:
        value: Also dataclasses, named tuples, enums, dates, UUIDs, decimals, paths, sets, pydantic models, arrays.
        otherwise: Converts values without a JSON form; with it, any sequence, rows of a database and objects of attrs
            and msgspec are accepted too.

    Raises:
        TypeError: There is no JSON form, and `otherwise` was not given.
        ValueError: A float outside JSON (NaN, infinity).

    Example:
        >>> from decimal import Decimal
        >>> as_json({"price": Decimal("1.50"), "sizes": (1, 2)})
        {'price': '1.50', 'sizes': [1, 2]}
    """
    if isinstance(value, Enum):
        return as_json(value.value, otherwise)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            if otherwise:
                return otherwise(value)
            raise ValueError(f"JSON has no {value}")
        return value
    if isinstance(value, Mapping):
        return {_key(key): as_json(item, otherwise) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return as_json(value._asdict(), otherwise)
    if isinstance(value, (list, tuple, Set)):
        return [as_json(item, otherwise) for item in value]
    return _object(value, otherwise)


def _object(value: Any, otherwise: Callable[[Any], Any] | None) -> Any:
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID, PurePath)):
        return str(value)
    if not isinstance(value, type):
        if otherwise and callable(getattr(value, "to_part", None)):
            return repr(value)  # an image deep inside: the model would read its base64 as text
        if callable(dump := getattr(value, "model_dump", None)):
            return dump(mode="json")
        if hasattr(type(value), "__get_validators__") and callable(dump := getattr(value, "dict", None)):  # pydantic 1
            return as_json(dump(), otherwise)
        if dataclasses.is_dataclass(value):
            fields = dataclasses.fields(value)
            return {item.name: as_json(getattr(value, item.name), otherwise) for item in fields}
        if callable(tolist := getattr(value, "tolist", None)):  # numpy's arrays and numbers
            return as_json(tolist(), otherwise)
        if otherwise:
            return _contents(value, otherwise)
    if otherwise:
        return otherwise(value)
    raise TypeError(f"JSON has no form for {type(value).__name__}")


def _contents(value: Any, otherwise: Callable[[Any], Any]) -> Any:
    """The contents of a value that holds things like a dict or list but is neither."""
    cls = type(value)
    if isinstance(value, (Generator, map, filter, zip)):
        return [as_json(item, otherwise) for item in value]
    if isinstance(value, (Sequence, ValuesView)) and not isinstance(value, (bytes, bytearray, memoryview)):
        if callable(keys := getattr(value, "keys", None)):  # sqlite3's rows
            return {_key(key): as_json(item, otherwise) for key, item in zip(keys(), value, strict=True)}
        return [as_json(item, otherwise) for item in value]
    fields = [item.name for item in getattr(cls, "__attrs_attrs__", [])] or list(getattr(cls, "__struct_fields__", []))
    if fields:  # of attrs, and of msgspec
        return {name: as_json(getattr(value, name), otherwise) for name in fields}
    return otherwise(value)


def _key(key: Any) -> str:
    if isinstance(key, Enum):
        key = key.value
    if key is None or isinstance(key, (bool, float)):
        return json.dumps(key)
    return str(key)
