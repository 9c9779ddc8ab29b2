"""Look at format, workers, resurrector and queues: what `rl doctor` adds to the preflight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import redis
from dramatiq import Broker
from dramatiq.errors import BrokerConnectionError

from relier.brokers.adapters import adapter_of
from relier.brokers.place import Place
from relier.errors import RelierStartupError
from relier.hold_checks import holds_check
from relier.integrity_checks import check_integrity
from relier.leases import WATCH
from relier.letter_sweep import alarm
from relier.preflight import Check, Finding
from relier.queues import RECOVERY_QUEUE, is_internal
from relier.rollback_checks import rollback_check
from relier.settings import Settings
from relier.store import SHARDS, Store
from relier.store.connection import UNAVAILABLE
from relier.store.keys import FORMAT
from relier.store.selecting import Wanted, select
from relier.store.survey import NEWER_VERSION, UNKNOWN_ACTOR, Summary, Survey
from relier.store.waiting import Waiting, waiting_by_queue

_AWAY: tuple[type[Exception], ...] = (*UNAVAILABLE, BrokerConnectionError)


def format_check(store: Store) -> Check:
    """Return the check that the store was begun with our format and number of shards."""

    def check(_: redis.Redis, settings: Settings) -> Iterator[Finding]:
        recorded = Survey(store).recorded_format()
        if recorded is None:
            yield Finding("ok", "format", "The store is empty: the first worker records its format.")
        elif recorded != (FORMAT, SHARDS):
            yield Finding("error", "format", _other_format(recorded, settings), _OTHER_FORMAT_FIX)
        else:
            yield Finding("ok", "format", f"The store has format {FORMAT} in {SHARDS} shards.")

    return check


def record_format(store: Store, settings: Settings) -> None:
    """Record our format at the first start. Raises `RelierStartupError` when the store was begun with another one."""
    recorded = store.fleet.format(FORMAT, SHARDS)
    if recorded != (FORMAT, SHARDS):
        raise RelierStartupError(f"{_other_format(recorded, settings)} Refusing to start. {_OTHER_FORMAT_FIX}")


_OTHER_FORMAT_FIX = "Use the Relier that wrote it, or another RELIER_NAMESPACE."


def _other_format(recorded: tuple[int, int], settings: Settings) -> str:
    version, shards = recorded
    return (
        f"The store of namespace {settings.namespace!r} has format {version} in {shards} shards;"
        f" this Relier writes format {FORMAT} in {SHARDS} shards."
    )


def broker_check(broker: Broker) -> Check:
    """Return the check of the broker itself."""

    def check(_: redis.Redis, __: Settings) -> Iterable[Finding]:
        return adapter_of(broker).inspect()

    return check


def promises_check(store: Store, broker: Broker) -> Check:
    """Return the check of what is weaker on this broker, and of workers that use another one."""

    def check(_: redis.Redis, __: Settings) -> Iterator[Finding]:
        adapter = adapter_of(broker)
        place = adapter.place()
        weaker = adapter.weaknesses()
        if weaker:
            yield Finding("ok", "broker", f"{place}: tasks are protected from their first claim on.")
        for weakness in weaker:
            yield Finding("warning", f"broker, {weakness.promise}", weakness.text, weakness.fix)
        if misplaced := misplacement(store, place, "what this command knows"):
            fix = "Name the module that sets the workers' broker in RELIER_ACTORS, or set their RELIER_BROKER_URL."
            yield Finding("warning", "broker", misplaced, fix)

    return check


def fleet_checks(store: Store, broker: Broker, declared: Iterable[str] = ()) -> tuple[Check, ...]:
    """Return the checks of format, workers, resurrector, dead letters and queues. `declared`: those of known actors."""
    wanted = set(declared)

    def workers(_: redis.Redis, __: Settings) -> Iterator[Finding]:
        return _workers(store.fleet.workers())

    def resurrector(_: redis.Redis, settings: Settings) -> Iterator[Finding]:
        return _resurrector(store, settings)

    def letters(_: redis.Redis, settings: Settings) -> Iterator[Finding]:
        number = store.tasks.count_letters()
        if text := alarm(number, settings):
            yield Finding(
                "warning", "dead letters", text, "rl dlq groups tells what fails; fix it, then rl dlq retry-all."
            )
        else:
            yield Finding("ok", "dead letters", f"{_number(number, 'dead letter')}.")

    def queues(_: redis.Redis, settings: Settings) -> Iterator[Finding]:
        return _queues(store, broker, settings, wanted)

    about_store = (format_check(store), broker_check(broker), promises_check(store, broker))
    about_fleet = (workers, resurrector, letters, queues, holds_check(store))
    return (*about_store, check_integrity, *about_fleet, rollback_check(store))


def _workers(fleet: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    working = [told for told in fleet.values() if told.get("role") != "resurrector"]
    if not working:
        fix = "Start one: dramatiq relier.workers <modules>, or rl worker start --processes N -- <modules>."
        yield Finding("warning", "workers", "No worker is alive.", fix)
        return
    consumers = Counter(queue for told in working for queue in told.get("queues", ()))
    counts = ", ".join(f"{queue}: {count}" for queue, count in sorted(consumers.items()))
    yield Finding("ok", "workers", f"{_number(len(working), 'worker')} alive; consumers by queue: {counts or 'none'}.")


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _resurrector(store: Store, settings: Settings) -> Iterator[Finding]:
    fleet = store.fleet.workers()
    dedicated = sum(told.get("role") == "resurrector" for told in fleet.values())
    if not settings.resurrection_enabled:
        message = "RELIER_RESURRECTION_ENABLED is false: nobody puts back the tasks of dead workers."
        yield Finding("error", "resurrector", message, "Unset it, here and for the workers.")
    elif dedicated:
        yield Finding("ok", "resurrector", f"{_number(dedicated, 'resurrector')} alive.")
    elif not fleet:
        yield Finding("ok", "resurrector", "None is alive; workers will sweep by themselves once they run.")
    elif WATCH in store.fleet.leases():
        yield Finding("ok", "resurrector", "None is alive: the workers sweep by themselves.")
    else:
        message = "No resurrector is alive, and no worker sweeps."
        yield Finding("error", "resurrector", message, "Start rl run-resurrector, or look at the workers' logs.")


def _queues(store: Store, broker: Broker, settings: Settings, declared: set[str]) -> Iterator[Finding]:
    consumed = {queue for told in store.fleet.workers().values() for queue in told.get("queues", ())}
    held = {queue: found for queue, found in waiting_by_queue(store).items() if queue}
    waiting = Counter({queue: found.due + found.scheduled + found.published for queue, found in held.items()})
    unknown = Counter(task.actor for task in _parked(store, held, UNKNOWN_ACTOR))
    newer = Counter((task.actor, task.payload_version) for task in _parked(store, held, NEWER_VERSION))
    depth = depths(broker, {*settings.public_queues, *declared, *waiting, *found_queues(broker)})
    names = {*declared, *waiting, *(queue for queue, messages in depth.items() if messages)}
    lonely = sorted(names - consumed)
    for queue in lonely:
        parts = [_number(depth[queue], "message")] if depth.get(queue) else []
        parts += [f"{_number(waiting[queue], 'task')} held in the store"] if waiting[queue] else []
        yield Finding(
            "warning",
            "queues",
            f"Nobody consumes the queue {queue!r} ({', '.join(parts) or 'it has actors'}).",
            f"Start a worker that declares its actors, without -Q or with -Q {queue}.",
        )
    for actor, count in sorted(unknown.items()):
        yield Finding(
            "warning",
            "queues",
            f"No worker has the actor {actor!r} ({_number(count, 'task')} held in the store).",
            "Deploy a worker that declares it; after RELIER_UNKNOWN_ACTOR_GRACE its tasks are dead letters.",
        )
    for (actor, version), count in sorted(newer.items()):
        yield Finding(
            "warning",
            "queues",
            f"No worker knows version {version} of {actor!r} ({_number(count, 'task')} held in the store).",
            "Deploy a worker that does; after RELIER_NEWER_VERSION_GRACE its tasks are dead letters.",
        )
    no_pool = settings.recovery_queue == RECOVERY_QUEUE and RECOVERY_QUEUE not in consumed
    if no_pool:
        message = f"Nobody consumes the recovery queue {RECOVERY_QUEUE!r}: what crashed goes to its own queue."
        fix = f"Start a pool: dramatiq relier.workers <modules> -Q {RECOVERY_QUEUE}; or unset RELIER_RECOVERY_QUEUE."
        yield Finding("warning", "queues", message, fix)
    if not (lonely or unknown or newer or no_pool):
        yield Finding("ok", "queues", "Every queue with tasks or known actors has a consumer.")


#: Parked tasks that are looked at to tell whose they are.
_LOOKED_AT = 10_000


def _parked(store: Store, held: dict[str, Waiting], reason: str) -> list[Summary]:
    """Return the tasks that are parked for a reason, some of them when they are many."""
    if not any(reason in found.reasons for found in held.values()):
        return []
    return select(store, Wanted(reason=reason), _LOOKED_AT).tasks


#: What to do about a resurrector that is not where the workers are.
SAME_BROKER = (
    "Give it the module that sets the workers' broker (RELIER_ACTORS=module,… or rl run-resurrector module …), or the"
    " workers' RELIER_BROKER_URL."
)


def misplacement(store: Store, place: Place, who: str = "this resurrector") -> str:
    """Return what is wrong when workers live and none of them uses the broker at `place`; else ''."""
    fleet = {worker: told for worker, told in store.fleet.workers().items() if told.get("role") != "resurrector"}
    present = store.fleet.present(sorted(fleet))
    elsewhere = [Place.of(told.get("broker")) for worker, told in fleet.items() if present.get(worker)]
    if not elsewhere or any(place.matches(other) for other in elsewhere):
        return ""
    return f"The workers use another broker ({elsewhere[0]}) than {who} ({place})."


def found_queues(broker: Broker) -> set[str]:
    """Return the queues that the broker has messages in, as far as it can tell. It may look through all its keys."""
    try:
        return {queue for queue in adapter_of(broker).queues() if not is_internal(queue)}
    except _AWAY:
        return set()


def depths(broker: Broker, queues: Iterable[str]) -> dict[str, int]:
    """Return how many messages wait in each queue; empty when the broker cannot tell."""
    adapter = adapter_of(broker)
    try:
        found = {queue: adapter.depth(queue) for queue in sorted(queues)}
    except _AWAY:
        return {}
    return {queue: depth for queue, depth in found.items() if depth is not None}
