"""Where a copy goes, by what the living workers can run."""

from __future__ import annotations

from typing import Any

import pytest

from relier.knowledge import Actors, Knowledge, digest
from relier.routes import Route, Routes
from relier.settings import Settings
from relier.store import Due, Lot, Suspicion
from relier.store.holds import NO_HOLDS, Hold, Holds

OLD, NEW, NEWER = {"send": 1}, {"send": 1, "resize": 1}, {"send": 1, "resize": 3}
ACTORS: dict[str, Actors] = {digest(actors): actors for actors in (OLD, NEW, NEWER)}
#: What an older Relier told: names alone.
ACTORS["names"] = {"send": None, "resize": None}


def worker(*queues: str, has: dict[str, int] | None = NEW, **more: Any) -> dict[str, Any]:
    told = {"role": "worker", "queues": queues, **more}
    return told if has is None else {**told, "actors": digest(has)}


def knowledge(*workers: dict[str, Any]) -> Knowledge:
    return Knowledge.of(workers, ACTORS, lambda told: not told.get("elsewhere"))


def due(actor: str = "resize", crashes: int = 0, version: int = 1) -> Due:
    return Due("t", 0, 1, "s", Suspicion.NONE, crashes, 0, "default", actor, b"", version)


def route(workers: Knowledge, task: Due, recovery_queue: str = "own") -> Route:
    return Routes(Settings(recovery_queue=recovery_queue)).of(task, workers)


@pytest.mark.parametrize(
    ("fleet", "expected"),
    [
        ([worker("default")], Route("default")),
        ([worker("default", has=OLD), worker("default")], Route("default")),
        ([worker("default", has=None)], Route("default")),  # An older version tells nothing of its actors.
        ([], Route("", "no consumer")),
        ([worker("other")], Route("", "no consumer")),
        ([worker("default", elsewhere=True)], Route("", "no consumer")),
        ([worker("default", has=OLD)], Route("", "unknown actor")),
        ([worker("default", has=OLD), worker("other")], Route("", "no consumer")),  # Somebody has it.
        ([worker("default", has=OLD), worker("default", elsewhere=True)], Route("", "no consumer")),
        ([worker("default", has=OLD), worker("relier.resurrector.1", role="resurrector")], Route("", "unknown actor")),
    ],
)
def test_a_task_goes_where_somebody_can_run_it(fleet: list[dict[str, Any]], expected: Route) -> None:
    assert route(knowledge(*fleet), due()) == expected


@pytest.mark.parametrize(
    ("fleet", "version", "expected"),
    [
        ([worker("default", has=NEWER)], 1, Route("default")),
        ([worker("default", has=NEWER)], 3, Route("default")),
        ([worker("default", has=NEWER)], 4, Route("", "newer version")),
        ([worker("default"), worker("default", has=NEWER)], 3, Route("default")),
        ([worker("default")], 2, Route("", "newer version")),
        ([worker("default", has=OLD), worker("default")], 2, Route("", "newer version")),
        ([worker("default", has=OLD)], 2, Route("", "unknown actor")),
        ([worker("default"), worker("other", has=NEWER)], 3, Route("", "no consumer")),  # Somebody knows it.
        ([worker("other")], 2, Route("", "no consumer")),
        ([worker("default", has=None)], 9, Route("default")),
        ([worker("default", has=None, actors="names")], 9, Route("default")),
    ],
)
def test_a_task_goes_where_its_version_is_known(fleet: list[dict[str, Any]], version: int, expected: Route) -> None:
    assert route(knowledge(*fleet), due(version=version)) == expected
    assert route(knowledge(worker("re-queue"), *fleet), due(crashes=1, version=version), "re-queue").queue == (
        "re-queue" if version == 1 else expected.queue
    )


