"""Producers that are killed in the middle of a push, or fork: nothing is half accepted."""

from __future__ import annotations

import pytest

from tests.conformance.topologies import cases, where
from tests.integration.harness import Harness

PUSHES = {
    "push": "a.quick.push(1)",
    "a push with a delay": "a.quick.send_with_options(args=(1,), delay=300)",
    "a push of many": "a.quick.push_many([a.quick.message(i) for i in range(40)])",
}


@pytest.mark.parametrize(
    ("what", "topology"),
    cases({"push": ("embedded", "rabbitmq"), "a push with a delay": ()})
    + cases({"a push of many": ()}, needs="batches"),
    indirect=["topology"],
)
def test_a_producer_killed_before_and_after_its_push(what: str, fleet: Harness) -> None:
    """Before: nothing of it is anywhere. After: each of its tasks runs once."""
    before = fleet.producer(PUSHES[what], failpoints="before-enqueue=kill")
    assert before.popen.wait(60) == -9, before.text()
    assert fleet.unsettled(0) == ""
    assert set(fleet.store.live().values()) == {0}

    after = fleet.producer(PUSHES[what], failpoints="enqueued=kill")
    assert after.popen.wait(60) == -9, after.text()

    fleet.worker()
    count = 40 if "many" in what else 1
    assert fleet.settle(count)["completed"] == count
    assert len(fleet.effects("ran")) == count


@where(("embedded",))
def test_producers_killed_at_random_leave_whole_tasks(fleet: Harness) -> None:
    """Each push that returned is there; one that was cut short is there or not, and nothing else is."""
    fleet.worker()
    told = fleet.folder / "returned"
    producer = fleet.producer(f"""
with open({str(told)!r}, "w", buffering=1) as told:
    while True:
        print(a.quick.push(1).id, file=told)
        print(a.quick.send_with_options(args=(2,), delay=10).message_id, file=told)
""")
    fleet.wait(lambda: told.exists() and len(told.read_text().splitlines()) > 200, 60, "200 pushes")
    producer.popen.kill()
    producer.popen.wait()

    returned = set(told.read_text().splitlines())
    fleet.wait(lambda: not fleet.unsettled(len(returned)), 60, "the end of every task that was accepted")
    ran = fleet.counted("ran")
    counters = fleet.settle(len(ran), 60)

    assert counters["completed"] == len(ran)
    assert set(ran.values()) == {1}
    assert returned <= ran.keys()
    assert len(ran) - len(returned) in (0, 1)


FORKING = """
import os, sys
a.quick.push("parent before")
children = []
for i in range(3):
    child = os.fork()
    if child == 0:
        for j in range(20):
            a.quick.push([i, j])
        os._exit(0)
    children.append(child)
for j in range(20):
    a.quick.push(["parent", j])
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
a.quick.push("parent after")
sys.exit(max(map(abs, codes)))
"""


@where(("embedded", "rabbitmq"), never=("plain-rabbitmq", "sqlite"))  # These brokers share them with their forks.
def test_a_forked_producer_uses_connections_of_its_own(fleet: Harness) -> None:
    producer = fleet.producer(FORKING)
    assert producer.popen.wait(60) == 0, producer.text()

    fleet.worker()

    assert fleet.settle(82)["completed"] == 82
    details = [str(effect.detail) for effect in fleet.effects("ran")]
    assert len(details) == len(set(details)) == 82
