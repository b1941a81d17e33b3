"""Which of temperature, top_p and top_k Anthropic refuses: by the version of its API, of the model, and by thinking.

Source: Anthropic's guide of migration to Opus 4.7 and its guide to extended thinking ("sampling parameters"); answers
with status 400 of Opus 4.1, Sonnet 4.5 and Sonnet 4.6 to a temperature beside top_p, which users reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmbridge.providers.anthropic.request import NO_SAMPLING, VERSION
from llmbridge.providers.anthropic.thinking import NEWEST, claude_version, thinks

if TYPE_CHECKING:
    from llmbridge.messages import ChatRequest

__all__ = ["sampling_refusals"]

_SAMPLING = ("temperature", "top_p", "top_k")
_ONE_OF_TWO = (4, 1)  # the first Claude that takes no top_p beside a temperature
_USUAL_ALONE = (4, 7)  # the first that takes nothing but the values it would use anyway
_LEAST_THINKING_TOP_P = 0.95
_LEAST_USUAL_TOP_P = 0.99


def sampling_refusals(request: ChatRequest) -> Iterator[tuple[str, str]]:
    """What is known to be refused, each with what to do instead. Of a name without a version nothing is known."""
    given = {name: request.params[name] for name in _SAMPLING if request.params.get(name) is not None}
    if not given:
        return
    api_version, version = request.params.get("api_version"), claude_version(request.model) or (0, 0)
    if isinstance(api_version, str) and api_version >= NO_SAMPLING:
        advice = f"versions from {NO_SAMPLING} on refuse it: leave it out, or give api_version='{VERSION}'"
        yield from ((name, advice) for name in given)
    elif NEWEST > version >= _USUAL_ALONE:
        advice = (
            "Claude takes no sampling parameters since 4.7: leave it out, and say in the system message what you want"
        )
        yield from ((name, advice) for name in _unusual(given, _LEAST_USUAL_TOP_P))
    elif thinks(request.params):
        advice = "Claude refuses it while it thinks: leave it out, or give reasoning_effort='none'"
        yield from ((name, advice) for name in _unusual(given, _LEAST_THINKING_TOP_P))
    elif _is_above(given.get("temperature"), 1):
        yield "temperature", "Anthropic's temperatures end at 1"
    if NEWEST > version >= _ONE_OF_TWO and "temperature" in given and "top_p" in given:
        yield "top_p", "Claude takes only one of temperature and top_p since 4.1: leave one of them out"


def _unusual(given: Mapping[str, Any], least_top_p: float) -> Iterator[str]:
    """The parameters that would change how the model picks its words."""
    for name, value in given.items():
        is_usual = least_top_p <= value <= 1 if name == "top_p" and _is_number(value) else value == 1
        if name == "top_k" or not is_usual:
            yield name


def _is_above(value: Any, limit: float) -> bool:
    return _is_number(value) and value > limit


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))
