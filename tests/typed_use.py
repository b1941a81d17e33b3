"""What a type checker sees of a caller's code: `mypy` checks this file with the package, nothing runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from typing_extensions import assert_type

from llmbridge import ChatStream, Client, Completion, chat


@dataclass
class City:
    """A schema."""

    name: str


class Inhabitants(TypedDict):
    """Another one."""

    number: int


def parsed_is_of_the_schemas_class(client: Client) -> None:
    """In every way to ask, with whatever beside it."""
    assert_type(chat("x", schema=City).parsed, City)
    assert_type(chat("x", model="demo", schema=City, timeout=3, temperature=0).complete(), Completion[City])
    assert_type(chat("x", schema=Inhabitants).complete().parsed, Inhabitants)
    assert_type(chat("x", schema=list[City]).complete().parsed, list[City])
    assert_type(client.chat("x", schema=City).complete().parsed, City)
    assert_type(client.run("x", schema=City).complete().parsed, City)
    with chat("x", schema=City) as stream:
        assert_type(stream.complete(), Completion[City])


async def so_it_is_in_async_code(client: Client) -> None:
    """With `await` and `async with`."""
    assert_type((await client.chat("x", schema=City)).parsed, City)
    async with client.run("x", schema=City) as stream:
        assert_type((await stream).parsed, City)


def parsed_is_anything_without_a_class(client: Client) -> None:
    """A JSON schema, a form that is no class, and none."""
    assert_type(chat("x").complete().parsed, Any)
    assert_type(chat("x", schema={"type": "object"}).complete().parsed, Any)
    assert_type(chat("x", schema=City | None).complete().parsed, Any)
    assert_type(chat("x", schema=Literal["a", "b"]).complete().parsed, Any)
    assert_type(client.chat("x", schema=False).complete().parsed, Any)
    assert_type(client.run("x").complete().parsed, Any)


def names_without_a_parameter_are_fine(stream: ChatStream) -> Completion:
    """`ChatStream` alone is one of anything."""
    return stream.complete()


def and_take_any_stream() -> Completion:
    """Whatever its schema is."""
    return names_without_a_parameter_are_fine(chat("x", schema=City))
