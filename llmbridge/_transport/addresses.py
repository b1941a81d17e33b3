"""Connects to a host of which some addresses may be dead: RFC 8305, "Happy Eyeballs", without an event loop.

The calling thread waits for all attempts at once. The call knows one of the sockets, and shuts it down when it ends,
which wakes the thread.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import selectors
import socket
from collections import deque
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

from llmbridge._locks import monotonic
from llmbridge._transport.call import Call

__all__ = ["Address", "failed", "reach"]

Address = tuple[Any, ...]
"""As from getaddrinfo: family, kind, protocol, name, and the socket address."""

_HEAD_START = 0.25  # seconds, as RFC 8305, 5, recommends
_RANKED = 256
_ranks: dict[Address, float] = {}
"""When an address failed last; negative: when it accepted. Smaller ones are tried earlier."""
_NO_WAY = (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)  # needs no file descriptor


def reach(call: Call, host: str, port: int, options: Any, source: Any) -> tuple[socket.socket, Address]:
    """A socket connected to the host, and the address that accepted.

    Args:
        call: Its timeout applies; it may be cancelled.
        host: A name or an address.
        port: The port.
        options: Tuples of arguments for `setsockopt`.
        source: The address to connect from, or None.

    Raises:
        OSError: No address accepted; the most telling failure.
        UnicodeError: The name cannot be looked up.
        Cancelled, ClockExpired: The call has ended.
    """
    addresses = _addresses(call, host, port)
    call.check()
    if not addresses:
        raise OSError(errno.EADDRNOTAVAIL, "the name has no address")
    if len(addresses) > 1:
        return _first_of(call, addresses, options, source)
    try:
        return _socket_to(call, addresses[0], options, source), addresses[0]
    except OSError:
        call.check()
        raise


def failed(address: Address) -> None:
    """From now on tries this address after the others."""
    _rank(address, monotonic())


def _rank(address: Address, rank: float) -> None:
    if len(_ranks) >= _RANKED:
        _ranks.clear()
    _ranks[address] = rank


def _in_turn(addresses: Iterable[Address]) -> list[Address]:
    """Addresses in the order in which they are tried: the families take turns (RFC 8305, 4).

    The address that accepted last comes first; if none has, the resolver's first one. One that failed comes last, and
    its family after the other: a broken IPv6 network breaks all of its addresses.
    """

    def rank(address: Address) -> float:
        return _ranks.get(address, 0)

    families: dict[Any, list[Address]] = {}
    for address in sorted(dict.fromkeys(addresses), key=rank):
        families.setdefault(address[0], []).append(address)
    ordered = sorted(families.values(), key=lambda family: (rank(family[0]), rank(family[-1])))
    return [address for row in zip_longest(*ordered) for address in row if address is not None]


def _first_of(call: Call, addresses: list[Address], options: Any, source: Any) -> tuple[socket.socket, Address]:
    """A socket connected to the first address that accepts. Each has a head start over the next, unless it fails."""
    ahead = deque(_in_turn(addresses))
    connecting: dict[socket.socket, Address] = {}
    failures: list[OSError] = []
    winner: socket.socket | None = None
    try:
        while winner is None and (ahead or connecting):
            if ahead:
                address = ahead.popleft()
                try:
                    connecting[_socket_to(call, address, options, source, blocking=False)] = address
                except OSError as error:
                    failures.append(error)
                    failed(address)
                    continue
            call.attach([*connecting][-1])  # if the call ends, it shuts this socket down, which ends the wait for all
            answered = _answered(connecting)
            call.check()
            for sock in answered:
                if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    failures.append(OSError(number, os.strerror(number)))
                    failed(connecting.pop(sock))
                    sock.close()
                elif winner is None:
                    winner = sock
    finally:
        call.attach(winner)
        for sock, address in connecting.items():
            if sock is winner:
                _rank(address, -monotonic())
                continue
            sock.close()
            if not call.cancelled:
                failed(address)
    if winner is None:
        call.check()
        raise max(failures, key=_informative)
    winner.setblocking(True)
    return winner, connecting[winner]


def _socket_to(call: Call, address: Address, options: Any, source: Any, blocking: bool = True) -> socket.socket:
    """A socket that is connected to the address or, if it does not block, is about to be."""
    sock = socket.socket(*address[:3])
    try:
        for option in options or ():
            sock.setsockopt(*option)
        if source:
            sock.bind(source)
        if blocking:
            call.attach(sock)
            sock.connect(address[4])
        else:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(address[4])
    except BaseException:
        call.attach(None)
        sock.close()
        raise
    return sock


def _answered(connecting: Iterable[socket.socket]) -> list[Any]:
    """The sockets whose connection succeeded or failed; none if that takes longer than the head start."""
    with _Selector() as selector:
        for sock in connecting:
            selector.register(sock, selectors.EVENT_WRITE)
        return [key.fileobj for key, _ in selector.select(_HEAD_START)]


def _informative(failure: OSError) -> tuple[bool, bool]:
    """Ranks failures: a refusal tells most, a missing route on this machine least."""
    return isinstance(failure, ConnectionError), failure.errno not in _NO_WAY


def _addresses(call: Call, host: str, port: int) -> list[Any]:
    if _is_address(host):
        return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    return call.run(lambda: socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
