"""Turns a Reply and its request into the list of steps that a connection plays."""

from __future__ import annotations

import email.utils
import zlib
from collections.abc import Iterator, Sequence

from .dialects import Answer, answer, phrase
from .received import Received
from .reply import CLOSE, HOLD, RESET, Action, Reply, Step

__all__ = ["BAD_REQUEST", "Steps", "steps"]

Steps = Sequence[Step]

BAD_REQUEST: Steps = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    CLOSE,
)


def steps(reply: Reply, received: Received, serial: int) -> Steps:
    """All the server will do on the socket for one request, computed before the first byte is sent.

    Args:
        reply: The scripted answer.
        received: The request; its path chooses the format, its version and headers decide about keep-alive.
        serial: The number of the answer, which makes its ids unique.
    """
    if reply.raw is not None:
        plan: Steps = reply.raw_steps
        if received.wants_close and not (plan and isinstance(plan[-1], Action)):
            plan = [*plan, CLOSE]
    else:
        plan = _plan(reply, received, answer(reply, received, f"test-{serial}"))
    if reply.split is not None:
        plan = [part for step in plan for part in _split(step, reply.split)]
    return plan


def _plan(reply: Reply, received: Received, said: Answer) -> list[Step]:
    bodiless = received.method == "HEAD" or said.status in (204, 304)
    blocks = [] if bodiless else _blocks(reply, said.events)
    content_type = said.content_type if reply.content_type is None else reply.content_type
    transfer: str = reply.transfer or ("chunked" if said.streamed else "length")
    if transfer == "chunked" and received.version == "HTTP/1.0":
        transfer = "close"  # RFC 9112, 6.1: the client may not know transfer codings
    framing = []
    if transfer == "chunked" and not bodiless:
        framing = [("Transfer-Encoding", "chunked")]
    elif transfer == "length" and not bodiless:
        # With keep_open the announced body is one byte longer than what is sent.
        framing = [("Content-Length", str(sum(map(len, blocks)) + reply.keep_open))]
    closes = received.wants_close or transfer in ("close", "http10") or _says_close(reply)
    headers = [
        *said.headers,
        *([("Content-Type", content_type)] if content_type else []),
        *([("Cache-Control", "no-cache")] if said.streamed else []),
        *([("Content-Encoding", "gzip")] if reply.gzip else []),
        ("Date", email.utils.formatdate(usegmt=True)),
        ("Connection", "close" if closes else "keep-alive"),
        *framing,
    ]
    plan: list[Step] = [reply.header_delay] if reply.header_delay else []
    plan.append(_head(reply, said.status, headers, "HTTP/1.0" if transfer == "http10" else "HTTP/1.1"))
    plan += _body(reply, blocks, chunked=transfer == "chunked" and not bodiless)
    if closes and not isinstance(plan[-1], Action):
        plan.append(CLOSE)
    return plan


def _says_close(reply: Reply) -> bool:
    return any(name.lower() == "connection" and value.lower() == "close" for name, value in reply.header_pairs)


def _head(reply: Reply, status: int, headers: list[tuple[str, str]], version: str) -> bytes:
    replaced = {name.lower() for name, _ in reply.header_pairs}
    kept = [(name, value) for name, value in headers if name.lower() not in replaced]
    lines = [f"{version} {status} {phrase(status) if reply.reason is None else reply.reason}"]
    lines += [f"{name}: {value}" for name, value in [*kept, *reply.header_pairs]]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _blocks(reply: Reply, events: list[bytes]) -> list[bytes]:
    """The body cut into the blocks to send: `per_chunk` events each, compressed with `gzip`."""
    size = reply.per_chunk
    blocks = events if size == 1 else [b"".join(events[at : at + size]) for at in range(0, len(events), size)]
    blocks = [block for block in blocks if block]  # an empty HTTP chunk would end the body
    if not reply.gzip:
        return blocks
    squeeze = zlib.compressobj(wbits=31)
    packed = [squeeze.compress(block) + squeeze.flush(zlib.Z_SYNC_FLUSH) for block in blocks]
    return [*packed, squeeze.flush()]


def _body(reply: Reply, blocks: list[bytes], *, chunked: bool) -> list[Step]:
    plan: list[Step] = []
    limit = reply.cut if reply.cut is not None else reply.stall
    left = sum(map(len, blocks)) if limit is None else limit
    pause = reply.first_delay
    for block in blocks:
        if left <= 0:
            break
        plan += [pause] if pause else []
        sent = block[:left]
        opening = b"%x\r\n" % len(block) if chunked else b""
        closing = b"\r\n" if chunked and len(sent) == len(block) else b""
        plan.append(opening + sent + closing)
        left -= len(sent)
        pause = reply.delay
    if reply.cut is not None:
        plan.append(RESET if reply.reset else CLOSE)
    elif reply.stall is not None or reply.keep_open:
        plan.append(HOLD)
    elif chunked:
        plan.append(b"0\r\n\r\n")
    return plan


def _split(step: Step, size: int) -> Iterator[Step]:
    if not isinstance(step, bytes):
        yield step
        return
    for at in range(0, len(step), size):
        yield step[at : at + size]
