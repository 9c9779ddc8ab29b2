"""What becomes of a message that was delivered and not acknowledged."""

from __future__ import annotations

from relier.store import shard_of
from tests.conformance.topologies import FOREIGN, where
from tests.integration.harness import Harness


@where(never=FOREIGN)
def test_a_copy_that_the_store_cannot_judge_is_not_acknowledged(fleet: Harness) -> None:
    task, old = fleet.actors.quick.message(1), fleet.actors.quick.message_with_options(args=(2,), max_age=1)
    records = {fleet.store.keys.shard(shard_of(m.message_id), "")[0] for m in (task, old)}
    for key in records:
        fleet.store.runner.command("SET", key, "not a hash: every script of this shard fails")
    worker = fleet.worker()
    worker.wait_ready()

    fleet.broker.enqueue(task)
    fleet.broker.enqueue(old)

    fleet.wait(lambda: worker.text().count("Unhandled error during post_process_message") == 2, what="its refusal")
    assert fleet.held("default") == 2
    fleet.store.runner.commands(("DEL", key) for key in records)
    worker.kill()
    fleet.worker()
    counters = fleet.settle(2)
    assert counters["completed"] + counters["discarded"] == 2
    assert fleet.effects("ran", task.message_id)
