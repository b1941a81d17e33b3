"""CPU of importing a client, and of importing it and making a first short call, beyond bare Python."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from benchmarks.contenders import OPENAI, OURS, PLAIN
from benchmarks.harness import ROOT, Options, Server, Table, Target, WrongText, environment, main
from benchmarks.server import expected_text

LIMIT = 25.0
PIECES = 8
BARE = "bare Python"
IMPORT_OURS = "import llmbridge"

# Case -> its contender, the module it needs, and its code; a first call prints the length of its text.
CASES: Mapping[str, tuple[str, str, str]] = {
    IMPORT_OURS: (OURS, "llmbridge", "import llmbridge"),
    "from llmbridge import chat": (OURS, "llmbridge", "from llmbridge import chat"),
    "  and a chat that is not sent": (
        OURS,
        "llmbridge",
        "from llmbridge import chat; chat('hi', 'openai:bench', base_url=URL, api_key='x')",
    ),
    "  and a first chat": (
        OURS,
        "llmbridge",
        "from llmbridge import chat; print(sum(map(len, chat('hi', 'openai:bench', base_url=URL, api_key='x'))))",
    ),
    "import requests, sseclient": (PLAIN, "sseclient", "import requests, sseclient"),
    "  and a first stream": (PLAIN, "sseclient", "FIRST"),
    "import httpx, httpx_sse": ("httpx-sse", "httpx_sse", "import httpx, httpx_sse"),
    "  and its first stream": ("httpx-sse", "httpx_sse", "FIRST"),
    "import openai": (OPENAI, "openai", "import openai"),
    "from openai import OpenAI, its first stream": (OPENAI, "openai", "FIRST"),
}
FIRST_STREAM = "from benchmarks.contenders import CONTENDERS; print(sum(map(len, CONTENDERS[NAME](URL)())))"


def measure(options: Options) -> Iterator[Table]:
    """One table: medians of interleaved runs of fresh interpreters."""
    names = options.choose((OURS, PLAIN, "httpx-sse", OPENAI))
    cases = {case: row for case, row in CASES.items() if row[0] in names}
    present = {case: row for case, row in cases.items() if find_spec(row[1])}
    with Server() as server, tempfile.TemporaryDirectory() as cache:
        # A byte code folder of its own: installed packages have theirs, but a working tree may not be writable.
        surroundings = {**environment(), "PYTHONPYCACHEPREFIX": cache}
        surroundings["PYTHONPATH"] = os.pathsep.join(
            [str(ROOT), *{sysconfig.get_path(kind) for kind in ("purelib", "platlib")}]
        )
        surroundings.pop("PYTHONDONTWRITEBYTECODE", None)
        url = server.base_url("whole", PIECES)
        programs = {BARE: ""}
        programs |= {case: _program(url, name, code) for case, (name, _, code) in present.items()}
        taken: dict[str, list[float]] = {case: [] for case in programs}
        for number in range(options.sizes.imports + 1):
            for case, program in programs.items():
                seconds = _cpu(case, program, surroundings)
                if number:  # the first round fills the byte code and page caches
                    taken[case].append(seconds * 1e3)
    bare = statistics.median(taken[BARE])
    rows = [[BARE, f"{bare:.1f}", f"{min(taken[BARE]):.1f}", "-"]]
    for case, (_, module, _) in cases.items():
        if case not in present:
            rows.append([case, f"absent: no module named {module}", "", ""])
            continue
        median = statistics.median(taken[case])
        rows.append([case, f"{median:.1f}", f"{min(taken[case]):.1f}", f"{median - bare:+.1f}"])
    targets = []
    if IMPORT_OURS in present:
        over = statistics.median(own - base for own, base in zip(taken[IMPORT_OURS], taken[BARE], strict=True))
        targets.append(Target(f"{IMPORT_OURS} < {LIMIT:g} ms over bare Python", f"{over:.1f} ms", over < LIMIT))
    yield Table("Import", ("fresh interpreter", "CPU ms", "lowest", "over bare"), rows, targets)


def _program(url: str, name: str, code: str) -> str:
    return f"URL = {url!r}; NAME = {name!r}; {FIRST_STREAM if code == 'FIRST' else code}"


def _cpu(case: str, program: str, surroundings: Mapping[str, str]) -> float:
    """User and system CPU seconds of a fresh interpreter that runs this program."""
    # -S: an editable install hooks into every start of its environment, which would slow down bare Python.
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", f"import site; {program}"],
        cwd=ROOT,
        env=surroundings,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as output:
        printed = output.read()
    # Not wait(): only wait4 returns the CPU of this child alone.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{case}: exit code {process.returncode}")
    if printed and int(printed) != len(expected_text(PIECES)):
        raise WrongText(f"{case}: expected a text of {len(expected_text(PIECES))} characters, got {printed.strip()}")
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main(__doc__, measure)
