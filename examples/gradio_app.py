"""A chat page with Gradio.

    pip install gradio
    python examples/gradio_app.py

LLMBRIDGE_MODEL names the model, like "openai:gpt-5.4-mini"; without it, the built-in demo answers.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from llmbridge import Client, LLMBridgeError, Timeout

MODEL = os.environ.get("LLMBRIDGE_MODEL", "demo")
client = Client(MODEL, timeout=Timeout(idle=60, total=300))  # for all visitors


async def answer(question: str, history: list[dict[str, Any]]) -> AsyncIterator[str]:
    """The text so far, again and again: Gradio replaces what it shows."""
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in history]
    stream = client.chat([*turns, {"role": "user", "content": question}])
    try:
        async for _ in stream:
            yield stream.text
    except LLMBridgeError as error:
        said = f"The answer broke off: {error.message}"
        raise gr.Error(said, print_exception=False) from error


# So many answers at once; Gradio's default is one.
page = gr.ChatInterface(answer, title="Chat", concurrency_limit=20)

if __name__ == "__main__":
    page.launch()
