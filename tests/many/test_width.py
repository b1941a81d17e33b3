"""The width that adapts, against services that are simulated: no clock, no network, no chance."""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable

import pytest

from llmbridge.many.width import Width

Service = Callable[[float, int], tuple[float, bool]]
"""When a request comes, and how many are under way: how long it takes, and whether it is refused."""


START = 5000.0  # on the clock


def simulated(width: Width, service: Service, rows: int = 3000) -> tuple[float, float]:
    """Rows a second, and refusals a request."""
    random.seed(11)
    now, running, refusals = START, 0, 0
    ends: list[tuple[float, int, float, bool]] = []
    ready, waiting, done, sent = deque(range(rows)), [(float("inf"), -1)], 0, 0
    while done < rows:
        while waiting[0][0] <= now:
            ready.append(heapq.heappop(waiting)[1])
        while ready and width.room(running, now):
            row, running, sent = ready.popleft(), running + 1, sent + 1
            seconds, refused = service(now, running)
            width.sent(now)
            heapq.heappush(ends, (now + seconds, row, now, refused))
        room = width.room_at(running) if ready else float("inf")
        end = min(ends[0][0] if ends else float("inf"), waiting[0][0], room)
        if not ends or ends[0][0] > end:
            assert end > now
            now = end
            continue
        now, row, began, refused = heapq.heappop(ends)
        width.heard(began, now, running, refused, 1.0 if refused else 0.0)
        running -= 1
        if refused:
            refusals += 1
            heapq.heappush(waiting, (now + 1.0, row))
        else:
            done += 1
    return rows / (now - START), refusals / sent


def about(seconds: float) -> float:
    """Half of it to half as much again."""
    return seconds * (0.5 + random.random())


def steady(seconds: float) -> Service:
    """Takes everything, equally long."""
    return lambda now, running: (about(seconds), False)


def with_places(places: int) -> Service:
    """Refuses what comes while all places are taken."""
    return lambda now, running: (about(0.03), True) if running > places else (about(0.3), False)


def of_rate(a_second: int) -> Service:
    """Refuses what is more than that within a second."""
    times: deque[float] = deque()

    def service(now: float, running: int) -> tuple[float, bool]:
        while times and times[0] <= now - 1:
            times.popleft()
        if len(times) >= a_second:
            return about(0.03), True
        times.append(now)
        return about(0.3), False

    return service


def scattered(share: float) -> Service:
    """Refuses at random, whatever is asked of it."""
    return lambda now, running: (about(0.03), True) if random.random() < share else (about(0.3), False)


def queueing(places: int) -> Service:
    """Takes everything, and makes wait what is more than it can do at once."""
    return lambda now, running: (about(0.3) * max(1.0, running / places), False)


def test_it_doubles_until_it_is_refused() -> None:
    """Then it grows by a twentieth."""
    width = Width(None)
    assert width.now == 32
    rate, _ = simulated(width, steady(0.3), rows=10_000)
    assert width.now == 512
    assert rate > 700


@pytest.mark.parametrize(
    ("service", "best", "share", "refused"),
    [
        (of_rate(60), 60, 0.7, 0.15),
        (with_places(24), 80, 0.85, 0.02),
        (scattered(0.05), 1000, 0.5, 0.06),
    ],
    ids=["60 a second", "24 places", "5 % at random"],
)
def test_it_comes_near_what_the_service_allows(service: Service, best: float, share: float, refused: float) -> None:
    """With few refusals, and none that has nothing to do with the width makes it crawl."""
    rate, refusals = simulated(Width(None), service)
    assert rate > share * best
    assert refusals < refused


def by_the_second(a_second: int) -> Service:
    """Answers in 50 ms what is not more than that in each second of the clock, and refuses the rest at once."""
    counts: Counter[int] = Counter()

    def service(now: float, running: int) -> tuple[float, bool]:
        counts[int(now)] += 1
        return (0.003, True) if counts[int(now)] > a_second else (0.05, False)

    return service


def from_a_bucket(a_second: int, size: float) -> Service:
    """A bucket that fills with so many a second."""
    level, filled = size, START

    def service(now: float, running: int) -> tuple[float, bool]:
        nonlocal level, filled
        level, filled = min(size, level + a_second * (now - filled)), now
        if level < 1:
            return 0.003, True
        level -= 1
        return 0.05, False

    return service


@pytest.mark.parametrize(
    ("service", "share"),
    [(by_the_second(60), 0.9), (from_a_bucket(60, 60), 0.9), (from_a_bucket(60, 6), 0.6)],
    ids=["by the second", "a bucket", "a small bucket"],
)
def test_it_learns_the_pace_of_a_service_that_counts_by_time(service: Service, share: float) -> None:
    """Though its answers come so soon that three requests at once are enough."""
    rate, refusals = simulated(Width(None), service, rows=600)
    assert rate > share * 60
    assert refusals < 0.15


@pytest.mark.parametrize("late", [tenth / 10 for tenth in range(10)])
@pytest.mark.parametrize("size", [None, 60], ids=["by the second", "a bucket"])
def test_it_keeps_the_pace(size: int | None, late: float) -> None:
    """For a long time, wherever in the service's second it began, and whatever its answers take."""
    counts = by_the_second(60) if size is None else from_a_bucket(60, size)

    def service(now: float, running: int) -> tuple[float, bool]:
        seconds, refused = counts(now + late, running)
        return seconds * (1 + late * random.random()), refused

    width = Width(None)
    rate, refusals = simulated(width, service, rows=3000)
    assert rate > 0.9 * 60
    assert refusals < 0.1
    assert width.now >= 20  # refusals have nothing to do with it


