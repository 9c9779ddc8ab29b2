"""Each role does all it must with its own rights only, on a Redis that was started with the files of redis/."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from relier import TaskReceipt
from relier.brokers import default_broker
from relier.settings import Settings
from relier.store import Failure, JobTerms, Sending, Store, shard_of
from relier.store.locks import Holder
from relier.store.permissions import RefusedError
from relier.store.scripts import script
from tests.conftest import skip
from tests.deploy.shipped import FILES, ROOT, ShippedRedis, password
from tests.integration.actors import Actors
from tests.integration.conftest import Fleets
from tests.integration.harness import UNLIMITED, Harness
from tests.sources import Unavailable


@dataclass
class Producer:
    """What a producer's process has."""

    broker: Any
    actors: Actors


@pytest.fixture
def producer(shipped: ShippedRedis) -> Iterator[Producer]:
    broker: Any = default_broker(Settings(**shipped.settings_of("producer"), admission_limit=UNLIMITED))
    yield Producer(broker, Actors(broker))
    broker.close()
    broker.store.close()


@contextmanager
def as_role(shipped: ShippedRedis, user: str) -> Iterator[Store]:
    with closing(Store.from_settings(Settings(**shipped.settings_of(user)))) as store:
        yield store


def of_workers(fleets: Fleets, shipped: ShippedRedis, **options: Any) -> Harness:
    """Return a fleet whose processes have the rights of workers; the test looks at it as the administrator."""
    fleet = fleets(shipped, **options)
    fleet.environ["RELIER_REDIS_URL"] = shipped.url_of("worker")
    return fleet


def sending(task_id: str = "t") -> Sending:
    return Sending(task_id, shard_of(task_id), "default", "work", b"{}")


def test_a_producer_pushes_in_every_way_and_reads_its_receipts(
    shipped: ShippedRedis, producer: Producer, fleets: Fleets
) -> None:
    fleet, a, broker = of_workers(fleets, shipped), producer.actors, producer.broker
    gate = fleet.gate("newest")
    receipts = [
        a.add.push(1, 2),
        a.newest.push("j", gate),
        a.add_once.push(3, 4),
        *a.add.push_many([a.add.message(n, n) for n in range(3)]),
    ]
    a.quick.send(1)
    a.quick.send_with_options(args=(2,), delay=1)
    dramatiq.pipeline([a.add.message(1, 1), a.add.message(2)], broker=broker).run()  # type: ignore[no-untyped-call]
    members = [a.add.message(5, n) for n in range(2)]
    group: Any = dramatiq.group(members, broker=broker)  # type: ignore[no-untyped-call]
    group.add_completion_callback(a.told.message("together"))
    group.run()
    cancelled = a.quick.push(99)
    assert cancelled.cancel()
    assert broker.store.locks.acquire("k", Holder("token", "owner", 1), 60.0).verdict == "granted"
    assert fleet.worker().pid
    fleet.wait(lambda: fleet.effects("began"), what="the older task of the key")
    receipts.append(a.newest.push("j", gate))  # It ends one that runs.
    fleet.open_gate("newest")
    assert receipts[0].result(timeout=60) == 3
    assert receipts[0].status() == "completed"
    fleet.settle(len(receipts) + 2 + 2 + 3 + 1)
    assert TaskReceipt.from_id(cancelled.id, broker=broker).status() == "discarded"
    assert shipped.refused() == []


def test_a_producers_push_ends_the_dead_letter_of_an_older_task(shipped: ShippedRedis) -> None:
    older, newest = (replace(sending(task_id), shard=7, job="digest") for task_id in ("t", "u"))
    with as_role(shipped, "worker") as worker:
        claim = worker.tasks.claim("w1", older, b"n", 0, slot_free=True)
        failure = Failure(False, 0.0, True, False, "ValueError", b"encoded", "ValueError: no")
        assert worker.tasks.fail("w1", older, claim.fence, failure) == "dead"
    with as_role(shipped, "producer") as role:
        role.tasks.push_many([(newest, JobTerms(300.0, published=True))])
    with as_role(shipped, "viewer") as viewer:
        assert viewer.record("t").outcome == "discarded"  # type: ignore[union-attr]
    assert shipped.refused() == []


def test_a_worker_runs_every_kind_of_task(shipped: ShippedRedis, fleets: Fleets) -> None:
    fleet = of_workers(fleets, shipped, result_ttl=60)
    a = fleet.actors
    a.add.push(1, 1)
    a.aadd.push(1, 1)
    a.plain.send(1)
    a.flaky.push(2)
    a.broken.push()
    a.skipping.push()
    a.add_once.push(1, 2)
    a.add_once.push(1, 2)
    a.newest.push("job")
    a.locked.push(fleet.gate())
    fleet.open_gate()
    a.add.send_with_options(args=(1, 2), on_success=a.told)
    a.quick.send_with_options(args=(1,), delay=50)
    a.quick.push(5).cancel()
    dramatiq.pipeline([a.add.message(1, 1), a.add.message(2)], broker=fleet.broker).run()  # type: ignore[no-untyped-call]
    first = fleet.worker()
    fleet.settle(16)
    fleet.wait(lambda: fleet.store.fleet.observe().pulses.get(first.identity), what="a pulse, which logs in by itself")
    assert first.stop() == 0
    assert shipped.refused() == []


