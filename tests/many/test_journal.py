"""The journal of `map`: what is in it survives, what is asked again is what has to be, and nothing is mistaken."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from canary import KEY, sightings
from modes import Mode

from llmbridge import AuthError, Client, Completion, ConfigError, Image, InvalidOutput, Message, Retry, ToolCall, Usage
from llmbridge.completion import Choice
from llmbridge.events import Media
from llmbridge.many import Row, Totals
from llmbridge.many.journal import Journal
from llmbridge.testing import LLMServer, Received, Reply

PNG = b"\x89PNG\r\n\x1a\n and so on"


@pytest.fixture
def client(server: LLMServer) -> Iterator[Client]:
    """A client of `server`, which repeats the text in angle brackets."""
    server.default = lambda received: Reply(f"<{received.user_text}>")
    retries = Retry(backoff=0.01, max_backoff=0.05)
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=retries, timeout=20) as made:
        yield made


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where one may be."""
    return tmp_path / "run.jsonl"


def records(journal: Path) -> list[dict[str, Any]]:
    """The rows in a journal."""
    found = [json.loads(line) for line in journal.read_bytes().splitlines()]
    return [record for record in found if "llmbridge" not in record]


def asked(server: LLMServer) -> Counter[str]:
    """How often each text was sent."""
    return Counter(request.user_text for request in server.requests)


def mapped(client: Client, texts: Sequence[Any], journal: Path, **options: Any) -> list[Row[Any]]:
    """All rows of a run."""
    rows: list[Row[Any]] = client.map(texts, journal=journal, **options).complete()
    return rows


# -- resuming ---------------------------------------------------------------------------------------------------------


def test_p47_what_is_done_is_not_asked_again(client: Client, server: LLMServer, journal: Path, mode: Mode) -> None:
    """The rows are the same, in the same order."""
    texts = [str(number) for number in range(30)]
    (first,) = mode.in_turn([client.map(texts, journal=journal, concurrency=4)])
    (second,) = mode.in_turn([client.map(texts, journal=str(journal), concurrency=4)])
    assert len(server.requests) == 30
    assert [row.resumed for row in second] == [True] * 30
    assert [row.index for row in second] == list(range(30))
    for before, after in zip(first, second, strict=True):
        assert (after.input, after.key, after.attempts) == (before.input, before.key, before.attempts)
        assert before.answer is not None
        assert after.answer is not None
        assert after.answer.to_dict() | {"headers": {}} == before.answer.to_dict() | {"headers": {}}


def test_p47_totals_after_resuming_count_each_row_once(client: Client, server: LLMServer, journal: Path) -> None:
    """So progress starts at what is done, and never passes the whole; the rate is that of the new rows."""
    texts = [str(number) for number in range(40)]
    mapped(client, texts[:30], journal)
    seen: list[Totals] = []
    rows = client.map(texts, journal=journal, progress=seen.append)
    for row in rows:
        seen.append(rows.totals)
        assert row.resumed == (row.index < 30)
    assert all(totals.resumed <= totals.done <= totals.read <= 40 for totals in seen)
    last = rows.totals
    assert (last.read, last.done, last.resumed, last.failed, last.requests) == (40, 40, 30, 0, 10)
    assert last.rate == pytest.approx(10 / last.seconds)


@dataclass
class City:
    """An answer."""

    name: str


def test_p48_a_resumed_answer_has_its_type(client: Client, server: LLMServer, journal: Path) -> None:
    """And one that has become wrong is asked again."""
    server.default = Reply('{"name": "Paris"}')
    for _ in range(2):
        assert [row.parsed for row in mapped(client, ["a", "b"], journal, schema=City)] == [City("Paris")] * 2
    assert len(server.requests) == 2
    restore = City.__init__

    def strict(self: City, name: str) -> None:
        raise ValueError("no city")

    try:
        City.__init__ = strict  # type: ignore[method-assign]
        rows = mapped(client, ["a", "b"], journal, schema=City, schema_retries=0, attempts=1)
    finally:
        City.__init__ = restore  # type: ignore[method-assign]
    assert len(server.requests) == 4
    assert [type(row.error) for row in rows] == [InvalidOutput] * 2


