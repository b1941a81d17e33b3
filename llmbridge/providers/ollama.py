"""Ollama's own API: JSON lines instead of events, model options in `options`, whole tool calls."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from llmbridge._call.framing import NDJSON, Framing
from llmbridge._json import remembered
from llmbridge._text import shown
from llmbridge.errors import ConfigError, InvalidRequest, MissingKey, ProtocolError
from llmbridge.events import (
    END,
    End,
    Finish,
    FinishReason,
    Item,
    Logprobs,
    Media,
    MediaDelta,
    Other,
    Reasoning,
    Summary,
    ToolCallDelta,
    Usage,
)
from llmbridge.messages import ChatRequest, Message, call_of
from llmbridge.provider import Encoded, Provider, parsed_json, scan_json
from llmbridge.providers._values import (
    TEXTS,
    as_text,
    count,
    finish_of,
    is_report,
    is_vector,
    mapping,
    media_of,
    string,
)
from llmbridge.service_errors import error_in_stream

if TYPE_CHECKING:
    from llmbridge.provider import Frame
    from llmbridge.secret import Key, Secret

__all__ = ["Ollama", "host_url"]

_CLOUD = "ollama.com"
_PORT = 11434
_OPTIONS = frozenset(
    """
    draft_num_predict f16_kv frequency_penalty logits_all low_vram main_gpu min_p mirostat mirostat_eta mirostat_tau
    num_batch num_ctx num_gpu num_gqa num_keep num_predict num_thread numa penalize_newline presence_penalty
    repeat_last_n repeat_penalty seed stop temperature tfs_z top_k top_p typical_p use_mlock use_mmap vocab_only
    """.split()  # noqa: SIM905 - a table of words
)
_LIMITS = ("max_tokens", "max_completion_tokens")
_THINK: dict[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
}
_ADVICE = {
    "image": "Ollama does not download URLs: pass the image's bytes or a path, like Image('cat.png')",
    "audio": "Ollama does not accept audio: transcribe it and send the text",
    "document": "Ollama does not accept documents: send their text, or images of their pages",
}
_REASONING = ("thinking", "reasoning_content", "reasoning")
_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}
_EMPTY: tuple[Any, ...] = (None, "", [], {})
_USUAL_LINE = frozenset(("model", "created_at", "message", "done", "remote_model", "remote_host"))
_LINE = frozenset(
    """
    context created_at delta done done_reason error eval_count eval_duration image images load_duration logprobs message
    model
    prompt_eval_count prompt_eval_duration response thinking total_duration
    """.split()  # noqa: SIM905 - a table of words
).union(_USUAL_LINE)
_MESSAGE = frozenset(("role", "content", "images", "tool_calls", "tool_name", "tool_call_id", *_REASONING))
_CALL = frozenset(("id", "type", "function"))
_FUNCTION = frozenset(("name", "arguments", "index"))


class Ollama(Provider):
    """Ollama's own API, on this computer, on another, or at https://ollama.com.

    `OLLAMA_HOST` is its address, by the rules of Ollama's own programs; `OLLAMA_API_KEY` is needed only for
    https://ollama.com. A model's options (`num_ctx`, `min_p` ...) are moved into `options`; a mapping given as
    `options` is merged into it.

    Example:
        >>> request = ChatRequest.checked("llama3.2", "Hi", {"max_tokens": 5, "num_ctx": 8192, "keep_alive": "5m"})
        >>> body = Ollama.encode(request).body
        >>> body["options"], body["keep_alive"]
        ({'num_predict': 5, 'num_ctx': 8192}, '5m')

    Source:
        Ollama's API documentation and `api/types.go`: POST /api/chat answers with JSON lines, the last with
        `done: true`.
    """

    name = "ollama"
    url = "https://ollama.com"
    base_url = f"http://127.0.0.1:{_PORT}"
    path = "/api/chat"
    key_env: ClassVar[tuple[str, ...]] = ("OLLAMA_API_KEY",)
    base_url_env = "OLLAMA_HOST"
    start_command = "ollama serve"
    headers: ClassVar[Mapping[str, str]] = {"Accept": "application/x-ndjson"}
    note = "your own server, at OLLAMA_HOST; OLLAMA_API_KEY only for https://ollama.com"
    supports = frozenset({"tools", "schema"})
    refused: ClassVar[Mapping[str, str]] = {
        "n": "Ollama gives one answer per request: send several requests",
        "logit_bias": "Ollama does not support it",
        "parallel_tool_calls": "Ollama lets the model decide how many tools it calls at once",
        "user": "Ollama ignores it",
        "metadata": "Ollama ignores it",
    }
    think_tags = True
    models_path = "/api/tags"
    embeddings_batch = 512

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        return Encoded(_encode_body(request), cls.path)

    @classmethod
    def decode(cls, frame: Frame) -> Iterable[Item | End]:
        return _Reader().read(frame)

    @classmethod
    def decoder(cls) -> Callable[[Frame], Iterable[Item | End]]:
        return _Reader().read

    @classmethod
    def decode_document(cls, document: Any) -> Iterable[Item | End]:
        if isinstance(document, Mapping) and not {"message", "response", "error"} & set(document):
            raise ProtocolError("the service's JSON is not an answer in Ollama's form: check the base_url")
        reader = _Reader()
        yield from reader.line(document)
        reader.check()
        yield END

    @classmethod
    def refusals(cls, request: ChatRequest) -> Mapping[str, str]:
        refused = dict(super().refusals(request))
        effort = request.params.get("reasoning_effort")
        if isinstance(effort, int) and not isinstance(effort, bool):
            refused["reasoning_effort"] = "Ollama takes a word (none, low, medium, high, max), not a number of tokens"
        choice = request.tool_choice
        if choice is not None and (choice.raw is not None or choice.mode not in ("auto", "none")):
            advice = "Ollama cannot be made to call a tool: use 'auto' or 'none', or say in the prompt what to call"
            refused["tool_choice"] = advice
        return refused

    @classmethod
    def framing(cls) -> Framing:
        return NDJSON()

    @classmethod
    def resolve_base_url(cls) -> str:
        return host_url(os.environ.get(cls.base_url_env, ""))

    @classmethod
    def find_key(cls, api_key: Secret | None, elsewhere: bool) -> Key | None:
        key = super().find_key(api_key, elsewhere)
        if key is None and not elsewhere and urlsplit(cls.resolve_base_url()).hostname == _CLOUD:
            raise MissingKey(
                f"{cls.name} needs an API key at {_CLOUD}: set the environment variable OLLAMA_API_KEY, "
                "or pass api_key=",
                provider=cls.name,
            )
        return key

    @classmethod
    def decode_models(cls, document: Any) -> list[str]:
        models = document.get("models") if isinstance(document, Mapping) else None
        if not isinstance(models, list):
            raise ProtocolError("the service's JSON is not a list of models in Ollama's form")
        names = (mapping(model).get("name") or mapping(model).get("model") for model in models)
        return [name for name in names if isinstance(name, str)]

    @classmethod
    def encode_embeddings(cls, model: str, texts: Sequence[str], params: Mapping[str, Any]) -> Encoded:
        beside, options = _split_options(params)
        body = {"model": model, "input": list(texts), **beside}
        return Encoded({**body, "options": options} if options else body, "/api/embed")

    @classmethod
    def decode_embeddings(cls, document: Any) -> tuple[list[list[float]], Usage | None]:
        fields = mapping(document)
        if fields.get("error"):
            raise error_in_stream(document)
        vectors = fields.get("embeddings")
        if not isinstance(vectors, list) or not all(is_vector(vector) for vector in vectors):
            raise ProtocolError("the service's JSON has no embeddings in Ollama's form")
        return vectors, _usage(fields)


def host_url(host: str) -> str:
    """The URL for a value of `OLLAMA_HOST`; an empty one is the server on this computer.

    Raises:
        ConfigError: It is not a host, optionally with a port, path or scheme. The value is not quoted.

    Example:
        >>> host_url("gpu.example.com"), host_url(":8080"), host_url("https://ollama.com")
        ('http://gpu.example.com:11434', 'http://127.0.0.1:8080', 'https://ollama.com')

    Source:
        Ollama's own clients: the port is 11434 without a scheme, and the scheme's own with one; the path is kept.
    """
    host = host.strip().strip("\"'").strip()
    scheme, found, rest = host.partition("://") if "://" in host else ("http", "", host)
    try:
        parts = urlsplit(f"//{_bracketed(rest)}")
        name, port = parts.hostname or "127.0.0.1", parts.port
    except ValueError:
        name, port = "", None
    if scheme.lower() not in ("http", "https") or not name or set(name) & set(" \t\r\n") or parts.query:
        raise ConfigError(
            "the environment variable OLLAMA_HOST must be a host like 127.0.0.1:11434, or a URL like https://ollama.com"
        )
    # An address that a server listens on for all interfaces is not one to connect to.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104 - nothing is bound to it
    name = f"[{name}]" if ":" in name else name
    port = port if found or port is not None else _PORT
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"{scheme.lower()}://{user}{name}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


def _bracketed(rest: str) -> str:
    """Adds the brackets that a URL needs around a bare IPv6 address."""
    return f"[{rest}]" if rest.count(":") > 1 and not set(rest) & set("[]/@") else rest


def _encode_body(request: ChatRequest) -> dict[str, Any]:
    """The body of a chat request.

    Raises:
        InvalidRequest: Ollama does not support a part of the request. The message says what to do.
    """
    params, options = _split_options(request.params)
    body: dict[str, Any] = {"model": request.model, "messages": _messages(request.messages), "stream": True}
    for name, value in params.items():
        translate = _TRANSLATED.get(name)
        if translate is None:
            body[name] = value
        elif value is not None:
            for place, translated in translate(value):
                if place not in params:  # Ollama's own spelling wins
                    body[place] = translated
    if options:
        body["options"] = options
    if request.tools or request.tool_choice is not None:
        _add_tools(request, body)
    if request.schema is not None:
        _add_schema(request, body)
    return body


def _split_options(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters outside `options`, and the options; a mapping given as `options` wins.

    Raises:
        InvalidRequest: `options` is not a mapping.
    """
    given = params.get("options")
    if given is not None and not isinstance(given, Mapping):
        raise InvalidRequest("options must be a mapping, like {'num_ctx': 8192}")
    beside: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, value in params.items():
        if name in _LIMITS:
            if value is not None:
                limits["num_predict"] = value
        elif name in _OPTIONS:
            options[name] = value
        elif name not in ("n", "options", "parallel_tool_calls"):  # the other two have Ollama's default values
            beside[name] = value
    options = {**limits, **options, **(given or {})}
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    return beside, options


