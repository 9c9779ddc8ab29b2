"""How deep queues are, and how long they take to get shorter."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from relier import AdmissionRejectedError, rl_actor
from relier.backlog import LATEST, SOONEST, UNKNOWN, Backlog
from relier.brokers.redis import RelierRedisBroker
from relier.settings import Settings
from tests.waiting import wait_until


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time that the module sees, as the only item."""
    now = [1000.0]
    monkeypatch.setattr("relier.backlog._now", lambda: now[0])
    return now


@pytest.fixture
def depths() -> list[int | None]:
    return []


@pytest.fixture
def watched(clock: list[float], depths: list[int | None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Backlog]:
    """One that measures when the test says so."""
    monkeypatch.setattr(Backlog, "_start", lambda self: None)
    yield Backlog(lambda queue: depths[-1], 100)


def wait_for(backlog: Backlog) -> float:
    deep = backlog.too_deep("q")
    return deep.wait if deep else 0.0


def test_a_queue_that_is_not_deep_is_open(watched: Backlog, depths: list[int | None]) -> None:
    assert wait_for(watched) == 0
    depths.append(99)
    watched.measure("q")
    assert wait_for(watched) == 0


def test_the_wait_follows_the_rate_at_which_the_queue_drains(
    watched: Backlog, depths: list[int | None], clock: list[float]
) -> None:
    depths.append(200)
    watched.measure("q")
    assert wait_for(watched) == UNKNOWN
    for depth in (190, 180):
        clock[0] += 1
        depths.append(depth)
        watched.measure("q")
    assert wait_for(watched) == pytest.approx(8.1)

    clock[0] += 1
    depths.append(100)
    watched.measure("q")
    assert wait_for(watched) == SOONEST
    depths.append(10_000)
    watched.measure("q")
    assert wait_for(watched) == LATEST


def test_what_is_old_or_cannot_be_told_closes_nothing(
    watched: Backlog, depths: list[int | None], clock: list[float]
) -> None:
    depths.append(200)
    watched.measure("q")
    clock[0] += 6
    assert wait_for(watched) == 0
    watched.measure("q")
    assert wait_for(watched) > 0
    depths.append(None)
    watched.measure("q")
    assert wait_for(watched) == 0
    depths.clear()  # It raises.
    watched.measure("q")
    assert wait_for(watched) == 0


def test_pushes_are_refused_while_too_many_tasks_wait(settings: Settings) -> None:
    broker = RelierRedisBroker(settings=settings.model_copy(update={"admission_max_depth": 3}))

    def work(n: int) -> None: ...

    actor = rl_actor(broker=broker)(work)

    def push() -> bool:
        try:
            actor.push(1)
        except AdmissionRejectedError as error:
            found = re.search(
                r"too many tasks wait in queue 'default': (\d+), RELIER_ADMISSION_MAX_DEPTH is 3;", str(error)
            )
            assert found, error
            assert int(found[1]) >= 3
            assert error.retry_after > 0
            return False
        return True

    wait_until(lambda: not push(), 60, "a refusal")
    with pytest.raises(AdmissionRejectedError):
        actor.push_many([actor.message(1)])
    broker.flush("default")
    wait_until(push, 60, "room in the queue")
    broker.close()
    broker.store.close()
