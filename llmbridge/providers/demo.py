"""The demo: answers over real HTTP without key or network, from a server inside this process."""

from __future__ import annotations

from llmbridge.providers.openai import OpenAICompatible

__all__ = ["Demo"]


class Demo(OpenAICompatible):
    """OpenAI's dialect, served by the testing server on a free loopback port, started at the first request.

    Example:
        >>> from llmbridge import chat
        >>> "demo" in chat("Hello", model="demo").complete().text
        True
    """

    name = "demo"
    default_model = "demo"
    note = "made-up answers from inside the process, to try llmbridge without a key or network"
    direct = True

    @classmethod
    def resolve_base_url(cls) -> str:
        from llmbridge.testing.demo import demo_server

        return demo_server().base_url("openai")