def _think(value: Any) -> Iterator[tuple[str, Any]]:
    yield "think", _THINK.get(value, value) if isinstance(value, str) else value


def _format(value: Any) -> Iterator[tuple[str, Any]]:
    form = value if isinstance(value, Mapping) else {}
    inner = form.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    if form.get("type") == "json_object":
        yield "format", "json"
    elif form.get("type") == "json_schema" and isinstance(schema, Mapping):
        yield "format", schema
    elif form.get("type") != "text":
        raise InvalidRequest(
            "response_format must be {'type': 'json_object'}, {'type': 'text'}, or "
            "{'type': 'json_schema', 'json_schema': {'schema': ...}}; pass Ollama's own form as format="
        )


_TRANSLATED: dict[str, Callable[[Any], Iterator[tuple[str, Any]]]] = {
    "reasoning_effort": _think,
    "response_format": _format,
}


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    names: dict[str, str] = {}  # tools by call, for results that name only the call
    return [_message(message, f"messages[{i}]", names) for i, message in enumerate(messages)]


def _message(message: Message, where: str, names: dict[str, str]) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str) and not message.extra:
        return {"role": role, "content": message.content}
    made = {"role": role, **_fields(message, where)}
    names.update({call.id: call.name for call in message.tool_calls})
    extra = {name: value for name, value in message.extra.items() if name != "tool_calls"}
    if role == "tool":
        extra.pop("is_error", None)  # Ollama has no field for it; the text says so
        called = extra.pop("name", None) or names.get(str(extra.get("tool_call_id")))
        if called:
            made["tool_name"] = called
    extra.pop("name", None)  # Ollama has no field for a speaker's name
    return {**made, **extra}


