"""A service's error: every format in use, at a status or inside a stream, becomes a class of the tree."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge._service_errors.report import ServiceReport
from llmbridge.errors import (
    AuthError,
    BadRequest,
    ContextLengthExceeded,
    LLMBridgeError,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    ServerError,
    ServiceError,
    StatusError,
    StreamError,
)
from llmbridge.service_errors import BODY_LIMIT, error_for_status, error_in_stream

KEY = "sk-canary-0123456789"
HOST = "api.example.com:443"


def at_status(status: int, body: Any = "", headers: dict[str, str] | None = None) -> ServiceError:
    """The error of an answer with this status; a body that is not a str is sent as JSON."""
    text = body if isinstance(body, str) else json.dumps(body)
    return error_for_status(status, headers or {}, text, (), HOST)


def openai(message: str, kind: str | None = None, code: Any = None) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def anthropic(message: str, kind: str) -> dict[str, Any]:
    """Anthropic's error object."""
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


def gemini(message: str, code: int, status: str) -> dict[str, Any]:
    """Gemini's error object."""
    return {"error": {"code": code, "message": message, "status": status}}


INVALID = "invalid_request_error"
TOO_LONG = "request (6020 tokens) exceeds the available context size (2048 tokens), try increasing it"

# Name: status, body, class, code, retryable.
BODIES: dict[str, tuple[int, Any, type[ServiceError], str | None, bool]] = {
    # OpenAI, and aimock, which imitates it and the others
    "openai 400": (400, openai("Invalid parameter", INVALID, "invalid_value"), BadRequest, "invalid_value", False),
    "openai 400 bad json": (400, openai("Malformed JSON", INVALID, "invalid_json"), BadRequest, "invalid_json", False),
    "openai 400 no code": (400, openai("Missing 'messages'", INVALID), BadRequest, INVALID, False),
    "openai 400 context": (
        400,
        openai("This model's maximum context length is 8192 tokens.", INVALID, "context_length_exceeded"),
        ContextLengthExceeded,
        "context_length_exceeded",
        False,
    ),
    "openai 401": (
        401,
        openai("Incorrect API key provided", "authentication_error", "invalid_api_key"),
        AuthError,
        "invalid_api_key",
        False,
    ),
    "openai 403": (
        403,
        openai("Country not supported", "request_forbidden"),
        PermissionDenied,
        "request_forbidden",
        False,
    ),
    "openai 404": (
        404,
        openai("The model does not exist", INVALID, "model_not_found"),
        NotFound,
        "model_not_found",
        False,
    ),
    "openai 409": (409, openai("Conflict", INVALID), BadRequest, INVALID, True),
    "openai 422": (
        422,
        openai("Unprocessable", INVALID, "unsupported_parameter"),
        BadRequest,
        "unsupported_parameter",
        False,
    ),
    "openai 429": (
        429,
        openai("Rate limit exceeded", "rate_limit_error", "rate_limit_exceeded"),
        RateLimited,
        "rate_limit_exceeded",
        True,
    ),
    "openai 429 no quota": (
        429,
        openai("You exceeded your current quota", "insufficient_quota", "insufficient_quota"),
        QuotaExceeded,
        "insufficient_quota",
        False,
    ),
    "openai 500": (500, openai("The server had an error", "server_error"), ServerError, "server_error", True),
    "openai 503": (503, openai("Overloaded", "overloaded_error"), Overloaded, "overloaded_error", True),
    "aimock no fixture": (
        503,
        openai("no fixture matched", INVALID, "no_fixture_match"),
        Overloaded,
        "no_fixture_match",
        True,
    ),
    # Anthropic
    "anthropic 400": (400, anthropic("Invalid parameter", INVALID), BadRequest, INVALID, False),
    "anthropic 400 context": (
        400,
        anthropic("prompt is too long: 210000 tokens > 200000 maximum", INVALID),
        ContextLengthExceeded,
        INVALID,
        False,
    ),
    "anthropic 401": (
        401,
        anthropic("invalid x-api-key", "authentication_error"),
        AuthError,
        "authentication_error",
        False,
    ),
    "anthropic 402": (402, anthropic("Pay", "billing_error"), QuotaExceeded, "billing_error", False),
    "anthropic 403": (403, anthropic("No", "permission_error"), PermissionDenied, "permission_error", False),
    "anthropic 404": (404, anthropic("model: x", "not_found_error"), NotFound, "not_found_error", False),
    "aimock anthropic 404": (404, anthropic("The model does not exist", INVALID), NotFound, INVALID, False),
    "anthropic 413": (413, anthropic("Too large", "request_too_large"), BadRequest, "request_too_large", False),
    "anthropic 429": (429, anthropic("Rate limit", "rate_limit_error"), RateLimited, "rate_limit_error", True),
    "anthropic 500": (500, anthropic("Internal", "api_error"), ServerError, "api_error", True),
    "anthropic 504": (504, anthropic("Timeout", "timeout_error"), ServerError, "timeout_error", True),
    "anthropic 529": (529, anthropic("Overloaded", "overloaded_error"), Overloaded, "overloaded_error", True),
    # Gemini
    "gemini 400": (400, gemini("Invalid value", 400, "INVALID_ARGUMENT"), BadRequest, "INVALID_ARGUMENT", False),
    "gemini 400 bad key": (
        400,
        gemini("API key not valid. Please pass a valid API key.", 400, "INVALID_ARGUMENT"),
        AuthError,
        "INVALID_ARGUMENT",
        False,
    ),
    "gemini 403": (403, gemini("No", 403, "PERMISSION_DENIED"), PermissionDenied, "PERMISSION_DENIED", False),
    "gemini 404": (404, gemini("No such model", 404, "NOT_FOUND"), NotFound, "NOT_FOUND", False),
    "gemini 429": (429, gemini("Slow down", 429, "RESOURCE_EXHAUSTED"), RateLimited, "RESOURCE_EXHAUSTED", True),
    "gemini 500": (500, gemini("Oops", 500, "INTERNAL"), ServerError, "INTERNAL", True),
    "gemini 503": (503, gemini("Overloaded", 503, "UNAVAILABLE"), Overloaded, "UNAVAILABLE", True),
    "gemini 504": (504, gemini("Late", 504, "DEADLINE_EXCEEDED"), ServerError, "DEADLINE_EXCEEDED", True),
    "gemini in a list": (
        429,
        [gemini("Slow down", 429, "RESOURCE_EXHAUSTED")],
        RateLimited,
        "RESOURCE_EXHAUSTED",
        True,
    ),
    "aimock gemini 401": (
        401,
        gemini("Incorrect API key", 401, "authentication_error"),
        AuthError,
        "authentication_error",
        False,
    ),
    # Mistral
    "mistral 422": (
        422,
        {"detail": [{"loc": ["body", "temperature"], "msg": "too big", "type": "value_error"}]},
        BadRequest,
        None,
        False,
    ),
    "mistral 429": (
        429,
        {"object": "error", "message": "Requests rate limit exceeded", "type": "rate_limited", "code": "1300"},
        RateLimited,
        "rate_limited",
        True,
    ),
    "mistral 401": (401, {"detail": "Unauthorized"}, AuthError, None, False),
    # Ollama
    "ollama 404": (404, {"error": "model 'x' not found"}, NotFound, None, False),
    "ollama 400": (400, {"error": "invalid options"}, BadRequest, None, False),
    "ollama 500": (500, {"error": "llama runner process has terminated"}, ServerError, None, True),
    # llama-server
    "llama-server 500 bad json": (
        500,
        {"error": {"code": 500, "message": "[json.exception.parse_error.101] x", "type": "server_error"}},
        ServerError,
        "server_error",
        True,
    ),
    "llama-server 401": (
        401,
        {"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}},
        AuthError,
        "authentication_error",
        False,
    ),
    "llama-server 400": (
        400,
        {"error": {"code": 400, "message": "'messages' is required", "type": INVALID}},
        BadRequest,
        INVALID,
        False,
    ),
    "llama-server 500 no messages": (
        500,
        {"error": {"code": 500, "message": "'messages' is required", "type": "server_error"}},
        ServerError,
        "server_error",
        True,
    ),
    "llama-server too long": (
        400,
        {"error": {"code": 400, "message": TOO_LONG, "type": "exceed_context_size_error", "n_ctx": 2048}},
        ContextLengthExceeded,
        "exceed_context_size_error",
        False,
    ),
    "llama-server 404": (
        404,
        {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}},
        NotFound,
        "not_found_error",
        False,
    ),
    "llama-server 503 loading": (
        503,
        {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}},
        Overloaded,
        "unavailable_error",
        True,
    ),
    # transformers serve, FastAPI
    "transformers 422": (422, {"detail": "Unexpected fields in the request: {'wibble'}"}, BadRequest, None, False),
    "transformers 422 bad json": (
        422,
        {"detail": [{"type": "json_invalid", "loc": ["body", 1], "msg": "JSON decode error", "input": {}}]},
        BadRequest,
        None,
        False,
    ),
    "an object under detail": (
        400,
        {"detail": {"message": "no credit", "code": "insufficient_quota"}},
        QuotaExceeded,
        "insufficient_quota",
        False,
    ),
    "transformers 404": (404, {"detail": "Not Found"}, NotFound, None, False),
    "transformers 500": (500, "Internal Server Error", ServerError, None, True),
    # llama-cpp-python
    "llama-cpp-python too long": (
        400,
        openai("Requested tokens (6020) exceed context window of 2048", INVALID),
        ContextLengthExceeded,
        INVALID,
        False,
    ),
    # vLLM
    "vllm 400": (
        400,
        {"object": "error", "message": "temperature must be positive", "type": "BadRequestError", "code": 400},
        BadRequest,
        "BadRequestError",
        False,
    ),
    "vllm 400 too long": (
        400,
        {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
        ContextLengthExceeded,
        "400",
        False,
    ),
    "vllm 404": (
        404,
        {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404},
        NotFound,
        "NotFoundError",
        False,
    ),
    # OpenRouter
    "openrouter 402": (402, {"error": {"code": 402, "message": "Insufficient credits"}}, QuotaExceeded, "402", False),
    "openrouter 429": (429, {"error": {"code": 429, "message": "Rate limit exceeded"}}, RateLimited, "429", True),
    # LiteLLM
    "litellm 500 in an event": (
        500,
        'data: {"error": {"message": "upstream failed", "type": "None", "param": "None", "code": "500"}}\n\n',
        ServerError,
        "None",
        True,
    ),
    "litellm 400 no database": (
        400,
        openai("No connected db.", "no_db_connection", "400"),
        BadRequest,
        "no_db_connection",
        False,
    ),
    # Others
    "408": (408, "", StatusError, None, True),
    "409": (409, "", StatusError, None, True),
    "410": (410, "", StatusError, None, False),
    "418": (418, "I'm a teapot", StatusError, None, False),
    "425": (425, "", StatusError, None, True),
    "405": (405, {"detail": "Method Not Allowed"}, BadRequest, None, False),
    "415": (415, "", BadRequest, None, False),
    "501": (501, "", ServerError, None, False),
    "502 of nginx": (502, "<html><head><title>502 Bad Gateway</title></head></html>", ServerError, None, True),
    "504 of a proxy": (504, "upstream request timeout", ServerError, None, True),
    "599": (599, "", ServerError, None, True),
    "an error of null": (500, {"error": None}, ServerError, None, True),
    "an empty error": (400, {"error": {}}, BadRequest, None, False),
    "an error of a list": (400, {"error": ["a", "b"]}, BadRequest, None, False),
    "an error of a number": (400, {"error": 7}, BadRequest, None, False),
    "a message of an object": (400, {"error": {"message": {"why": "x"}}}, BadRequest, None, False),
    "an empty body": (400, "", BadRequest, None, False),
    "an empty list": (400, [], BadRequest, None, False),
    "JSON null": (400, None, BadRequest, None, False),
    "a JSON str": (400, '"no"', BadRequest, None, False),
    "cut JSON": (400, '{"error": {"mess', BadRequest, None, False),
    "JSON of a thousand levels": (400, "[" * 100_000, BadRequest, None, False),
    "lists of five hundred levels": (400, '{"error": ' + "[" * 450 + '"x"' + "]" * 450 + "}", BadRequest, None, False),
    "a loc that is not a list": (422, {"detail": [{"loc": 5, "msg": "x"}]}, BadRequest, None, False),
}


