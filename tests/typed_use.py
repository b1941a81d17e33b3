"""A caller's code as type checkers see it: `mypy` checks this file with the package; it is never run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from typing_extensions import assert_type

from llmbridge import (
    ChatStream,
    Client,
    Completion,
    Conversation,
    Message,
    Partial,
    Secret,
    Usage,
    aembed,
    amodels,
    chat,
    conversation,
    embed,
    models,
    tool,
)
from llmbridge.embeddings import Embeddings
from llmbridge.schema import Schema


@dataclass
class City:
    """A schema."""

    name: str


class Inhabitants(TypedDict):
    """Another one."""

    number: int


def parsed_is_of_the_schemas_class(client: Client) -> None:
    """In every call, with any other options."""
    assert_type(chat("x", schema=City).parsed, City)
    assert_type(chat("x", model="demo", schema=City, timeout=3, temperature=0).complete(), Completion[City])
    assert_type(chat("x", schema=Inhabitants).complete().parsed, Inhabitants)
    assert_type(chat("x", schema=list[City]).complete().parsed, list[City])
    assert_type(client.chat("x", schema=City).complete().parsed, City)
    assert_type(client.chat("x", schema=City).show(), Completion[City])
    assert_type(client.chat("x").partial, Partial)
    assert_type(client.run("x", schema=City).complete().parsed, City)
    with chat("x", schema=City) as stream:
        assert_type(stream.complete(), Completion[City])


async def so_it_is_in_async_code(client: Client) -> None:
    """With `await` and `async with`."""
    assert_type((await client.chat("x", schema=City)).parsed, City)
    async with client.run("x", schema=City) as stream:
        assert_type((await stream).parsed, City)


async def a_conversation_knows_its_schema(client: Client) -> None:
    """The schema of all its questions, or of one."""
    talk = client.conversation("demo", schema=City, system="x", timeout=3)
    assert_type(talk, Conversation[City])
    assert_type(talk.ask("x").complete(), Completion[City])
    assert_type((await talk.ask("x", temperature=0)).parsed, City)
    assert_type(talk.ask("x", schema=Inhabitants).complete().parsed, Inhabitants)
    assert_type(talk.ask("x", schema={"type": "object"}).complete().parsed, Any)
    assert_type(talk.branch(), Conversation[City])
    assert_type(conversation(model="demo").ask("x").complete().parsed, Any)
    for piece in conversation(schema=City).ask():
        assert_type(piece, str)
    assert_type(talk.messages, list[Message])
    assert_type(talk.undo(), list[Message])
    assert_type(talk.usage, Usage | None)
    assert_type(Conversation.load("x", client, tools=[add]), Conversation[Any])
    conversation(timeout="a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.conversation("demo", temperature="hot")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def parsed_is_anything_without_a_class(client: Client) -> None:
    """With a JSON schema, a form that is not a class, or none."""
    assert_type(chat("x").complete().parsed, Any)
    assert_type(chat("x", schema={"type": "object"}).complete().parsed, Any)
    assert_type(chat("x", schema=Schema.of(Literal["a", "b"])).complete().parsed, Any)
    assert_type(client.chat("x", schema=False).complete().parsed, Any)
    assert_type(client.run("x").complete().parsed, Any)


def names_without_a_parameter_are_fine(stream: ChatStream) -> Completion:
    """`ChatStream` without a parameter stands for any."""
    return stream.complete()


def and_take_any_stream() -> Completion:
    """Accepts streams of any schema."""
    return names_without_a_parameter_are_fine(chat("x", schema=City))


def a_wrong_argument_is_an_error(client: Client) -> None:
    """Each one by itself, with and without a schema; `warn_unused_ignores` reports any that is not an error."""
    chat("x", timeout="a").cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat("x", retries="never").cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat("x", verify=3.5).cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat("x", api_key=7).cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat("x", temperature="hot").cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat("x", schema=City, timeout="a").cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat("x", schema=City, retries="never").cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat("x", schema=City, seed="one").cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.run("x", schema=City, stop=5).cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.chat("x", max_tokens="many").cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Client("demo", proxy=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Client("demo", top_p="all")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    embed("x", timeout="a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    models("demo", retries="never")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def the_other_questions_are_typed(client: Client) -> None:
    """Embeddings and models, sync and async."""
    assert_type(embed(["x"], dimensions=3), Embeddings)
    assert_type(await aembed("x"), Embeddings)
    assert_type(client.embed("x"), Embeddings)
    assert_type(await client.aembed("x", "demo", timeout=3), Embeddings)
    assert_type(models("demo"), list[str])
    assert_type(await amodels(), list[str])
    assert_type(await client.amodels("azure", api_version="1"), list[str])


@tool
def add(a: int, b: int = 1) -> float:
    """Adds."""
    return a + b


@tool(name="subtract")
def minus(a: int, b: int = 1) -> float:
    """Subtracts."""
    return a - b


def a_tool_is_called_as_its_function() -> None:
    """With its function's arguments and result."""
    assert_type(add(1, b=2), float)
    assert_type(minus(1), float)
    add("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    minus(1, c=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def a_key_may_come_from_a_function(client: Client) -> None:
    """Sync or async, of str or Secret; a function of anything else is an error."""

    def number() -> int:
        return 7

    def of_something(word: str) -> str:
        return word

    async def soon() -> str:
        return "key"

    def secret() -> Secret:
        return Secret("key")

    Client("demo", api_key=str)
    client.chat("x", api_key=soon).cancel()
    client.run("x", api_key=secret, schema=City).cancel()
    embed("x", api_key=lambda: "key")
    models("demo", api_key=soon)
    chat("x", api_key=number).cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat("x", api_key=of_something).cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Client("demo", api_key=number)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    embed("x", api_key=number)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def an_answer_is_used_like_its_text(client: Client) -> None:
    """With the types of its text; a coroutine of it knows its schema."""
    answer = await chat("x", client, schema=City, extra={"a": 1}).acomplete()
    assert_type(answer, Completion[City])
    assert_type(answer + "!", str)
    assert_type("> " + answer, str)
    assert_type(answer[:5], str)
    assert_type(answer.strip(), str)
    assert_type("x" in answer, bool)
    assert_type([letter for letter in answer], list[str])  # noqa: C416 - its type is looked at
    answer.texts  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    chat("x").content  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    await chat("x").complete()  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
