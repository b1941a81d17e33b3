"""Text that UTF-8 can carry: JSON may hold half of a surrogate pair, and servers split pairs over two pieces."""

from __future__ import annotations

__all__ = ["SurrogateMender"]


class SurrogateMender:
    r"""Joins the halves of a pair that come in two pieces; a half that stays alone becomes U+FFFD.

    Example:
        >>> mend = SurrogateMender()
        >>> mend("Hi \ud83d"), mend("\ude00!"), mend("\ude00")
        ('Hi ', '😀!', '�')
    """

    __slots__ = ("half",)

    def __init__(self) -> None:
        self.half = ""

    def __call__(self, text: str) -> str:
        if self.half:
            text, self.half = self.half + text, ""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            if "\ud800" <= text[-1] <= "\udbff":
                text, self.half = text[:-1], text[-1]
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return text

    def rest(self) -> list[str]:
        """The half that waited in vain, as the sign for a character that could not be read."""
        half, self.half = self.half, ""
        return ["\N{REPLACEMENT CHARACTER}"] if half else []
