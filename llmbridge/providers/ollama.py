"""Ollama's own API: JSON lines in place of events, options apart from the other parameters, whole tool calls."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from llmbridge.errors import ConfigError, MissingKey, ProtocolError
from llmbridge.events import END, End, Finish, FinishReason, Item, Logprobs, Reasoning, ToolCallDelta, Usage
from llmbridge.messages import ChatRequest
from llmbridge.provider import Encoded, Provider, parsed_json, scan_json
from llmbridge.providers._ollama_request import encode_body, split_options
from llmbridge.providers._values import count, is_report, is_vector, mapping
from llmbridge.service_errors import error_in_stream

if TYPE_CHECKING:
    from llmbridge._call.framing import Frame, Framing
    from llmbridge.secret import Secret

__all__ = ["Ollama", "host_url"]

_CLOUD = "ollama.com"
_PORT = 11434
_REASONING = ("thinking", "reasoning_content", "reasoning")
_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}


class Ollama(Provider):
    """Ollama's own API, on this machine, on another, or on https://ollama.com.

    `OLLAMA_HOST` says where it is, by the rules of Ollama's own programs; `OLLAMA_API_KEY` is only needed for
    https://ollama.com. Whatever is the name of a model's option (`num_ctx`, `min_p` ...) goes into `options`, and a
    mapping given as `options` is merged into it.

    Example:
        >>> request = ChatRequest.checked("llama3.2", "Hi", {"max_tokens": 5, "num_ctx": 8192, "keep_alive": "5m"})
        >>> body = Ollama.encode(request).body
        >>> body["options"], body["keep_alive"]
        ({'num_predict': 5, 'num_ctx': 8192}, '5m')

    Source:
        Ollama's API documentation and `api/types.go`: POST /api/chat, a JSON object a line, the last with `done: true`.
    """

    name = "ollama"
    url = "https://ollama.com"
    base_url = f"http://127.0.0.1:{_PORT}"
    path = "/api/chat"
    key_env: ClassVar[tuple[str, ...]] = ("OLLAMA_API_KEY",)
    base_url_env = "OLLAMA_HOST"
    headers: ClassVar[Mapping[str, str]] = {"Accept": "application/x-ndjson"}
    note = "a server of your own, at OLLAMA_HOST; OLLAMA_API_KEY only for https://ollama.com"
    supports = frozenset({"tools", "schema"})
    refused: ClassVar[Mapping[str, str]] = {
        "n": "Ollama gives one answer a request: ask once for each",
        "logit_bias": "Ollama cannot weigh tokens",
        "parallel_tool_calls": "Ollama leaves it to the model how many tools it calls at once",
        "user": "Ollama does not look at it",
        "metadata": "Ollama does not look at it",
    }
    think_tags = True
    models_path = "/api/tags"
    embeddings_batch = 512

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        return Encoded(encode_body(request), cls.path)

    @classmethod
    def decode(cls, frame: Frame) -> Iterable[Item | End]:
        end = -1
        try:
            # The usual line, found out fast: nothing in it but a piece of text.
            line, end = scan_json(frame.data, 0)
            message = line["message"]
            content = message["content"]
            if (
                content.__class__ is str
                and content
                and line["done"] is False
                and len(message) == 2
                and "role" in message
                and "error" not in line
                and "logprobs" not in line
                and end == len(frame.data)
            ):
                return (content,)
        except (StopIteration, RecursionError, ValueError, TypeError, LookupError):
            pass  # it is not the usual one
        return _decode_line(line if end == len(frame.data) else parsed_json(frame.data))

    @classmethod
    def decode_document(cls, document: Any) -> Iterable[Item | End]:
        if isinstance(document, Mapping) and not {"message", "response", "error"} & set(document):
            raise ProtocolError("the service answered with JSON that is no answer of Ollama's: check the base_url")
        yield from _decode_line(document)
        yield END

    @classmethod
    def refusals(cls, request: ChatRequest) -> Mapping[str, str]:
        refused = dict(super().refusals(request))
        effort = request.params.get("reasoning_effort")
        if isinstance(effort, int) and not isinstance(effort, bool):
            refused["reasoning_effort"] = "Ollama takes a word (none, low, medium, high, max), no number of tokens"
        choice = request.tool_choice
        if choice is not None and (choice.raw is not None or choice.mode not in ("auto", "none")):
            advice = "Ollama cannot be told to call a tool: use 'auto' or 'none', or say in the prompt what to call"
            refused["tool_choice"] = advice
        return refused

    @classmethod
    def framing(cls) -> Framing:
        from llmbridge._call.framing import NDJSON

        return NDJSON()

    @classmethod
    def resolve_base_url(cls) -> str:
        return host_url(os.environ.get(cls.base_url_env, ""))

    @classmethod
    def find_key(cls, api_key: Secret | None, elsewhere: bool) -> Secret | None:
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
            raise ProtocolError("the service answered with JSON that is no list of Ollama's models")
        names = (mapping(model).get("name") or mapping(model).get("model") for model in models)
        return [name for name in names if isinstance(name, str)]

    @classmethod
    def encode_embeddings(cls, model: str, texts: Sequence[str], params: Mapping[str, Any]) -> Encoded:
        beside, options = split_options(params)
        body = {"model": model, "input": list(texts), **beside}
        return Encoded({**body, "options": options} if options else body, "/api/embed")

    @classmethod
    def decode_embeddings(cls, document: Any) -> tuple[list[list[float]], Usage | None]:
        fields = mapping(document)
        if fields.get("error"):
            raise error_in_stream(document)
        vectors = fields.get("embeddings")
        if not isinstance(vectors, list) or not all(is_vector(vector) for vector in vectors):
            raise ProtocolError("the service answered with JSON that holds no embeddings of Ollama's")
        return vectors, _usage(fields)


def host_url(host: str) -> str:
    """The URL that a value of `OLLAMA_HOST` means; an empty one is the server of this machine.

    Raises:
        ConfigError: It is no host, with a port, a path or a scheme at the most. It is not quoted.

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
    # What a server listens on in order to hear everybody is no address to connect to.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104 - nothing is bound to it
    name = f"[{name}]" if ":" in name else name
    port = port if found or port is not None else _PORT
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"{scheme.lower()}://{user}{name}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


