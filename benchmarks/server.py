"""A chat server that only writes prepared bytes, in a process of its own so that its CPU is not counted.

The path chooses the answer, so one running server serves every measurement:

    /one/{events}/v1/chat/completions            chunked, one event per HTTP chunk, each chunk its own send, full speed
    /coalesced/{events}/v1/chat/completions      chunked, EVENTS_PER_CHUNK events in every HTTP chunk, full speed
    /bulky/{events}/v1/chat/completions          like `coalesced`, with the log probabilities of 20 tokens in every
    event /paced/{events}/{microseconds}/v1/chat/...   like `one`, with this many microseconds between two events
    /whole/{events}/v1/chat/completions          chunked, one HTTP chunk, one send for head and body: a short answer
    /length/{events}/v1/chat/completions         like `whole`, with Content-Length instead of chunks
    /comments/{megabytes}/v1/chat/completions    this many megabytes of comments, and then one text event
    /zipped/{megabytes}/v1/chat/completions      the same, compressed with gzip, in one HTTP chunk

Every stream is a role event, the text events, a finish event, a usage event and `[DONE]`, and leaves the connection
open. `python -m benchmarks.server` prints its port, answers the line `connections` on standard input with the number of
TCP connections that have carried a request so far, and ends with its standard input.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import cache

EVENTS_PER_CHUNK = 50
MODES = ("one", "coalesced", "bulky", "paced", "whole", "length", "comments", "zipped")

# About 8 characters each, like the tokens of a model; some are not ASCII, like real answers.
PIECES = (
    "Hello fr", "om a ser", "ver that", " only se", "nds what", " it made", " before,", ' "so" to', " say. Gr",
    "üße aus ", "Köln, et", " voilà: ", "a stream", " of text", ",\nline b", "y line, ", "word by ", "word. In",
    " 2026 it", " costs 3", " microse", "conds or", " less. П", "ривет, м", "ир! And ", "then the", " answer ",
    "goes on ", "about a ", "subject ", "that no ", "one aske", "d about,", " with 42", " reasons", " for it,",
    " 世界 🌍! ", "until it", " is at i", "ts end. ",
)  # fmt: skip


def _event(choices: list[dict[str, object]], **more: object) -> bytes:
    chunk = {
        "id": "chatcmpl-LK-mYuXiIvZ73z1V",
        "object": "chat.completion.chunk",
        "created": 1795226952,
        "model": "gpt-4o",
        "choices": choices,
        **more,
    }
    return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _choice(
    delta: dict[str, str], finish_reason: str | None = None, logprobs: object = None
) -> list[dict[str, object]]:
    return [{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}]


def _logprobs(piece: str) -> object:
    token = {"token": piece, "logprob": -0.31725305, "bytes": list(piece.encode())}
    return {"content": [{**token, "top_logprobs": [token] * 20}], "refusal": None}


FIRST = _event(_choice({"role": "assistant", "content": ""}))
TEXTS = tuple(_event(_choice({"content": piece})) for piece in PIECES)
BULKY_TEXTS = tuple(_event(_choice({"content": piece}, None, _logprobs(piece))) for piece in PIECES)
FINISH = _event(_choice({}, "stop"))
END = b"data: [DONE]\n\n"
COMMENT = b": OPENROUTER PROCESSING\n\n"
_COMMENTS_PER_CHUNK = 2500


def expected_text(events: int) -> str:
    """The text that a client must get from a stream with this many text events."""
    rounds, rest = divmod(events, len(PIECES))
    return "".join(PIECES) * rounds + "".join(PIECES[:rest])


def mean_event_bytes(mode: str) -> float:
    """The mean size of a text event, without HTTP's bytes."""
    return sum(map(len, _texts(mode))) / len(PIECES)


def _texts(mode: str) -> tuple[bytes, ...]:
    return BULKY_TEXTS if mode == "bulky" else TEXTS


