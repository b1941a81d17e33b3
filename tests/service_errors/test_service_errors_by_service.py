"""The errors of each service, as it sends them: class, seconds to wait, and whether to try again.

The bodies are those of the services' documentation and of public reports; names and numbers in them are made up.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmbridge._service_errors.report import ServiceReport
from llmbridge.errors import (
    AuthError,
    BadRequest,
    ContentFiltered,
    ContextLengthExceeded,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    ServerError,
    ServiceError,
    StatusError,
)
from llmbridge.service_errors import error_for_status, error_in_stream

HOST = "api.example.com:443"
INVALID = "invalid_request_error"


def openai(message: str, kind: str | None = None, code: Any = None) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def anthropic(message: str, kind: str) -> dict[str, Any]:
    """Anthropic's error object."""
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


def google(message: str, status: int, name: str, *details: dict[str, Any]) -> dict[str, Any]:
    """Google's error object with details."""
    return {"error": {"code": status, "message": message, "status": name, "details": list(details)}}


def quota_failure(*ids: str) -> dict[str, Any]:
    """Google's detail that names the exceeded limits."""
    return {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaMetric": "generativelanguage.googleapis.com/requests", "quotaId": name} for name in ids],
    }


def retry_info(delay: str) -> dict[str, Any]:
    """Google's detail with the time to wait."""
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


FILTERED = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
EXHAUSTED = "RESOURCE_EXHAUSTED"
GOOGLE_QUOTA = "You exceeded your current quota, please check your plan and billing details."
TPM = "in organization `org_1` service tier `on_demand` on tokens per minute (TPM): Limit 6000,"

