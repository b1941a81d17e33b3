"""Whether what a caller gives as a JSON schema has the form of one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmbridge._schemas.walk import LISTED, NAMED, SINGLE, resolve
from llmbridge.errors import InvalidRequest

__all__ = ["check_form"]


def check_form(schema: Any, where: str) -> None:
    """Refuses a schema whose keywords are not what the standard says, before anybody relies on them.

    Keywords that llmbridge does not read are left to the service, and so is a keyword that is null.

    Args:
        schema: The whole document.
        where: What it is called in the message.

    Raises:
        InvalidRequest: A keyword is of the wrong kind; says which, and where.

    Example:
        >>> check_form({"properties": {"city": {"type": "string", "required": True}}}, "parameters")
        Traceback (most recent call last):
        ...
        llmbridge.errors.InvalidRequest: parameters.properties.city: "required" must be a list of names, not True
    """
    seen: set[str] = set()
    waiting: list[tuple[Any, str]] = [(schema, where)]
    while waiting:
        part, place = waiting.pop()
        if isinstance(part, bool):
            continue
        if not isinstance(part, Mapping):
            raise InvalidRequest(f"{place} must be a JSON schema, not {_short(part)}")
        _check_keywords(part, place)
        waiting += [(inner, f"{place}.{step}") for step, inner in _parts(part)]
        ref = part.get("$ref")
        if isinstance(ref, str) and ref not in seen:
            seen.add(ref)
            with contextlib.suppress(LookupError):  # what leads nowhere is not read
                waiting.append((resolve(ref, schema), f'{place}."$ref": "{ref}"'))


def _check_keywords(part: Mapping[str, Any], place: str) -> None:
    for keyword, value in part.items():
        if keyword in _FORMS and (value is not None or keyword == "$ref"):
            fits, wanted = _FORMS[keyword]
            if not fits(value):
                raise InvalidRequest(f'{place}: "{keyword}" must be {wanted}, not {_short(value)}')


def _parts(part: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas directly in this one, and where they stand."""
    for keyword, value in part.items():
        if keyword in NAMED and value is not None:
            yield from ((f"{keyword}.{name}", inner) for name, inner in value.items())
        elif keyword in LISTED or (keyword == "items" and isinstance(value, list)):
            yield from ((f"{keyword}[{i}]", inner) for i, inner in enumerate(value or ()))
        elif keyword in SINGLE and value is not None:
            yield keyword, value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))  # a bool too, as draft 4 wrote exclusiveMinimum


def _is_size(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(NAMED, (_is_mapping, "an object of schemas")),
    **dict.fromkeys(LISTED, (_is_list, "a list of schemas")),
    **dict.fromkeys(SINGLE, (lambda value: isinstance(value, (Mapping, bool)), "a schema")),
    "items": (lambda value: isinstance(value, (Mapping, bool, list)), "a schema"),
    "type": (lambda value: _is_text(value) or _are_texts(value), "the name of a type, or a list of them"),
    "required": (_are_texts, "a list of names"),
    "enum": (_is_list, "a list of values"),
    **dict.fromkeys(("$ref", "format", "pattern"), (_is_text, "a str")),
    **dict.fromkeys(
        ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), (_is_number, "a number")
    ),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), (_is_size, "a number")),
}
