"""A loopback server that answers as chat services do, and misbehaves as it is told: for tests without a network.

::

    from llmbridge.testing import LLMServer, Reply

    with LLMServer() as server:
        server.script(Reply("Hello"), Reply(status=429, headers={"Retry-After": "1"}))
        ...                                  # a client with base_url=server.base_url("openai")
        server.requests[0].json              # what it sent

It speaks the dialects of OpenAI (chat completions, also at Azure's URLs, and Responses), Anthropic, Gemini, Ollama,
Mistral, Cohere, and of the two ancestors. The path of a request decides which one answers, so one server can be all of
them at once, and the same Reply is put into the words of whoever is asked::

    weather = {"name": "get_weather", "arguments": {"city": "Paris"}}
    server.script(Reply(reasoning="Hm.", tool_calls=[weather]))      # tool_use, functionCall, tool_calls, ...
    server.script(Reply("Overloaded", status=529))                   # each dialect's own error document
    server.script(Reply(["Hel", "lo"], error="it broke"))            # ... and its own error inside a stream
    server.script(Reply(parts=[Reasoning("Hm.", "proof"), ToolCall("c1", "now"), "Wait.", {"type": ...}]))  # in order
    server.base_url("anthropic"), server.base_url("gemini")          # what to give as base_url

Beside chats it serves embeddings (made from the texts: equal texts have equal vectors) and lists of models. What the
real service would refuse, such as a request without messages, it refuses in the same shape. What came is in
`server.requests`; `Received.user_text`, `.turns`, `.tools` and `.model` read a request of any dialect.

`python -m llmbridge.testing` runs one in the foreground, and the pytest fixture `llm_server` gives a fresh one to every
test that asks for it. Nothing here needs more than the standard library.
"""

from .received import Received
from .reply import CLOSE, HOLD, RESET, Reply
from .server import LLMServer

__all__ = ["CLOSE", "HOLD", "RESET", "LLMServer", "Received", "Reply"]
