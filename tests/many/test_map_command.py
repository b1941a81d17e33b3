"""`llmbridge map`: a file in, a file out, and the same line again goes on."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from loopback import free_port

from llmbridge.cli import main
from llmbridge.testing import LLMServer, Received, Reply


@pytest.fixture(autouse=True)
def _own_key(_no_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a key."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-cli-secret")


@pytest.fixture
def server() -> Any:
    """Repeats the text in angle brackets."""
    with LLMServer(lambda received: Reply(f"<{received.user_text}>")) as running:
        yield running


def to(server: LLMServer) -> list[str]:
    """The words that lead to the server."""
    return ["-m", "openai:m", "--base-url", server.base_url("openai"), "--concurrency", "4"]


def written(path: Path, *rows: Any) -> str:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_row_of_the_input_has_one_in_the_output(
    server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the input's order, with everything that there is to know; standard output stays empty."""
    items = [{"id": number, "text": f"é {number}"} for number in range(20)]
    source, target = written(tmp_path / "in.jsonl", *items), tmp_path / "out.jsonl"
    assert main(["map", source, str(target), *to(server), "--prompt", "Say {text}", "--id", "id"]) == 0
    rows = lines(target)
    assert [row["input"] for row in rows] == items
    assert [row["answer"] for row in rows] == [f"<Say é {number}>" for number in range(20)]
    first = rows[0]
    assert list(first) == ["key", "input", "answer", "parsed", "finish_reason", "usage", "error", "attempts"]
    assert (first["key"], first["finish_reason"], first["error"], first["attempts"]) == ("0", "stop", None, 1)
    assert first["usage"]["total_tokens"] > 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("llmbridge: 20 done, ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl", "out.jsonl.journal"]


