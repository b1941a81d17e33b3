"""Converts JSON values to the Python values that type hints describe."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, ClassVar

from llmbridge._schemas.build import pydantic_schema, type_adapter
from llmbridge._schemas.check import check, closest, joined, kind_of, listed, quoted
from llmbridge._schemas.hints import (
    ARRAYS,
    MISSING,
    SCALARS,
    Field,
    Hint,
    class_fields,
    is_pydantic_1,
    is_pydantic_model,
    table_entry,
    unwrapped,
)

__all__ = ["Conversion"]


class Conversion:
    """One conversion, which continues after a problem in order to report all of them at once.

    Values are checked as JSON schema would: an int serves as a float and 2.0 as an int, but a str not as a number. The
    result is meaningless if there are problems.

    Attributes:
        problems: "path: what is wrong".

    Example:
        >>> conversion = Conversion()
        >>> conversion.convert({"sizes": [1, "2"]}, dict[str, list[int]])
        {'sizes': [1, MISSING]}
        >>> conversion.problems
        ['sizes[1]: expected an integer, got the string "2"']
    """

    def __init__(self) -> None:
        self.problems: list[str] = []

    def convert(self, value: Any, hint: Any, path: str = "") -> Any:
        """The value as the hint's type, or MISSING after adding a problem."""
        found = unwrapped(hint)
        if found.constraints:
            size = isinstance(value, (list, dict))
            limits = {key.replace("Length", "Items") if size else key: item for key, item in found.constraints.items()}
            problems = check(_number_in(value) if found.bare is Decimal else value, limits, path).problems
            if problems:
                self.problems += problems
                return MISSING
        return self._BY_KIND[found.kind](self, value, found, path)

    def fields(self, value: Any, fields: Sequence[Field], path: str) -> dict[str, Any]:
        """The converted properties of an object: without those that are left out, or null in place of that."""
        if not isinstance(value, dict):
            self._wrong(path, f"expected an object, got {quoted(value)}")
            return {}
        converted: dict[str, Any] = {}
        for item in fields:
            where = joined(path, item.name)
            if item.name not in value:
                if item.required:
                    self._wrong(where, "is missing")
                continue
            problems = len(self.problems)
            result = self.convert(value[item.name], item.hint, where)
            if value[item.name] is None and not item.required and self.problems[problems:]:
                del self.problems[problems:]  # null means left out: some services demand every property
            else:
                converted[item.name] = result
        known = [item.name for item in fields]
        for key in value:
            if key not in known:
                self._wrong(joined(path, key), f"is unknown; known are {listed(known) or 'none'}")
        return converted

    def _wrong(self, path: str, problem: str) -> Any:
        self.problems.append(f"{path or '(root)'}: {problem}")
        return MISSING

    def _anything(self, value: Any, found: Hint, path: str) -> Any:
        return value

    def _alias(self, value: Any, found: Hint, path: str) -> Any:
        return self.convert(value, found.aliased, path)

    def _scalar(self, value: Any, found: Hint, path: str) -> Any:
        scalar = SCALARS[found.origin]
        try:
            return scalar.convert(value)
        except (TypeError, ValueError):
            return self._wrong(path, f"expected {scalar.wanted}, got {quoted(value)}")

    def _member(self, value: Any, found: Hint, path: str) -> Any:
        member = table_entry(found.table, value)
        if member is MISSING:
            known = listed([item for item, _ in found.table.values()])
            return self._wrong(path, f"must be {known}, got {quoted(value)}")
        return member

    def _union(self, value: Any, found: Hint, path: str) -> Any:
        # 1 would become 1.0 if float came first.
        exact = [option for option in found.args if type(value) in (int, str) and unwrapped(option).bare is type(value)]
        tried = []
        for option in exact if exact and type(value) is int else found.args:
            attempt = Conversion()
            result = attempt.convert(value, option, path)
            if not attempt.problems:
                return result
            tried.append(attempt.problems)
        self.problems += closest(tried)
        return MISSING

    def _pydantic(self, value: Any, found: Hint, path: str) -> Any:
        cls = found.bare
        checked = check(value, pydantic_schema(cls), path)
        if checked.slow:  # a pydantic model may search with `re`
            self.problems += checked.slow
            return MISSING
        # Without nulls that mean "left out".
        text = json.dumps(checked.value)  # in pydantic's JSON mode a strict model accepts dates and enums too
        try:
            if is_pydantic_1(cls):
                return cls.parse_raw(text)
            if is_pydantic_model(cls):
                return cls.model_validate_json(text)
            return type_adapter(cls).validate_json(text)
        except ValueError as error:
            listing = getattr(error, "errors", None)
            if not callable(listing):
                return self._wrong(path, str(error))
            for problem in listing():
                where = path
                for step in problem["loc"]:
                    if step == "__root__":  # pydantic 1's name for the whole
                        continue
                    where = f"{where}[{step}]" if isinstance(step, int) else joined(where, str(step))
                got = problem.get("input", MISSING)
                quotable = got is not MISSING and not isinstance(got, (dict, list)) and problem["type"] != "missing"
                known = f", got {quoted(got)}" if quotable else ""
                self._wrong(where, f"{problem['msg']}{known}")
            return MISSING

    def _mapping(self, value: Any, found: Hint, path: str) -> Any:
        if not isinstance(value, dict):
            return self._wrong(path, f"expected an object, got {quoted(value)}")
        names, items = found.args or (Any, Any)
        converted = {}
        for key, item in value.items():
            where = joined(path, key)
            converted[self._key(key, names, where)] = self.convert(item, items, where)
        if found.origin is collections.defaultdict:
            return collections.defaultdict(None, converted)
        return collections.OrderedDict(converted) if found.origin is collections.OrderedDict else converted

    def _key(self, key: str, hint: Any, path: str) -> Any:
        attempt = Conversion()
        result = attempt.convert(key, hint, path)
        if attempt.problems and key.removeprefix("-").isascii() and key.removeprefix("-").isdigit():
            number = Conversion()
            result = number.convert(int(key), hint, path)
            if not number.problems:
                return result
        self.problems += attempt.problems
        return result

    def _fields(self, value: Any, found: Hint, path: str) -> Any:
        problems = len(self.problems)
        converted = self.fields(value, class_fields(found.bare) or [], path)
        if self.problems[problems:]:
            return MISSING
        try:
            return converted if issubclass(found.origin, dict) else found.origin(**converted)
        except (TypeError, ValueError) as error:  # raised by __post_init__
            return self._wrong(path, str(error) or type(error).__name__)

    def _array(self, value: Any, found: Hint, path: str) -> Any:
        if not isinstance(value, list):
            return self._wrong(path, f"expected an array, got {quoted(value)}")
        args = found.args
        if found.origin is tuple and args and args[-1] is not ...:
            hints = [arg for arg in args if arg != ()]
            if len(hints) != len(value):
                return self._wrong(path, f"must have {len(hints)} items, has {len(value)}")
        else:
            hints = [args[0] if args else Any] * len(value)
        pairs = enumerate(zip(value, hints, strict=True))
        items = [self.convert(item, hint, f"{path}[{i}]") for i, (item, hint) in pairs]
        try:
            return tuple(items) if found.origin is tuple else ARRAYS[found.origin](items)
        except TypeError:  # an unhashable item in a set
            return self._wrong(path, f"cannot hold {kind_of(value[0])} in a set")

    _BY_KIND: ClassVar[dict[str, Callable[[Any, Any, Hint, str], Any]]] = {
        "alias": _alias, "anything": _anything, "array": _array, "enum": _member, "fields": _fields, "literal": _member,
        "mapping": _mapping, "pydantic": _pydantic, "scalar": _scalar, "tuple": _array, "union": _union,
    }  # fmt: skip


def _number_in(value: Any) -> Any:
    """The number that bounds apply to, which may be in a string."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value  # its own check reports it
