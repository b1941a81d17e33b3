"""The images, sounds and documents in messages, for the dialects that have to reword them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbridge.errors import InvalidRequest

if TYPE_CHECKING:
    from llmbridge.parts import Media

__all__ = ["media_of"]


def media_of(part: Mapping[str, Any], where: str) -> Media | None:
    """What a part shows, or None if it is no medium; see `Media.of`.

    Args:
        part: Of a message.
        where: Which part it is, for the error.

    Raises:
        InvalidRequest: It cannot be read; says where it stands.

    Example:
        >>> try:
        ...     media_of({"type": "image_url"}, "messages[0]: content[1]")
        ... except InvalidRequest as error:
        ...     print(error.message.partition(" needs")[0])
        messages[0]: content[1]: an image_url part
    """
    from llmbridge.parts import Media

    try:
        return Media.of(part)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error.message}") from None
