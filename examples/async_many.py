"""Asks many questions at once, within limits, and shows each answer as soon as it is there.

    python examples/async_many.py < questions.txt          one question a line

LLMBRIDGE_MODEL names the model, like "openai:gpt-5.4-mini"; without it, the built-in demo answers.
"""

import asyncio
import os
import sys

from llmbridge import Client, Limits, LLMBridgeError


async def ask(client: Client, question: str) -> str:
    """The question and its answer, or why there is none: one that fails does not end the others."""
    try:
        answer = await client.chat(question)
    except LLMBridgeError as error:
        return f"{question}\n  {type(error).__name__}: {error}"
    return f"{question}\n  {answer.text}"


async def main() -> None:
    """Reads the questions, and asks them."""
    questions = [] if sys.stdin.isatty() else [line.strip() for line in sys.stdin if line.strip()]
    limits = Limits(requests_per_minute=300, concurrency=8)
    async with Client(os.environ.get("LLMBRIDGE_MODEL", "demo"), limits=limits) as client:
        asked = [ask(client, question) for question in questions or ["What is a bridge?", "And a ford?"]]
        for answer in asyncio.as_completed(asked):
            print(await answer)


asyncio.run(main())
