"""Writes docs/coming-from/llm-terminals.md: what a terminal shows for each task of llm.md, and how many keys it takes.

    python docs/terminals.py    # needs tmux and bash, and llm 0.36 on the PATH for its half

llm and llmbridge run in a real terminal of 80 columns and 24 lines, each task in a new home. A loopback server answers
both in OpenAI's format, always in the same words. Times, ids, ports and folders are replaced by fixed ones.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmbridge.testing import LLMServer, Received, Reply

PAGE = Path(__file__).parent / "coming-from" / "llm-terminals.md"
COLUMNS, LINES = 80, 24
PATIENCE = 120  # seconds until a command counts as hanging
MODEL, KEYS = "gpt-5.4-mini", ("^C", "^D")  # keys are sent as such; anything else is typed, and ended by Enter
READY = re.compile(r"(?:^|\n)(?:\$ |> |.*(?:Enter key|not shown\)|\[y/N\]):? )$")  # a prompt of a shell or program

DIFF = "-The bridge is 2700 m long.\n+The bridge is 2737 m long.\n"
TOOLS = 'def weather(city: str) -> str:\n    """The weather in a city."""\n    return f"{city}: rain"\n'
FILES = {"notes.txt": "The bridge was opened in 1937.\n", "change.diff": DIFF, "tools.py": TOOLS}
PICTURE = b"\x89PNG\r\n\x1a\n"

ANSWERS = {  # the last of these that the conversation contains decides
    "Hello": "Hello! What would you like to know?",
    "Write a commit message": "Correct the length of the bridge",
    "When was it opened?": "It was opened in 1937.",
    "What is in this picture?": "A suspension bridge in red, in front of a foggy bay.",
    "a bridge?": "A bridge is a structure that carries a road or a railway over an obstacle, like a river or a valley.",
    "And a ford?": "A ford is a shallow place where you can wade through a river.",
    "Thanks": "You are welcome.",
    "in Oslo": "It rains in Oslo.",
    "Reverse a string": "In Python:\n\n```python\ntext[::-1]\n```\n\nThat is all.",
}
ADA, ALAN = '{"name": "Ada", "age": 36}', '{"name": "Alan", "age": 41}'


def answer(received: Received) -> Reply:
    """What the service says."""
    said = "\n".join(turn.text for turn in received.turns)
    if received.tools and not any(turn.role == "tool" for turn in received.turns):
        return Reply(tool_calls=[{"name": received.tools[0].name, "arguments": {"city": "Oslo"}}])
    if "Invent two" in said:
        name = "value" if b'"value"' in received.body else "items"
        return Reply(f'{{"{name}": [{ADA}, {ALAN}]}}')
    if "Invent a" in said:
        return Reply(ADA)
    text = next((text for asked, text in reversed(ANSWERS.items()) if asked in said), "I see.")
    return Reply(re.findall(r"\s*\S+\s*", text), models=[MODEL, "gpt-5.5", "text-embedding-3-small"])


@dataclass(frozen=True)
class Task:
    """What a user wants, and the lines or keys to type.

    Args:
        name: As in the table of llm.md.
        llm, llmbridge: What is typed there; nothing, if it is not possible.
        before: What was typed before, and is not shown: the arguments of either command.
        note: A remark.
    """

    name: str
    llm: tuple[str, ...] = ()
    llmbridge: tuple[str, ...] = ()
    before: str = ""
    note: str = ""


def both(name: str, words: str, before: str = "", note: str = "") -> Task:
    """A task whose words are the same after either command."""
    pipe, _, rest = words.rpartition("| ")
    pipe += "| " if pipe else ""
    return Task(name, (f"{pipe}llm {rest}",), (f"{pipe}llmbridge {rest}",), before, note)


TASKS = (
    both("ask", '"Hello"'),
    Task("a model", (f'llm -m {MODEL} "Hello"',), (f'llmbridge -m openai:{MODEL} "Hello"',)),
    Task("the default model", (f"llm models default {MODEL}",), (f"export LLMBRIDGE_MODEL=openai:{MODEL}",)),
    both("a system message", '-s "Be brief." "What is a bridge?"'),
    Task("piped text", ('cat change.diff | llm -s "Write a commit message"',),
         ('cat change.diff | llmbridge "Write a commit message"',)),
    both("files as text", '-f notes.txt "When was it opened?"'),
    both("pictures, documents", '-a photo.png "What is in this picture?"'),
    both("go on", '-c "And a ford?"', before='"What is a bridge?"'),
    Task("talk", ("llm chat", "What is a bridge?", "And a ford?", "^D"),
         ("llmbridge chat", "What is a bridge?", "And a ford?", "^D")),
    both("a parameter", '-o temperature 0 "Hello"'),
    both("fields", "--schema 'name, age int' \"Invent a person\""),
    Task("a list of them", ("llm --schema-multi 'name, age int' \"Invent two people\"",),
         ("llmbridge --schema '[name, age int]' \"Invent two people\"",)),
    Task("your own tools", ('llm --functions tools.py --ta "Do I need an umbrella in Oslo?"', "y"),
         ('llmbridge -T tools.py:weather "Do I need an umbrella in Oslo?"', "y")),
    both("the code block alone", '-x "Reverse a string"'),
    Task("keys", ("llm keys set openai", "sk-example"), ("llmbridge keys set openai", "sk-example")),
    Task("models", ("llm models",), ("llmbridge models openai",)),
    Task("another address", ('llm openai endpoint {url} -m my-model "Hello"',),
         ('llmbridge -m my-model --base-url {url} "Hello"',)),
    Task("what was said", ("llm logs",), ("llmbridge conversations show",), before='"What is a bridge?"'),
    both("all about one answer", '--json "Hello"'),
    Task("embeddings", ('llm embed -m 3-small -c "a bridge"',),
         ('llmbridge embed -m openai:text-embedding-3-small "a bridge"',)),
)  # fmt: skip


@dataclass
class Terminal:
    """A terminal of 80 columns and 24 lines, in tmux.

    Args:
        home: The folder where its shell starts.
        environment: The shell's, and nothing else.
        shell: The shell.
    """

    home: Path
    environment: Mapping[str, str]
    shell: Iterable[str] = ("bash", "--norc", "--noprofile")
    _socket: str = field(init=False)

    def __enter__(self) -> Terminal:
        self._socket = str(self.home / ".tmux")
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        size = ["-x", str(COLUMNS), "-y", str(LINES)]
        started = ["-f", os.devnull, "new-session", "-d", *size, "-c", str(self.home)]
        self._tmux(*started, "env", "-i", *settings, *self.shell)
        return self

    def __exit__(self, *_: object) -> None:
        self._tmux("kill-server")

    def press(self, key: str) -> None:
        """Presses a key, by its name in tmux."""
        self._tmux("send-keys", key)

    def type(self, text: str) -> None:
        """Types text, without Enter."""
        self._tmux("send-keys", "-l", text)

    def enter(self, line: str) -> None:
        """Types a line with Enter, or presses Ctrl and a letter, and waits for the next prompt."""
        before = self.text()
        if line in KEYS:
            self.press(f"C-{line[1].lower()}")
        else:
            self.type(line)
            self.press("Enter")
        self.wait(lambda text: text != before and READY.search(text))

    def wait(self, arrived: Callable[[str], object]) -> str:
        """Waits until the text is such, and returns it."""
        until = time.monotonic() + PATIENCE
        while not arrived(text := self.text()):
            if time.monotonic() > until:
                raise TimeoutError(f"the terminal waits:\n{text}")
            time.sleep(0.02)
        return text

    def text(self) -> str:
        """What was written since the start or `clear`, with its lines unbroken."""
        return self._tmux("capture-pane", "-p", "-J", "-S", "-").rstrip("\n")

    def clear(self) -> None:
        """Empties the terminal."""
        self.enter("clear")
        self._tmux("clear-history")

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-S", self._socket, *words]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout  # noqa: S603


HEAD = f"""\
# llm and llmbridge in a terminal

