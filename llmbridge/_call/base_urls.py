"""Hints for a base URL where nothing is found, or no server answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from llmbridge.provider import Provider

__all__ = ["hint", "start_hint"]

_VERSION = r"/v\d[^/]*"
_OPENAI = ("/chat/completions", "/responses")


def hint(provider: type[Provider], base_url: str) -> str:
    """What is likely wrong with a base URL that led to a 404; "" if it looks right.

    Example:
        >>> from llmbridge.providers.ollama import Ollama
        >>> from llmbridge.providers.openai import OpenAI
        >>> hint(OpenAI, "http://127.0.0.1:8000"), hint(OpenAI, "http://127.0.0.1:8000/v1")
        ('OpenAI-compatible servers mostly want base_url to end in /v1', '')
        >>> hint(Ollama, "http://127.0.0.1:11434/v1")
        'leave /v1 out of base_url'
    """
    usual = provider.base_url or provider.base_url_example
    given, own = urlsplit(base_url).path, urlsplit(usual).path
    last = given[given.rfind("/") :]
    version = re.search(_VERSION + "$", own)
    if version is None:
        if own or not given:
            return ""
        first = re.match("/[^/?]*", provider.models_path or provider.path)
        leave_out = re.fullmatch(_VERSION, last) or (first and first[0] == last)
        return f"leave {last} out of base_url" if leave_out else f"base_url is usually like {usual}"
    if re.search(f"{_VERSION}{_VERSION}$", given):
        return f"leave one {last} out of base_url"
    if re.fullmatch(_VERSION, last):
        return ""
    if provider.path in _OPENAI:
        return f"OpenAI-compatible servers mostly want base_url to end in {version[0]}"
    return f"base_url is usually like {usual}"


def start_hint(provider: type[Provider], base_url: str) -> str:
    """How to start a server on this machine that does not answer; "" if the base URL is not of this machine.

    Example:
        >>> from llmbridge.providers.ollama import Ollama
        >>> start_hint(Ollama, "http://127.0.0.1:11434")
        "start it with 'ollama serve', or say where it is with OLLAMA_HOST"
    """
    host = urlsplit(base_url).hostname or ""
    if not provider.start_command or not (host in ("localhost", "::1") or host.startswith("127.")):
        return ""
    return f"start it with {provider.start_command!r}, or say where it is with {provider.address_variables()[-1]}"
