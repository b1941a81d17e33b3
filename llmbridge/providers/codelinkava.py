"""CodeLinkAva: plain messages, answered with OpenAI chunks, one per line.

Source: the service's own web client of October 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from llmbridge.messages import ChatRequest
from llmbridge.provider import Encoded
from llmbridge.providers.vitalentum import LineChat, browser_headers

__all__ = ["CodeLinkAva"]


class CodeLinkAva(LineChat):
    """The CodeLinkAva service, whose API lives on another host. The model's name is accepted, but not sent.

    Example:
        >>> request = ChatRequest.checked("gpt-3.5-turbo", "Hi", {"temperature": 0.1})
        >>> CodeLinkAva.encode(request).body
        {'messages': [{'role': 'user', 'content': 'Hi'}], 'temperature': 0.1, 'stream': True}
    """

    name = "codelinkava"
    url = "https://ava-ai-ef611.web.app"
    base_url = "https://ava-alpha-api.codelink.io"
    path = "/api/chat"
    headers: ClassVar[Mapping[str, str]] = browser_headers(
        url, "*/*", "en,fr-FR;q=0.9,fr;q=0.8,es-ES;q=0.7,es;q=0.6,en-US;q=0.5,am;q=0.4,de;q=0.3"
    )

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        messages = [message.to_dict() for message in request.messages]
        return Encoded({"messages": messages, "temperature": 0.6, "stream": True, **request.params}, cls.path)