@pytest.mark.parametrize(
    ("schema", "text", "value"), [(list[str], "[]", []), (dict[str, int], "{}", {}), (str, '""', "")]
)
def test_p48_a_resumed_answer_may_be_empty(
    client: Client, server: LLMServer, journal: Path, schema: Any, text: str, value: Any
) -> None:
    """An empty list is a value, and not a missing one."""
    server.default = Reply(text)
    rows = [mapped(client, ["a"], journal, schema=schema)[0] for _ in range(2)]
    assert [(row.parsed, row.resumed) for row in rows] == [(value, False), (value, True)]


@dataclass
class Strict:
    """Takes any word, until it has become strict."""

    word: str
    refused = ""

    def __post_init__(self) -> None:
        if self.word == self.refused:
            raise KeyError(self.word)


def test_p48_a_class_that_raises_on_resuming_costs_its_row_alone(
    client: Client, server: LLMServer, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is asked again."""
    server.default = lambda received: Reply(f'{{"word": "{received.user_text}"}}')
    mapped(client, ["a", "b"], journal, schema=Strict)
    monkeypatch.setattr(Strict, "refused", "a")
    rows = mapped(client, ["a", "b"], journal, schema=Strict)
    assert [(row.ok, row.resumed) for row in rows] == [(False, False), (True, True)]


def test_failed_rows_are_asked_again(client: Client, server: LLMServer, journal: Path) -> None:
    """In the journal is what became of them."""
    server.script(Reply("No.", status=400))
    assert [row.ok for row in mapped(client, ["a", "b"], journal, concurrency=1)] == [False, True]
    assert [record["error"] and record["error"]["type"] for record in records(journal)] == ["BadRequest", None]
    rows = mapped(client, ["a", "b"], journal)
    assert [(row.ok, row.resumed) for row in rows] == [(True, False), (True, True)]


def test_p48_an_input_that_has_changed_is_matched_by_content(client: Client, server: LLMServer, journal: Path) -> None:
    """Shuffled, longer, shorter, edited; what is gone is counted, and not handed out."""
    first = {row.input: row.text for row in mapped(client, [f"text {number}" for number in range(20)], journal)}
    texts = [f"text {number}" for number in range(5, 25)]
    random.Random(1).shuffle(texts)
    texts[3] += " edited"
    rows = client.map(texts, journal=journal)
    second = rows.complete()
    assert [row.input for row in second] == texts
    assert all(row.text == f"<{row.input}>" for row in second)
    assert {row.input for row in second if row.resumed} == first.keys() & set(texts)
    assert len(server.requests) == 20 + sum(not row.resumed for row in second)
    assert rows.totals.gone == 20 - rows.totals.resumed
    assert rows.totals.resumed > 10


def test_p48_equal_prompts_are_two_rows(client: Client, server: LLMServer, journal: Path) -> None:
    """Each has its own answer, also resumed, also if there are more of them then."""
    answers = iter(range(100))
    server.default = lambda _: Reply(f"answer {next(answers)}")
    first = mapped(client, ["same"] * 4, journal, concurrency=1)
    assert [row.text for row in first] == ["answer 0", "answer 1", "answer 2", "answer 3"]
    second = mapped(client, ["same"] * 6, journal, concurrency=1)
    assert [row.text for row in second] == [f"answer {number}" for number in range(6)]
    assert [row.resumed for row in second] == [True] * 4 + [False] * 2


def test_p48_with_keys_the_key_has_to_match_as_well(client: Client, server: LLMServer, journal: Path) -> None:
    """A row that has another prompt now is asked anew, and so is a prompt that has another key."""

    def items(**texts: str) -> list[dict[str, str]]:
        return [{"id": key, "text": text} for key, text in texts.items()]

    how: dict[str, Any] = {"prompt": "{text}", "key": "id"}
    mapped(client, items(a="one", b="two", c="three"), journal, **how)
    rows = mapped(client, items(c="three", a="one!", d="two"), journal, **how)
    assert [(row.key, row.text, row.resumed) for row in rows] == [
        ("c", "<three>", True),
        ("a", "<one!>", False),
        ("d", "<two>", False),
    ]


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"model": "openai:other"}, "model"),
        ({"temperature": 1}, "temperature"),
        ({"temperature": None}, "temperature"),
        ({"system": "Be rude."}, "system"),
        ({"schema": City}, "schema"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"extra": {"a": 1}}, "extra"),
        ({"seed": 3}, "seed"),
    ],
)
def test_p48_other_settings_do_not_take_the_answers(
    client: Client, server: LLMServer, journal: Path, mode: Mode, changed: dict[str, Any], name: str
) -> None:
    """The error says which setting is another one, and the file stays as it is."""
    mapped(client, ["a"], journal, temperature=0.5, system="Be brief.")
    before = journal.read_bytes()
    rows = client.map(["a"], journal=journal, **{"temperature": 0.5, "system": "Be brief.", **changed})
    with pytest.raises(ConfigError, match=f"were made with (another )?{name}="):
        mode.each(rows, lambda _: None)
    assert len(server.requests) == 1
    assert journal.read_bytes() == before


def test_p48_a_class_of_the_same_name_is_another_schema(client: Client, server: LLMServer, journal: Path) -> None:
    """What counts is what it demands."""
    server.default = Reply('{"name": "Paris", "people": 2}')
    mapped(client, ["a"], journal, schema=City)
    before = journal.read_bytes()
    other = dataclasses.make_dataclass("City", [("name", str), ("people", int)])
    with pytest.raises(ConfigError, match="another schema="):
        mapped(client, ["a"], journal, schema=other)
    assert journal.read_bytes() == before


def test_p48_the_settings_of_the_client_count_as_well(client: Client, server: LLMServer, journal: Path) -> None:
    """A default of the client's is a setting of the run."""
    mapped(client, ["a"], journal, temperature=0.5)
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, temperature=0.5) as same:
        assert mapped(same, ["a"], journal)[0].resumed
    other = Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, temperature=0.6)
    with other, pytest.raises(ConfigError, match="temperature"):
        mapped(other, ["a"], journal)