@pytest.mark.parametrize(("version", "leads"), [(1, True), (2, False)])
def test_a_lot_opens_when_somebody_knows_its_version(version: int, leads: bool) -> None:
    lot = Lot(0, "default", "resize", version)
    for queue in ("default", "re-queue"):
        routes = Routes(Settings(recovery_queue="re-queue"))
        assert routes.lead_anywhere(lot, knowledge(worker(queue)), news=True) == leads
        assert routes.lead_anywhere(lot, knowledge(worker(queue, has=NEWER)), news=True)


@pytest.mark.parametrize(
    ("fleet", "crashes", "expected"),
    [
        ([worker("default"), worker("re-queue")], 1, Route("re-queue")),
        ([worker("default"), worker("re-queue")], 0, Route("default")),
        ([worker("re-queue")], 1, Route("re-queue")),
        ([worker("re-queue")], 0, Route("", "no consumer")),
        ([worker("default"), worker("re-queue", has=OLD)], 1, Route("default")),
        ([worker("default")], 1, Route("default")),
    ],
)
def test_what_crashed_goes_to_the_recovery_pool(fleet: list[dict[str, Any]], crashes: int, expected: Route) -> None:
    assert route(knowledge(*fleet), due(crashes=crashes), "re-queue") == expected
    assert route(knowledge(worker("default"), *fleet), due(crashes=crashes)) == Route("default")


def test_a_missing_pool_is_warned_of_once_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    routes = Routes(Settings(recovery_queue="re-queue"))
    for _ in range(3):
        routes.of(due(crashes=1), knowledge(worker("default")))
    assert caplog.messages.count("Nobody consumes the recovery queue; its tasks go to their own queues.") == 1


def test_each_queue_and_each_actor_that_nobody_serves_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    routes = Routes(Settings())
    routes.warn_of([(due(), "no consumer"), (due("send"), "no consumer"), (due(), "unknown actor")])
    routes.warn_of([(due(version=2), "newer version"), (due(version=2), "newer version")])
    assert caplog.messages.count("Nobody consumes a queue with the actors of its tasks; they wait.") == 1
    assert caplog.messages.count("No worker has the actor of a task; it waits for one that has.") == 1
    assert caplog.messages.count("A task is newer than every worker's code; it waits for a newer worker.") == 1


def test_a_digest_names_actors_and_versions_in_any_order() -> None:
    assert digest({"a": 1, "b": 1}) == digest({"b": 1, "a": 1})
    assert len({digest({"a": 1, "b": 1}), digest({"ab": 1}), digest({"a": 1, "b": 2})}) == 3


PAUSED = Holds("1", {"default": Hold("queue", "default", 1.0)})
PARKED = Holds("1", {}, {"resize": Hold("actor", "resize", 1.0)})
NO_POOL = Holds("1", {"re-queue": Hold("queue", "re-queue", 1.0)})


@pytest.mark.parametrize(
    ("holds", "task", "expected"),
    [
        (PAUSED, due(), Route("", "paused")),
        (PAUSED, due(crashes=1), Route("", "paused")),  # In the pool it would be a task of its queue all the same.
        (PARKED, due(), Route("", "parked")),
        (PARKED, due("send"), Route("default")),
        (NO_POOL, due(crashes=1), Route("default")),
        (NO_HOLDS, due(crashes=1), Route("re-queue")),
    ],
)
def test_what_is_held_goes_nowhere(holds: Holds, task: Due, expected: Route) -> None:
    fleet = knowledge(worker("default"), worker("re-queue"))
    assert Routes(Settings(recovery_queue="re-queue")).of(task, fleet, holds) == expected


def test_lots_of_what_is_held_stay_closed(caplog: pytest.LogCaptureFixture) -> None:
    routes, fleet = Routes(Settings()), knowledge(worker("default"))
    lots = [Lot(0, "default", "resize"), Lot(0, "default", "send")]
    opened = [[routes.lead_anywhere(lot, fleet, True, holds) for lot in lots] for holds in (PAUSED, PARKED, NO_HOLDS)]
    assert opened == [[False, False], [False, True], [True, True]]
    routes.warn_of([(due(), "paused"), (due(), "parked")])
    assert not caplog.records