def test_workers_recover_what_a_killed_one_ran_and_drained_ones_return(shipped: ShippedRedis, fleets: Fleets) -> None:
    fleet = of_workers(fleets, shipped)
    fleet.workers(2)
    victim = fleet.busy_worker()
    victim.kill()
    fleet.wait(lambda: fleet.store.counters().get("crashes", 0) > 0, what="a crash that was noticed")
    fleet.open_gate()
    fleet.settle(3)
    assert shipped.refused() == []


def test_a_resurrector_puts_back_what_a_killed_worker_ran(shipped: ShippedRedis, fleets: Fleets) -> None:
    fleet = of_workers(fleets, shipped)
    (victim,) = fleet.workers(1)
    fleet.environ["RELIER_REDIS_URL"] = shipped.url_of("resurrector")
    fleet.resurrector().wait_settled_in()
    assert fleet.busy_worker() is victim
    victim.kill()
    fleet.wait(lambda: fleet.store.counters().get("crashes", 0) == 3, what="the crashes of three tasks")
    fleet.environ["RELIER_REDIS_URL"] = shipped.url_of("worker")
    fleet.open_gate()
    assert fleet.worker().pid
    fleet.settle(3)
    resurrector = fleet.processes[1]
    resurrector.signal(signal.SIGTERM)
    assert resurrector.popen.wait(60) == 0
    assert shipped.refused() == []


#: The scripts that a producer's calls run.
PRODUCERS_SCRIPTS = ("admit", "push", "schedule", "hold", "mark", "lock", "known", "group_join")
#: Keys that a producer's scripts only read, and those of which they only take something away.
ONLY_READ, ONLY_WRITTEN = {"marks", "ok"}, {"own:", "cp:"}


def test_a_producer_may_use_every_key_that_its_scripts_may_come_to(shipped: ShippedRedis) -> None:
    """What is refused inside a script leaves it half done; some keys are used only once a minute, or in a crisis."""
    sources = "".join(script(name).source for name in PRODUCERS_SCRIPTS)
    names = set(re.findall(r"string\.sub\(\w+(?:\[\d\])?, 1, -\d\) \.\. '([^']+)'", sources))
    assert names >= {"own:", "job:", "letters", "st"}
    names |= {"letters:by"} | {f"st:{part}" for part in ("all", "full", "m:29", "h:4", "d:2")}
    with shipped.client(decode_responses=True) as client:
        for name in sorted(names):
            key = f"rl:relier:{{07}}:{name}" + ("x" if name.endswith(":") else "")
            tried: list[tuple[str, ...]] = [("HGET", key, "f")] if name not in ONLY_WRITTEN else []
            tried += [("DEL", key)] if name not in ONLY_READ else []
            for command in tried:
                assert client.execute_command("ACL", "DRYRUN", "producer", *command) == "OK", command


# -- what they may not ------------------------------------------------------------------------------------------------

Refusal = Callable[[Store], object]

#: By user, what it may not. Each is refused before anything is written.
REFUSED: dict[str, dict[str, Refusal]] = {
    "producer": {
        "claim": lambda store: store.tasks.claim("w:1:x", sending(), b"n", 0, slot_free=True),
        "commit": lambda store: store.tasks.commit("w:1:x", sending(), 1, hooks=False),
        "register": lambda store: store.fleet.register("w:1:x", {}),
        "beat": lambda store: store.fleet.beat("w:1:x"),
        "declare dead": lambda store: store.fleet.declare_dead("w:1:x"),
        "take messages": lambda store: store.runner.command("LPOP", "dramatiq:default"),
        "read messages": lambda store: store.runner.command("LRANGE", "dramatiq:default", 0, -1),
        "drop messages": lambda store: store.runner.command("DEL", "dramatiq:default"),
        "be told to": lambda store: store.runner.command("SUBSCRIBE", store.keys.control("w:1:x")),
    },
    "worker": {
        "retry by hand": lambda store: store.tasks.retry("t", "me", 0),
        "pause": lambda store: store.fleet.lift("queue", "default"),
        "forget limits": lambda store: store.admissions.forget(),
        "order": lambda store: store.fleet.order("w:1:x", {"type": "drain"}),
        "look for keys": lambda store: store.runner.command("SCAN", 0),
        "touch other keys": lambda store: store.runner.command("GET", "sessions:1"),
        "use other namespaces": lambda store: store.runner.command("HGETALL", "rl:other:{00}:rec"),
    },
    "resurrector": {
        "take messages": lambda store: store.runner.command("LPOP", "dramatiq:default"),
        "retry by hand": lambda store: store.tasks.retry("t", "me", 0),
    },
    "viewer": {
        "cancel": lambda store: store.tasks.hold("t", "cancel", "me"),
        "write": lambda store: store.runner.command("HSET", store.keys.fleet[0], "w", "{}"),
        "write in a script": lambda store: store.runner.command(
            "EVAL", "return redis.call('DEL', KEYS[1])", 1, "rl:relier:{00}:rec"
        ),
        "put on": lambda store: store.tasks.schedule(sending(), 0),
        "tell": lambda store: store.fleet.tell("w:1:x", {"type": "drain"}),
        "enqueue": lambda store: store.runner.command("RPUSH", "dramatiq:default", "x"),
    },
    "operator": {
        "flush": lambda store: store.runner.command("FLUSHALL"),
        "configure": lambda store: store.runner.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
        "stop it": lambda store: store.runner.command("SHUTDOWN", "NOSAVE"),
        "change users": lambda store: store.runner.command("ACL", "SETUSER", "viewer", "+@all"),
        "touch other keys": lambda store: store.runner.command("DEL", "sessions:1"),
    },
}


