"""A conversation that is kept in a file, and goes on when the script is started again.

    python examples/conversation.py [FILE]           Ctrl-C stops an answer, Ctrl-D ends

LLMBRIDGE_MODEL names the model, like "openai:gpt-5.4-mini"; without it, the built-in demo answers.
"""

import os
import sys
from pathlib import Path

from llmbridge import Client, Conversation, LLMBridgeError

file = Path(sys.argv[1] if len(sys.argv) > 1 else "conversation.jsonl")
client = Client(os.environ.get("LLMBRIDGE_MODEL", "demo"))

talk = Conversation.load(file, client) if file.exists() else client.conversation(system="Answer briefly.")
print(f"{talk}, kept in {file.name}")

while True:
    try:
        question = input("> ").strip()
    except EOFError:
        print()
        break
    if not question:
        continue
    try:
        for piece in talk.ask(question):
            print(piece, end="", flush=True)
        print()
    except KeyboardInterrupt:
        print(" (stopped)")  # what came is kept, and the next question goes on from there
    except LLMBridgeError as error:
        print(f"\n{type(error).__name__}: {error}")
    talk.save(file)
