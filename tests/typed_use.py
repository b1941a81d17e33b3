"""A caller's code as type checkers see it: `mypy` checks this file with the package; it is never run."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, TypeVar, Union

import pydantic
from typing_extensions import assert_never, assert_type

from llmbridge import (
    AllFailed,
    ChatStream,
    Citation,
    Client,
    ClockExpired,
    Completion,
    Conversation,
    Finish,
    Image,
    InvalidOutput,
    LLMBridgeError,
    Logprobs,
    Media,
    Message,
    Other,
    OtherChoice,
    Partial,
    Provider,
    RateLimited,
    RawEvent,
    Reasoning,
    Refusal,
    Retry,
    RetryAttempt,
    Secret,
    ServerTool,
    Text,
    Timeout,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Usage,
    Vitalentum,
    aembed,
    amodels,
    chat,
    conversation,
    embed,
    models,
    register,
    tool,
)
from llmbridge.embeddings import Embeddings
from llmbridge.errors import Clock
from llmbridge.events import Event, FinishReason, Item
from llmbridge.messages import ChatRequest
from llmbridge.provider import Encoded, Frame, frame_json
from llmbridge.schema import Schema
from llmbridge.testing import LLMServer, Reply
from llmbridge.testing.received import Received

T = TypeVar("T")


@dataclass
class City:
    """A schema."""

    name: str


class Inhabitants(TypedDict):
    """Another one."""

    number: int


class Country(pydantic.BaseModel):
    """A third one."""

    cities: list[City]


class Place(NamedTuple):
    """A fourth one."""

    latitude: float
    longitude: float


class Color(enum.Enum):
    """And one that is not an object in JSON."""

    RED = "red"


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
    assert_type(chat("x", schema=Country).complete().parsed, Country)
    assert_type(chat("x", schema=Place).complete().parsed, Place)
    assert_type(chat("x", schema=Color).complete().parsed, Color)
    assert_type(chat("x", schema=int).complete().parsed, int)
    assert_type(chat("x", schema=dict[str, City | None]).complete().parsed, dict[str, Union[City, None]])
    with chat("x", schema=City) as stream:
        assert_type(stream.complete(), Completion[City])
    chat("x", schema=City(name="Oslo")).cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat("x", schema="city").cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat("x", schema=[City]).cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat("x", schema=City).complete().parsed.mayor  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def a_function_of_ones_own_hands_the_type_on(cls: type[T]) -> T:
    """Generic code needs no cast."""
    return chat("x", schema=cls).complete().parsed


def a_schema_knows_its_type(client: Client) -> None:
    """As `Schema.of` reads it from a class, a literal or a union."""
    assert_type(Schema.of(City), Schema[City])
    assert_type(Schema.of(list[City]).parse("[]"), list[City])
    assert_type(chat("x", schema=Schema.of(City)).complete().parsed, City)
    assert_type(Schema.of({"type": "object"}).parse("{}"), Any)
    word = Schema.of(Literal["yes", "no"])
    assert_type(client.chat("x", schema=word).complete().parsed, Literal["yes", "no"])
    assert_type(Schema.of(Annotated[City, "x"]), Schema[City])
    assert_type(Schema.of(word), Schema[Literal["yes", "no"]])
    either = Schema.of(City | Country)
    assert_type(Schema.of(Union[City, None]), Schema[Union[City, None]])
    assert_type(client.conversation("demo", schema=either), Conversation[Union[City, Country]])
    assert_type(either.parse("{}"), Union[City, Country])
    Schema.of("city")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


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
    assert_type(chat("x", schema=City | Country).complete().parsed, Any)
    assert_type(chat("x", schema=City | None).complete().parsed, Any)
    assert_type(chat("x", schema=Literal["a", "b"]).complete().parsed, Any)
    assert_type(chat("x", schema=Union[City, Country]).complete().parsed, Any)
    assert_type(Client("demo", schema=City).chat("x").complete().parsed, Any)
    assert_type(chat("x").complete().parsed, Any)
    assert_type(chat("x", schema={"type": "object"}).complete().parsed, Any)
    assert_type(client.chat("x", schema=False).complete().parsed, Any)
    assert_type(client.run("x").complete().parsed, Any)


async def loops_give_what_they_say(client: Client) -> None:
    """Text as str, events as one of the union, growing objects as plain JSON."""
    for piece in client.chat("x"):
        assert_type(piece, str)
    for event in client.run("x").events():
        assert_type(event, Event)
    for item in client.chat("x").raw_events():
        assert_type(item, Union[RawEvent, Event])
    for part in client.chat("x", schema=City).objects():
        assert_type(part, Any)
    async for piece in client.chat("x"):
        assert_type(piece, str)
    async for event in client.chat("x").events():
        assert_type(event, Event)
    async for item in client.chat("x").raw_events():
        assert_type(item, Union[RawEvent, Event])
    async for part in client.chat("x", schema=City).objects():
        assert_type(part, Any)
    async for _ in await client.chat("x"):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        pass


async def answers_are_awaited_together(client: Client) -> None:
    """Each keeps the type of its schema, in a task too."""
    first, second = await asyncio.gather(client.chat("x", schema=City), client.chat("x", schema=Inhabitants))
    assert_type(first, Completion[City])
    assert_type(second.parsed, Inhabitants)
    task = asyncio.create_task(client.chat("x", schema=City).acomplete())
    assert_type((await task).parsed, City)


def a_match_of_events_is_checked(event: Event) -> str:
    """Every kind of event once: `assert_never` is an error as soon as one is missing."""
    match event:
        case Text(text) | Refusal(text) | Reasoning(text):
            return text
        case ToolCallDelta(arguments=arguments):
            return arguments
        case ToolCall(name=name, arguments=arguments):
            assert_type(arguments, Mapping[str, Any])
            return name
        case ToolResult(call=call, text=text):
            assert_type(call, ToolCall)
            return text
        case Citation(url=url):
            return url or ""
        case Media(kind=kind, data=data):
            assert_type(data, bytes)
            return kind
        case ServerTool(name=name) | Other(kind=name):
            return name
        case Logprobs():
            return ""
        case Usage(total_tokens=total):
            return str(total)
        case Finish(reason):
            assert_type(reason, FinishReason)
            return reason
        case OtherChoice(event=other):
            assert_type(other, Event)
            return ""
        case _:
            assert_never(event)


def a_match_that_misses_an_event_is_an_error(event: Text | Usage) -> str:
    """Here it is Usage."""
    match event:
        case Text(text):
            return text
        case _:
            assert_never(event)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


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


class Turn(TypedDict):
    """How a program of its own may write a message."""

    role: str
    content: str


def messages_are_taken_as_they_are(
    client: Client, turns: list[Turn], words: list[dict[str, str]], stored: list[dict[str, object]], answer: Completion
) -> None:
    """Lists of whatever mappings, of messages, of answers, and of all these together."""
    for said in (turns, words, stored, [answer], answer.turns, (Message("user", "x"),)):
        client.chat(said).cancel()
    client.chat([*words, {"role": "user", "content": ["Look:", Image("a.png")]}, answer]).cancel()
    history: list[Any] = [{"role": "user", "content": "x"}]
    history += [answer, *[ToolResult(call, "5") for call in answer.tool_calls]]
    client.chat(history).cancel()
    client.conversation().ask(Message("user", ["x", Image("a.png")])).cancel()
    assert_type(answer.message, Message)
    assert_type([call.arguments for call in answer.tool_calls], list[Mapping[str, Any]])
    client.chat(7).cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.chat({"role": "user", "content": "x"}).cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.chat(answer).cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Message("user", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def options_come_from_a_dict(settings: dict[str, Any]) -> None:
    """One of Any; each option of another one would have to be of the same type."""
    assert_type(chat("x", schema=City, **settings).complete(), Completion[City])
    assert_type(Client("demo", **settings), Client)
    assert_type(conversation("demo", **settings), Conversation[Any])
    numbers = {"temperature": 0.2, "top_p": 0.9}
    chat("x", **numbers).cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat("x", headers={"X-App": "a"}, stop=("a", "b"), timeout=Timeout(idle=5), verify=Path("ca.pem")).cancel()


def a_hook_is_checked() -> None:
    """What it takes, and how it is called."""

    def noted(attempt: RetryAttempt) -> None:
        assert_type(attempt.error, LLMBridgeError)

    def of_number(number: int) -> None: ...

    Retry(times=3, on_retry=noted)
    Retry(times=3, on_retry=print)
    Retry(times=3, on_retry=of_number)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Shop(Client):
    """A client of one's own."""

    def order(self, what: str) -> str:
        """Asks."""
        return str(self.chat(what).complete())


