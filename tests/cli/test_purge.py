"""`rl queue purge` and `rl admin reset`: what they say, what they insist on, and what they touch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from dramatiq import Message

from relier import rl_actor
from relier.brokers.redis import RelierRedisBroker
from relier.settings import Settings
from relier.store import Store
from tests.cli.conftest import CommandLine, Tasks

#: What differs between servers is tested in tests/store.
pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


@pytest.fixture
def broker(store_url: str) -> Iterator[RelierRedisBroker]:
    with closing(RelierRedisBroker(settings=Settings(redis_url=store_url))) as broker:
        yield broker


def queued(broker: RelierRedisBroker, count: int, queue: str = "default", actor: str = "work") -> None:
    for number in range(count):
        broker.enqueue(Message[Any](queue, actor, (number,), {}, {}))


def test_a_purge_tells_what_it_found_and_where(rl: CommandLine, tasks: Tasks, broker: RelierRedisBroker) -> None:
    queued(broker, 3)
    queued(broker, 2, "low_priority")
    tasks.scheduled()
    tasks.dead()
    tasks.running()

    data = rl.json("queue", "purge", "--all", "--yes")

    assert data.pop("before")
    assert data == {
        "done": True,
        "queues": [],
        "actor": None,
        "tasks": 6,
        "in_broker": {"default": 3, "low_priority": 2},
        "in_store": 1,
        "late_copies": 0,
        "unread_messages": 0,
        "warnings": [],
    }
    counters = tasks.store.counters()
    assert (counters["discarded:purged"], tasks.store.live()["dead_letters"]) == (6, 1)
    assert broker.do_qsize("default") == 0
    assert rl("audit").returncode == 0


def test_without_yes_it_says_what_it_would_do_and_that_is_misuse(
    rl: CommandLine, tasks: Tasks, broker: RelierRedisBroker
) -> None:
    queued(broker, 3)
    tasks.scheduled()

    asked = rl("queue", "purge", "default")
    dry = rl("queue", "purge", "default", "--dry-run", "--yes")

    assert (asked.returncode, dry.returncode) == (2, 0)
    for done in (asked, dry):
        assert done.stdout.startswith("4 tasks would be purged: 3 in the broker (default 3), 1 in the store.\n")
    assert asked.stderr == "Nothing was done. Add --yes to do it.\n"
    assert broker.do_qsize("default") == 3
    assert tasks.store.purges.marks() == 0


def test_a_task_that_the_store_has_and_the_broker_too_is_told_once(
    rl: CommandLine, broker: RelierRedisBroker, store: Store
) -> None:
    actor = rl_actor(job_key="{number}", broker=broker, actor_name="work")(lambda number: None)
    actor.push(1)

    for arguments, done in (((), 2), (("--yes",), 0)):
        told = rl("queue", "purge", "--all", *arguments)
        assert (told.returncode, told.stdout.splitlines()[0].split(" purged")[-1]) == (
            done,
            ": 1 in the broker (default 1), 0 in the store.",
        )


def test_a_purge_takes_what_is_named_and_leaves_the_rest(
    rl: CommandLine, tasks: Tasks, broker: RelierRedisBroker
) -> None:
    queued(broker, 2)
    queued(broker, 3, actor="other")
    queued(broker, 4, "low_priority")

    done = rl("queue", "purge", "default", "--actor", "work", "--yes")

    assert done.stdout.startswith("2 tasks purged: 2 in the broker (default 2), 0 in the store.\n"), done.stderr
    assert (
        "Not among them: what workers have fetched and not begun. It ends as purged when they begin it." in done.stdout
    )
    assert (broker.do_qsize("default"), broker.do_qsize("low_priority")) == (3, 4)
    assert rl.json("queue", "purge", "--actor", "other", "--older-than", "1h", "--yes")["tasks"] == 0
    assert rl.json("queue", "purge", "--actor", "work", "--yes")["in_broker"] == {"low_priority": 4}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Name queues, or --actor NAME, or --all."),
        (("default", "--all"), "--all purges every queue and actor: name none beside it."),
        (("default", "--older-than", "soon"), "'soon' is no length of time such as 90s, 30m, 2h or 1d"),
        (("default", "--older-than", "0"), "'0' is no length of time such as 90s, 30m, 2h or 1d"),
    ],
)
def test_a_purge_of_nothing_in_particular_is_misuse(rl: CommandLine, arguments: tuple[str, ...], said: str) -> None:
    done = rl("queue", "purge", *arguments, "--yes")

    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_a_queue_that_nobody_knows_is_named_with_those_there_are(rl: CommandLine) -> None:
    done = rl("queue", "purge", "defualt", "--yes")

    assert (done.returncode, done.stdout) == (1, "")
    assert "Nobody knows the queue 'defualt'. There are 'default'" in done.stderr


def test_a_purge_without_its_redis_is_an_error_in_one_line(rl: CommandLine) -> None:
    done = rl("queue", "purge", "--all", "--yes", redis_url="redis://127.0.0.1:1")

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Relier cannot reach Redis" in done.stderr


@pytest.mark.parametrize("kind", ["redis", "amqp"])
def test_a_broker_that_is_away_hinders_no_mark(rl: CommandLine, tasks: Tasks, kind: str) -> None:
    tasks.scheduled()
    url = f"{kind}://127.0.0.1:1"

    before = rl("queue", "purge", "--all", "--dry-run", broker_url=url)
    done = rl("queue", "purge", "--all", "--yes", broker_url=url)

    assert before.returncode == 1
    assert "The broker does not answer" in before.stdout

    assert done.returncode == 1
    assert "1 task purged" in done.stdout
    assert "The broker does not answer" in done.stdout
    assert tasks.store.purges.marks() == 1


# -- rl admin reset -------------------------------------------------------------------------------------------------


def test_a_reset_removes_what_is_relier_s_in_its_namespace_and_nothing_else(
    rl: CommandLine, tasks: Tasks, broker: RelierRedisBroker, store: Store
) -> None:
    tasks.dead()
    tasks.scheduled()
    queued(broker, 2)
    others = ["rl:relier:x:{00}:rec", "rl:relier2:{00}:rec", "rl:relier:{64}:rec", "rl:relier:note", "mine"]
    for name in others:
        store.client.set(name, "1")

    data = rl.json("admin", "reset", "--yes")

    left = {key.decode() for key in store.client.scan_iter()}
    assert set(others) <= left
    assert not [key for key in left if key.startswith(("rl:relier:{0", "rl:relier:{1"))]
    assert broker.do_qsize("default") == 2
    assert (data["namespace"], data["dead_letters"], data["waiting"], data["messages"]) == (
        "relier",
        1,
        1,
        {"default": 2},
    )
    assert data["keys"] > 3


def test_a_reset_is_done_on_purpose_and_says_what_it_would_forget(
    rl: CommandLine, tasks: Tasks, broker: RelierRedisBroker
) -> None:
    tasks.dead()
    queued(broker, 2)

    done = rl("admin", "reset")

    assert done.returncode == 2
    assert "This forgets 1 tasks (0 that wait and 1 dead letters among them)." in done.stderr
    assert "Messages in the broker (default 2) stay, and run as if they had just been enqueued" in done.stderr
    assert "rl queue purge --all --yes removes them" in done.stderr
    assert tasks.store.live()["dead_letters"] == 1


def test_a_reset_is_refused_while_a_worker_is_alive(rl: CommandLine, tasks: Tasks, store: Store) -> None:
    tasks.dead()
    listening = store.client.pubsub()
    listening.subscribe(store.keys.control(Tasks.worker))
    listening.get_message(timeout=30)

    refused = rl("admin", "reset", "--yes")

    assert (refused.returncode, store.live()["dead_letters"]) == (1, 1)
    assert f"1 workers are alive ({Tasks.worker}): stop them first." in refused.stderr
    assert rl("admin", "reset", "--yes", "--force").returncode == 0
    assert store.live()["records"] == 0
    listening.close()


def test_what_is_in_the_broker_can_be_purged_after_a_reset(
    rl: CommandLine, tasks: Tasks, broker: RelierRedisBroker
) -> None:
    queued(broker, 2)
    assert rl("admin", "reset", "--yes").returncode == 0

    assert rl.json("queue", "purge", "--all", "--yes")["in_broker"] == {"default": 2}

    assert broker.do_qsize("default") == 0


def test_an_actor_that_nobody_has_is_told(rl: CommandLine, tasks: Tasks) -> None:
    tasks.dead()
    done = rl("queue", "purge", "--actor", "wrok", "--dry-run")
    assert done.returncode == 0
    assert done.stderr == "No task and no worker that is known has the actor 'wrok'; there are: work.\n"
    assert rl("queue", "purge", "--actor", "work", "--dry-run").stderr == ""
