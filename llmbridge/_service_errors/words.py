"""Which class of error a report means, and what to do about it: tables of codes, statuses and wordings.

Statuses are unreliable (a wrong key is 400 here and 500 there), so codes and, failing these, the words count too.
The wordings are those that services send; one that only one service uses has its name beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmbridge._service_errors.report import ServiceReport
from llmbridge._service_errors.waits import wait_in_text
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
    StatusError,
)

__all__ = ["advice", "kind_of", "never_passes"]

_TEXT_LIMIT = 8_000
_SOON = 3600.0  # seconds; Google uses one name for a spent quota and a rate limit: the wait tells them apart

# Codes, types and status names: lower case, letters and digits only, without "error" or "exception" at the end.
_BY_WORD: dict[str, type[StatusError]] = {
    word: kind
    for kind, words in {
        QuotaExceeded: (
            "insufficientquota billing billinghardlimitreached billingnotactive billingdisabled exceededcurrentquota "
            "quotaexceeded quotaexhausted insufficientbalance insufficientcredits paymentrequired budgetexceeded "
            "arrearage"
        ),
        ContextLengthExceeded: (
            "contextlengthexceeded exceedcontextsize contextwindowexceeded tokenlimitexceeded stringabovemaxlength "
            "modelcontextwindowexceeded"
        ),
        ContentFiltered: (
            "contentfilter contentfiltered contentpolicyviolation responsibleaipolicyviolation prohibitedcontent "
            "safety blocklist spii moderationblocked datainspectionfailed"
        ),
        AuthError: (
            "invalidapikey apikeyinvalid wrongapikey missingapikey authentication unauthenticated unauthorized "
            "invalidauthentication"
        ),
        PermissionDenied: "permission permissiondenied forbidden servicedisabled apikeyserviceblocked",
        NotFound: (
            "notfound modelnotfound deploymentnotfound resourcenotfound invalidmodel modeldecommissioned "
            "modelnotavailable"
        ),
        RateLimited: (
            "ratelimit ratelimited ratelimitexceeded resourceexhausted toomanyrequests throttling "
            "servicetiercapacityexceeded"
        ),
        Overloaded: "overloaded engineoverloaded unavailable serviceunavailable capacityexceeded modeloverloaded",
        ServerError: "api server internal internalserver timeout deadlineexceeded",
        BadRequest: "invalidrequest invalidargument badrequest",
    }.items()
    for word in words.split()
}
_BY_STATUS: dict[int, type[StatusError]] = {
    400: BadRequest,
    401: AuthError,
    402: QuotaExceeded,
    403: PermissionDenied,
    404: NotFound,
    405: BadRequest,
    411: BadRequest,
    413: BadRequest,
    415: BadRequest,
    422: BadRequest,
    429: RateLimited,
    498: Overloaded,  # Groq
    503: Overloaded,
    529: Overloaded,
}
# Codes that override any status.
_OVER_STATUS = (QuotaExceeded, ContextLengthExceeded, ContentFiltered, AuthError)
# Vague statuses: any other code or wording overrides them.
_VAGUE = (BadRequest, ServerError, None)

# Patterns stay strings, compiled (and cached by re) only after an error.
_TOO_LONG = (
    r"context[ _]?(length|window|size|limit)|(maximum|exceeds?|overflows?) (\S+ ){0,3}context"
    r"|(input|prompt|messages?) ((is|are) )?too (long|large)|too many (input |prompt )?tokens"
    r"|maximum (prompt|input) length|maximum number of (input )?tokens"  # xAI, Gemini
    r"|input token count.{0,40}exceeds"
    r"|reduce the length of (the|your) (messages|prompt|input)"  # OpenAI, Groq
    r"|exceed(s|ed|ing)? (the |your )?(model('s)? )?(maximum )?(input )?token(s| limit)"
    r"|tokens to keep from the initial prompt"  # LM Studio
    r"|inputs`? (tokens|must have less than)"  # text-generation-inference
)
# Larger than the account's limit per minute: waiting does not help, sending less does.
_TOO_LARGE = r"request too large for|tokens must be reduced in order to run"
_PASSING_LIMIT = r"please wait|per[ -]minute|rate limit"
_BAD_KEY = (
    r"api[ _-]?key[^.]{0,40}(not valid|invalid|expired|not found|missing|required|reported as leaked|does not exist)"
    r"|(invalid|incorrect|wrong|malformed|missing|unknown|no|provide an) (x-)?api[ _-]?key(?! quota)"
    r"|invalid (subscription key|authentication|credentials|username or password)"
    r"|invalid (bearer|access|proxy server|auth) token"
    r"|(access|bearer|auth) token is (missing|invalid|expired)|authentication (error|fail)|unregistered callers"
    r"|authenticationerror|^unauthorized"
)
_NO_QUOTA = (
    r"insufficient (balance|credits?|funds|quota)|credit balance is too low"
    r"|(no|any|out of|not enough|available) credits"
    r"|(monthly|weekly|daily|hourly|account) (\w+ )?((spend|spending|usage|credit) limit|credits\b|quota\b)"
    r"|(api|spending) (usage )?limits? (reached|exceeded)|specified api usage limits|credit limit exceeded"
    r"|billing hard limit|budget has been exceeded|call volume quota|arrear|recharge|payment required"
    r"|free-models-per-day"  # OpenRouter
    r"|, limit: 0\b"  # Gemini, for a model that the account's plan does not hold
)
_CURRENT_QUOTA = r"exceeded your current quota"
_FILTERED = (
    r"content management policy|content filtering policy|responsible ai polic"
    r"|(input|prompt|content|output|request) (\S+ ){0,4}flagged"
    r"|violat\w+ (\S+ ){0,3}(content|usage|safety|acceptable use) (polic|guideline)"
    r"|(blocked|rejected|refused) (\S+ ){0,6}(safety|moderation|content (filter|polic))"
    r"|content exists risk|inappropriate content|requires moderation"  # DeepSeek, Qwen, OpenRouter
)
_NO_MODEL = r"(model|deployment)\b.{0,80}(does not exist|not found|decommissioned|not a valid model)|not a valid model"
# nginx, Go, Apache, Tomcat: for a plain request to a TLS port.
_TLS_PORT = (
    r"plain http request was sent to (an )?https|http request to an https server|plain http to an ssl-enabled"
    r"|this combination of host and port requires tls"
)
_NO_MEMORY = r"requires more system memory"

_ADVICE: dict[type[StatusError], str] = {
    AuthError: "check the API key",
    PermissionDenied: "this key may not do that: check the account's rights to the model",
    NotFound: "check the model's name and the base_url",
    QuotaExceeded: "the account has no credit or quota left, so a retry does not help: see its billing page",
    ContextLengthExceeded: "shorten the messages, or use a model with a longer context",
    ContentFiltered: "the service's content policy forbids it, so a retry does not help: change the prompt",
    Overloaded: "it has no capacity right now: try again later, or use another model",
}


def kind_of(report: ServiceReport, status: int | None) -> type[StatusError] | None:
    """The class for a report and its status; None if neither is known."""
    words = [_BY_WORD[word] for word in _words(report) if word in _BY_WORD]
    by_word = next((kind for kind in words if kind in _OVER_STATUS), None) or next(iter(words), None)
    if by_word in _OVER_STATUS:
        return by_word
    by_status = _BY_STATUS.get(status or 0)
    if by_status is None and status is not None and status >= 500:
        by_status = ServerError
    if by_text := _kind_by_text(report, by_status if status else by_word):
        return by_text
    # 413 overrides everything: Groq also calls it a rate limit.
    specific = next((kind for kind in words if kind not in _VAGUE), None) if status != 413 else None
    return specific or by_status or by_word if by_status in _VAGUE else by_status


def _words(report: ServiceReport) -> Iterator[str]:
    """The report's words, normalized for the table; LiteLLM puts some of them into its message."""
    named = re.findall(r"\blitellm\.(\w{1,60})", report.message[:_TEXT_LIMIT])
    for word in (*report.words, *named):
        yield re.sub(r"(error|exception)$", "", re.sub(r"[^a-z0-9]", "", word.lower()[:100]))


