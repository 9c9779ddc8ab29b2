"""An actor of which many tasks fail alike is parked: its other tasks wait until other code comes."""

from __future__ import annotations

from typing import Any

from relier import rl_actor
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import where
from tests.integration.harness import Harness, Process, ids

#: A release of an application; what is wrong with it is not in its actor.
TASKS = """
import dramatiq
from relier import rl_actor
from tests.integration.actors import note
from shop_amounts import amount_of

@rl_actor(broker=dramatiq.get_broker())
def ship(order):
    note("ran", order)
    amount_of(order)
"""
BROKEN = "def amount_of(order):\n    raise TypeError(f'order {order} has no amount')\n"
FIXED = "def amount_of(order):\n    return 1\n"
MANY = 3
PARKED = "An actor is parked: too many of its tasks failed alike."


def deploy(fleet: Harness, helper: str) -> Process:
    """Put a release in the place of the one before, and start a worker of it."""
    (fleet.folder / "shop_tasks.py").write_text(TASKS)
    (fleet.folder / "shop_amounts.py").write_text(helper)
    worker = fleet.worker(actors=f"{fleet.actor_module},shop_tasks")
    worker.wait_ready()
    return worker


@where(("embedded",))
def test_a_parked_actors_tasks_wait_until_other_code_runs_them(fleets: Fleets) -> None:
    fleet = fleets(park_after=MANY)
    ship: Any = rl_actor(lambda order: None, actor_name="ship", broker=fleet.broker)
    old = deploy(fleet, BROKEN)
    failed = ids(ship.push(i) for i in range(MANY))
    fleet.wait(lambda: PARKED in old.text(), what="the actor parked")
    waiting = ids(ship.push(i) for i in range(20))

    def are_parked() -> bool:
        records = [fleet.record(task) for task in waiting]
        return all(record is not None and (record.state, record.reason) == ("s", "parked") for record in records)

    fleet.wait(are_parked, what="tasks that wait, and say why")
    assert fleet.counted("ran") == dict.fromkeys(failed, 1)
    assert fleet.dead_ones() == ["TypeError"] * MANY

    assert old.stop() == 0
    again = deploy(fleet, BROKEN)
    waiting += ids(ship.push(i) for i in range(2))
    fleet.wait(are_parked, what="the same code changes nothing")

    new = deploy(fleet, FIXED)
    fleet.wait(lambda: all(task in fleet.counted("ran") for task in waiting), what="other code")
    counters = fleet.settle(MANY + len(waiting))
    assert (counters["completed"], counters["dead"]) == (len(waiting), MANY)
    assert {effect.pid for effect in fleet.effects("ran") if effect.task in waiting} == {new.pid}

    assert again.stop() == 0
    fleet.wait(lambda: not fleet.store.fleet.holds().actors, what="nothing held for code that is gone")