def test_p48_media_count_by_what_they_hold(client: Client, server: LLMServer, journal: Path, tmp_path: Path) -> None:
    """A picture that was changed is another question; where it lies does not matter."""
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    first.write_bytes(PNG)
    second.write_bytes(PNG)

    def question(path: Path) -> list[Any]:
        return [{"role": "user", "content": ["What is this?", Image(str(path))]}]

    mapped(client, [question(first)], journal)
    assert mapped(client, [question(second)], journal)[0].resumed
    second.write_bytes(PNG + b"!")
    assert not mapped(client, [question(second)], journal)[0].resumed
    assert b"PNG" not in journal.read_bytes()


def test_embeddings_are_resumed_as_well(client: Client, server: LLMServer, journal: Path) -> None:
    """Their vectors are the same."""
    texts = [f"text {number}" for number in range(100)]
    first = mapped(client, texts, journal, embed=True)
    sent = len(server.requests)
    second = mapped(client, texts, journal, embed=True)
    assert len(server.requests) == sent
    assert [row.vector for row in second] == [row.vector for row in first]
    with pytest.raises(ConfigError, match="were made with of='embeddings'"):
        mapped(client, texts, journal)


# -- the file ---------------------------------------------------------------------------------------------------------


def test_p48_it_is_json_lines(client: Client, journal: Path) -> None:
    """Which anything can read; there are no prompts and no keys in it."""
    how: dict[str, Any] = {"prompt": "{text}", "key": "id", "headers": {"X-Key": "sk-secret"}, "system": "a prompt"}
    mapped(client, [{"id": 1, "text": "a secret"}], journal, **how)
    head, row = map(json.loads, journal.read_text(encoding="ascii").splitlines())
    assert head["format"] == 1
    assert head["settings"].pop("system").startswith("digest:")
    assert head["settings"] == {"model": "openai:m", "of": "chats"}
    assert (row["key"], row["index"], row["error"], row["attempts"]) == ("1", 0, None, 1)
    assert row["answer"]["text"] == "<a secret>"
    assert row["answer"]["usage"]["total_tokens"] > 0
    text = journal.read_text(encoding="ascii")
    assert text.count("<a secret>") == 1
    assert KEY not in text
    assert "sk-secret" not in text
    assert "a prompt" not in text
    assert text.count("a secret") == json.dumps(row["answer"]).count("a secret")


