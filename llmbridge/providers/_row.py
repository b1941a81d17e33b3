"""The check of what a row says; see `llmbridge.providers.compatible`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbridge.errors import ConfigError

__all__ = ["MAPPINGS", "check_row"]

MAPPINGS = ("headers", "renamed", "refused", "refused_by", "harmless")
_PATHS = ("path", "models_path", "embeddings_path")


def check_row(given: Mapping[str, Any]) -> None:
    """Looks at the arguments of `compatible`.

    Raises:
        ConfigError: A path does not begin with a slash, or what has to be a mapping is none.
    """
    wrong = [name for name in MAPPINGS if not isinstance(given[name] or {}, Mapping)]
    wrong += [name for name in _PATHS if given[name] and not given[name].startswith("/")]
    if wrong:
        raise ConfigError(f"compatible({given['name']!r}): {wrong[0]} cannot be {str(given[wrong[0]])[:40]!r}")