def test_the_same_line_again_asks_what_is_missing(
    server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """New rows and failed ones; code 3 says that there are any of those."""
    server.default = lambda received: Reply("No.", status=400) if received.user_text == "b" else Reply("Hello")
    source, target = written(tmp_path / "in.jsonl", "a", "b"), tmp_path / "out.jsonl"
    words = ["map", source, str(target), *to(server)]
    assert main(words) == 3
    said = capsys.readouterr().err
    assert "1 done, 1 failed (1 BadRequest)" in said
    assert re.search(r"row 1 failed with BadRequest: .+", said)
    failed = lines(target)[1]
    assert failed["answer"] is None
    assert failed["error"].startswith("BadRequest: ")
    server.default = Reply("Hello")
    written(tmp_path / "in.jsonl", "b", "a", "c")
    sent = len(server.requests)
    assert main(words) == 0
    assert len(server.requests) == sent + 2
    assert [row["input"] for row in lines(target)] == ["b", "a", "c"]
    written(tmp_path / "in.jsonl", "c")
    assert main(words) == 0
    assert "2 answers in" in capsys.readouterr().err


def test_a_dry_run_sends_nothing(server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says how many rows there are, how many are done, and what the others take, and leaves no file behind."""
    source, target = written(tmp_path / "in.jsonl", "a", "b"), str(tmp_path / "out.jsonl")
    words = ["map", source, target, *to(server)]
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("2 rows, 0 done already; the others take about ")
    assert server.requests == []
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    assert main(words) == 0
    kept = Path(f"{target}.journal").read_bytes()
    written(tmp_path / "in.jsonl", "a", "b", "c" * 4000)
    capsys.readouterr()
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 rows, 2 done already")
    assert 900 < int(said.split()[-5]) < 1200
    assert Path(f"{target}.journal").read_bytes() == kept


def test_other_processes_send_the_rows_if_wanted(server: LLMServer, tmp_path: Path) -> None:
    """The output is the same."""
    source = written(tmp_path / "in.jsonl", *map(str, range(20)))
    here, there = str(tmp_path / "here.jsonl"), str(tmp_path / "there.jsonl")
    assert main(["map", source, here, *to(server)]) == 0
    words = ["map", source, there, *to(server), "--executor", "processes:2"]
    subprocess.run([sys.executable, "-m", "llmbridge", *words], check=True, capture_output=True)
    assert lines(Path(here)) == lines(Path(there))
    assert len(server.requests) == 40


def test_a_terminal_shows_the_progress_on_one_line(
    server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fits the terminal, says how many rows there are, and is gone at the end; the totals stay."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    source, target = written(tmp_path / "in.jsonl", "a", "b", "c"), str(tmp_path / "out.jsonl")
    assert main(["map", source, target, *to(server)]) == 0
    *shown, end = capsys.readouterr().err.split("\r")
    assert any(line.startswith("3 of 3 rows done, ") for line in shown)
    assert all(len(line) < 60 and "\n" not in line for line in shown)
    assert not [line for line in shown if line.strip()][-1].startswith("llmbridge: ")
    assert not shown[-1].strip()
    assert end.startswith("llmbridge: 3 done, ")


def test_a_mistake_in_the_template_is_the_only_message(
    server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is done, so nothing is said of going on; the option is named as it is typed."""
    source, target = written(tmp_path / "in.jsonl", *[{"text": "a"}] * 60), str(tmp_path / "out.jsonl")
    assert main(["map", source, target, *to(server), "--prompt", "{txt}"]) == 2
    assert capsys.readouterr().err.startswith("llmbridge: --prompt names a column 'txt'")
    assert main(["map", source, str(tmp_path / "no" / "out.jsonl"), *to(server), "--prompt", "{text}"]) == 1
    assert "/out.jsonl: No such file" in capsys.readouterr().err


def test_tables_are_tables(server: LLMServer, tmp_path: Path) -> None:
    """With the columns of the input, the answer and the error behind them."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes('\ufeffid,text\r\n1,"a, ""b"""\r\n2,"c\nd"\r\n'.encode())
    assert main(["map", str(source), str(target), *to(server), "--prompt", "{text}"]) == 0
    with open(target, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["id", "text", "answer", "error"],
        ["1", 'a, "b"', '<a, "b">', ""],
        ["2", "c\nd", "<c\nd>", ""],
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('1,"a"b\n', "after line 2: ',' expected"),
        ('1,"a', "after line 2: unexpected end"),
        ("1,a,b\n", "line 3 has more cells"),
    ],
)
def test_a_damaged_table_is_named(
    server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    """With its line; a cell that is missing at the end of a row is empty."""
    (tmp_path / "in.csv").write_text(f"id,text\n0\n{text}", encoding="utf-8")
    assert main(["map", str(tmp_path / "in.csv"), "-", *to(server), "--prompt", "[{text}]"]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert "None" not in out


def test_lines_of_text_are_prompts(server: LLMServer, tmp_path: Path) -> None:
    """Without a template, each is sent as it is."""
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("one\n\ntwo {x}\n", encoding="utf-8")
    assert main(["map", str(source), str(target), *to(server)]) == 0
    assert [row["answer"] for row in lines(target)] == ["<one>", "<two {x}>"]


def test_a_dash_is_a_pipe(
    server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows come as soon as they are there; without a journal, nothing is kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"a": "x"}\n{"a": "y"}\n')))
    assert main(["map", "-", "-", *to(server), "--prompt", "{a}"]) == 0
    assert [json.loads(line)["answer"] for line in capsys.readouterr().out.splitlines()] == ["<x>", "<y>"]
    assert list(tmp_path.iterdir()) == []


def test_a_schema_and_parameters_are_those_of_a_chat(server: LLMServer, tmp_path: Path) -> None:
    """Parsed answers are in the output."""
    server.default = Reply('{"name": "Paris"}')
    source, target = written(tmp_path / "in.jsonl", "a"), tmp_path / "out.jsonl"
    words = [*to(server), "--schema", "name", "-o", "temperature", "0.5", "--system", "Be brief."]
    assert main(["map", source, str(target), *words]) == 0
    assert lines(target)[0]["parsed"] == {"name": "Paris"}
    request = server.requests[0].json
    assert request["temperature"] == 0.5
    assert request["messages"][0]["content"] == "Be brief."


def test_vectors_are_numbers(server: LLMServer, tmp_path: Path) -> None:
    """In place of answers."""
    source, target = written(tmp_path / "in.jsonl", "a", "b"), tmp_path / "out.jsonl"
    assert main(["map", source, str(target), *to(server), "--embed"]) == 0
    assert [len(row["vector"]) for row in lines(target)] == [8, 8]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{not json\n", "line 1 is not JSON"),
        ('"a"\n\n"b\n', "line 3 is not JSON"),
        ('"a"\n"\udcff"\n', "line 2 is not UTF-8"),
    ],
)
def test_an_input_that_is_wrong_is_code_2(
    server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, says: str
) -> None:
    """With the number of the line; there is no output then, and what was done is kept."""
    source = tmp_path / "in.jsonl"
    source.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert main(["map", str(source), str(tmp_path / "out.jsonl"), *to(server)]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.jsonl", "out.jsonl"], "cannot read nowhere.jsonl"),
        (["in.jsonl", "out.jsonl", "--max-errors", "some"], "--max-errors takes a number of rows"),
        (["in.jsonl", "out.jsonl", "--prompt", "{a"], "is not a template"),
        (["in.jsonl", "out.jsonl", "--concurrency", "0"], "concurrency must be"),
        (["in.jsonl", "out.jsonl", "--executor", "dusk:a"], "processes:4, dask:ADDRESS or ray, not dusk:a"),
        (["in.jsonl", "out.jsonl", "--executor", "processes:0"], "not processes:0"),
        (["in.jsonl"], "OUTPUT"),
    ],
)
def test_a_wrong_word_is_code_2(
    server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    words: list[str], says: str,
) -> None:  # fmt: skip
    """Before anything is sent."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "in.jsonl", "a")
    assert main(["map", *words, "-m", "openai:m", "--base-url", server.base_url("openai")]) == 2
    assert says in capsys.readouterr().err
    assert main(["map", *words]) == 2
    assert server.requests == []


def test_a_run_that_gives_up_is_code_1(server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was done is kept for the same line again."""
    server.default = lambda received: Reply("Hello") if received.user_text == "0" else Reply("No.", status=400)
    source, target = written(tmp_path / "in.jsonl", *map(str, range(300))), tmp_path / "out.jsonl"
    assert main(["map", source, str(target), *to(server), "--max-errors", "1%"]) == 1
    said = capsys.readouterr().err
    assert "BadRequest" in said
    assert "the same command goes on from there" in said
    assert not target.exists()
    assert len(server.requests) < 20


def test_a_service_that_is_not_there_ends_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not taken for a disk that is full."""
    source = written(tmp_path / "in.jsonl", *map(str, range(100)))
    words = ["map", source, str(tmp_path / "out.jsonl"), "-m", "openai:m", "--retries", "0"]
    assert main([*words, "--base-url", f"http://127.0.0.1:{free_port()}/v1"]) == 1
    said = capsys.readouterr().err
    assert "no connection to 127.0.0.1" in said
    failed = re.search(r"0 done, (\d+) failed \((\d+) ConnectFailed\)", said)
    assert failed is not None
    assert 20 <= int(failed[1]) < 100


def test_a_file_that_cannot_be_written_is_code_1(
    server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, with its name."""
    target = tmp_path / "folder"
    Path(f"{target}.journal").mkdir()
    assert main(["map", written(tmp_path / "in.jsonl", "a"), str(target), *to(server)]) == 1
    assert capsys.readouterr().err == f"llmbridge: cannot write {target}.journal: Is a directory\n"


def test_p49_ctrl_c_is_code_130(server: LLMServer, tmp_path: Path) -> None:
    """Within a second, with what is done kept; the same line goes on."""

    def slow(received: Received) -> Reply:
        return Reply("Hello", header_delay=0.0 if int(received.user_text) < 10 else 30)

    server.default = slow
    source, target = written(tmp_path / "in.jsonl", *map(str, range(40))), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "llmbridge", "map", source, str(target), *to(server)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        server.wait_for_requests(12, timeout=60)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(60) == 130
        assert time.monotonic() - sent < 20
    assert "10 done" in said
    assert "the same command goes on from there" in said
    assert not target.exists()
    server.default = Reply("Hello")
    before = len(server.requests)
    assert subprocess.run(command, stderr=subprocess.PIPE, timeout=120).returncode == 0
    assert len(server.requests) == before + 30
    assert len(lines(target)) == 40
