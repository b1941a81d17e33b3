"""The type of `.parsed`: what a caller gives as `schema`; anything at all where he gives none, or no class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Parsed = TypeVar("Parsed", default=Any)
else:
    from typing import TypeVar  # it knows defaults from Python 3.13 on

    Parsed = TypeVar("Parsed")

__all__ = ["Parsed"]
