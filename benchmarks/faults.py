"""What llmbridge, the openai SDK and httpx with httpx-sse make of the same faults: text, error, or neither.

Each of them meets every fault of `llmbridge.testing.faults` in a process of its own, with the same timeout, set in the
way of that package. If that does not end the call, the process is killed.

    python -m benchmarks.faults             # all faults, about ten minutes
    python -m benchmarks.faults --quick     # one of each kind, about two minutes
    python -m benchmarks.faults --only gzip-bomb,drip
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from benchmarks.contenders import MESSAGES, MODEL, REQUEST
from benchmarks.harness import ROOT, Table, environment, versions
from benchmarks.worker import peak_bytes
from llmbridge.testing import LLMServer
from llmbridge.testing.faults import FAULTS, Fault
from llmbridge.testing.faults.wire import BEGUN

QUICK = (
    "refused",
    "self-signed-certificate",
    "redirect",
    "silence",
    "drip",
    "comments-for-ever",
    "1xx-for-ever",
    "giant-line",
    "gzip-bomb",
    "error-body-250mb",
    "cut-in-chunk",
    "close-before-end-mark",
    "clean-end-without-mark",
    "cut-in-event",
    "reset-in-mid-stream",
    "html",
    "json-error-200",
    "empty-200",
    "error-in-stream",
    "error-event",
    "broken-json-event",
    "nul-bytes",
    "bad-utf-8",
    "data-after-end-mark",
    "open-after-end-mark",
    "two-responses",
    "key-echoed-in-body",
)
KEY = "sk-canary-0123456789abcdef"
LARGE = 150e6

Call = Callable[[str], Iterable[str]]


@dataclass(frozen=True)
class Contender:
    """A package to compare.

    Attributes:
        call: The pieces of one answer from the server at a base URL; created with a timeout in seconds.
        own: Whether an error is one that this package documents.
    """

    call: Call
    own: Callable[[BaseException], bool]


def llmbridge(limit: float) -> Contender:
    """This package: the timeout is for the whole call."""
    package = import_module("llmbridge")
    client = package.Client(f"openai:{MODEL}", api_key=KEY, timeout=limit, retries=0)
    return Contender(
        lambda base_url: client.chat("hi", base_url=base_url), lambda error: isinstance(error, package.LLMBridgeError)
    )


def openai_sdk(limit: float) -> Contender:
    """The `openai` SDK's blocking client: its timeout is for connecting, and for each read."""
    package = import_module("openai")

    def call(base_url: str) -> Iterator[str]:
        client = package.OpenAI(base_url=base_url, api_key=KEY, timeout=limit, max_retries=0)
        for chunk in client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True):
            if chunk.choices and (text := chunk.choices[0].delta.content):
                yield text

    return Contender(call, lambda error: isinstance(error, package.OpenAIError))


def httpx_sse(limit: float) -> Contender:
    """`connect_sse` on an `httpx.Client`, as in its documentation: the timeout is for each read."""
    httpx, package = import_module("httpx"), import_module("httpx_sse")
    client = httpx.Client(timeout=limit, headers={"Authorization": f"Bearer {KEY}"})

    def call(base_url: str) -> Iterator[str]:
        with package.connect_sse(client, "POST", f"{base_url}/chat/completions", json=REQUEST) as source:
            source.response.raise_for_status()
            for event in source.iter_sse():
                if event.data == "[DONE]":
                    return
                choices = json.loads(event.data).get("choices")
                if choices and (text := choices[0]["delta"].get("content")):
                    yield text

    documented = (httpx.HTTPError, httpx.InvalidURL, package.SSEError)
    return Contender(call, lambda error: isinstance(error, documented))


CONTENDERS: dict[str, Callable[[float], Contender]] = {
    "llmbridge": llmbridge,
    "openai": openai_sdk,
    "httpx-sse": httpx_sse,
}


# -- in a contender's process -----------------------------------------------------------------------------------------


def meet(name: str, limit: float, good: str, bad: str) -> dict[str, Any]:
    """A call that meets a fault, after a good one: its text, its error, its seconds and the growth of the peak."""
    try:
        contender = CONTENDERS[name](limit)
    except ModuleNotFoundError as error:
        return {"absent": str(error)}
    for _ in contender.call(good):
        continue
    before, started, pieces = peak_bytes(), time.monotonic(), []
    found: dict[str, Any] = {}
    try:
        for piece in contender.call(bad):
            pieces.append(piece)
    except Exception as error:  # noqa: BLE001 - which class it is, is what is measured
        found = {"error": type(error).__name__, "own": contender.own(error), "key": KEY in f"{error} {error!r}"}
    return {**found, "text": "".join(pieces), "seconds": time.monotonic() - started, "grown": peak_bytes() - before}