def _fields(message: Message, where: str) -> dict[str, Any]:
    """The parts of a turn, each kind in its own field: Ollama's content is text only."""
    texts, thoughts, images, calls = [], [], [], []
    own: dict[str, Any] = {}
    for i, part in enumerate(map(as_text, message.parts)):
        if part["type"] in TEXTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif part["type"] == "reasoning":
            thoughts.append(str(part.get("text") or ""))
        elif part["type"] == "tool_call":
            call = call_of(part)
            raw = mapping(call.raw)
            function = {**mapping(raw.get("function")), "name": call.name, "arguments": dict(call.arguments)}
            calls.append({**({"id": call.id} if call.id else {}), **raw, "function": function})
        elif part["type"] == "opaque":
            own.update(mapping(part.get("raw")))
        elif message.role == "assistant" and (media := media_of(part, f"{where}: content[{i}]")) is not None:
            if media.kind == "image" and media.data:
                images.append(media.data)
            elif words := part.get("transcript"):
                texts.append(str(words))
        else:
            images.append(_image(part, f"{where}: content[{i}]"))
    made: dict[str, Any] = {"content": "".join(texts)}
    rest = {"images": images, "thinking": "".join(thoughts), "tool_calls": calls, **own}
    return {**made, **{name: value for name, value in rest.items() if value}}


