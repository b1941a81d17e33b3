"""Vitalentum: the conversation as JSON text inside JSON, answered with OpenAI chunks, one per line.

Source: the service's own web client of October 2023.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

from llmbridge._call.framing import DataLines, Framing
from llmbridge.messages import ChatRequest
from llmbridge.provider import Encoded
from llmbridge.providers.openai import ChatCompletions

__all__ = ["BROWSER", "LineChat", "Vitalentum"]

BROWSER = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/116.0.0.0 Safari/537.36"
)


class LineChat(ChatCompletions):
    """What the two first services share: a web client's headers, and OpenAI chunks, one per line."""

    working = False
    supports_gpt_35_turbo = True
    default_model = "gpt-3.5-turbo"
    offline_since = "October 2023"
    note = "offline since October 2023; base_url= for another host"

    @classmethod
    def framing(cls) -> Framing:
        return DataLines()


def browser_headers(url: str, accept: str, languages: str) -> dict[str, str]:
    """The headers of the web client at `url`."""
    return {
        "User-Agent": BROWSER,
        "Accept": accept,
        "Accept-language": languages,
        "Origin": url,
        "Referer": f"{url}/",
        "Sec-Fetch-Dest": "empty",
        "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Site": "same-origin",
    }


class Vitalentum(LineChat):
    """The Vitalentum service: `{url}/api/converse-edge`. The model's name is accepted, but not sent.

    Example:
        >>> request = ChatRequest.checked("gpt-3.5-turbo", "Hi", {})
        >>> Vitalentum.encode(request).body
        {'conversation': '{"history": [{"speaker": "human", "text": "Hi"}]}', 'temperature': 0.7}
    """

    name = "vitalentum"
    url = "https://app.vitalentum.io"
    base_url = url
    path = "/api/converse-edge"
    headers: ClassVar[Mapping[str, str]] = browser_headers(url, "text/event-stream", "de,en-US;q=0.7,en;q=0.3")

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        history = [
            {"speaker": "human" if message.role == "user" else "bot", "text": message.text}
            for message in request.messages
        ]
        return Encoded(
            {"conversation": json.dumps({"history": history}), "temperature": 0.7, **request.params}, cls.path
        )