def _bracketed(rest: str) -> str:
    """An IPv6 address that stands alone, as it has to stand in a URL."""
    return f"[{rest}]" if rest.count(":") > 1 and not set(rest) & set("[]/@") else rest


def _decode_line(line: Any) -> Iterator[Item | End]:
    """What any line says; that of /api/generate is understood too, which servers of the same dialect may send."""
    if not isinstance(line, Mapping):
        raise ProtocolError(f"a line of the stream is no JSON object, but {type(line).__name__}")
    message = mapping(line.get("message"))
    thoughts = [*map(message.get, _REASONING), line.get("thinking")]
    if thinking := next((text for text in thoughts if isinstance(text, str) and text), ""):
        yield Reasoning(thinking)
    for text in (message.get("content"), line.get("response")):
        if isinstance(text, str) and text:
            yield text
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        yield from _decode_call(mapping(call))
    if isinstance(probabilities := line.get("logprobs"), list) and probabilities:
        yield Logprobs(tuple(probabilities))
    if line.get("error") or ("done" not in line and is_report(line)):
        raise error_in_stream(dict(line))
    if line.get("done") is True:
        if (usage := _usage(line)) is not None:
            yield usage
        raw = line.get("done_reason")
        raw = raw if isinstance(raw, str) else ""
        yield Finish(_FINISH.get(raw, "other") if raw else "stop", raw)  # old servers give no reason
        yield END


def _decode_call(call: Mapping[str, Any]) -> Iterator[ToolCallDelta]:
    """A call, which is whole. `function.index` is not looked at: servers begin anew with 0 in each line."""
    function = mapping(call.get("function"))
    name, arguments, id = function.get("name"), function.get("arguments"), call.get("id")
    if not (isinstance(name, str) and name):
        return
    if not isinstance(arguments, str):
        try:
            arguments = json.dumps({} if arguments is None else arguments)
        except RecursionError:
            raise ProtocolError("the arguments of a tool call are nested too deeply") from None
    yield ToolCallDelta(None, id if isinstance(id, str) else None, name, arguments, whole=True)


def _usage(line: Mapping[str, Any]) -> Usage | None:
    """The tokens that a line counts. Ollama leaves out what is zero, so that either may be missing."""
    prompt, answer = count(line.get("prompt_eval_count")), count(line.get("eval_count"))
    if prompt is None and answer is None:
        return None
    raw = {name: value for name, value in line.items() if name.endswith(("_count", "_duration"))}
    return Usage(input_tokens=prompt, output_tokens=answer, raw=raw)
