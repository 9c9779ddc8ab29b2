"""What was changed on its way, or comes from nobody with a key, is kept and not run, and never signed on the way."""

from __future__ import annotations

import time
from typing import Any

from dramatiq import Message, pipeline

from relier.brokers import default_broker
from relier.dlq import DeadLetters
from relier.envelope import OPTION
from relier.settings import Settings
from tests.conformance.conftest import Fleets
from tests.conformance.raw_broker import put, take
from tests.conformance.topologies import FOREIGN, where
from tests.integration.actors import Actors
from tests.integration.harness import Harness

OLD, NEW = "old:" + 32 * "a", "new:" + 32 * "b"
BAD = "PayloadIntegrityError"


def changed(message: Message[Any], **fields: Any) -> Message[Any]:
    """Return a message that claims to be this one."""
    options = {**message.options, **fields.pop("options", {})}
    return Message(**{**message.asdict(), **fields, "options": options})


@where(("embedded", "rabbitmq", "plain-redis"))
def test_what_was_changed_is_kept_and_not_run_and_hurts_no_other_task(fleets: Fleets) -> None:
    fleet = fleets(signing_keys=OLD)
    fleet.actors.quick.push(1)
    true = take(fleet)
    stamp = true.options[OPTION]
    later = int(time.time() * 1000) + 3_600_000
    forged = [
        changed(true, args=(2,)),
        changed(true, args=(3,), options={OPTION: {**stamp, "g": None}}),
        changed(true, args=(4,), options={OPTION: {**stamp, "g": ["stranger", stamp["g"][1]]}}),
        changed(true, args=(5,), options={"eta": later}),
        changed(true, actor_name="unheard_of", args=(6,)),
        changed(true, args=(7,), options={"max_age": 1}, message_timestamp=1),
        changed(true, args=(8,), options={OPTION: {**stamp, "f": 9}}),
        changed(true, args=(9,), options={"on_success": "quick"}),
        Message("default", "quick", (10,), {}, {}),
        changed(true, actor_name=["quick"], args=(11,)),
    ]
    for message in [*forged, true]:
        put(fleet, message)

    fleet.worker().wait_ready()
    fleet.wait(lambda: len(fleet.dead_ones()) == len(forged), what="a dead letter of each")
    fleet.settle(1 + len(forged))

    assert [effect.detail for effect in fleet.effects("ran")] == [1]
    assert fleet.dead_ones() == [BAD] * len(forged)
    assert fleet.store.counters()["integrity_failures"] == len(forged)
    letters = [fleet.record(task) for task, _, _ in fleet.store.dead_letters(20)]
    kept = [Message.decode(letter.body).args[0] for letter in letters if letter is not None]
    assert sorted(kept) == list(range(2, 12))
    assert "a" * 32 not in "".join(process.text() for process in fleet.processes)


@where(("embedded", "rabbitmq"), never=FOREIGN)
def test_two_generations_of_keys_work_together(fleets: Fleets) -> None:
    fleet = fleets(signing_keys=OLD)
    first = fleet.worker(signing_keys=f"{OLD},{NEW}")
    fleet.resurrector(signing_keys=f"{OLD},{NEW}").wait_ready()
    first.wait_ready()
    newer = default_broker(Settings(**{**fleet.options, "signing_keys": f"{NEW},{OLD}"}))
    generations = Actors(newer), fleet.actors
    send_pipelines(*generations)
    second = fleet.worker(signing_keys=f"{NEW},{OLD}")
    second.wait_ready()
    send_pipelines(*generations)
    for a in generations:
        a.flaky.push(2)
    fleet.settle(42)
    newer.close()
    assert fleet.dead_ones() == []


def send_pipelines(*generations: Actors) -> None:
    for a in generations:
        for i in range(5):
            pipeline([a.add.message(i, 1), a.add.message(1)], broker=a.broker).run()  # type: ignore[no-untyped-call]


@where(("embedded", "rabbitmq"))
def test_what_a_missing_key_refused_runs_once_the_key_is_there_and_the_letter_is_released(fleets: Fleets) -> None:
    fleet = fleets(signing_keys=OLD)
    receipt = fleet.actors.quick.push(1)
    without = fleet.worker(signing_keys=NEW)
    without.wait_ready()
    fleet.wait(lambda: fleet.dead_ones() == [BAD], what="a dead letter")
    ((letter, _, _),) = fleet.store.dead_letters(1)
    assert letter != receipt.id
    release(fleet, letter)
    fleet.wait(lambda: fleet.store.counters()["integrity_failures"] == 2, what="the letter refused again")
    without.stop()

    fleet.worker(signing_keys=f"{NEW},{OLD}").wait_ready()
    release(fleet, letter)
    fleet.settle(2)

    assert list(fleet.counted("ran")) == [receipt.id]
    assert fleet.store.counters()["discarded:reissued"] == 1


@where(("embedded", "plain-redis"))
def test_nothing_signs_what_came_unsigned(fleets: Fleets) -> None:
    """Retries, delays that are over, later stages, callbacks and releases: all of them stay what they came as."""
    fleet = fleets(signing_keys=OLD)
    a = fleet.actors
    a.quick.push(0)
    take(fleet)  # RabbitMQ has the queue now.
    piped = a.add.message(1, 2).copy(options={"pipe_target": a.add.message(3).asdict()})
    delayed = a.quick.message(4).copy(options={"eta": int(time.time() * 1000) + 500})
    for message in (piped, delayed, a.flaky.message(1), a.broken.message("dead")):
        put(fleet, message)

    migrating = fleet.worker(signing_required="false")
    migrating.wait_ready()
    fleet.settle(5)
    assert fleet.store.counters()["unsigned"] == 6  # One of them ran twice.
    assert fleet.dead_ones() == ["TypeError"]
    ((dead, _, _),) = fleet.store.dead_letters(1)
    migrating.stop()

    fleet.worker().wait_ready()
    release(fleet, dead)
    fleet.wait(lambda: fleet.dead_ones() == [BAD], what="the released one refused")
    assert len(fleet.effects("ran")) == 6
    record = fleet.record(dead)
    assert record is not None
    assert "g" not in Message.decode(record.body).options.get(OPTION, {})


def release(fleet: Harness, task_id: str) -> None:
    assert DeadLetters(fleet.store).release(task_id) == {task_id: "released"}