What you type and see for each task of [Coming from llm](llm.md), in a terminal of {COLUMNS} columns and {LINES} lines.
Both use a test server that speaks OpenAI's format, and {MODEL} is their default model; llmbridge has its extra
`cli`. A key is a character, Enter or Ctrl-D. `python docs/terminals.py` makes this page, with fixed times, ids and
addresses, and ~ for the home.

Six keys of most tasks are the longer name: Tab after `llmb` saves five.

| task | keys for llm | keys for llmbridge |
|---|---|---|
"""
FIXED = {  # what differs from run to run
    r"\b\d{4}-\d\d-\d\d(?=[T-]\d\d)": "2026-01-31",
    r"(?<=2026-01-31)([T-])(\d\d)(:?)\d\d:?\d\d(\.\d+\+00:00)?": r"\g<1>12\g<3>00\g<3>00",
    r"\b01[a-hjkmnp-tv-z0-9]{24}\b": "01k" + "0" * 23,
    r"127\.0\.0\.1:\d+": "127.0.0.1:8080",
    r'("(?:seconds|duration_ms)": )[\d.]+': r"\g<1>0",
}


def screen(task: Task, program: str, server: LLMServer) -> str:
    """What the terminal shows at the end of a task."""
    url = server.base_url("openai")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for name, text in FILES.items():
            (home / name).write_text(text, encoding="utf-8")
        (home / "photo.png").write_bytes(PICTURE)
        (home / "llm").mkdir()
        (home / "llm" / "default_model.txt").write_text(MODEL, encoding="utf-8")
        environment = {
            "HOME": folder, "LLM_USER_PATH": f"{folder}/llm", "LLMBRIDGE_MODEL": f"openai:{MODEL}", "LANG": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PS1": "$ ", "TERM": "screen",
            "HISTFILE": os.devnull,
            "OPENAI_BASE_URL": url, **({} if task.name == "keys" else {"OPENAI_API_KEY": "sk-example"}),
        }  # fmt: skip
        with Terminal(home, environment) as terminal:
            terminal.wait(READY.search)
            if task.before:
                terminal.enter(f"{program} {task.before}")
                terminal.clear()
            for line in getattr(task, program):
                terminal.enter(line.format(url=url))
            text = terminal.text().replace(folder, "~")
    for pattern, fixed in FIXED.items():
        text = re.sub(pattern, fixed, text)
    lines = [line for long in text.split("\n") for line in _wrapped(long)]
    gone = len(lines) - LINES
    seen = [f"({gone} lines have scrolled away)", *lines[gone:]] if gone > 0 else lines
    return "\n".join(line.rstrip() for line in seen)


def _wrapped(line: str) -> list[str]:
    """The lines of the terminal for a line of output."""
    return [line[start : start + COLUMNS] for start in range(0, len(line), COLUMNS)] or [""]


def keys(lines: Iterable[str]) -> int:
    """How many keys are pressed."""
    address = "http://127.0.0.1:8080/v1"
    return sum(1 if line in KEYS else len(line.format(url=address)) + 1 for line in lines)


def page(programs: Iterable[str] = ("llm", "llmbridge")) -> str:
    """The page, with the screens of these programs; those of another one are left out."""
    rows, sections = [], []
    with LLMServer(answer) as server:
        for task in TASKS:
            counts = [str(keys(lines)) if lines else "not possible" for lines in (task.llm, task.llmbridge)]
            rows.append(f"| {task.name} | {' | '.join(counts)} |\n")
            sections.append(f"\n## {task.name[0].upper()}{task.name[1:]}\n")
            for program in programs:
                if getattr(task, program):
                    sections.append(f"\n{program}:\n\n```text\n{screen(task, program, server)}\n```\n")
    return HEAD + "".join(rows) + "".join(sections)


if __name__ == "__main__":
    if not shutil.which("llm"):
        sys.exit("llm is not on the PATH: pip install llm")
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