@pytest.mark.parametrize(
    "answer",
    [
        Completion("a", message=Message("assistant", "a")),
        Completion("", message=Message("assistant", "other")),
        Completion("a", choices=(Choice(0, "a"), Choice(1, "b")), turns=(Message("assistant", "a"),)),
        Completion("a", choices=(Choice(0, "b"),), turns=(Message("assistant", "c"), Message("assistant", "a"))),
        Completion("a", "Hm.", "stop", "end", Usage(1, 2), refusal="a", choices=(Choice(0, "a", "Hm.", (), "stop"),)),
        Completion("", tool_calls=(ToolCall("c1", "add", {"a": 1}),), extra={"created": 1}, media=(Media("image"),)),
    ],
)
def test_p48_an_answer_is_the_same_after_resuming(client: Client, answer: Completion) -> None:
    """Though its record says nothing twice."""
    asking = client.map(["a"])._asking
    assert asking.restored(json.loads(json.dumps(asking.recorded(answer)))) == answer


def test_p48_a_key_that_map_gets_shows_nowhere(server: LLMServer, journal: Path, mode: Mode) -> None:
    """Neither in the journal nor in what a crash report shows of an error, nor in any repr."""
    server.default = Reply(f"Who is {KEY}?", status=401)
    with Client("openai:m", base_url=server.base_url("openai")) as client:
        rows = client.map(map(str, range(30)), journal=journal, api_key=KEY, headers={"X-Token": KEY})
        with pytest.raises(AuthError) as caught:
            mode.each(rows, lambda row: sightings(repr(row), "row") and pytest.fail("a row shows the key"))
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert sightings(repr(rows) + repr(rows.totals) + str(caught.value), "repr") == []
    assert sightings(journal.read_bytes(), "journal") == []
    frames = [frame for frame in report.stack if "tests" not in frame.filename]
    assert frames
    assert sightings(repr([frame.locals for frame in frames]), "frames") == []
    assert server.requests[0].header("x-token") == KEY


def test_pandas_reads_it(client: Client, journal: Path) -> None:
    """As a table."""
    pandas = pytest.importorskip("pandas")
    mapped(client, ["a", "b"], journal)
    table = pandas.read_json(journal, lines=True)
    assert sorted(answer["text"] for answer in table["answer"].dropna()) == ["<a>", "<b>"]


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b'{"text": "a"}\n', b'{"text": "a"}', b"\n", b"\x00\xff"])
def test_p47_another_file_is_left_alone(client: Client, server: LLMServer, journal: Path, content: bytes) -> None:
    """As one's own input, given in its place."""
    journal.write_bytes(content)
    with pytest.raises(ConfigError, match="is not a journal"):
        mapped(client, ["a"], journal)
    assert journal.read_bytes() == content
    assert server.requests == []


def test_p47_a_second_run_is_refused(client: Client, server: LLMServer, journal: Path, mode: Mode) -> None:
    """With the number of the process that writes; afterwards it may."""
    rows = iter(client.map(map(str, range(10**9)), journal=journal, concurrency=2))
    next(rows)
    with pytest.raises(ConfigError, match=f"process {os.getpid()}"):
        mode.each(client.map(["a"], journal=journal), lambda _: None)
    rows.close()  # type: ignore[attr-defined]
    assert mapped(client, ["0"], journal)[0].resumed


def test_p47_a_row_is_written_before_it_is_handed_out(client: Client, journal: Path, mode: Mode) -> None:
    """A row that was seen is kept."""
    seen: list[int] = []

    def look(row: Row[Any]) -> None:
        lines = journal.read_bytes().splitlines()  # the last one may be under way
        assert row.index in {record["index"] for record in map(parsed, lines) if "index" in record}
        seen.append(row.index)

    mode.each(client.map(map(str, range(40)), journal=journal, concurrency=8, order="done"), look)
    assert len(seen) == 40


