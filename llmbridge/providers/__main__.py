"""`python -m llmbridge.providers` prints the table of the providers of this package, for docs/providers/README.md."""

from __future__ import annotations

import sys

from llmbridge.embeddings import MOST_TEXTS
from llmbridge.provider import Provider
from llmbridge.providers import known

__all__ = ["table"]

_HEAD = ("provider", "base URL", "key", "tools, schema", "`models()`", "`embed()`, texts per request", "note")


def table() -> str:
    """A Markdown table of this package's providers."""
    rows = [
        _cells(provider) for _, provider in sorted(known().items()) if provider.__module__.startswith(f"{__package__}.")
    ]
    lines = [_HEAD, ("---",) * len(_HEAD), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(provider: type[Provider]) -> tuple[str, ...]:
    keys = " or ".join(f"`{name}`" for name in provider.key_env)
    optional = ", optional" if keys and not provider.needs_key else ""
    addresses = (provider.base_url, *provider.address_variables())
    note = "" if provider.note == f"set {' or '.join(provider.key_env)}" else provider.note
    return (
        f"`{provider.name}`",
        ", ".join(f"`{address}`" for address in addresses if address) or "-",
        f"{keys}{optional}" or "none",
        "yes" if {"tools", "schema"} <= provider.supports else "no",
        "yes" if provider.models_path else "no",
        str(min(provider.embeddings_batch, MOST_TEXTS) or "no"),
        f"gone since {provider.offline_since}" if provider.offline_since else note.replace("|", "\\|"),
    )


if __name__ == "__main__":
    sys.stdout.write(table())