def test_slow_answers_of_a_service_that_counts_by_time_are_under_way_in_great_number() -> None:
    """Six seconds each: sixty a second need 360 at once."""
    counts = from_a_bucket(60, 10)

    def service(now: float, running: int) -> tuple[float, bool]:
        seconds, refused = counts(now, running)
        return seconds if refused else about(6), refused

    width = Width(None)
    rate, _ = simulated(width, service, rows=3000)
    assert rate > 0.5 * 60  # all in all: it begins with five a second
    assert width.now > 360


def test_it_stays_where_the_service_takes_no_more() -> None:
    """Longer each time, up to 16 rounds."""
    width, rounds = Width(None), Counter[int]()
    for _ in range(5):
        width.heard(sent=0.0, now=1.0, running=32, refused=True)
    for second in range(2, 80):
        rounds[width.now] += 1
        for number in range(max(width.now, 20)):
            width.heard(sent=second, now=second + 1.0, running=width.now, refused=number == 7 and width.now > 24)
    assert rounds == {22: 1, 23: 1, 24: 70, 25: 6}


def test_it_notices_that_the_service_allows_more() -> None:
    """Ten times as much after ten seconds."""
    before, after = by_the_second(60), by_the_second(600)
    rate, _ = simulated(Width(None), lambda now, running: (before if now < START + 10 else after)(now, running), 6000)
    assert rate > 200


def test_a_few_scattered_refusals_do_not_cut_it() -> None:
    """Two in a round, however short."""
    width = Width(None)
    for number in range(32):
        width.heard(0.0, 1.0, 32, refused=number in (3, 17), wait=1.0)
    assert width.now == 64
    assert width.room(60, now=2.0)


def test_it_gets_over_a_cut_that_was_an_accident() -> None:
    """Beyond the width at which it was cut, it grows faster and faster again."""
    width = Width(None)
    for _ in range(5):
        width.heard(sent=0.0, now=1.0, running=32, refused=True)
    assert width.now == 22
    widths = []
    for second in range(2, 24):
        for _ in range(width.now):
            width.heard(sent=second, now=second + 1.0, running=width.now)
        widths.append(width.now)
    assert widths[9:12] == [32, 33, 36]
    assert widths[-1] == 512


def test_a_cut_counts_once_a_round() -> None:
    """What was sent before it says nothing about the width behind it."""
    width = Width(None)
    for _ in range(32):
        width.heard(sent=0.0, now=1.0, running=32, refused=True, wait=0.0)
    assert width.now == 22
    for _ in range(4):
        width.heard(sent=2.0, now=3.0, running=22, refused=True, wait=9.0)
    assert width.now == 15
    for _ in range(22):
        width.heard(sent=3.5, now=3.6, running=15, refused=True, wait=9.0)  # the service has asked for more patience
    assert width.now == 15


def test_all_wait_where_most_are_refused() -> None:
    """For as long as the service asks; more than half of a round, not of the first answers in it."""
    width = Width(20)
    for number in range(19):
        width.heard(sent=0.0, now=1.0, running=20, refused=number > 2, wait=20.0)
    assert width.room(0, now=1.0)
    width.heard(sent=0.0, now=1.0, running=20, refused=True, wait=20.0)
    assert not width.room(0, now=20.9)
    assert width.room_at(0) == 21.0
    assert width.room(0, now=21.0)


def test_the_place_of_a_refusal_rests() -> None:
    """For as long as an answer takes: else the next row would be refused in it at once."""
    width = Width(2)
    width.heard(sent=0.0, now=0.5, running=1)
    width.heard(sent=0.5, now=0.51, running=2, refused=True, wait=9.0)
    assert not width.room(1, now=0.6)
    assert width.room(0, now=0.6)
    assert width.room_at(1) == 1.01
    assert width.room(1, now=1.01)


def test_it_does_not_grow_unless_it_is_used() -> None:
    """The input, or the loop over the rows, may be slower."""
    width = Width(None)
    for _ in range(1000):
        width.heard(sent=0.0, now=1.0, running=5)
    assert width.now == 32


def test_a_service_that_queues_is_not_flooded() -> None:
    """It refuses nothing, and becomes slower instead."""
    width = Width(None)
    rate, _ = simulated(width, queueing(24))
    assert width.now < 400
    assert rate > 60


def test_rows_that_become_longer_do_not_make_it_crawl() -> None:
    """Ten times as long from one row to the next."""
    width = Width(None)
    simulated(width, lambda now, running: (0.1 if now < START + 1 else 1.0, False), rows=20_000)
    assert width.now > 200


def test_it_keeps_within_bounds() -> None:
    """Those of the client's limits, and a fixed one."""
    width = Width(None, most=5)
    assert width.now == 5
    simulated(width, steady(0.1))
    assert width.now == 5
    fixed = Width(7)
    simulated(fixed, with_places(3), rows=100)
    assert fixed.now == 7
    one = Width(None)
    for number in range(1000):
        one.heard(sent=number, now=number + 0.5, running=1, refused=True)
    assert one.now == 1


def test_refusals_alone_for_minutes_are_hopeless() -> None:
    """One answer between them, and it goes on."""
    width = Width(4)
    for second in range(0, 600, 40):
        width.heard(sent=second, now=second + 1, running=1, refused=True)
    assert width.hopeless(now=600)
    width.heard(sent=600, now=601, running=1)
    assert not width.hopeless(now=601)