def _kind_by_text(report: ServiceReport, kind: type[StatusError] | None) -> type[StatusError] | None:
    """The class for the wording, if code and status are vague."""
    patterns: tuple[tuple[str, type[StatusError]], ...]
    if kind is RateLimited:
        return _limit_by_text(report)
    if kind is PermissionDenied:
        patterns = ((_FILTERED, ContentFiltered), (_BAD_KEY, AuthError), (_NO_QUOTA, QuotaExceeded))
    elif kind in _VAGUE:
        patterns = (
            (_FILTERED, ContentFiltered),
            (_TOO_LARGE, ContextLengthExceeded),
            (_NO_QUOTA, QuotaExceeded),
            (_CURRENT_QUOTA, QuotaExceeded),
            (_BAD_KEY, AuthError),
        )
    else:
        return None
    by_text = next((found for pattern, found in patterns if _says(report, pattern)), None)
    if by_text is None and kind in _VAGUE:
        if _says(report, _TOO_LONG):
            return None if _says(report, _PASSING_LIMIT) else ContextLengthExceeded
        if kind is BadRequest and _says(report, _NO_MODEL):
            return NotFound
    return by_text


def _limit_by_text(report: ServiceReport) -> type[StatusError] | None:
    """The class of a rate limit that never passes: the request is too large for it, or the quota is spent."""
    if _says(report, _TOO_LARGE):
        return ContextLengthExceeded
    if _says(report, _NO_QUOTA):
        return QuotaExceeded
    wait = wait_in_text(report.message) if report.wait is None else report.wait
    if "resource_exhausted" not in report.words:
        return QuotaExceeded if _says(report, _CURRENT_QUOTA) else None
    if wait is None:
        limited = "rate_limit_exceeded" in report.words  # a limit per minute
        return QuotaExceeded if _says(report, _CURRENT_QUOTA) and not limited else None
    return QuotaExceeded if wait >= _SOON else None