# -- in the comparing process -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What a contender made of a fault, as printed, and the row of sums it belongs to."""

    outcome: str
    kind: str
    seconds: str = ""
    grown: str = ""


def result_of(fault: Fault, found: dict[str, Any]) -> Result:
    """The result of a call that ended by itself."""
    if "absent" in found:
        return Result("absent", "absent")
    numbers = f"{found['seconds']:.1f} s", f"{max(0, found['grown']) / 1e6:.0f} MB"
    if "error" in found:
        lost = "" if found["text"] == fault.text or not fault.error else ", text lost"
        kind = "documented error" if found["own"] else "undocumented error"
        outcome = found["error"] + ("" if found["own"] else " (undocumented)") + lost
        if found["key"]:
            return Result(outcome + ", SHOWS THE KEY", "shows the key", *numbers)
        return Result(outcome, kind, *numbers)
    text = found["text"]
    if not fault.error:
        return Result(*(("text whole", "text whole") if text == fault.text else ("OTHER TEXT", "wrong text")), *numbers)
    if text in ("", BEGUN):
        return Result("CUT TEXT, no error" if text else "NO TEXT, no error", "silently cut", *numbers)
    return Result(f"TEXT, no error: {text[:20]!r}", "wrong text", *numbers)


def run(name: str, fault: Fault, limit: float, patience: float) -> Result:
    """Runs a contender with a fault in a process of its own."""
    with LLMServer() as good, fault.serve() as bad:
        command = [sys.executable, "-m", "benchmarks.faults", "--meet", name, str(limit), good.base_url("openai"), bad]
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            output, errors = child.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            return Result("HANGS (killed)", "hangs", f"> {patience:.0f} s")
    if child.returncode:
        return Result(f"DIES: {errors.strip().rpartition(chr(10))[2][:40]}", "hangs")
    return result_of(fault, json.loads(output.splitlines()[-1]))


def compare(faults: list[Fault], names: list[str], limit: float, patience: float) -> Iterator[Table]:
    """Two tables: faults down and contenders across, and the sums."""
    results: dict[str, list[Result]] = collections.defaultdict(list)
    rows = []
    for fault in faults:
        row = [fault.name]
        for name in names:
            result = run(name, fault, limit, patience)
            results[name].append(result)
            row += [result.outcome, result.seconds, result.grown]
        rows.append(row)
        print(f"{fault.name}: {', '.join(cell for cell in row[1:] if cell)}", file=sys.stderr, flush=True)
    columns = ["fault", *(column for name in names for column in (name, "time", "memory"))]
    notes = [
        f"timeout {limit:g} s, set in the way of each package; killed {patience:g} s after the start of the process"
    ]
    yield Table("How a call with a fault ends", columns, rows, notes=notes)
    kinds = (
        "text whole",
        "documented error",
        "undocumented error",
        "silently cut",
        "wrong text",
        "hangs",
        "shows the key",
    )
    sums = [[kind, *(str(sum(one.kind == kind for one in results[name])) for name in names)] for kind in kinds]
    large = [
        sum(bool(one.grown) and float(one.grown.split()[0]) * 1e6 > LARGE for one in results[name]) for name in names
    ]
    sums.append([f"grows by more than {LARGE / 1e6:.0f} MB", *map(str, large)])
    yield Table("How many faults end in this way", ["", *names], sums)


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--meet"]:
        _, _, name, limit, good, bad = sys.argv
        print(json.dumps(meet(name, float(limit), good, bad)))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one fault of each kind, about two minutes")
    parser.add_argument("--only", default="", metavar="NAMES", help="comma-separated names of faults")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), metavar="NAMES", help="comma-separated")
    options = parser.parse_args()
    wanted = [*filter(None, options.only.split(","))] or (QUICK if options.quick else list(FAULTS))
    names = [*filter(None, options.contenders.split(","))]
    if unknown := [name for name in wanted if name not in FAULTS] + [name for name in names if name not in CONTENDERS]:
        parser.error(f"unknown: {', '.join(unknown)}")
    limit, patience = (1.0, 6.0) if options.quick else (2.0, 15.0)
    print(versions(), flush=True)
    for table in compare([FAULTS[name] for name in wanted], names, limit, patience):
        print(f"\n{table}", end="", flush=True)


if __name__ == "__main__":
    main()
