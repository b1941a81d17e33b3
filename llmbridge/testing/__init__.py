"""A loopback server that answers like chat services, with any fault you script: for tests without a network.

::

    from llmbridge.testing import LLMServer, Reply

    with LLMServer() as server:
        server.script(Reply("Hello"), Reply(status=429, headers={"Retry-After": "1"}))
        ...                                  # a client with base_url=server.base_url("openai")
        server.requests[0].json              # what it sent

It speaks the dialects of OpenAI (chat completions, also at Azure's URLs, and Responses), Anthropic, Gemini, Ollama,
Mistral, Cohere, Vitalentum and CodeLinkAva. The request's path chooses the dialect, so one server can be all of them at
once, and translates the same Reply for each::

    weather = {"name": "get_weather", "arguments": {"city": "Paris"}}
    server.script(Reply(reasoning="Hm.", tool_calls=[weather]))      # tool_use, functionCall, tool_calls, ...
    server.script(Reply("Overloaded", status=529))                   # each dialect's own error document
    server.script(Reply(["Hel", "lo"], error="it broke"))            # ... and its own error inside a stream
    server.script(Reply(parts=[Reasoning("Hm.", "proof"), ToolCall("c1", "now"), "Wait.", {"type": ...}]))  # in order
    server.base_url("anthropic"), server.base_url("gemini")          # pass it as base_url

Besides chats it serves embeddings (equal texts have equal vectors) and lists of models. Requests that the real service
would reject, such as one without messages, get the same kind of error. `server.requests` holds the requests;
`Received.user_text`, `.turns`, `.tools` and `.model` read one of any dialect.

`python -m llmbridge.testing` runs a server in the foreground, and the pytest fixture `llm_server` gives each test a new
one. Only the standard library is needed.
"""

from .received import Received
from .reply import CLOSE, HOLD, RESET, Reply
from .server import LLMServer

__all__ = ["CLOSE", "HOLD", "RESET", "LLMServer", "Received", "Reply"]