def never_passes(report: ServiceReport) -> bool:
    """Whether a failure is permanent despite its status: Ollama's 500 for a model too large to be loaded."""
    return _says(report, _NO_MEMORY)


def names_model(report: ServiceReport) -> bool:
    """Whether a server answered that does not have this model, rather than nothing being there."""
    return _says(report, "model|deployment") or any("model" in word or "deployment" in word for word in report.words)


def advice(
    kind: type[StatusError], status: int | None, report: ServiceReport, wait: float | None, body: str
) -> str | None:
    """What to do about an error, or None."""
    if status in (400, 403) and re.search(_TLS_PORT, body, re.IGNORECASE):
        return "it speaks TLS: write https://"
    if kind is NotFound:
        missing = re.search(r"^model ['\"]?([\w.:/-]{1,120})['\"]? not found", report.message)
        if missing and not report.words:  # Ollama's errors are only a text
            return f"run `ollama pull {missing[1]}` first, or check the name"
        if "deploymentnotfound" in report.words:
            return "check the base_url and the name of the deployment, which is used as the model's name"
    if kind is RateLimited:
        return f"it asks to wait {wait:g} s" if wait is not None else "send fewer requests or tokens in a minute"
    if kind is BadRequest and status == 413:
        return "send less: shorter messages, fewer or smaller images and files"
    if kind is ContextLengthExceeded and _says(report, _TOO_LARGE):
        return "the request alone exceeds the account's limit: shorten the messages, or lower the limit of the answer"
    if "tool_use_failed" in report.words:
        return "the model wrote an invalid tool call: try again, or use another model"
    if "no_db_connection" in report.words:
        return "a LiteLLM proxy without a database accepts only its master key: check the API key"
    if never_passes(report):
        return "use a smaller model, or a shorter context"
    return _ADVICE.get(kind)


def _says(report: ServiceReport, pattern: str) -> bool:
    return re.search(pattern, report.message[:_TEXT_LIMIT], re.IGNORECASE) is not None
