"""What breaks the promises about many rows: outcomes, journal, the end of a run, its workers (P46 to P51)."""

from __future__ import annotations

from benchmarks.mutations.mutation import Mutation

__all__ = ["ON_MANY"]

_ROWS = (
    Mutation("P46", "rows come as they are done", "Run._hand_out", "if self._plan.in_order:", "if False:"),
    Mutation(
        "P46",
        "a function that raises ends the run",
        "Questions.ask",
        "except Exception as error:",
        "except OSError as error:",
    ),
    Mutation("P46", "an answer that breaks off fails the row", "_AGAIN", "TransportError, ProtocolError,", ""),
    Mutation(
        "P46",
        "what was read is lost when the input raises",
        "Run._end_of_input",
        "self._all_read = True",
        "self._all_read = True\nself._given_up = failure is not None",
    ),
    Mutation("P46", "keys may come twice", "Run._take_in", "if asked.key is not None:", "if False:"),
    Mutation("P46", "a refusal counts as an attempt", "Run._again_or_fail", "not refused", "1"),
)

_JOURNAL = (
    Mutation(
        "P47",
        "a row is handed out before it is written",
        "Run._hand_out",
        "finished, self._finished = self._finished, []",
        "finished, self._finished = self._finished, []\nself._put([row for row, _ in finished])",
    ),
    Mutation("P47", "a torn line stays", "Journal._open", "os.ftruncate(self._file, self._size)", "pass"),
    Mutation(
        "P47",
        "a damaged line counts",
        "_is_whole",
        "return",
        "return True or",
    ),
    Mutation(
        "P47",
        "half a line stays where the disk is full",
        "Journal.write",
        "os.ftruncate(self._file, self._size)",
        "pass",
    ),
    Mutation(
        "P47",
        "two runs write to one journal",
        "Journal._lock",
        "except BlockingIOError:",
        "except BlockingIOError:\n    return",
    ),
    Mutation(
        "P47",
        "another file is taken for a journal",
        "Journal._open",
        '"llmbridge" not in (head := _parsed(first))',
        "not (head := _parsed(first)) and False",
    ),
    Mutation("P47", "nothing is found in the journal", "Journal.found", "if line is None", "if True"),
)

_MISTAKEN = (
    Mutation(
        "P48",
        "an answer is found by its key alone",
        "Asking.digest",
        "{_quoted(key)}, {self._as_json(content)}",
        "{key}",
    ),
    Mutation(
        "P48",
        "an answer is found without its key",
        "Asking.digest",
        "{_quoted(key)}, {self._as_json(content)}",
        "{self._as_json(content)}",
    ),
    Mutation(
        "P48",
        "equal rows share one answer",
        "_Answers.take",
        "found.pop(0)",
        "found[0]",
    ),
    Mutation("P48", "an answer from further on is found twice", "_Answers._jump", "self._jumped.add(at)", "pass"),
    Mutation("P48", "settings are not compared", "Journal._compare", "before.get(name) != now.get(name)", "False"),
    Mutation(
        "P48", "the client's settings do not count", "Asking.__init__", "**client.chat_options.params, **said", "**said"
    ),
    Mutation(
        "P48",
        "an answer that has become wrong is kept",
        "Chats.unpacked",
        "self._schema is None or answer.parsed is None",
        "True",
    ),
)

_END = (
    Mutation("P49", "leaving the loop leaves the run", "_each", "run.close()", "pass"),
    Mutation("P49", "dropping an async loop leaves the run", "AsyncRows.__del__", "self._source.cancel()", "pass"),
    Mutation("P49", "requests under way are not cancelled", "Run.cancel", "self._calls.cancel()", "pass"),
    Mutation(
        "P49",
        "the window has no end",
        "Run._permit",
        "while self._permitted < self.window:",
        "while self._permitted < self.window + 50_000:",
    ),
    Mutation(
        "P49",
        "a row that is taken lets two be read",
        "Run._taken",
        "self._permits.put(True)",
        "self._permits.put(True)\nself._permits.put(True)",
    ),
    Mutation("P49", "the width is not kept", "Width.room", "running + len(self._resting) < self.now", "True"),
    Mutation(
        "P49",
        "the limits of the client do not count",
        "Rows.__init__",
        "limits.concurrency if limits is not None else None",
        "None",
    ),
    Mutation("P49", "rows wait where their timeouts run", "Run._send", "if room <= 0:", "if False:"),
    Mutation("P49", "a wrong key fails every row", "Run._fail", "self._alike >= _MOST_ALIKE", "False"),
    Mutation("P49", "any number of rows may fail", "Run._fail", 'self._totals["failed"] > most', "False"),
)

