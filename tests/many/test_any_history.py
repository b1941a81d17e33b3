"""Whatever happens between the runs of a journal, each row gets an answer to its own question, and once."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbridge import Client, Completion, Message, ServerError, Usage
from llmbridge.many import asking
from llmbridge.many import journal as journals

CLIENT = Client("openai:m", api_key="k-0123456789")


@dataclass(frozen=True)
class Session:
    """A run: its input, the rows whose service fails, how many rows are taken, and what is cut off afterwards."""

    texts: list[str]
    failing: set[str]
    taken: int
    order: str
    cut: int


SESSIONS = st.builds(
    Session,
    texts=st.lists(st.sampled_from("abcde"), max_size=12),
    failing=st.sets(st.sampled_from("abcde"), max_size=2),
    taken=st.integers(0, 14),
    order=st.sampled_from(["input", "done"]),
    cut=st.sampled_from([0, 0, 0, 1, 40, 400]),
)


class Service:
    """Answers at once, each time something else."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.asked: list[str] = []

    def steps(self, rows: Sequence[Any]) -> Generator[Any, None, asking.Answered]:
        """In place of `Chats.steps`."""
        text = rows[0].content[0].text
        self.asked.append(text)
        if text in self.failing:
            raise ServerError("broken", status=500)
        said = f"{text} {len(self.asked)}"
        return asking.Answered([Completion(said, message=Message("assistant", said))], Usage(1, 1))
        yield


@settings(max_examples=60)
@given(sessions=st.lists(SESSIONS, min_size=1, max_size=5))
def test_each_row_gets_its_own_answer_once(sessions: list[Session]) -> None:
    """Runs that are left early, inputs that change, rows that fail, a tail that is cut off."""
    service = Service()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(asking.Chats, "steps", service.steps)
        patch.setattr(os, "fsync", lambda _: None)
        journal = os.path.join(folder, "journal")
        kept: set[str] = set()  # answers that were handed out, and cannot have been cut off
        for session in sessions:
            service.failing, service.asked = session.failing, [*service.asked]
            before = len(service.asked)
            found = _run(session, journal)
            _check(found, session)
            resumed = [row.text for row in found if row.resumed]
            assert len(set(resumed)) == len(resumed)
            if found and len(found) == len(session.texts):
                wanted = Counter(text for text in session.texts)
                for text, count in Counter(answer.split()[0] for answer in kept).items():
                    asked = Counter(service.asked[before:])[text]
                    assert asked <= max(0, wanted[text] - count) or text in session.failing
            kept |= {row.text for row in found if row.ok}
            if session.cut and os.path.exists(journal):
                os.truncate(journal, max(0, os.path.getsize(journal) - session.cut))
                kept = set()


@settings(max_examples=200)
@given(
    written=st.lists(st.integers(0, 9), max_size=40),
    wanted=st.lists(st.integers(0, 11), max_size=60),
    in_order=st.booleans(),
    block=st.sampled_from([1, 150, 400]),
    ahead=st.sampled_from([0, 150, 1000]),
    jumps=st.sampled_from([0, 1, 5]),
)
def test_p48_answers_are_found_in_any_order(
    written: list[int], wanted: list[int], in_order: bool, block: int, ahead: int, jumps: int
) -> None:
    """However much of the file is read at once and kept: each is taken once, with its own content."""
    if in_order:
        wanted = written + wanted
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(os, "fsync", lambda _: None)
        for name, size in (("_BLOCK", block), ("_AHEAD", ahead), ("_JUMPS", jumps)):
            patch.setattr(journals, name, size)
        journal = journals.Journal(os.path.join(folder, "journal"), {})
        journal.begin()
        journal.write({"digest": (bytes([name]) * 16).hex(), "error": None, "of": name} for name in written)
        journal.close()
        journal = journals.Journal(os.path.join(folder, "journal"), {})
        left = Counter(written)
        for name in wanted:
            found = journal.found(bytes([name]) * 16)
            assert (found is not None) == (left[name] > 0)
            assert found is None or found["of"] == name
            left[name] -= found is not None
            journal.write([{"digest": "ff" * 16, "error": None, "of": 99}])  # not of its own
        assert journal.left == left.total()
        journal.close()


def _run(session: Session, journal: str) -> list[Any]:
    rows = CLIENT.map(iter(session.texts), journal=journal, order=session.order, concurrency=3, attempts=1)  # type: ignore[arg-type]
    found: list[Any] = []
    for row in rows:
        if len(found) == session.taken:
            break
        found.append(row)
    return found


def _check(found: list[Any], session: Session) -> None:
    assert len({row.index for row in found}) == len(found)
    if session.order == "input":
        assert [row.index for row in found] == list(range(len(found)))
    for row in found:
        assert row.input == session.texts[row.index]
        assert row.text.split()[0] == row.input if row.ok else row.input in session.failing