# Name: status, headers, body, class, retry_after, retryable.
SERVICES: dict[str, tuple[int, dict[str, str], Any, type[ServiceError], float | None, bool]] = {
    # OpenAI
    "openai, tokens per minute": (
        429,
        {},
        openai("Rate limit reached for gpt-4o on tokens per min (TPM): Limit 3. Please try again in 20ms.", "tokens"),
        RateLimited,
        0.02,
        True,
    ),
    "openai, requests per day": (
        429,
        {},
        openai("Rate limit reached on requests per day (RPD): Limit 200. Please try again in 7m12s.", "requests"),
        RateLimited,
        432.0,
        True,
    ),
    "openai, hours": (429, {}, openai("Please try again in 1h30m.", "requests"), RateLimited, 5400.0, True),
    "openai, header before words": (
        429,
        {"retry-after-ms": "250", "retry-after": "1", "x-ratelimit-remaining-requests": "0"},
        openai("Please try again in 20s."),
        RateLimited,
        0.25,
        True,
    ),
    "openai, words before the limits": (
        429,
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"},
        openai("Please try again in 1m30s."),
        RateLimited,
        90.0,
        True,
    ),
    "openai, the limits alone": (
        429,
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "17ms"},
        openai("Rate limit reached"),
        RateLimited,
        0.017,
        True,
    ),
    "openai, limits that are not used up": (
        429,
        {"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "6m0s"},
        openai("Rate limit reached"),
        RateLimited,
        None,
        True,
    ),
    "openai, request over the limit": (
        429,
        {},
        openai(
            "Request too large for gpt-4o (TPM): Limit 30000, Requested 34567. The input or output tokens must be "
            "reduced in order to run successfully.",
            "tokens",
            "rate_limit_exceeded",
        ),
        ContextLengthExceeded,
        None,
        False,
    ),
    "openai, quota without a code": (
        429,
        {},
        openai("You exceeded your current quota, please check your plan and billing details.", "insufficient_quota"),
        QuotaExceeded,
        None,
        False,
    ),
    "openai, quota by its words": (
        429,
        {},
        openai("You exceeded your current quota, please..."),
        QuotaExceeded,
        None,
        False,
    ),
    "openai, billing": (400, {}, openai("Billing hard limit has been reached", INVALID), QuotaExceeded, None, False),
    "openai, no key": (
        401,
        {},
        openai("You didn't provide an API key. You need to provide your API key in an Authorization header", INVALID),
        AuthError,
        None,
        False,
    ),
    "openai, no access to the model": (
        403,
        {},
        openai("Project `p` does not have access to model `m`", INVALID, "model_not_found"),
        PermissionDenied,
        None,
        False,
    ),
    "openai, policy": (
        400,
        {},
        openai("Your request was rejected as a result of our safety system.", INVALID, "content_policy_violation"),
        ContentFiltered,
        None,
        False,
    ),
    "openai, policy of reasoning models": (
        400,
        {},
        openai(
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
            INVALID,
            "invalid_prompt",
        ),
        ContentFiltered,
        None,
        False,
    ),
    "openai, responses too long": (
        400,
        {},
        openai("Your input exceeds the context window of this model. Please adjust your input and try again.", INVALID),
        ContextLengthExceeded,
        None,
        False,
    ),
    "openai, a string too long": (
        400,
        {},
        openai("Invalid 'messages[0].content': string too long.", INVALID, "string_above_max_length"),
        ContextLengthExceeded,
        None,
        False,
    ),
    "openai, no retry by header": (503, {"x-should-retry": "false"}, "", Overloaded, None, False),
    "openai, retry by header": (400, {"x-should-retry": "true"}, "", BadRequest, None, True),
    "openai, a quota with a header to retry": (
        429,
        {"x-should-retry": "true"},
        openai("x", "insufficient_quota"),
        QuotaExceeded,
        None,
        False,
    ),
    # Azure
    "azure, filter": (
        400,
        {},
        {
            "error": {
                "message": FILTERED,
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
            }
        },
        ContentFiltered,
        None,
        False,
    ),
    "azure, filter in the inner error": (
        400,
        {},
        {"error": {"message": "no", "code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        ContentFiltered,
        None,
        False,
    ),
    "azure, deployment": (
        404,
        {},
        {
            "error": {
                "code": "DeploymentNotFound",
                "message": "The API deployment for this resource does not exist. If "
                "you created the deployment within the last 5 minutes, please wait a moment and try again.",
            }
        },
        NotFound,
        None,
        False,
    ),
    "azure, rate": (
        429,
        {},
        {
            "error": {
                "code": "429",
                "message": "Requests to the ChatCompletions_Create Operation have exceeded token "
                "rate limit of your current OpenAI S0 pricing tier. Please retry after 5 seconds. Please go here: "
                "https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit.",
            }
        },
        RateLimited,
        5.0,
        True,
    ),
    "azure, gateway key": (
        401,
        {},
        {"statusCode": 401, "message": "Unauthorized. Access token is missing, invalid, audience is incorrect"},
        AuthError,
        None,
        False,
    ),
    "azure, call volume": (
        403,
        {},
        {"statusCode": 403, "message": "Out of call volume quota. Quota will be replenished in 2 days."},
        QuotaExceeded,
        172800.0,
        False,
    ),
    # Anthropic
    "anthropic, credit": (
        400,
        {},
        anthropic("Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing.", INVALID),
        QuotaExceeded,
        None,
        False,
    ),
    "anthropic, spend limit": (
        400,
        {},
        anthropic("You have reached your specified API usage limits. You will regain access on 2027-01-01.", INVALID),
        QuotaExceeded,
        None,
        False,
    ),
    "anthropic, rate": (
        429,
        {"retry-after": "12", "anthropic-ratelimit-requests-remaining": "0"},
        anthropic(
            "This request would exceed your organization's rate limit of 40,000 input tokens per minute.",
            "rate_limit_error",
        ),
        RateLimited,
        12.0,
        True,
    ),
    "anthropic, filter": (
        400,
        {},
        anthropic("Output blocked by content filtering policy", INVALID),
        ContentFiltered,
        None,
        False,
    ),
    "anthropic, no credentials": (
        400,
        {},
        anthropic("x-api-key header: missing API key", INVALID),
        AuthError,
        None,
        False,
    ),
    "anthropic, too long with the answer": (
        400,
        {},
        anthropic("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000", INVALID),
        ContextLengthExceeded,
        None,
        False,
    ),
    "anthropic, conflict": (409, {}, anthropic("x", "conflict_error"), StatusError, None, True),
    # Gemini
    "gemini, per day": (
        429,
        {},
        google(
            GOOGLE_QUOTA,
            429,
            EXHAUSTED,
            quota_failure(
                "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
                "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
            ),
            retry_info("38s"),
        ),
        QuotaExceeded,
        38.0,
        False,
    ),
    "gemini, per minute": (
        429,
        {},
        google(
            GOOGLE_QUOTA,
            429,
            EXHAUSTED,
            quota_failure("GenerateRequestsPerMinutePerProjectPerModel"),
            retry_info("46.5s"),
        ),
        RateLimited,
        46.5,
        True,
    ),
    "gemini, per minute without a delay": (
        429,
        {},
        google(GOOGLE_QUOTA, 429, EXHAUSTED, quota_failure("GenerateRequestsPerMinutePerProjectPerModel")),
        RateLimited,
        None,
        True,
    ),
    "gemini, words": (
        429,
        {},
        google(f"{GOOGLE_QUOTA}\nPlease retry in 46.117342519s.", 429, EXHAUSTED),
        RateLimited,
        46.117342519,
        True,
    ),
    "gemini, hours": (429, {}, google("x", 429, EXHAUSTED, retry_info("34074.8s")), QuotaExceeded, 34074.8, False),
    "gemini, hours in words": (
        429,
        {},
        google("Your quota will reset after 14h20m5s.", 429, EXHAUSTED),
        QuotaExceeded,
        51605.0,
        False,
    ),
    "gemini, hours in the metadata": (
        429,
        {},
        google("x", 429, EXHAUSTED, {"reason": "RATE_LIMIT_EXCEEDED", "metadata": {"quotaResetDelay": "1h16m0.5s"}}),
        QuotaExceeded,
        4560.5,
        False,
    ),
    "gemini, a model that the plan does not hold": (
        429,
        {},
        google("Quota exceeded for metric: free_tier_requests, limit: 0\nPlease retry in 46s.", 429, EXHAUSTED),
        QuotaExceeded,
        46.0,
        False,
    ),
    "gemini, nothing but the quota's words": (
        429,
        {},
        google(GOOGLE_QUOTA, 429, EXHAUSTED),
        QuotaExceeded,
        None,
        False,
    ),
    "gemini, capacity": (
        429,
        {},
        google("Resource has been exhausted (e.g. check quota).", 429, EXHAUSTED),
        RateLimited,
        None,
        True,
    ),
    "gemini, bad key in the details": (
        400,
        {},
        google("no", 400, "INVALID_ARGUMENT", {"reason": "API_KEY_INVALID", "domain": "googleapis.com"}),
        AuthError,
        None,
        False,
    ),
    "gemini, expired key": (
        400,
        {},
        google("API key expired. Please renew the API key.", 400, "INVALID_ARGUMENT"),
        AuthError,
        None,
        False,
    ),
    "gemini, no key": (
        403,
        {},
        google(
            "Method doesn't allow unregistered callers (callers without established identity).",
            403,
            "PERMISSION_DENIED",
        ),
        AuthError,
        None,
        False,
    ),
    "gemini, leaked key": (
        403,
        {},
        google("Your API key was reported as leaked. Please use another API key.", 403, "PERMISSION_DENIED"),
        AuthError,
        None,
        False,
    ),
    "gemini, too long": (
        400,
        {},
        google(
            "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
            400,
            "INVALID_ARGUMENT",
        ),
        ContextLengthExceeded,
        None,
        False,
    ),
    "gemini, policy": (400, {}, google("blocked", 400, "PROHIBITED_CONTENT"), ContentFiltered, None, False),
    "gemini, in a list": (
        503,
        {},
        [google("The model is overloaded. Please try again later.", 503, "UNAVAILABLE")],
        Overloaded,
        None,
        True,
    ),
    "gemini, an error in the words of another": (
        429,
        {},
        {
            "error": {
                "message": json.dumps(google("Slow down.", 429, EXHAUSTED, retry_info("7s"))),
                "code": 429,
                "status": "Too Many Requests",
            }
        },
        RateLimited,
        7.0,
        True,
    ),
    # Ollama
    "ollama, model": (404, {}, {"error": 'model "llama9:8b" not found, try pulling it first'}, NotFound, None, False),
    "ollama, no tools": (
        400,
        {},
        {"error": "registry.ollama.ai/library/x:latest does not support tools"},
        BadRequest,
        None,
        False,
    ),
    "ollama, memory": (
        500,
        {},
        {"error": "model requires more system memory (45.0 GiB) than is available (30.2 GiB)"},
        ServerError,
        None,
        False,
    ),
    "ollama, busy": (
        503,
        {},
        {"error": "server busy, please try again.  maximum pending requests exceeded"},
        Overloaded,
        None,
        True,
    ),
    "ollama, too long": (
        400,
        {},
        {"error": "the input length exceeds the context length"},
        ContextLengthExceeded,
        None,
        False,
    ),
    "ollama, cloud without key": (
        401,
        {},
        {"error": "unauthorized", "signin_url": "https://x"},
        AuthError,
        None,
        False,
    ),
    "ollama, cloud usage": (429, {}, {"error": "you've reached your hourly usage limit"}, QuotaExceeded, None, False),
    # Mistral
    "mistral, message of a list": (
        422,
        {},
        {
            "object": "error",
            "message": {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "seed"],
                        "msg": "Extra inputs are not permitted",
                        "input": 1,
                    }
                ]
            },
            "type": INVALID,
            "param": None,
            "code": None,
        },
        BadRequest,
        None,
        False,
    ),
    "mistral, model": (
        400,
        {},
        {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "param": None, "code": "1500"},
        NotFound,
        None,
        False,
    ),
    "mistral, too long": (
        400,
        {},
        {
            "object": "error",
            "message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 "
            "maximum context length",
            "type": "invalid_request_prompt",
            "code": "3051",
        },
        ContextLengthExceeded,
        None,
        False,
    ),
    "mistral, capacity": (
        429,
        {"retry-after": "3"},
        {
            "object": "error",
            "message": "Service tier capacity exceeded for this model.",
            "type": "service_tier_capacity_exceeded",
            "param": None,
            "code": "3505",
        },
        RateLimited,
        3.0,
        True,
    ),
    "mistral, key": (401, {}, {"message": "Unauthorized", "request_id": "r"}, AuthError, None, False),
    # OpenRouter
    "openrouter, moderation": (
        403,
        {},
        {
            "error": {
                "code": 403,
                "message": "x requires moderation",
                "metadata": {
                    "reasons": ["violence"],
                    "flagged_input": "...",
                    "provider_name": "OpenAI",
                    "model_slug": "x",
                },
            }
        },
        ContentFiltered,
        None,
        False,
    ),
    "openrouter, forbidden": (403, {}, {"error": {"code": 403, "message": "No access"}}, PermissionDenied, None, False),
    "openrouter, timeout": (408, {}, {"error": {"code": 408, "message": "Timed out"}}, StatusError, None, True),
    "openrouter, provider": (
        502,
        {},
        {
            "error": {
                "code": 502,
                "message": "Provider returned error",
                "metadata": {"provider_name": "Azure", "raw": '{"error": {"message": "upstream is down"}}'},
            }
        },
        ServerError,
        None,
        True,
    ),
    "openrouter, the provider's context": (
        400,
        {},
        {
            "error": {
                "code": 400,
                "message": "Provider returned error",
                "metadata": {
                    "provider_name": "Azure",
                    "raw": {"error": {"message": "x", "code": "context_length_exceeded"}},
                },
            }
        },
        ContextLengthExceeded,
        None,
        False,
    ),
    "openrouter, free models": (
        429,
        {},
        {
            "error": {
                "code": 429,
                "message": "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000",
                "metadata": {
                    "headers": {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1000"}
                },
            }
        },
        QuotaExceeded,
        1000.0,
        False,
    ),
    "openrouter, free models per minute": (
        429,
        {},
        {
            "error": {
                "code": 429,
                "message": "Rate limit exceeded: free-models-per-min.",
                "metadata": {"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "21"}},
            }
        },
        RateLimited,
        21.0,
        True,
    ),
    "openrouter, no such model": (
        400,
        {},
        {"error": {"code": 400, "message": "x is not a valid model ID"}},
        NotFound,
        None,
        False,
    ),
    # DeepSeek
    "deepseek, balance": (
        402,
        {},
        openai("Insufficient Balance", "unknown_error", "invalid_request_error"),
        QuotaExceeded,
        None,
        False,
    ),
    "deepseek, key": (
        401,
        {},
        openai("Authentication Fails, Your api key: ****1234 is invalid", "authentication_error", INVALID),
        AuthError,
        None,
        False,
    ),
    "deepseek, policy": (400, {}, openai("Content Exists Risk", INVALID, INVALID), ContentFiltered, None, False),
    "deepseek, body": (
        422,
        {},
        openai("Failed to deserialize the JSON body into the target type: missing field `model`", INVALID, INVALID),
        BadRequest,
        None,
        False,
    ),
    # Groq
    "groq, too large": (
        413,
        {},
        openai(
            f"Request too large for model `m` {TPM} Requested 14368, please reduce your message size and try again.",
            "tokens",
            "rate_limit_exceeded",
        ),
        ContextLengthExceeded,
        None,
        False,
    ),
    "groq, a rate limit under 413": (413, {}, openai("x", "tokens", "rate_limit_exceeded"), BadRequest, None, False),
    "groq, rate": (
        429,
        {},
        openai(
            f"Rate limit reached for model `m` {TPM} Used 5034, Requested 1443. Please try again in 4.77s. Need more "
            "tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing",
            "tokens",
            "rate_limit_exceeded",
        ),
        RateLimited,
        4.77,
        True,
    ),
    "groq, tool call": (
        400,
        {},
        {
            "error": {
                "message": "Failed to call a function. Please adjust your prompt.",
                "type": INVALID,
                "code": "tool_use_failed",
                "failed_generation": "<function=x>",
            }
        },
        BadRequest,
        None,
        False,
    ),
    "groq, context": (
        400,
        {},
        openai("Please reduce the length of the messages or completion.", INVALID),
        ContextLengthExceeded,
        None,
        False,
    ),
    "groq, decommissioned": (
        400,
        {},
        openai("The model `m` has been decommissioned and is no longer supported.", INVALID, "model_decommissioned"),
        NotFound,
        None,
        False,
    ),
    "groq, flex": (498, {}, openai("Flex tier capacity exceeded", "capacity_exceeded"), Overloaded, None, True),
    # xAI
    "xai, key": (
        400,
        {},
        {
            "code": "Client specified an invalid argument",
            "error": "Incorrect API key provided: xa***yz. You can obtain an API key from https://console.x.ai.",
        },
        AuthError,
        None,
        False,
    ),
    "xai, credits": (
        403,
        {},
        {
            "code": "The caller does not have permission to execute the specified operation",
            "error": "Your team 1 has either used all available credits or reached its monthly spending limit.",
        },
        QuotaExceeded,
        None,
        False,
    ),
    "xai, policy": (
        403,
        {},
        {"code": "x", "error": "Content violates usage guidelines. Team: 1"},
        ContentFiltered,
        None,
        False,
    ),
    "xai, too long": (
        400,
        {},
        {"code": "x", "error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens."},
        ContextLengthExceeded,
        None,
        False,
    ),
    # Together, Fireworks, Hugging Face
    "together, credit": (
        402,
        {},
        openai("Credit limit exceeded, please navigate to billing", "credit_limit"),
        QuotaExceeded,
        None,
        False,
    ),
    "together, too long": (
        422,
        {},
        openai("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000", INVALID),
        ContextLengthExceeded,
        None,
        False,
    ),
    "fireworks, suspended": (
        412,
        {},
        {"error": {"message": "Account x is suspended, possibly due to reaching the monthly spending limit"}},
        QuotaExceeded,
        None,
        False,
    ),
    "fireworks, too long": (
        400,
        {},
        openai("The prompt is too long: 140000, model maximum context length: 131071", INVALID),
        ContextLengthExceeded,
        None,
        False,
    ),
    "hugging face, loading": (
        503,
        {},
        {"error": "Model x/y is currently loading", "estimated_time": 20.0},
        Overloaded,
        20.0,
        True,
    ),
    "hugging face, credits": (
        402,
        {},
        {"error": "You have exceeded your monthly included credits for Inference Providers."},
        QuotaExceeded,
        None,
        False,
    ),
    "hugging face, too long": (
        422,
        {},
        {
            "error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
            "error_type": "validation",
        },
        ContextLengthExceeded,
        None,
        False,
    ),
    "hugging face, busy": (
        429,
        {},
        {"error": "Model is overloaded", "error_type": "overloaded"},
        RateLimited,
        None,
        True,
    ),
    # Local servers
    "vllm, key": (401, {}, {"error": "Unauthorized"}, AuthError, None, False),
    "vllm, new shape": (
        400,
        {},
        openai(
            "This model's maximum context length is 4096 tokens. However, you requested 5000.", "BadRequestError", 400
        ),
        ContextLengthExceeded,
        None,
        False,
    ),
    "lm studio, too long": (
        400,
        {},
        {
            "error": "Trying to keep the first 7000 tokens when context the overflows. However, the model is loaded "
            "with context length of only 4096 tokens, which is not enough."
        },
        ContextLengthExceeded,
        None,
        False,
    ),
    "lm studio, another wording": (
        400,
        {},
        {"error": "The number of tokens to keep from the initial prompt is greater than the context length."},
        ContextLengthExceeded,
        None,
        False,
    ),
    "lm studio, no model": (
        404,
        {},
        openai("No models loaded. Please load a model in the developer page.", INVALID, "model_not_found"),
        NotFound,
        None,
        False,
    ),
    # LiteLLM
    "litellm, key as 400": (
        400,
        {},
        openai("Authentication Error, Invalid proxy server token passed.", "auth_error", "400"),
        AuthError,
        None,
        False,
    ),
    "litellm, no key as 500": (
        500,
        {},
        openai("Authentication Error, No api key passed in.", "auth_error", "500"),
        AuthError,
        None,
        False,
    ),
    "litellm, context by its class": (
        400,
        {},
        openai("litellm.BadRequestError: litellm.ContextWindowExceededError: OpenAIException - x", None, "400"),
        ContextLengthExceeded,
        None,
        False,
    ),
    "litellm, rate limit as 500": (
        500,
        {},
        openai("litellm.RateLimitError: AnthropicException - slow down, try again in 3s", "None", "500"),
        RateLimited,
        3.0,
        True,
    ),
    "litellm, policy": (
        400,
        {},
        {
            "error": {
                "message": "litellm.BadRequestError: AzureException - no",
                "type": None,
                "code": "400",
                "provider_specific_fields": {"innererror": {"code": "ResponsibleAIPolicyViolation"}},
            }
        },
        ContentFiltered,
        None,
        False,
    ),
    "litellm, budget": (
        400,
        {},
        openai("Budget has been exceeded! Current cost: 20, Max budget: 10", "budget_exceeded", "400"),
        QuotaExceeded,
        None,
        False,
    ),
    "litellm, header of the service behind it": (
        429,
        {"llm_provider-retry-after": "4"},
        openai("litellm.RateLimitError", "throttling_error", "429"),
        RateLimited,
        4.0,
        True,
    ),
    # Reports that only look like something else
    "a limit of tokens that passes": (
        400,
        {},
        {"message": "Too many tokens, please wait before trying again."},
        BadRequest,
        None,
        False,
    ),
    "a filter that is a parameter": (
        400,
        {},
        openai("Your request contains invalid content filter policy. Please provide a valid policy.", INVALID),
        BadRequest,
        None,
        False,
    ),
    "a content type": (400, {}, openai("Request rejected: unsupported content type", INVALID), BadRequest, None, False),
    "a wait in a bad request": (400, {}, openai("try again in 5s", INVALID), BadRequest, None, False),
    "a garbage wait": (429, {"retry-after": "-5"}, openai("try again in soon"), RateLimited, None, True),
    "a huge wait": (429, {"retry-after": "99999999999"}, "", RateLimited, 99999999999.0, True),
}


def made(status: int, body: Any, headers: dict[str, str] | None = None) -> ServiceError:
    """The error of an answer with this status."""
    text = body if isinstance(body, str) else json.dumps(body)
    return error_for_status(status, headers or {}, text, (), HOST)


@pytest.mark.parametrize("case", SERVICES)
def test_each_services_errors(case: str) -> None:
    """Class, seconds to wait, and whether to try again."""
    status, headers, body, kind, after, retryable = SERVICES[case]
    error = made(status, body, headers)
    assert type(error) is kind
    assert error.retry_after == (None if after is None else pytest.approx(after))
    assert error.retryable is retryable
    assert error.status == status


IN_STREAM = [
    case for case, row in SERVICES.items() if not row[1] and isinstance(row[2], dict) and "gateway" not in case
]


@pytest.mark.parametrize("case", IN_STREAM)
def test_the_same_report_inside_a_stream(case: str) -> None:
    """In a stream, status or words give the same class and the same wait."""
    status, _, body, kind, after, _ = SERVICES[case]
    error = error_in_stream(json.loads(json.dumps(body)))
    if kind is not StatusError and (
        error.status == status or kind in (ContentFiltered, ContextLengthExceeded, QuotaExceeded, AuthError)
    ):
        assert type(error) is kind
        assert error.retry_after == (None if after is None else pytest.approx(after))


class TestWords:
    """The message."""

    @pytest.mark.parametrize(
        ("case", "words"),
        [
            ("mistral, message of a list", "body.seed: Extra inputs are not permitted"),
            ("openrouter, provider", "Provider returned error (Azure: upstream is down)"),
            ("gemini, an error in the words of another", "Slow down."),
            ("xai, key", "Incorrect API key provided"),
            ("ollama, model", "run `ollama pull llama9:8b` first"),
            ("azure, deployment", "the name of the deployment"),
            ("openai, request over the limit", "shorten the messages, or lower the limit of the answer"),
            ("groq, a rate limit under 413", "fewer or smaller images"),
            ("groq, tool call", "try again, or use another model"),
            ("ollama, memory", "use a smaller model"),
            ("azure, filter", "change the prompt"),
            ("openai, quota by its words", "see its billing page"),
            ("groq, rate", "it asks to wait 4.77 s"),
            ("openai, limits that are not used up", "send fewer requests"),
            ("hugging face, loading", "try again later"),
        ],
    )
    def test_the_service_and_what_to_do(self, case: str, words: str) -> None:
        """The service's own words, and advice."""
        status, headers, body, *_ = SERVICES[case]
        assert words in made(status, body, headers).message

    def test_an_invalid_model_name_is_not_put_into_a_command(self) -> None:
        """A name made up by a server must not end up in a shell command."""
        message = made(404, {"error": "model 'x; rm -rf /' not found"}).message
        assert "ollama pull" not in message


class TestRequestId:
    """The request id, to quote to the service's support."""

    @pytest.mark.parametrize(
        "body",
        [
            {"type": "error", "error": {"type": "api_error", "message": "x"}, "request_id": "req_1"},
            {"error": {"message": "x", "request_id": "req_1"}},
            {"message": "Unauthorized", "request_id": "req_1"},
        ],
    )
    def test_it_is_taken_from_the_body(self, body: dict[str, Any]) -> None:
        """At a status and in a stream."""
        assert made(500, body).request_id == "req_1"
        assert error_in_stream(body).request_id == "req_1"

    @pytest.mark.parametrize("header", ["request-id", "x-request-id"])
    def test_a_header_wins(self, header: str) -> None:
        """The header wins; the call adds it."""
        assert made(500, anthropic("x", "api_error"), {header: "req_2"}).request_id is None

    @pytest.mark.parametrize("value", [None, 5, "", ["x"], {}])
    def test_another_type_is_ignored(self, value: Any) -> None:
        """An id that is not a str is ignored."""
        assert made(500, {"error": {"message": "x"}, "request_id": value}).request_id is None


class TestDepth:
    """Reports within reports."""

    def test_only_a_few_levels_are_opened(self) -> None:
        """A server may send thousands of levels."""
        body: Any = openai("inside", None, "insufficient_quota")
        for _ in range(12):
            body = openai(json.dumps(body)[:60_000])
        assert isinstance(made(500, body), ServerError)

    def test_raw_reports_that_are_not_objects(self) -> None:
        """A gateway's provider may send anything."""
        for raw in ("plain", "<html><title>502</title></html>", ["x"], 5, {"a": 1}, "[" * 5000):
            report = ServiceReport.of({"error": {"message": "Provider returned error", "metadata": {"raw": raw}}})
            assert report.message.startswith("Provider returned error (upstream: ")