def _image(part: dict[str, Any], where: str) -> str:
    """The bytes of an image in base64; Ollama accepts nothing else beside text."""
    media = media_of(part, where)
    if media is None:
        raise InvalidRequest(f"{where}: Ollama accepts text and images, not a part of type {part['type'][:40]!r}")
    if media.kind == "image" and media.data:
        return media.data
    raise InvalidRequest(f"{where}: {_ADVICE[media.kind]}")


def _add_tools(request: ChatRequest, body: dict[str, Any]) -> None:
    choice = request.tool_choice
    if request.tools and not (choice is not None and choice.mode == "none"):
        from llmbridge.providers.openai.request import encode_tool

        body["tools"] = [encode_tool(tool, grammar=True) for tool in request.tools]


def _add_schema(request: ChatRequest, body: dict[str, Any]) -> None:
    assert request.schema is not None
    if request.schema_mode == "tool":
        raise InvalidRequest("schema_mode='tool': Ollama cannot be made to call a tool: use 'native' or 'json'")
    # A format applies to everything the model writes, so it cannot call tools: beside tools, the prompt asks for JSON.
    in_words = "tools" in body and request.schema_mode != "native"
    if in_words or request.schema_mode == "json":
        from llmbridge.providers.openai.request import with_instruction

        body["messages"] = with_instruction(body["messages"], request.schema)
    if not in_words:
        body["format"] = "json" if request.schema_mode == "json" else _form(request.schema.json_schema)