@pytest.mark.slow
def test_p47_a_journal_cut_at_any_byte_is_gone_on_with(
    journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer is wrong, none is lost that was whole, and the next line is not glued to the torn one."""
    settings = {"model": "m"}
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands of them would take a while
    written = opened(journal, settings)
    digests = [bytes([number]) * 16 for number in range(12)]
    for number, digest in enumerate(digests):
        written.write([record_of(number, digest)])
    written.close()
    whole = journal.read_bytes()
    ends = [at for at, byte in enumerate(whole, 1) if byte == ord("\n")]
    cut = tmp_path / "cut.jsonl"
    for size in range(len(whole) + 1):
        cut.write_bytes(whole[:size])
        journal_ = opened(cut, settings)
        expected = sum(end <= size for end in ends[1:])
        found = [journal_.found(digest) for digest in digests]
        assert [record is not None for record in found] == [number < expected for number in range(12)], size
        assert all(record["index"] == number for number, record in enumerate(found) if record is not None)
        journal_.write([record_of(99, b"\xff" * 16)])
        journal_.close()
        again = opened(cut, settings)
        last = again.found(b"\xff" * 16)
        assert last is not None
        assert last["index"] == 99
        assert sum(again.found(digest) is not None for digest in digests) == expected
        again.close()


def opened(path: Path, settings: dict[str, Any]) -> Journal:
    """A journal that is about to be written to."""
    journal = Journal(str(path), settings)
    journal.begin()
    return journal


def record_of(index: int, digest: bytes) -> dict[str, Any]:
    """A row as it is written."""
    return {"digest": digest.hex(), "error": None, "index": index, "key": None,
            "answer": {"text": f"answer {index} \u00e9"}, "attempts": 1, "seconds": 0.5}  # fmt: skip


def test_p47_a_damaged_line_is_reported_and_asked_again(client: Client, server: LLMServer, journal: Path) -> None:
    """The others are not."""
    mapped(client, ["a", "b", "c"], journal, concurrency=1)
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"<b>", b"<x>", 1)
    journal.write_bytes(b"".join(lines))
    with pytest.warns(RuntimeWarning, match="line 3 is damaged"):
        rows = mapped(client, ["a", "b", "c"], journal)
    assert [row.resumed for row in rows] == [True, False, True]
    assert [row.text for row in rows] == ["<a>", "<b>", "<c>"]
    assert asked(server) == {"a": 1, "b": 2, "c": 1}


def test_p47_a_write_that_fails_leaves_the_journal_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the disk takes a part of it."""
    path = tmp_path / "run.jsonl"
    journal = opened(path, {})
    journal.write([record_of(0, b"0" * 16)])
    before = path.read_bytes()
    write = os.write
    parts = iter([20, 0])

    def full(file: int, data: Any) -> int:
        if size := next(parts):
            return write(file, data[:size])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match=r"No space left on device.*run\.jsonl"):
        journal.write([record_of(1, b"1" * 16)])
    monkeypatch.undo()
    assert path.read_bytes() == before
    journal.write([record_of(2, b"2" * 16)])
    journal.close()
    assert [record["index"] for record in records(path)] == [0, 2]


FULL_DISK = """
import resource, signal, sys
from llmbridge import Client
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
client = Client("openai:m", base_url=sys.argv[1], api_key="k-0123456789")
try:
    for row in client.map(map(str, range(10**9)), journal=sys.argv[2], concurrency=4):
        print(row.index, flush=True)
except OSError as error:
    print(error)
"""


def test_p47_a_full_disk_ends_the_run(server: LLMServer, journal: Path) -> None:
    """No row was handed out that is not written; the journal is whole, and is gone on with."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, server.base_url("openai"), str(journal)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stderr == ""
    *handed_out, error = done.stdout.splitlines()
    assert "File too large" in error
    assert journal.read_bytes().endswith(b"\n")
    assert {int(index) for index in handed_out} <= {record["index"] for record in records(journal)}
    assert 3 < len(handed_out) < 60
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY) as client:
        rows = mapped(client, [str(number) for number in range(len(handed_out))], journal)
    assert all(row.resumed for row in rows)


# -- torture ----------------------------------------------------------------------------------------------------------

DYING = """
import os, sys
from llmbridge import Client
left, write = int(sys.argv[3]), os.write

def dying(file, data):
    global left
    if len(data) >= left:
        write(file, bytes(data)[:left])
        os._exit(9)
    left -= len(data)
    return write(file, data)

client = Client("openai:m", base_url=sys.argv[1], api_key="k-0123456789")
rows = client.map(map(str, range(30)), journal=sys.argv[2], concurrency=4)
os.write = dying
for row in rows:
    write(1, f"{row.index}\\n".encode())