class TestAtAStatus:
    """P10: class, code and whether to try again."""

    @pytest.mark.parametrize("case", BODIES)
    def test_class_and_code(self, case: str) -> None:
        """Each recorded or documented format gives the class of its words and status."""
        status, body, kind, code, retryable = BODIES[case]
        error = at_status(status, body)
        assert type(error) is kind
        assert error.status == status
        assert error.code == code
        assert error.retryable is retryable

    @pytest.mark.parametrize("case", BODIES)
    def test_the_message_names_host_and_status(self, case: str) -> None:
        """With any body, the message names host and status, on one line of limited length."""
        status, body, *_ = BODIES[case]
        message = at_status(status, body).message
        assert message.startswith(f"{HOST} answered {status}: ")
        assert "\n" not in message
        assert len(message) < 1000

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (openai("The model does not exist"), "The model does not exist"),
            ({"error": "model 'x' not found"}, "model 'x' not found"),
            ({"detail": "Not Found"}, "Not Found"),
            ({"detail": [{"loc": ["body", "n"], "msg": "too big"}]}, "body.n: too big"),
            ({"detail": [{"loc": ["a"], "msg": "x"}, {"loc": ["b"], "msg": "y"}]}, "a: x; b: y"),
            ({"detail": [{"msg": "no place"}]}, "no place"),
            ({"detail": {"message": "inside"}}, "inside"),
            ({"detail": {"error": "inside"}}, "inside"),
            ({"message": "plain", "object": "error"}, "plain"),
            ([{"error": {"message": "in a list"}}], "in a list"),
            ("plain text", "plain text"),
            ("<html><title>502 Bad Gateway</title><body>x</body></html>", "'502 Bad Gateway'"),
            ("<!DOCTYPE html><html></html>", "an HTML page"),
            ('event: error\ndata: {"error": {"message": "in an event"}}\n\n', "in an event"),
            ('data: {"error": {"message": "in an event"}}\n\ndata: [DONE]\n\n', "in an event"),
            ("", "no reason given"),
        ],
    )
    def test_the_services_own_words_are_quoted(self, body: Any, words: str) -> None:
        """Unwrapped from any objects around them."""
        assert words in at_status(400, body).message

    def test_html_is_not_quoted(self) -> None:
        """A page's source is useless."""
        message = at_status(502, "<html><head><title>Bad</title><style>x{}</style></head></html>").message
        assert "style" not in message

    def test_control_characters_do_not_reach_a_terminal(self) -> None:
        """Line breaks and escapes of a body are white space in the message."""
        message = at_status(400, {"error": "a\n\r\x1b[31mb\x00\x07c"}).message
        assert message.isprintable()
        assert "a" in message

    def test_a_long_message_is_cut(self) -> None:
        """The body keeps more of it."""
        error = at_status(400, {"error": "x" * 5000})
        assert len(error.message) < 1000
        assert "x" * 5000 in error.body

    def test_the_body_is_cut(self) -> None:
        """P2: to 64 KiB."""
        assert BODY_LIMIT == 64 * 1024
        assert len(at_status(500, "x" * 200_000).body) == BODY_LIMIT

    def test_the_body_is_kept(self) -> None:
        """As text, unchanged."""
        assert at_status(400, '{"error": "ü"}').body == '{"error": "ü"}'

    @pytest.mark.parametrize(
        ("kind", "status", "body", "advice"),
        [
            (AuthError, 401, "", "check the API key"),
            (NotFound, 404, "", "base_url"),
            (QuotaExceeded, 402, "", "no credit"),
            (ContextLengthExceeded, 400, openai(TOO_LONG), "shorten"),
            (PermissionDenied, 403, "", "rights"),
        ],
    )
    def test_the_message_says_what_to_do(self, kind: type[ServiceError], status: int, body: Any, advice: str) -> None:
        """If something can be done."""
        error = at_status(status, body)
        assert type(error) is kind
        assert advice in error.message

    def test_a_rate_limit_says_how_long(self) -> None:
        """In the message and as a number."""
        error = at_status(429, "", {"retry-after": "7"})
        assert error.retry_after == 7.0
        assert "7 s" in error.message

    @pytest.mark.parametrize(
        ("status", "asked", "retryable"),
        [(400, "true", True), (500, "false", False), (429, "FALSE", False), (500, "?", True)],
    )
    def test_the_services_own_advice_wins(self, status: int, asked: str, retryable: bool) -> None:
        """`x-should-retry`, which OpenAI sends."""
        assert at_status(status, "", {"x-should-retry": asked}).retryable is retryable

    @pytest.mark.parametrize("status", [500, 503, 429])
    def test_what_is_final_by_its_code_is_not_tried_again(self, status: int) -> None:
        """P13: with any status."""
        for code in ("insufficient_quota", "context_length_exceeded", "invalid_api_key"):
            assert not at_status(status, openai("no", None, code)).retryable


