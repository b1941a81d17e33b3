"""Claude's thinking, by a budget of tokens or an effort, and which of temperature, top_p and top_k a model accepts.

Both depend on the model's version; sampling also on the API version and on thinking.

Source: Anthropic's guides to extended thinking ("sampling parameters" too), adaptive thinking and effort; its guides of
migration to Opus 4.7, Opus 5.5, Sonnet 5.5, Haiku 5.5 and Fable 5.1; status 400 for a temperature beside top_p,
reported by users of Opus 4.1, Sonnet 4.5 and Sonnet 4.6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmbridge.errors import InvalidRequest

if TYPE_CHECKING:
    from llmbridge.messages import ChatRequest
    from llmbridge.tools import ToolChoice

__all__ = [
    "NEWEST",
    "NO_SAMPLING",
    "VERSION",
    "claude_version",
    "encode_effort",
    "encode_limit",
    "may_think",
    "never_forced",
    "sampling_refusals",
    "thinking_refusals",
    "thinks",
]

VERSION = "2023-06-01"
"""The API version unless the caller names another."""

NO_SAMPLING = "2026-10-21"
"""The first API version that rejects temperature, top_p and top_k."""

_ANSWER = 4096  # tokens: every current model can write as many
_THOUGHTFUL_ANSWER = 16384  # includes thinking
_LEAST_BUDGET = 1024
_SAMPLING = ("temperature", "top_p", "top_k")
_LEAST_THINKING_TOP_P = 0.95
_LEAST_USUAL_TOP_P = 0.99
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 24576}

# What the versions of Claude support.
_ADAPTIVE = (4, 6)  # the first with an effort
_NO_BUDGET = (4, 7)  # the first that rejects a budget, and hides its thinking by default
_THINKS_UNASKED = (5, 0)
NEWEST = (99, 0)
"""The version assumed for a Claude whose name has none."""
_ONE_OF_TWO = (4, 1)  # the first that rejects top_p beside a temperature
_USUAL_ALONE = (4, 7)  # the first that accepts only the default values
# The first versions that always think, think between tools at least, and cannot be forced to call a tool.
_ALWAYS_THINK = {"fable": (0, 0), "mythos": (0, 0), "opus": (5, 5)}
_BETWEEN_TOOLS = {"sonnet": (5, 5)}
_NEVER_FORCED = {"fable": (5, 1), "mythos": (5, 1), "opus": (5, 5), "sonnet": (5, 5)}
_VERSION = re.compile(r"(?<!\d)(\d{1,2})(?:[-.](\d{1,2})(?!\d))?(?!\d)", re.ASCII)


def claude_version(model: str) -> tuple[int, int] | None:
    """The version in a model's name; a Claude without one counts as the newest; None if it is not a Claude.

    Example:
        >>> claude_version("claude-sonnet-4-5-20250929"), claude_version("anthropic.claude-opus-4-20250514-v1:0")
        ((4, 5), (4, 0))
        >>> claude_version("claude-3-7-sonnet-latest"), claude_version("claude-opus-latest"), claude_version("qwen3-8b")
        ((3, 7), (99, 0), None)
    """
    name = model.lower()
    if "claude" not in name:
        return None
    found = _VERSION.search(name[name.rindex("claude") :])
    return (int(found[1]), int(found[2] or 0)) if found else NEWEST


def _is_one_of(model: str, families: Mapping[str, tuple[int, int]]) -> bool:
    """Whether a model is a Claude of one of the families, with that version or a later one."""
    version, name = claude_version(model), model.lower()
    if version is None:
        return False
    known = version if version < NEWEST else (0, 0)  # nothing is assumed of an unknown version
    return any(family in name and known >= first for family, first in families.items())


def never_forced(model: str) -> bool:
    """Whether a model cannot be forced to call a tool, even if it does not think.

    Example:
        >>> never_forced("claude-sonnet-5-5"), never_forced("claude-sonnet-5")
        (True, False)
    """
    return _is_one_of(model, _NEVER_FORCED)


def thinks(params: Mapping[str, Any]) -> bool:
    """Whether a request turns thinking on.

    Example:
        >>> thinks({"reasoning_effort": "low"}), thinks({"reasoning_effort": "none"}), thinks({})
        (True, False, False)
    """
    own = params.get("thinking")
    if own is not None:
        return isinstance(own, Mapping) and own.get("type") != "disabled"
    effort = params.get("reasoning_effort")
    return effort is not None and effort not in ("none", 0)


def may_think(request: ChatRequest) -> bool:
    """Whether the model thinks, on request or by default."""
    if thinks(request.params):
        return True
    if _is_one_of(request.model, _ALWAYS_THINK):
        return True
    asked = any(request.params.get(name) is not None for name in ("thinking", "reasoning_effort"))
    return not asked and (claude_version(request.model) or (0, 0)) >= _THINKS_UNASKED


def thinking_refusals(request: ChatRequest) -> Iterator[tuple[str, str]]:
    """The parameters that the model is known to reject because of its thinking, each with what to do instead."""
    params, effort = request.params, request.params.get("reasoning_effort")
    if effort is not None and params.get("thinking") is None:
        is_budget = isinstance(effort, int) and not isinstance(effort, bool) and effort != 0
        if is_budget and (claude_version(request.model) or (0, 0)) >= _NO_BUDGET:
            yield "reasoning_effort", "Claude 4.7 and later take a word like 'low', not a number of tokens"
        elif effort in ("none", 0) and effort is not False and _is_one_of(request.model, _ALWAYS_THINK):
            yield "reasoning_effort", "this model always thinks: 'low' is the least"
    if request.tool_choice is not None and _forces(request.tool_choice):
        if never_forced(request.model):
            yield "tool_choice", "this model cannot be forced: use 'auto', and say in the message which tool to call"
        elif thinks(params):
            yield "tool_choice", "Claude cannot be forced while it thinks: use 'auto', or reasoning_effort='none'"


def _forces(choice: ToolChoice) -> bool:
    if choice.raw is not None:
        return choice.raw.get("type") in ("any", "tool")
    return choice.mode in ("required", "tool")


def encode_effort(model: str, params: dict[str, Any], output: dict[str, Any]) -> int | None:
    """Translates `reasoning_effort`.

    A word becomes an effort and a number a budget if the name does not show the version.

    Args:
        model: Its version decides how it thinks.
        params: Changed.
        output: The output configuration; changed.

    Returns:
        The budget, if the caller gave one.

    Raises:
        InvalidRequest: It cannot be translated.
    """
    effort = params.pop("reasoning_effort", None)
    if effort is None:
        return None
    if effort in ("none", 0) and effort is not False:
        params.setdefault("thinking", {"type": "between_tools" if _is_one_of(model, _BETWEEN_TOOLS) else "disabled"})
        return None
    if isinstance(effort, int) and not isinstance(effort, bool):
        return _encode_budget(effort, params)
    if not isinstance(effort, str) or effort not in _EFFORTS:
        raise InvalidRequest(
            f"reasoning_effort must be one of none, {', '.join(_EFFORTS)}, or a number of tokens, "
            f"not {str(effort)[:40]!r}"
        )
    version = claude_version(model)
    if version is not None and version < _ADAPTIVE:
        return _encode_budget(_BUDGETS[effort], params)
    shown = {"display": "summarized"} if version is not None and version >= _NO_BUDGET else {}
    params.setdefault("thinking", {"type": "adaptive", **shown})
    output["effort"] = "high" if effort == "xhigh" and version == _ADAPTIVE else _EFFORTS[effort]
    return None


def _encode_budget(budget: int, params: dict[str, Any]) -> int | None:
    if budget < _LEAST_BUDGET:
        raise InvalidRequest(
            f"reasoning_effort is a budget of {budget} tokens: Anthropic needs {_LEAST_BUDGET} or more, or 0 for none"
        )
    if params.get("thinking") is not None:
        return None
    params["thinking"] = {"type": "enabled", "budget_tokens": budget}
    return budget


def encode_limit(params: dict[str, Any], budget: int | None) -> Any:
    """The `max_tokens` that the service requires; it includes thinking, so it must exceed a budget.

    Args:
        params: Changed.
        budget: From `encode_effort`.
    """
    limits = [params.pop(name, None) for name in ("max_tokens", "max_completion_tokens")]
    given = next((limit for limit in limits if limit is not None), None)
    thinking = params.get("thinking")
    thinking = thinking if isinstance(thinking, Mapping) else {}
    if given is None:
        own = thinking.get("budget_tokens")
        if isinstance(own, int):
            return own + _ANSWER
        return _THOUGHTFUL_ANSWER if thinking.get("type") == "adaptive" else _ANSWER
    if budget is not None and isinstance(given, int) and given <= budget:
        return budget + given
    return given


def sampling_refusals(request: ChatRequest) -> Iterator[tuple[str, str]]:
    """The sampling parameters known to be rejected, each with what to do instead; none for an unknown version."""
    given = {name: request.params[name] for name in _SAMPLING if request.params.get(name) is not None}
    if not given:
        return
    api_version, version = request.params.get("api_version"), claude_version(request.model) or (0, 0)
    if isinstance(api_version, str) and api_version >= NO_SAMPLING:
        advice = f"versions from {NO_SAMPLING} on reject it: leave it out, or pass api_version='{VERSION}'"
        yield from ((name, advice) for name in given)
    elif NEWEST > version >= _USUAL_ALONE:
        advice = (
            "Claude 4.7 and later reject sampling parameters: leave it out, and say in the system message what you want"
        )
        yield from ((name, advice) for name in _unusual(given, _LEAST_USUAL_TOP_P))
    elif thinks(request.params):
        advice = "Claude rejects it while thinking: leave it out, or pass reasoning_effort='none'"
        yield from ((name, advice) for name in _unusual(given, _LEAST_THINKING_TOP_P))
    elif _is_above(given.get("temperature"), 1):
        yield "temperature", "Anthropic's highest temperature is 1"
    if NEWEST > version >= _ONE_OF_TWO and "temperature" in given and "top_p" in given:
        yield "top_p", "Claude 4.1 and later accept only one of temperature and top_p: leave one out"


def _unusual(given: Mapping[str, Any], least_top_p: float) -> Iterator[str]:
    """The parameters that would change the sampling."""
    for name, value in given.items():
        is_usual = least_top_p <= value <= 1 if name == "top_p" and _is_number(value) else value == 1
        if name == "top_k" or not is_usual:
            yield name


def _is_above(value: Any, limit: float) -> bool:
    return _is_number(value) and value > limit


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))