async def a_client_of_ones_own_stays_one() -> None:
    """As a context manager too."""
    with Shop("demo") as shop:
        assert_type(shop, Shop)
    async with Shop("demo") as shop:
        assert_type(shop.order("x"), str)


def errors_say_what_they_hold(stream: ChatStream) -> None:
    """Each class has its own attributes, and what had come."""
    try:
        stream.complete()
    except RateLimited as error:
        assert_type(error.retry_after, Union[float, None])
        assert_type(error.status, Union[int, None])
    except InvalidOutput as error:
        assert_type(error.problems, tuple[str, ...])
    except ClockExpired as error:
        assert_type(error.clock, Clock)
        error.retry_after  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    except AllFailed as error:
        assert_type(error.errors, tuple[LLMBridgeError, ...])
    except LLMBridgeError as error:
        assert_type(error.partial, Partial)
        assert_type(error.partial.tool_calls, tuple[ToolCall, ...])
        assert_type(error.partial.message, Union[Message, None])
        assert_type(error.message, str)


def embeddings_are_lists_of_float(found: Embeddings) -> None:
    """A sequence of them."""
    assert_type(found[0], list[float])
    assert_type(found[:2], list[list[float]])
    assert_type([vector for vector in found], list[list[float]])  # noqa: C416 - its type is checked
    assert_type(found.usage, Union[Usage, None])


