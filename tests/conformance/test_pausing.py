"""A paused queue: none of its tasks is started, all are there when it is resumed, and everything else goes on."""

from __future__ import annotations

from relier.brokers.adapters import adapter_of
from relier.holds import pause_queue, resume_queue
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import FOREIGN, where
from tests.integration import urgent_actors
from tests.integration.harness import Harness, Process, ids


def pause(fleet: Harness, queue: str = "default") -> None:
    assert pause_queue(fleet.store, queue, "a test", "because")[0]
    everybody_knows(fleet)


def resume(fleet: Harness, queue: str = "default") -> None:
    assert resume_queue(fleet.store, queue)[0]


def everybody_knows(fleet: Harness) -> None:
    """Wait until each process has beaten twice: the second beat began after now, and its answer tells what is held."""
    before = fleet.store.fleet.observe().beats
    fleet.wait(
        lambda: all(
            fleet.store.fleet.observe().beats.get(worker, beat + 2) >= beat + 2 for worker, beat in before.items()
        ),
        what="two beats of everybody",
    )


def busy_worker(fleet: Harness, fetched: int) -> tuple[Process, str, list[str]]:
    """Return a worker whose one thread runs a gated task, that one, and tasks that it has fetched besides."""
    worker = fleet.worker(threads=1)
    running = fleet.actors.gated.push(fleet.gate()).id
    fleet.wait(lambda: fleet.effects("began", running), what="a running task")
    return worker, running, ids(fleet.actors.quick.push(i) for i in range(fetched))


def reasons(fleet: Harness, *tasks: str) -> list[str]:
    return [record.reason for task in tasks if (record := fleet.record(task))]


@where(("embedded", "rabbitmq", "sqlite"))
def test_a_paused_queue_rests_and_the_others_go_on(fleets: Fleets) -> None:
    fleet = fleets()
    urgent = urgent_actors.use(fleet)
    worker, running, fetched = busy_worker(fleet, 6)
    assert worker.pid

    pause(fleet)
    fleet.open_gate()
    others = ids(urgent.push(i) for i in range(10))
    fleet.wait(lambda: set(fleet.counted("ran")) >= {running, *others}, what="the running one and the other queue")
    new = fleet.worker()
    new.wait_settled_in()
    later = ids(fleet.actors.quick.push(i) for i in range(3))
    others += ids(urgent.push(i) for i in range(10))
    fleet.wait(lambda: set(fleet.counted("ran")) >= {running, *others}, what="the other queue")
    assert set(fleet.counted("ran")) == {running, *others}

    resume(fleet)
    counters = fleet.settle(30)
    assert fleet.counted("ran") == dict.fromkeys([running, *fetched, *later, *others], 1)
    assert counters["completed"] == 30
    assert [counters.get(name, 0) for name in ("crashes", "failed", "refused")] == [0, 0, 0]


@where(never=FOREIGN)
def test_what_was_fetched_goes_back_to_the_broker_in_order(fleets: Fleets) -> None:
    fleet = fleets()
    _, running, fetched = busy_worker(fleet, 6)
    depth = adapter_of(fleet.broker).depth

    pause(fleet)

    fleet.wait(lambda: depth("default") == 6, what="all of them in the broker")
    fleet.open_gate()
    resume(fleet)
    fleet.settle(7)
    assert [effect.task for effect in fleet.effects("ran")] == [running, *fetched]


@where(("embedded", "rabbitmq"))
def test_what_comes_due_waits_in_the_store_and_says_why(fleets: Fleets) -> None:
    fleet = fleets()
    fleet.resurrector()
    victim = fleet.worker(threads=1)
    orphan = fleet.actors.gated.push(fleet.gate()).id
    fleet.wait(lambda: fleet.effects("began", orphan), what="its start")
    delayed = fleet.actors.quick.send_with_options(args=(1,), delay=1).message_id

    pause(fleet)
    victim.kill()
    fleet.worker().wait_settled_in()

    in_store = [orphan, delayed] if adapter_of(fleet.broker).delays_in_store else [orphan]
    fleet.wait(lambda: reasons(fleet, *in_store) == ["paused"] * len(in_store), what="their reasons")
    fleet.open_gate()
    resume(fleet)
    counters = fleet.settle(2)
    assert fleet.counted("ran") == {orphan: 1, delayed: 1}
    assert counters["crashes"] == 1
