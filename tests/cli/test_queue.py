"""`rl queue`: what waits where, and pausing it."""

from __future__ import annotations

from dramatiq import Message

from relier.brokers import default_broker
from relier.holds import park_actor
from relier.settings import Settings
from relier.store import Parking, Store
from tests.cli.conftest import CommandLine, Tasks
from tests.processes import actors


def enqueue(settings: Settings, queue: str, count: int = 1) -> None:
    """Put messages into a queue that nobody declares."""
    broker = default_broker(settings)
    broker.declare_queue(queue)
    for _ in range(count):
        broker.enqueue(Message(queue_name=queue, actor_name="work", args=(), kwargs={}, options={}))
    broker.close()


def listed(rl: CommandLine) -> dict[str, dict[str, object]]:
    return {queue["name"]: queue for queue in rl.json("queue", "list")["queues"]}


def test_public_queues_are_listed_while_nothing_is_known_of_them(rl: CommandLine) -> None:
    queues = listed(rl)
    assert set(queues) == {"high_priority", "default", "low_priority"}
    assert queues["default"] == {
        "name": "default",
        "broker": queues["default"]["broker"],
        "messages": 0,
        "due": 0,
        "scheduled": 0,
        "reasons": {},
        "oldest_at": None,
        "oldest_age": None,
        "consumers": [],
        "declared": True,
        "paused": None,
        "notes": ["nobody consumes it"],
    }


def test_a_queue_that_only_the_broker_or_the_store_knows_is_listed_too(
    rl: CommandLine, settings: Settings, store: Store, tasks: Tasks
) -> None:
    enqueue(settings, "forgotten", 3)
    tasks.scheduled(queue="later")
    tasks.scheduled(0.0, queue="lost")
    store.tasks.park([(due, Parking("no consumer")) for due in store.tasks.due(range(64), 10)[1]], 600.0)

    queues = listed(rl)

    for command, field in (("tasks list", "in_broker"), ("tasks inflight", "in_broker"), ("audit", "queue_depths")):
        assert rl.json(*command.split())[field]["forgotten"] == 3
        assert "messages in the broker: forgotten 3\n" in rl(*command.split()).stdout
    assert (queues["forgotten"]["messages"], queues["forgotten"]["due"]) == (3, 0)
    assert queues["forgotten"]["notes"] == ["nobody consumes it", "nobody declares it"]
    assert 0 <= float(str(queues["forgotten"]["oldest_age"])) < 3600
    assert (queues["later"]["scheduled"], queues["later"]["due"], queues["later"]["oldest_at"]) == (1, 0, None)
    assert (queues["lost"]["due"], queues["lost"]["reasons"]) == (1, {"no consumer": 1})
    assert queues["lost"]["oldest_at"]


def test_a_paused_queue_says_since_when_by_whom_and_why(rl: CommandLine) -> None:
    done = rl.json("queue", "pause", "default", "--reason", "the provider is down")
    assert (done["queue"], done["outcome"], done["hold"]["reason"]) == ("default", "paused", "the provider is down")
    assert done["hold"]["by"].startswith("rl:")

    assert listed(rl)["default"]["paused"] == done["hold"]
    assert "paused since" in rl("queue", "list").stdout
    again = rl.json("queue", "pause", "default", "--reason", "another")
    assert (again["outcome"], again["hold"]) == ("already paused", done["hold"])

    assert rl("queue", "resume", "default").stdout == "default: resumed\n"
    assert listed(rl)["default"]["paused"] is None


def test_a_typo_pauses_nothing_and_says_what_was_meant(rl: CommandLine) -> None:
    done = rl("queue", "pause", "defualt")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Nobody knows a queue 'defualt'; did you mean 'default'?\n"
    assert "There are" in rl("queue", "pause", "zzz").stderr


def test_a_queue_that_only_the_broker_knows_can_be_paused(rl: CommandLine, settings: Settings) -> None:
    enqueue(settings, "forgotten")
    assert rl("queue", "pause", "forgotten").returncode == 0
    assert listed(rl)["forgotten"]["paused"]


def test_lanes_and_the_resurrectors_queue_are_no_queues_to_pause(rl: CommandLine) -> None:
    assert "name 'default'" in rl("queue", "pause", "default.DQ").stderr
    assert rl("queue", "pause", "relier.resurrector.1").returncode == 1


