"""What a provider's setup lacks, and where its key comes from, without calling it."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from llmbridge.cli._output import tell
from llmbridge.errors import ConfigError

if TYPE_CHECKING:
    from llmbridge.provider import Provider

__all__ = ["Setup", "kept_names", "key_variable", "setups"]

State = Literal["ready", "no key", "no address", "bad address", "offline"]


@dataclass(frozen=True, slots=True)
class Setup:
    """A provider, and whether it is ready for a call.

    Args:
        provider: The class.
        state: What is missing, or "ready".
        hint: What to do about it.
    """

    provider: type[Provider]
    state: State
    hint: str = ""

    @property
    def host(self) -> str:
        """Host and port of its address; "" if it has no address of its own."""
        return urlsplit(self.address).netloc

    @property
    def address(self) -> str:
        """Its address without user and password; "" if there is none."""
        if self.provider.direct:
            return ""
        try:
            parts = urlsplit(self.provider.resolve_base_url())
        except ConfigError:
            return ""
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @property
    def local(self) -> bool:
        """Whether it is a server on this computer."""
        name = self.host.rpartition(":")[0] or self.host
        return name in ("localhost", "[::1]") or name.startswith("127.")


def setups() -> list[Setup]:
    """All known providers by name."""
    from llmbridge.providers import known

    kept = kept_names()
    return [_setup(provider, kept) for _, provider in sorted(known().items())]


def kept_names() -> list[str]:
    """The providers with a key in the keys file; a bad file is reported, and counts as empty."""
    from llmbridge.keys import stored_names

    try:
        return stored_names()
    except ConfigError as error:
        tell(str(error))
        return []


def key_variable(provider: type[Provider]) -> str | None:
    """The environment variable that holds the provider's key, if one is set."""
    return next((name for name in provider.key_env if os.environ.get(name, "").strip()), None)


def _setup(provider: type[Provider], kept: Collection[str]) -> Setup:
    if not provider.working:
        return Setup(provider, "offline", provider.note or "offline")
    try:
        has_address = provider.direct or bool(provider.resolve_base_url())
    except ConfigError as error:  # a wrong variable affects only its provider
        return Setup(provider, "bad address", error.message)
    if not has_address:
        variables = " or ".join(provider.address_variables())
        return Setup(provider, "no address", f"set {variables}, or use --base-url" if variables else "use --base-url")
    name = provider.key_name or provider.name
    if not provider.needs_key or key_variable(provider) or name in kept:
        return Setup(provider, "ready")
    variables = " or ".join(provider.key_env)
    return Setup(provider, "no key", f"set {variables}, or run: llmbridge keys set {name}")
