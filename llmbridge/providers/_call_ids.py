"""Ids of tool calls for services that take only some of those which others make."""

from __future__ import annotations

import re

__all__ = ["call_id"]


def call_id(given: str, taken: re.Pattern[str], length: int) -> str:
    """The id itself if the service takes it, or one made from it: the same id always gives the same.

    Args:
        given: The id, of whatever service.
        taken: What the service takes; letters and digits among it.
        length: Of the id that is made.

    Example:
        >>> word = re.compile("[a-z0-9_]+")
        >>> call_id("call_1", word, 9), call_id("functions.add:1", word, 9)
        ('call_1', '871704203')
    """
    if taken.fullmatch(given):
        return given
    from hashlib import sha256

    return sha256(given.encode()).hexdigest()[:length]