def test_what_is_not_held_cannot_be_resumed(rl: CommandLine) -> None:
    rl("queue", "pause", "default")
    wrong = rl("queue", "resume", "defalt")
    assert (wrong.returncode, wrong.stderr) == (1, "The queue 'defalt' is not paused; did you mean 'default'?\n")
    assert rl("queue", "resume", "low_priority").returncode == 1
    assert rl("queue", "resume", "--actor", "work").stderr == "The actor 'work' is not parked.\n"
    assert rl("queue", "resume").returncode == 2
    assert rl("queue", "resume", "default", "--actor", "work").returncode == 2


def test_a_parked_actor_is_resumed(rl: CommandLine, store: Store) -> None:
    park_actor(store, "work", "a worker", "too many failures", fingerprint="f1")
    (parked,) = rl.json("queue", "list")["parked"]
    assert (parked["actor"], parked["by"], parked["reason"]) == ("work", "a worker", "too many failures")
    *_, line = rl("queue", "list").stdout.splitlines()
    assert line.startswith(f"The actor 'work' is parked since {parked['since']} by a worker (too many failures).")
    assert line.endswith("rl queue resume --actor work")

    mistaken = rl("queue", "resume", "work")
    assert mistaken.returncode == 1
    assert mistaken.stderr == "The queue 'work' is not paused, but the actor is parked: rl queue resume --actor work\n"

    done = rl.json("queue", "resume", "--actor", "work")
    assert (done["actor"], done["outcome"], done["hold"]["reason"]) == ("work", "resumed", "too many failures")
    assert rl.json("queue", "list")["parked"] == []
    assert not store.fleet.holds()


def test_the_list_is_plain_without_a_terminal(rl: CommandLine) -> None:
    header, *lines = rl("queue", "list").stdout.splitlines()
    assert header.split() == ["QUEUE", "MESSAGES", "DUE", "SCHEDULED", "OLDEST", "CONSUMERS", "STATE"]
    assert [line.split()[0] for line in lines] == ["default", "high_priority", "low_priority"]


def test_without_redis_one_line_says_so(rl: CommandLine) -> None:
    for arguments in (("list",), ("pause", "default"), ("resume", "default")):
        done = rl("queue", *arguments, redis_url="redis://127.0.0.1:1")
        assert (done.returncode, done.stdout) == (1, "")
        assert "Relier cannot reach Redis" in done.stderr
        assert "Traceback" not in done.stderr


def register(store: Store, worker: str, broker: dict[str, str] | None, *queues: str) -> None:
    told = {"role": "worker", "queues": list(queues), **({"broker": broker} if broker else {})}
    store.fleet.register(worker, told)


def test_consumers_are_told_by_broker(rl: CommandLine, store: Store) -> None:
    register(store, "near", None, "default")
    register(store, "far", {"family": "rabbitmq", "address": "amqp://far:5672"}, "default", "remote")
    store.fleet.register("sweeper", {"role": "resurrector", "queues": ["relier.resurrector.1"]})

    queues = rl.json("queue", "list")["queues"]

    consumers = {(queue["name"], "rabbitmq" in queue["broker"]): queue["consumers"] for queue in queues}
    assert consumers == {
        ("default", False): ["near"],
        ("high_priority", False): [],
        ("low_priority", False): [],
        ("default", True): ["far"],
        ("remote", True): ["far"],
    }
    assert [queue["messages"] for queue in queues if "rabbitmq" in queue["broker"]] == [None, None]
    assert "BROKER" in rl("queue", "list").stdout.splitlines()[0]
    assert rl("queue", "pause", "remote").returncode == 0


def test_a_broker_that_is_away_leaves_what_the_store_knows(rl: CommandLine, tasks: Tasks) -> None:
    tasks.scheduled(queue="reports")
    for url in ("redis://127.0.0.1:1", "amqp://127.0.0.1:1"):
        listing = rl.json("queue", "list", broker_url=url)
        assert {queue["name"]: (queue["messages"], queue["scheduled"]) for queue in listing["queues"]} == {
            "default": (None, 0),
            "high_priority": (None, 0),
            "low_priority": (None, 0),
            "reports": (None, 1),
        }
        assert listing["warnings"][0].startswith("The broker does not answer: ")
    assert rl("queue", "pause", "nowhere", broker_url=url).returncode == 1


def test_the_actors_of_the_application_declare_queues(rl: CommandLine) -> None:
    name = actors(rl.folder, "from relier import rl_actor\n@rl_actor(queue='reports')\ndef report(): pass\n")
    assert rl.json("queue", "list", actors=name, queues="reports")["queues"][-1]["declared"]
    broken = actors(rl.folder, "1 / 0", "broken")
    assert "'broken' cannot be imported" in rl.json("queue", "list", actors=broken)["warnings"][0]