class TestRedirects:
    """P20: they are not followed, and the error says so."""

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_the_target_host_is_named(self, status: int) -> None:
        """It shows where the base URL should point to."""
        error = at_status(status, "", {"location": "https://elsewhere.example:8443/v1/chat?x=1"})
        assert type(error) is StatusError
        assert "elsewhere.example:8443" in error.message
        assert "base_url" in error.message
        assert not error.retryable

    def test_a_password_in_the_target_is_not_shown(self) -> None:
        """Only the host is shown."""
        error = at_status(302, "", {"location": "https://user:hunter2@elsewhere.example/"})
        assert "hunter2" not in error.message
        assert "elsewhere.example" in error.message

    @pytest.mark.parametrize("location", [None, "", "/v2/chat", "http://[bad", "::", "http://", "\x00", "//x"])
    def test_any_location_is_an_error_of_the_tree(self, location: str | None) -> None:
        """Missing, relative or broken."""
        error = at_status(307, "", {} if location is None else {"location": location})
        assert type(error) is StatusError


# Name: report, class, status, code.
REPORTS: dict[str, tuple[Any, type[ServiceError], int | None, str | None]] = {
    "openai": (openai("The server had an error", "server_error"), ServerError, None, "server_error"),
    "openai rate limit": (openai("Slow", None, "rate_limit_exceeded"), RateLimited, None, "rate_limit_exceeded"),
    "openai no quota": (openai("Pay", "insufficient_quota"), QuotaExceeded, None, "insufficient_quota"),
    "openai too long": (
        openai("x", None, "context_length_exceeded"),
        ContextLengthExceeded,
        None,
        "context_length_exceeded",
    ),
    "openai unknown": (openai("Something else"), StreamError, None, None),
    "a str": ({"error": "out of memory"}, StreamError, None, None),
    "a bare str": ("out of memory", StreamError, None, None),
    "a list": ({"error": ["a", "b"]}, StreamError, None, None),
    "a bare list": ([{"error": {"message": "x", "code": 503}}], Overloaded, 503, "503"),
    "a gateway's string code": (openai("upstream", None, "500"), ServerError, 500, "500"),
    "llama-server": (
        {"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}},
        ContextLengthExceeded,
        500,
        "server_error",
    ),
    "too long by its type alone": (
        {"error": {"code": 400, "message": "no", "type": "exceed_context_size_error"}},
        ContextLengthExceeded,
        400,
        "exceed_context_size_error",
    ),
    "llama-server too long": (
        {"error": {"code": 400, "message": TOO_LONG, "type": "exceed_context_size_error"}},
        ContextLengthExceeded,
        400,
        "exceed_context_size_error",
    ),
    "vllm": (
        {"object": "error", "message": "boom", "type": "InternalServerError", "code": 500},
        ServerError,
        500,
        "InternalServerError",
    ),
    "vllm event": ({"code": 500, "details": "boom"}, ServerError, 500, "500"),
    "openrouter": (
        {"choices": [{"finish_reason": "error"}], "error": {"code": 429, "message": "x", "metadata": {}}},
        RateLimited,
        429,
        "429",
    ),
    "openrouter no credit": ({"error": {"code": 402, "message": "Insufficient credits"}}, QuotaExceeded, 402, "402"),
    "anthropic": (anthropic("Overloaded", "overloaded_error"), Overloaded, None, "overloaded_error"),
    "gemini": (gemini("Slow down", 429, "RESOURCE_EXHAUSTED"), RateLimited, 429, "RESOURCE_EXHAUSTED"),
    "mistral": (
        {"object": "error", "message": "x", "type": "rate_limit_error", "code": "1300"},
        RateLimited,
        None,
        "rate_limit_error",
    ),
    "a wrong key": (openai("Incorrect API key provided", INVALID), AuthError, None, INVALID),
    "nothing": ({}, StreamError, None, None),
    "null": (None, StreamError, None, None),
    "a number": (7, StreamError, None, None),
    "a code that is not a status": ({"error": {"message": "x", "code": 12}}, StreamError, None, "12"),
    "a code of 200": ({"error": {"message": "x", "code": 200}}, StreamError, None, "200"),
    "JSON as text": ('{"error": {"message": "x", "code": 503}}', Overloaded, 503, "503"),
}


class TestInAStream:
    """P9: the class of the code or type."""

    @pytest.mark.parametrize("case", REPORTS)
    def test_class_status_and_code(self, case: str) -> None:
        """In each of the formats in use."""
        report, kind, status, code = REPORTS[case]
        error = error_in_stream(report)
        assert type(error) is kind
        assert error.status == status
        assert error.code == code

    def test_the_words_are_quoted(self) -> None:
        """The whole report is kept as the body."""
        error = error_in_stream({"error": {"message": "out of memory", "code": 500, "extra": "ü"}})
        assert "out of memory" in error.message
        assert json.loads(error.body)["error"]["extra"] == "ü"

    def test_nothing_but_the_words_is_quoted(self) -> None:
        """Without the object around them."""
        for report in ({"code": 500, "details": "boom"}, {"error": "boom"}, {"message": "boom", "object": "error"}):
            assert error_in_stream(report).message.endswith(": boom")

    @pytest.mark.parametrize(
        ("report", "retryable"),
        [
            (openai("x", "overloaded_error"), True),
            (openai("x", "rate_limit_error"), True),
            (openai("x", None, 500), True),
            (openai("x", "server_error"), True),
            (anthropic("x", "api_error"), True),
            (anthropic("x", "timeout_error"), True),
            (openai("x", "server_error", 400), False),
            (openai("x", "insufficient_quota", 429), False),
            (openai("x", INVALID, 400), False),
            (openai("x"), False),
            (openai("x", None, 408), True),
            (openai("x", None, 410), False),
        ],
    )
    def test_whether_to_try_again(self, report: Any, retryable: bool) -> None:
        """As for a status."""
        assert error_in_stream(report).retryable is retryable

    def test_the_body_is_cut(self) -> None:
        """P2: here too."""
        assert len(error_in_stream({"error": "x" * 200_000}).body) <= BODY_LIMIT


class TestSecrets:
    """P18: a key that a server repeats."""

    @pytest.mark.parametrize(
        "body",
        [
            openai(f"bad key {KEY}", None, f"{KEY}"),
            {"error": KEY},
            {"detail": [{"msg": KEY}]},
            f"<title>{KEY}</title>",
            KEY,
        ],
    )
    def test_an_echoed_key_is_masked_everywhere(self, body: Any) -> None:
        """In message, code and body, at a status and in a stream."""
        text = body if isinstance(body, str) else json.dumps(body)
        for error in (
            error_for_status(401, {}, text, (KEY,), HOST),
            error_for_status(302, {"location": f"https://x/{KEY}"}, text, (KEY,), HOST),
            error_in_stream(body, (KEY,)),
        ):
            assert KEY not in f"{error!r} {vars(error)}"

    def test_a_key_at_the_cut_does_not_show_its_beginning(self) -> None:
        """Masked first, cut afterwards."""
        for length in range(BODY_LIMIT - len(KEY), BODY_LIMIT + 1):
            assert "sk-canary" not in error_for_status(400, {}, "x" * length + KEY, (KEY,), HOST).body
        for length in range(560, 610):
            for error in (
                error_for_status(400, {}, json.dumps({"error": "x" * length + KEY + "yyy"}), (KEY,), HOST),
                error_in_stream({"error": "x" * length + KEY + "yyy"}, (KEY,)),
            ):
                assert "sk-c" not in error.message, length


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        ["500", "429", 402, 12, 10**400, "46s", "1h", '{"error": {"message": "x"}}', "RESOURCE_EXHAUSTED"]
    )
    | st.sampled_from(["try again in 5s", "X-RateLimit-Reset", "exceeded your current quota", "insufficient_quota"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("error", "detail", "details", "message", "msg", "loc", "code", "type", "status", "object"),
                    *("errors", "innererror", "metadata", "raw", "headers", "violations", "quotaId", "retryDelay"),
                    *("request_id", "retry_after", "estimated_time", "reason", "provider_name", "error_type"),
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


class TestAnything:
    """P10: any report gives an error of the tree."""

    @pytest.mark.slow
    @given(report=ANYTHING)
    def test_any_json_at_a_status(self, report: Any) -> None:
        """Any body with any status."""
        for status in (302, 400, 429, 500):
            error = at_status(status, json.dumps(report))
            assert isinstance(error, LLMBridgeError)
            assert error.code is None or isinstance(error.code, str)

    @pytest.mark.slow
    @given(report=ANYTHING)
    def test_any_json_in_a_stream(self, report: Any) -> None:
        """Any report, parsed or as text."""
        for error in (error_in_stream(report), error_in_stream(json.dumps(report))):
            assert isinstance(error, ServiceError)
            assert error.status is None or 400 <= error.status < 600

    @pytest.mark.slow
    @given(
        headers=st.dictionaries(
            st.sampled_from(
                [
                    *("retry-after", "retry-after-ms", "llm_provider-retry-after", "x-should-retry", "location"),
                    *("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "x-ratelimit-reset"),
                    *("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset", "request-id"),
                ]
            ),
            st.text(max_size=20) | st.sampled_from(["0", "1e400", "6m0s", "2030-01-01T00:00:00Z", "99999999999999"]),
        ),
        status=st.integers(300, 599),
    )
    def test_any_headers(self, headers: dict[str, str], status: int) -> None:
        """A wait is a number from 0, or None."""
        error = at_status(status, "", headers)
        assert error.retry_after is None or 0 <= error.retry_after < float("inf")

    @given(text=st.text(max_size=200))
    def test_any_text(self, text: str) -> None:
        """Bodies that are not JSON."""
        assert at_status(500, text).body == text
        assert ServiceReport.of(text) is not None