def _stream(events: int, mode: str = "one") -> list[bytes]:
    kinds = _texts(mode)
    usage = {"prompt_tokens": 9, "completion_tokens": events, "total_tokens": events + 9}
    texts = [kinds[index % len(kinds)] for index in range(events)]
    return [FIRST, *texts, FINISH, _event([], usage=usage), END]


def _head(*framing: str) -> bytes:
    lines = (
        "HTTP/1.1 200 OK",
        "Content-Type: text/event-stream",
        "Cache-Control: no-cache",
        "Connection: keep-alive",
        "X-Request-Id: req-aeiHGNlNwFGhQJM2",
        *framing,
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@cache
def _writes(mode: str, events: int) -> list[bytes]:
    """Everything sent for one request: each item is one send."""
    if mode in ("comments", "zipped"):
        return _comments(events, mode == "zipped")
    stream = _stream(events, mode)
    if mode == "length":
        body = b"".join(stream)
        return [_head(f"Content-Length: {len(body)}") + body]
    head = _head("Transfer-Encoding: chunked")
    if mode == "whole":
        return [head + _chunk(b"".join(stream)) + b"0\r\n\r\n"]
    # Sharing equal events keeps a stream of 200 MB as a list of references to a few thousand bytes.
    step = EVENTS_PER_CHUNK if mode in ("coalesced", "bulky") else 1
    made: dict[bytes, bytes] = {}
    groups = (b"".join(stream[start : start + step]) for start in range(0, len(stream), step))
    return [head, *(made.setdefault(group, _chunk(group)) for group in groups), b"0\r\n\r\n"]


def _comments(megabytes: int, zipped: bool) -> list[bytes]:
    group, last = COMMENT * _COMMENTS_PER_CHUNK, b"".join((TEXTS[0], FINISH, END))
    groups = [group] * (megabytes * 1_000_000 // len(group))
    if zipped:
        coded = gzip.compress(b"".join((*groups, last)))
        return [_head("Content-Encoding: gzip", "Transfer-Encoding: chunked"), _chunk(coded), b"0\r\n\r\n"]
    return [_head("Transfer-Encoding: chunked"), *([_chunk(group)] * len(groups)), _chunk(last), b"0\r\n\r\n"]


class BenchServer:
    """The server: a thread per connection; connections that carried a request are counted.

    Args:
        answer: Answers a request, given its connection and path.
    """

    def __init__(self, answer: Callable[[socket.socket, str], None] | None = None) -> None:
        self._answer = answer or _answer
        self.connections = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]

    def start(self) -> None:
        """Accept connections in a daemon thread."""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        counted = False
        with connection:
            while True:
                try:
                    path, received = _next_request(connection, received)
                    if not counted:
                        counted = True
                        with self._lock:
                            self.connections += 1
                    self._answer(connection, path)
                except (ConnectionError, TimeoutError):
                    return


def _next_request(connection: socket.socket, received: bytes) -> tuple[str, bytes]:
    """The path of the next request on this connection, and the bytes after that request."""
    while (end := received.find(b"\r\n\r\n")) < 0:
        received += _more(connection)
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", received[:end])
    size = end + 4 + (int(length[1]) if length else 0)
    while len(received) < size:
        received += _more(connection)
    return received.split(b" ", 2)[1].decode("ascii"), received[size:]


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionResetError("the client closed the connection")
    return data


def _answer(connection: socket.socket, path: str) -> None:
    _, mode, events, *rest = path.split("/")
    if mode not in MODES:
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        return
    writes = _writes(mode, int(events))
    if mode == "paced":
        _send_paced(connection, writes, int(rest[0]) / 1e6)
        return
    send = connection.sendall
    for data in writes:
        send(data)


def _send_paced(connection: socket.socket, writes: list[bytes], interval: float) -> None:
    due = time.perf_counter()
    for data in writes:
        connection.sendall(data)
        due += interval
        time.sleep(max(0.0, due - time.perf_counter()))


def main() -> None:
    """Serve until standard input ends."""
    server = BenchServer()
    server.start()
    print(server.port, flush=True)
    for line in sys.stdin:
        if line.strip() == "connections":
            print(server.connections, flush=True)


if __name__ == "__main__":
    main()
