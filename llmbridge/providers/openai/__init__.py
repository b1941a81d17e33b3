"""OpenAI's Chat Completions, the dialect of most services and local servers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from llmbridge.errors import InvalidRequest
from llmbridge.events import End, Item
from llmbridge.messages import ChatRequest, Message, SchemaMode
from llmbridge.provider import Encoded, Provider
from llmbridge.providers.openai import answer
from llmbridge.providers.openai.answer import ChunkReader, decode_chunk, decode_completion
from llmbridge.providers.openai.request import (
    encode_choice,
    encode_format,
    encode_message,
    encode_schema_tool,
    encode_tool,
    with_instruction,
)

if TYPE_CHECKING:
    from llmbridge.provider import Frame

__all__ = ["ChatCompletions", "OpenAI", "OpenAICompatible", "decode_chunk", "decode_completion"]


class ChatCompletions(Provider):
    """What providers share whose answers are chat completions, streamed or whole.

    Attributes:
        reasoning_proofs: The list that holds reasoning with its signatures, in answers and requests; "" if none.
    """

    reasoning_proofs: ClassVar[str] = ""

    @classmethod
    def decode(cls, frame: Frame) -> Iterable[Item | End]:
        return decode_chunk(frame, cls.reasoning_proofs)

    @classmethod
    def decoder(cls) -> Callable[[Frame], Iterable[Item | End]]:
        return ChunkReader(cls.reasoning_proofs).read

    @classmethod
    def decode_document(cls, document: Any) -> Iterable[Item | End]:
        return decode_completion(document, cls.reasoning_proofs)


class OpenAI(ChatCompletions):
    """OpenAI's own service.

    Attributes:
        renamed: Parameters that the service calls by another name.
        asks_usage: Whether to request token counts; some services send them anyway and reject the option.
        own_models: Whether the models are OpenAI's own, which reject more than others.
        reasoning_field: The field for the reasoning of earlier turns; "" to leave it out, None for the field it came
            in.
        no_reasoning: The value of `reasoning_field` in an earlier turn without reasoning, for services that require the
            field; None leaves it out.
        tool_media: Whether a tool's result may hold more than text.
        best_schema_mode: How structured output is requested unless the caller says.
        schema_bounds: Whether it accepts bounds (`minimum`, `maxItems`) in a schema; if not, they go into descriptions.
        schema_grammar: Whether it turns schemas into a grammar, as llama.cpp does, which fails at most patterns: they
            go into descriptions.
        system_role: The role used for developer messages; None leaves it unchanged.
        must_call: The word of `tool_choice` for a model that must call any tool.
        names_tools: Whether `tool_choice` may name a tool; if not, only that tool is sent.
        json_mode: Whether there is a response format for any JSON object.
        embeddings_path: The path for embeddings.

    Example:
        >>> OpenAI.encode(ChatRequest.checked("gpt-5.4-mini", "Hi", {"seed": 1})).body["seed"]
        1

    Source:
        OpenAI API reference, chat completions: `data: {...}` events, `data: [DONE]` at the end, usage in a separate
        event if `stream_options.include_usage` is set.
    """

    name = "openai"
    url = "https://platform.openai.com"
    base_url = "https://api.openai.com/v1"
    path = "/chat/completions"
    supports_gpt_35_turbo = True
    key_env: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)
    base_url_env = "OPENAI_BASE_URL"
    needs_key = True
    note = "set OPENAI_API_KEY; base_url= for another server with the same dialect"
    done_needs_finish = True
    supports = frozenset({"tools", "schema"})
    models_path = "/models"
    embeddings_path: ClassVar[str] = "/embeddings"
    embeddings_batch = 2048
    refused: ClassVar[Mapping[str, str]] = {"top_k": "OpenAI supports only top_p"}
    renamed: ClassVar[Mapping[str, str]] = {"max_tokens": "max_completion_tokens"}
    asks_usage: ClassVar[bool] = True
    own_models: ClassVar[bool] = True
    reasoning_field: ClassVar[str | None] = ""
    no_reasoning: ClassVar[str | None] = None
    tool_media: ClassVar[bool] = False
    best_schema_mode: ClassVar[SchemaMode] = "native"
    schema_bounds: ClassVar[bool] = True
    schema_grammar: ClassVar[bool] = False
    system_role: ClassVar[str | None] = None
    must_call: ClassVar[str] = "required"
    names_tools: ClassVar[bool] = True
    json_mode: ClassVar[bool] = True

    decode_models = staticmethod(answer.decode_models)
    decode_embeddings = staticmethod(answer.decode_embeddings)

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [cls.encode_message(message) for message in request.messages],
            "stream": True,
        }
        if cls.own_models and any(message.extra or message.content.__class__ is list for message in request.messages):
            from llmbridge.providers.openai.rules import checked_ids, checked_media

            body["messages"] = checked_media(checked_ids(body["messages"]))
        elif not cls.tool_media and any(
            message.role == "tool" and message.content.__class__ is list for message in request.messages
        ):
            from llmbridge.providers.openai.rules import moved_media

            body["messages"] = moved_media(body["messages"])
        if cls.asks_usage:
            body["stream_options"] = {"include_usage": True}
        if request.tools or request.tool_choice is not None or request.schema is not None:
            cls._add_structure(body, request)
        body.update(cls.encode_params(request.params))
        if not body["stream"] or not body.get("stream_options"):
            body.pop("stream_options", None)  # rejected without a stream
        return Encoded(body, cls.path)

    @classmethod
    def encode_message(cls, message: Message) -> dict[str, Any]:
        """A message as the body holds it."""
        encoded = encode_message(message, cls.reasoning_field, cls.reasoning_proofs, not cls.own_models)
        if cls.no_reasoning is not None and cls.reasoning_field and message.role == "assistant":
            encoded.setdefault(cls.reasoning_field, cls.no_reasoning)
        if cls.system_role is not None and message.role == "developer":
            encoded["role"] = cls.system_role
        return encoded

    @classmethod
    def encode_params(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters under the service's names; a value under its own name wins."""
        if not (cls.renamed.keys() & params.keys()):
            return dict(params)
        named = {cls.renamed.get(name, name): value for name, value in params.items() if name in cls.renamed}
        return {**named, **{name: value for name, value in params.items() if name not in cls.renamed}}

    @classmethod
    def encode_choice(cls, request: ChatRequest) -> Any:
        """The value of `tool_choice`; None to leave it out."""
        return None if request.tool_choice is None else encode_choice(request.tool_choice)

    @classmethod
    def answer_tool(cls, request: ChatRequest) -> str | None:
        if request.schema is not None and (request.schema_mode or cls.best_schema_mode) == "tool":
            return request.schema.name
        return None

    @classmethod
    def _add_structure(cls, body: dict[str, Any], request: ChatRequest) -> None:
        """Adds the tools and the schema."""
        offered, asked, choice = request.tools, request.tool_choice, cls.encode_choice(request)
        if not cls.names_tools and asked is not None and asked.mode == "tool" and asked.raw is None:
            offered, choice = tuple(tool for tool in offered if tool.name == asked.name), cls.must_call
        tools = [encode_tool(tool, cls.schema_grammar) for tool in offered]
        if request.schema is not None:
            mode = request.schema_mode or cls.best_schema_mode
            if mode == "tool":
                if any(tool.name == request.schema.name for tool in request.tools):
                    raise InvalidRequest(
                        f"the schema and a tool are both called {request.schema.name!r}: rename one of them"
                    )
                tools.append(encode_schema_tool(request.schema, cls.schema_grammar))
                one = {"type": "function", "function": {"name": request.schema.name}}
                choice = choice or (cls.must_call if request.tools or not cls.names_tools else one)
            elif mode == "json":
                body["messages"] = with_instruction(body["messages"], request.schema)
                if cls.json_mode:
                    body["response_format"] = {"type": "json_object"}
            else:
                body["response_format"] = encode_format(request.schema, cls.schema_bounds, cls.schema_grammar)
        if tools:
            body["tools"] = tools
        if choice is not None:
            body["tool_choice"] = choice

    @classmethod
    def encode_embeddings(cls, model: str, texts: Sequence[str], params: Mapping[str, Any]) -> Encoded:
        if "" in texts:
            raise InvalidRequest("one of the texts is empty, which the service rejects")
        return Encoded({"model": model, "input": list(texts), **params}, cls.embeddings_path)

    @classmethod
    def refusals(cls, request: ChatRequest) -> Mapping[str, str]:
        found = dict(super().refusals(request))
        if cls.own_models and request.params:
            from llmbridge.providers.openai.rules import refusals

            found.update(refusals(request.model, request.params))
        return found


class OpenAICompatible(OpenAI):
    """Any server that speaks OpenAI's dialect: give its `base_url`, and an `api_key` if it requires one."""

    name = "openai-compatible"
    supports_gpt_35_turbo = False
    url = ""
    base_url = ""
    key_env: ClassVar[tuple[str, ...]] = ("OPENAI_COMPATIBLE_API_KEY",)
    base_url_env = ""
    needs_key = False
    note = "any server that speaks OpenAI's dialect: give base_url="
    refused: ClassVar[Mapping[str, str]] = {}
    renamed: ClassVar[Mapping[str, str]] = {}
    own_models = False
    reasoning_field: ClassVar[str | None] = None
    think_tags = True
    system_role = "system"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.key_env is OpenAICompatible.key_env:
            cls.key_env = ()  # a key for any server is not meant for a named service
