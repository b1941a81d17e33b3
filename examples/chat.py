"""Asks a question, and shows the answer piece by piece.

    python examples/chat.py "What is a bridge?"

LLMBRIDGE_MODEL names the model, like "openai:gpt-5.4-mini"; without it, the built-in demo answers.
"""

import os
import sys

from llmbridge import LLMBridgeError, chat

question = " ".join(sys.argv[1:]) or "What is a bridge?"
stream = chat(question, model=os.environ.get("LLMBRIDGE_MODEL", "demo"))
try:
    for piece in stream:
        print(piece, end="", flush=True)
except LLMBridgeError as error:
    sys.exit(f"\n{type(error).__name__}: {error}")
print()
if stream.usage is not None:
    print(f"[{stream.usage.total_tokens} tokens, the first after {stream.first_piece_seconds:.2f} s]")