@register
class Tidal(Provider):
    """A provider of one's own."""

    name = "tidal"
    base_url = "https://api.tidal.example"
    key_env = ("TIDAL_API_KEY",)
    refused = {"seed": "Tidal does not take it"}  # noqa: RUF012 - as a provider is written

    @classmethod
    def auth_headers(cls, key: str) -> dict[str, str]:
        return {"X-Key": key}

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        assert_type(request.messages, tuple[Message, ...])
        return Encoded({"model": request.model, "said": [turn.text for turn in request.messages]}, "/chat")

    @classmethod
    def decode(cls, frame: Frame) -> Iterator[Item]:
        yield str(frame_json(frame)["text"])


class Ebb(Provider):
    """Whose methods take something else."""

    name = 7  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    @classmethod
    def encode(cls, request: str) -> Encoded:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        raise NotImplementedError

    @classmethod
    def decode(cls, frame: Frame) -> Iterable[int]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        raise NotImplementedError


async def a_provider_is_used_as_a_class() -> None:
    """The type of its answer says whether it comes in pieces."""
    assert_type(Tidal, type[Tidal])
    assert_type(Tidal.create_completion("m", "x"), Iterator[str])
    assert_type(Vitalentum.create_completion("m", "x", stream=False, timeout=3), str)
    async for piece in Vitalentum.create_async_generator("m", "x"):
        assert_type(piece, str)
    assert_type(await Vitalentum.create_async("m", "x"), str)


def test_of_an_application(llm_server: LLMServer) -> None:
    """The fixture's server."""
    llm_server.script(Reply(["Hel", "lo"]), lambda received: Reply([received.path]), Reply(status=429))
    llm_server.script("Hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(llm_server.base_url("openai"), str)
    assert_type(llm_server.requests, list[Received])
    assert_type(llm_server.requests[0].header("Authorization"), Union[str, None])


@tool
def add(a: int, b: int = 1) -> float:
    """Adds."""
    return a + b


@tool(name="subtract")
def minus(a: int, b: int = 1) -> float:
    """Subtracts."""
    return a - b


class Desk:
    """Whose methods are tools."""

    @tool
    def book(self, room: str, nights: int = 1) -> bool:
        """Books."""
        return bool(room and nights)

    @tool(description="Frees a room.")
    async def free(self, room: str) -> str:
        """Frees."""
        return room


async def an_async_tool_is_awaited() -> None:
    """As its function would be."""
    assert_type(await Desk().free("x"), str)


def a_tool_is_called_as_its_function() -> None:
    """With its function's arguments and result."""
    assert_type(add(1, b=2), float)
    assert_type(minus(1), float)
    assert_type(Desk().book("x", 2), bool)
    assert_type(Desk().book.name, str)
    Desk().book(2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(Tool.of(partial(minus, 1))(b=2), float)
    assert_type(Tool.of(add)(1), float)
    assert_type(Tool.of(City)(name="Oslo"), City)
    assert_type(Tool.of({"name": "now"}), Tool)
    chat("x", tools=[add, minus, Desk().book, City, print], tool_choice=add, run_tools=True).cancel()
    chat("x", tools=add).cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat("x", tool_choice=True).cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
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
    assert_type([letter for letter in answer], list[str])  # noqa: C416 - its type is checked
    answer.texts  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    chat("x").content  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    await chat("x").complete()  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