@remembered
def _form(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema as the service takes it."""
    from llmbridge._schemas.subsets import object_form, without_patterns

    return without_patterns(object_form(document))


class _Reader:
    """Reads the lines of one answer."""

    __slots__ = ("_around", "_calls", "_images", "_seen", "_texts", "_unread")

    def __init__(self) -> None:
        self._around = 0
        self._texts = 0  # number of pieces so far
        self._calls: list[tuple[str, str]] = []  # names and arguments so far
        self._images = 0
        self._seen: dict[str, Any] = {}  # unknown fields
        self._unread: Any = None  # the first thing of an unknown form

    def read(self, frame: Frame) -> Iterable[Item | End]:
        """The content of one line; raises what `line` raises."""
        end = -1
        try:
            # The common line, recognized quickly: only a piece of text.
            line, end = scan_json(frame.data, 0)
            message = line["message"]
            content = message["content"]
            if (
                content.__class__ is str
                and content
                and line["done"] is False
                and len(message) == 2
                and "role" in message
                and len(line) == self._around
                and end == len(frame.data)
            ):
                self._texts += 1
                return (content,)
            if line.keys() <= _USUAL_LINE:
                self._around = len(line)  # until it changes, a line with as many keys is plain
        except (StopIteration, RecursionError, ValueError, TypeError, LookupError, AttributeError):
            pass  # not the common case: fall through to the full decoder
        return self.line(line if end == len(frame.data) else parsed_json(frame.data))

    def check(self) -> None:
        """Raises if a part of the answer could not be read.

        Raises:
            ProtocolError: A part has an unknown form.
        """
        if self._unread is not None:
            raise ProtocolError(f"the service's answer is not in Ollama's form: {shown(self._unread)}")

    def line(self, line: Any) -> Iterator[Item | End]:
        """The content of any line, also of /api/generate, which similar servers may send.

        Raises:
            ServiceError: It reports an error.
            ProtocolError: It is not a JSON object, or ends an answer that could not be read.
        """
        if not isinstance(line, Mapping):
            raise ProtocolError(f"expected a JSON object in a line of the stream, got {type(line).__name__}")
        done = line.get("done") in (True, "true", "True")
        texts, calls = self._texts, [*self._calls]
        said = [*self._message(line)]
        if done and calls == self._calls[len(calls) :]:  # the last line may repeat everything
            said = [item for item in said if not isinstance(item, ToolCallDelta) or item.id]
        whole = done and texts + len(calls) > 1 and texts and any(isinstance(item, str) for item in said)
        ends = [*self._end(line)] if done else []
        yield from (Summary([*said, *ends], certain=False),) if whole else said
        if isinstance(probabilities := line.get("logprobs"), list) and probabilities:
            yield Logprobs(tuple(probabilities))
        if line.get("error") or ("done" not in line and is_report(line)):
            raise error_in_stream(dict(line))
        yield from self._unknown(line, _LINE)
        if done:
            self.check()
            yield from () if whole else ends
            yield END

    @staticmethod
    def _end(line: Mapping[str, Any]) -> Iterator[Usage | Finish]:
        if (usage := _usage(line)) is not None:
            yield usage
        yield next(finish_of(line.get("done_reason"), _FINISH), Finish("stop"))  # old servers send no reason

    def _message(self, line: Mapping[str, Any]) -> Iterator[Item]:
        message = line.get("message", line.get("delta") if "done" in line else None)
        message = message if isinstance(message, Mapping) else {"content": message}
        thoughts = [*map(message.get, _REASONING), line.get("thinking")]
        if thinking := next((text for text in thoughts if isinstance(text, str) and text), ""):
            yield Reasoning(thinking)
        for content in (message.get("content"), line.get("response")):
            if not isinstance(content, str) and "done" not in line:
                continue  # a document of another dialect
            for text in self._text_of(content):
                self._texts += 1
                yield text
        pictures = (*_list(message.get("images")), *_list(line.get("images")), line.get("image"))
        for picture in pictures:
            if (data := string(picture)).startswith(("http:", "https:")):
                yield Media("image", url=data)
            elif data:
                self._images += 1
                yield MediaDelta("image", data=data.rpartition(",")[2], id=f"image-{self._images}")
        for call in _list(message.get("tool_calls")):
            yield from self._call(call)
        yield from self._unknown(message, _MESSAGE, in_turn=True)

    def _text_of(self, content: Any) -> Iterator[str]:
        """The pieces of text in a content; some imitations send a part, or a list of parts."""
        for part in _list(content):
            text = part if isinstance(part, str) else mapping(part).get("text")
            if isinstance(text, str):
                yield from (text,) if text else ()
            elif part is not None and part != {}:
                self._unread = part

    def _call(self, call: Any) -> Iterator[ToolCallDelta]:
        """A whole call. `function.index` is ignored: servers start again from 0 in each line."""
        fields = mapping(call)
        function = mapping(fields.get("function")) or fields
        name, arguments = function.get("name"), function.get("arguments")
        if not (isinstance(name, str) and name):
            self._unread = call or self._unread
            return
        if not isinstance(arguments, str):
            try:
                arguments = json.dumps({} if arguments is None else arguments)
            except RecursionError:
                raise ProtocolError("the arguments of a tool call are nested too deeply") from None
        self._calls.append((name, arguments))
        raw = {key: value for key, value in fields.items() if key not in _CALL} if function is not fields else {}
        if more := {key: value for key, value in function.items() if key not in _FUNCTION and key not in _CALL}:
            raw["function"] = more
        yield ToolCallDelta(None, string(fields.get("id")) or None, name, arguments, whole=True, raw=raw or None)

    def _unknown(self, fields: Mapping[str, Any], known: frozenset[str], in_turn: bool = False) -> Iterator[Other]:
        """Unknown fields that are not empty, each once."""
        for name, value in fields.items():
            if name not in known and value not in _EMPTY and self._seen.get(name) != value:
                self._seen[name] = value
                yield Other(name, {name: value}, in_turn)


def _list(value: Any) -> list[Any]:
    """The value if it is a list, or a list of it."""
    return value if isinstance(value, list) else [] if value in _EMPTY else [value]


def _usage(line: Mapping[str, Any]) -> Usage | None:
    """The tokens that a line counts. Ollama leaves out zeros, so either count may be missing."""
    prompt, answer = count(line.get("prompt_eval_count")), count(line.get("eval_count"))
    if prompt is None and answer is None:
        return None
    raw = {name: value for name, value in line.items() if name.endswith(("_count", "_duration"))}
    return Usage(input_tokens=prompt, output_tokens=answer, raw=raw)