@pytest.mark.parametrize("user", REFUSED)
def test_a_role_may_not_do_what_is_anothers(shipped: ShippedRedis, user: str) -> None:
    with as_role(shipped, "admin") as admin, as_role(shipped, user) as store:
        admin.client.set("sessions:1", "theirs")
        before = sorted(admin.client.scan_iter())
        for what, refusal in REFUSED[user].items():
            with pytest.raises(RefusedError) as caught:
                refusal(store)
            told = str(caught.value)
            assert f"{user!r}" in told, what
            assert password(user) not in told
            assert "\n" not in told
        assert sorted(admin.client.scan_iter()) == before


@pytest.mark.parametrize("user", ["default", "nobody"])
def test_who_has_no_role_may_nothing(shipped: ShippedRedis, user: str) -> None:
    without: dict[str, Any] = {"port": shipped.port, "retry": Retry(NoBackoff(), 0)}
    strangers: list[dict[str, Any]] = [{"username": user, "password": "x"}, {}]
    for who in strangers:
        with redis.Redis(**without, **who) as client, pytest.raises(redis.AuthenticationError):
            client.get("rl:relier:{00}:rec")


@pytest.mark.parametrize("user", ["producer", pytest.param("viewer", marks=pytest.mark.slow)])
def test_a_worker_with_anothers_credentials_is_refused_in_one_line(
    shipped: ShippedRedis, fleets: Fleets, user: str
) -> None:
    fleet = fleets(shipped)
    fleet.environ["RELIER_REDIS_URL"] = shipped.url_of(user)
    process = fleet.worker()
    fleet.wait(lambda: process.is_over, what="its end")
    assert process.popen.returncode not in (0, None)
    assert "Traceback" not in process.text()
    assert password(user) not in process.text()
    assert f"does not let its user {user!r}" in process.text()


# -- what is said about the ACL in docs/redis.md -----------------------------------------------------------------------


def test_an_acl_does_not_ask_which_script_is_run(shipped: ShippedRedis) -> None:
    """A producer's own script may do to the keys that a push needs whatever its commands can: it may forge a record."""
    with as_role(shipped, "producer") as store:
        forged = "return redis.call('HSET', KEYS[1], 'task', 'forged')"
        assert store.runner.command("EVAL", forged, 1, "rl:relier:{00}:rec") == 1
        with pytest.raises(RefusedError):  # But no command and no key beyond its own, inside a script either.
            store.runner.command("EVAL", "return redis.call('HSET', KEYS[1], 'w', '{}')", 1, "rl:relier:{00}:workers")
        with pytest.raises(RefusedError):
            store.runner.command("EVAL", "return redis.call('LPOP', KEYS[1])", 1, "dramatiq:default")


def renamed(folder: Path) -> Path:
    """Return the shipped files for the namespace `shop`, made so by the documented command."""
    (said,) = re.findall(r"^    sed (.*) users\.acl$", (ROOT / "docs" / "redis.md").read_text(), re.MULTILINE)
    shutil.copytree(FILES, folder / "redis")
    done = subprocess.run(f"sed {said} users.acl", shell=True, cwd=folder / "redis", check=False)
    assert done.returncode == 0
    return folder / "redis"


def see_to_another_namespace(server: ShippedRedis) -> None:
    """See that producers and workers of the namespace `shop` may what they must on a server, and nothing more."""
    for user, may in (("worker", True), ("producer", False)):
        settings = Settings(**server.settings_of(user), namespace="shop", admission_limit=UNLIMITED)
        broker: Any = default_broker(settings)
        with closing(broker.store), closing(broker):
            Actors(broker).quick.push(1)
            if may:
                assert broker.store.tasks.claim("w:1:x", sending(), b"n", 0, slot_free=True).fence
                continue
            with pytest.raises(RefusedError):
                broker.store.tasks.claim("w:1:x", sending(), b"n", 0, slot_free=True)
    assert len(server.refused()) == 1


def test_another_namespace_is_a_matter_of_the_names_in_the_file(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    try:
        server = ShippedRedis(files=renamed(tmp_path))
    except Unavailable as error:
        skip(request, error)
    with closing(server):
        see_to_another_namespace(server)
