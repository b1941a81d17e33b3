"""Asks several models the same question at once, and then the first of them that works.

    python examples/compare.py "What is a bridge?" openai:gpt-5.4-mini anthropic:claude-sonnet-5 ollama:llama3.2 demo

A model that cannot answer, for want of a key say, says so in its row.
"""

import asyncio
import sys

from llmbridge import Client, LLMBridgeError


async def row(model: str, question: str) -> str:
    """A line of the table."""
    try:
        answer = await Client(model, timeout=60).chat(question)
    except LLMBridgeError as error:
        return f"{model:30}  {type(error).__name__}: {error.message}"
    tokens = answer.usage.output_tokens if answer.usage else None
    return f"{model:30}  {answer.total_seconds:5.2f} s  {tokens} tokens  {answer.text[:60]!r}"


async def main(question: str, models: list[str]) -> None:
    """The table, and an answer by fallback."""
    for line in await asyncio.gather(*(row(model, question) for model in models)):
        print(line)
    answer = await Client(models, timeout=60).chat(question)  # in their order, until one answers
    print(f"\n{answer.provider}:{answer.model} answers: {answer.text}")


if __name__ == "__main__":
    asked, *named = sys.argv[1:] or ["What is a bridge?"]
    asyncio.run(main(asked, named or ["openai:gpt-5.4-mini", "demo"]))