_WORKERS = (
    Mutation("P51", "a lost shard is not sent again", "Spread._lost", "self._again.append(shard)", "pass"),
    Mutation(
        "P51",
        "a row that kills workers takes its shard with it",
        "Spread._lost",
        "elif shard.suspect and len(shard.rows) == 1:",
        "elif shard.suspect:",
    ),
    Mutation("P51", "a broken pool stays broken", "_Pool._submit", "except BrokenExecutor:", "except OSError:"),
    Mutation("P51", "workers are not told to stop", "Spread._stop", "self._engine.stop()", "pass"),
    Mutation(
        "P51",
        "workers outlive their driver",
        "_Watch._port",
        "select.select([line], [], [], _LOOKS)[0] or os.getppid() != parent",
        "self._over.wait(_LOOKS)",
    ),
    Mutation(
        "P51",
        "what a cancelled shard has finished is lost",
        "_Worker.report",
        "return Report(rows, error",
        "return Report([] if error else rows, error",
    ),
    Mutation("P51", "each worker has the whole width", "_part", "whole // count + (number < whole % count)", "whole"),
    Mutation("P51", "a shard forgets what was sent before it", "_Worker.__init__", "share.recent", "()"),
    Mutation("P51", "keys travel", "_refuse_secrets", 'isinstance(ways["api_key"], (str, Secret))', "False"),
    Mutation("P51", "headers travel", "_refuse_secrets", "if value != ways[name]:", "if False:"),
    Mutation("P51", "several models are not looked at", "_refuse_secrets", "if client.several", "if False"),
    Mutation("P51", "any version will do", "work", "if version != __version__:", "if False:"),
    Mutation(
        "P51",
        "what ends a shard does not end the run",
        "Spread._take_back",
        "self._give_up(report.error)",
        "self._totals['failed'] += 0",
    ),
    Mutation("P51", "the window has no end", "Spread.window", "self._plan.window or 2", "20"),
)

_WHOLE = (
    Mutation(
        "P50",
        "whole answers are never asked for",
        "Chats.steps",
        "self._answer(asked, whole)",
        "self._answer(asked, whole=False)",
    ),
    Mutation("P50", "whole answers are asked for at once", "Chats.steps", "brevity.proven >= brevity.needed", "True"),
    Mutation("P50", "a whole answer is asked for again", "Chats.steps", "not asked.failures and", ""),
    Mutation("P50", "a slow answer counts as quick", "Brevity.heard", "seconds < self.seconds", "True"),
    Mutation("P50", "a failure counts for nothing", "Brevity.failed", "2 * self.needed", "self.needed"),
    Mutation("P50", "a failure leaves whole answers on", "Chats.steps", "brevity.failed()", "pass"),
    Mutation("P50", "a service that only streams fails rows", "Chats.steps", "whole and _only_streams(error)", "False"),
    Mutation("P50", "a service that only streams is not remembered", "Chats.steps", "brevity.refused()", "pass"),
    Mutation("P50", "any refusal is taken for one of whole answers", "_only_streams", "return", "return True or"),
    Mutation("P50", "an unknown path fails rows", "_NOT_THERE", "404, 405", "0,"),
    Mutation("P50", "the caller's stream= is overridden", "Chats.__init__", 'own.get("stream") is None', "True"),
    Mutation("P50", "answers in the background come whole", "Chats.__init__", 'not own.get("background")', "True"),
    Mutation(
        "P50",
        "the client's stream= is overridden",
        "Chats.__init__",
        "**defaults.params,",
        "",
    ),
    Mutation(
        "P50", "a short timeout changes nothing", "Chats.__init__", "(timeout.first_content or _NEVER) / 2", "_NEVER"
    ),
    Mutation("P50", "a journal knows how a row was asked", "_NOT_OF_ANSWERS", '"model", "stream"', '"model"'),
    Mutation("P50", "fallbacks get whole answers", "Attempts.answers_whole", "not self._several and ", ""),
    Mutation(
        "P50",
        "every provider has whole answers",
        "Provider.answers_whole",
        "return kind is not Provider",
        "return True or kind is not Provider",
    ),
    Mutation("P50", "a document is asked for as a stream", "_encoded", '"application/json"', '"text/event-stream"'),
)

_CALLS = (
    Mutation("P52", "a thread for each call", "_BLOCKING", "32", "1000"),
    Mutation("P52", "a call is read twice in a round", "Calls._round", "elif not key.data.has_turn:", "else:"),
    Mutation("P52", "no threads are added", "Calls._look_at_threads", "if (taken", "if False and (taken"),
    Mutation(
        "P52",
        "steps that end keep others waiting",
        "Calls._look_at_threads",
        "(taken - self._taken) * _LONG_SECONDS < (now - self._looked_at) * len(self._workers)",
        "taken == self._taken",
    ),
    Mutation(
        "P52",
        "a class that parses holds up all",
        "Calls._resume",
        "(call.parses and call.view is not None)",
        "False",
    ),
    Mutation("P52", "on_retry holds up all", "Calls._resume", "call.blocks or", ""),
    Mutation("P52", "an error of the waiting is lost", "Calls._run", "self._broken(without_frames(error))", "pass"),
    Mutation("P52", "a call that begins too late never ends", "Calls.begin", "if self._closed:", "if False:"),
    Mutation("P52", "what was not begun is done after the end", "Calls._in_thread", "if self._closed:", "if False:"),
    Mutation("P52", "what could not begin stays open", "Calls.start", "opened.close()", "pass"),
    Mutation("P52", "a sleep may be too long", "Calls._patience", "_LONGEST_SLEEP", "1e12"),
    Mutation("P52", "answers stay with their connection", "Later.begin", "del connection.response_class", "pass"),
    Mutation("P52", "a child waits for its parent's rows", "Run.next", "self._pid != os.getpid()", "False"),
)

ON_MANY = (*_ROWS, *_JOURNAL, *_MISTAKEN, *_END, *_WHOLE, *_WORKERS, *_CALLS)