"""


@pytest.mark.parametrize("size", [1, 40, 150, 500, 1000, 2500, 4000])
def test_p47_a_process_that_dies_within_a_write(client: Client, server: LLMServer, journal: Path, size: int) -> None:
    """What it has handed out is in the journal; the rest is sent again."""
    words = [sys.executable, "-c", DYING, server.base_url("openai"), str(journal), str(size)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (9, "")
    assert journal.stat().st_size == size
    seen = {int(index) for index in done.stdout.split()}
    rows = mapped(client, [str(number) for number in range(30)], journal)
    assert [row.text for row in rows] == [f"<{number}>" for number in range(30)]
    assert seen <= {row.index for row in rows if row.resumed}


VICTIM = """
import sys
from llmbridge import Client, Retry
client = Client("openai:m", base_url=sys.argv[1], api_key="k-0123456789", retries=Retry(backoff=0.01))
for row in client.map(map(str, range(int(sys.argv[3]))), journal=sys.argv[2], concurrency=16, attempts=9):
    print(row.index, row.text, flush=True)
"""


@pytest.mark.slow
def test_p47_it_survives_being_killed(server: LLMServer, journal: Path) -> None:
    """SIGKILL at random moments, power cuts that take a piece of the tail, cut answers, scattered refusals: each row
    comes once and right, and what is paid twice is what was under way."""
    rows, chance = 400, random.Random(7)

    def answer(received: Received) -> Reply:
        if chance.random() < 0.05:
            return Reply("slow down", status=429, headers={"Retry-After": "0.01"})
        if chance.random() < 0.02:
            return Reply(["Hel", "lo"], cut=150)
        return Reply(f"<{received.user_text}>", header_delay=0.01 * chance.random())

    server.default = answer
    command = [sys.executable, "-c", VICTIM, server.base_url("openai"), str(journal), str(rows)]
    kills = 0
    while True:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
            size = journal.stat().st_size if journal.exists() else 0
            more = chance.randrange(500, 15_000)
            while victim.poll() is None and not (journal.exists() and journal.stat().st_size > size + more):
                time.sleep(0.001)
            victim.send_signal(signal.SIGKILL)
            assert victim.stdout is not None
            said = victim.stdout.read().splitlines()
        written = {record["index"] for record in map(parsed, journal.read_bytes().splitlines()) if "index" in record}
        assert {int(line.split()[0]) for line in said if line.endswith(">")} <= written
        if victim.returncode == 0:
            break
        kills += 1
        if chance.random() < 0.5:
            os.truncate(journal, max(0, journal.stat().st_size - chance.randrange(300)))
    assert kills >= 4
    assert [line.split() for line in said] == [[str(number), f"<{number}>"] for number in range(rows)]
    # Paid twice: what was under way, and the two rows at most that the cut has taken.
    assert sum(count - 1 for count in answered(server).values()) <= kills * (16 + 2)


def parsed(line: bytes) -> dict[str, Any]:
    """A line, unless it is torn."""
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return record


def answered(server: LLMServer) -> Counter[str]:
    """How often each text was sent; refused and cut ones count as well, of which there are 7 %."""
    counts = asked(server)
    refused = 0.2 * sum(counts.values())
    for text in list(counts):
        if counts[text] > 1 and refused > 0:
            refused -= counts[text] - 1
            counts[text] = 1
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("journaled", [False, True], ids=["memory", "journal"])
def test_p49_memory_does_not_grow_with_the_rows(journal: Path, journaled: bool) -> None:
    """Fresh and resumed, with keys: a run of 40,000 rows takes hardly more than one of 4,000."""

    def growth(rows: int) -> int:
        path = journal.with_name(f"{rows}.jsonl")
        words = [sys.executable, "-c", GROWTH, str(rows), str(path) if journaled else ""]
        return max(int(subprocess.check_output(words, text=True, timeout=300)) for _ in range(2 if journaled else 1))

    assert growth(40_000) - growth(4_000) < 15_000_000


GROWTH = """
import os, sys
from llmbridge import Client, Completion, Message, Usage
from llmbridge.many import asking

def steps(self, rows):
    text = rows[0].content[0].text
    return asking.Answered([Completion(text, message=Message("assistant", text))], Usage(1, 1))
    yield

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

asking.Chats.steps = steps
client = Client("openai:m", api_key="k-0123456789")
client.map(map(str, range(2000)), concurrency=16).complete()
before, most = resident(), 0
items = ({"id": number, "text": f"text {number}"} for number in range(int(sys.argv[1])))
for row in client.map(items, prompt="{text}", key="id", journal=sys.argv[2] or None, concurrency=16):
    assert row.text == f"text {row.index}"
    if row.index % 500 == 0:
        most = max(most, resident() - before)
print(most)
"""
