"""`rl audit`: does the account add up: every accepted task ended, or is somewhere where it will go on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import typer
from dramatiq import Broker

from relier.brokers import default_broker
from relier.fleet_checks import depths, found_queues
from relier.settings import Settings, get_settings
from relier.store import SHARDS, Store
from relier.store.survey import Summary, Survey
from relier_cli.opening import opened_store
from relier_cli.output import AsJson, print_fields, print_json

#: The counters that tell tasks begun from tasks ended; each step of a task moves the balance by one at most.
_IN_BALANCE = ("accepted", "completed", "dead", "notices", "dlq_left", "discarded")
#: How often a shard is read again when tasks moved in it meanwhile.
_TRIES = 4


@dataclass
class Account:
    """What the counters say, against what the records say."""

    counters: Counter[str] = field(default_factory=Counter)
    waiting: int = 0
    running: int = 0
    dead_letters: int = 0
    #: Steps that tasks made between two looks at their shard: the account may be off by as much.
    in_motion: int = 0
    wrong_shards: list[int] = field(default_factory=list)
    #: Tasks that nothing will move on.
    stranded: list[str] = field(default_factory=list)
    newer: int = 0
    waiting_by_queue: Counter[str] = field(default_factory=Counter)
    depths: dict[str, int] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        counted = self.counters
        return counted["completed"] + counted["dead"] - counted["dlq_left"] + counted["discarded"]

    @property
    def difference(self) -> int:
        """Accepted tasks that neither ended nor have an unended record."""
        return self.counters["accepted"] - self.ended - self.waiting - self.running

    @property
    def adds_up(self) -> bool:
        return not self.wrong_shards and not self.stranded


def audit(as_json: AsJson = False) -> None:
    """Check that accepted = completed + dead letters + discarded + waiting + running. Exits 1 when it is not so.

    While tasks run, a shard is read again until its counters stood still during the look; one that never does is
    allowed as many tasks of difference as steps were made meanwhile.

    Example: rl audit --json
    """
    settings = get_settings()
    with opened_store(settings) as store:
        account = take_account(store, default_broker(settings), settings)
    if as_json:
        print_json(as_data(account))
    else:
        show(account)
    raise typer.Exit(0 if account.adds_up else 1)


def take_account(store: Store, broker: Broker, settings: Settings) -> Account:
    """Read every shard's counters and records."""
    account = Account()
    survey = Survey(store)
    doubtful: list[Summary] = []
    for shard in range(SHARDS):
        doubtful += _add_shard(account, survey, shard)
    account.stranded = _still_stranded(store, survey, doubtful)
    fleet_queues = {queue for told in store.fleet.workers().values() for queue in told.get("queues", ())}
    queues = {*settings.public_queues, *fleet_queues, *account.waiting_by_queue, *found_queues(broker)}
    account.depths = depths(broker, queues - {""})
    return account


def _add_shard(account: Account, survey: Survey, shard: int) -> list[Summary]:
    """Add one shard to the account; returns the records that nothing seems to move on."""
    before = survey.counters(shard)
    for _ in range(_TRIES):
        records = survey.shard(shard)
        letters = survey.dead_letters(shard)
        after = survey.counters(shard)
        motion = sum(abs(after.get(name, 0) - before.get(name, 0)) for name in _IN_BALANCE)
        if not motion:
            break
        before = after
    states = Counter(summary.state for summary in records.values())
    counted = Counter(after)
    unended = states["s"] + states["r"]
    kept = counted["dead"] - counted["dlq_left"]
    difference = counted["accepted"] - counted["completed"] - kept - counted["discarded"] - unended
    if abs(difference) > motion + states["newer"] or abs(kept - letters) > motion:
        account.wrong_shards.append(shard)
    account.counters.update(counted)
    account.waiting += states["s"]
    account.running += states["r"]
    account.dead_letters += letters
    account.in_motion += motion
    account.newer += states["newer"]
    account.waiting_by_queue.update(s.queue for s in records.values() if s.state == "s")
    return [s for s in records.values() if not s.moves_on]


def _still_stranded(store: Store, survey: Survey, doubtful: list[Summary]) -> list[str]:
    """Look again, to make sure, at what nothing seems to move on."""
    again = [survey.shard(shard) for shard in {summary.shard for summary in doubtful}]
    seen = {task_id: summary for page in again for task_id, summary in page.items()}
    return sorted(s.task_id for s in doubtful if s.task_id in seen and not seen[s.task_id].moves_on)


def as_data(account: Account) -> dict[str, Any]:
    counted = account.counters
    reasons = {name.partition(":")[2]: n for name, n in sorted(counted.items()) if name.startswith("discarded:")}
    others = sorted(name for name in counted if name not in COUNTERS and ":" not in name)  # of a newer version
    return {
        "ok": account.adds_up,
        "accepted": counted["accepted"],
        "completed": counted["completed"],
        "dead_letters": counted["dead"] - counted["dlq_left"],
        "discarded": counted["discarded"],
        "discarded_by_reason": reasons,
        "waiting": account.waiting,
        "running": account.running,
        "difference": account.difference,
        "in_motion": account.in_motion,
        "wrong_shards": account.wrong_shards,
        "stranded": account.stranded,
        "newer_format": account.newer,
        "dlq": account.dead_letters,
        "counters": {name: counted[name] for name in (*COUNTERS, *others)},
        "queue_depths": account.depths,
    }


#: Every counter, in the order of the reference.
COUNTERS = (
    *("accepted", "completed", "failed", "retries", "stopped_identical", "dead", "notices", "dlq_left"),
    *("discarded", "idempotency_hits", "duplicates_waited", "unsigned", "integrity_failures"),
    *("crashes", "resurrections", "handed_over", "parked", "declined", "published"),
    *("replays", "hooks_abandoned", "refused", "released", "adopted"),
    *("admitted", "admission_rejected", "admission_failed_open"),
)
#: Those that the text tells above the others.
_TOLD = ("accepted", "completed", "discarded")


def show(account: Account) -> None:
    data = as_data(account)
    names = ("accepted", "completed", "dead_letters", "discarded", "waiting", "running", "difference", "in_motion")
    print_fields((name.replace("_", " "), data[name]) for name in names)
    counters = {name: n for name, n in data["counters"].items() if name not in _TOLD}
    counters |= {f"discarded, {why}": n for why, n in data["discarded_by_reason"].items()}
    typer.echo("counters: " + (", ".join(f"{name} {n}" for name, n in counters.items() if n) or "all zero"))
    queues = ", ".join(f"{queue} {n}" for queue, n in data["queue_depths"].items() if n)
    typer.echo(f"messages in the broker: {queues or 'none'}")
    if account.newer:
        typer.echo(f"{account.newer} records are of a newer format.")
    for shard in account.wrong_shards:
        typer.echo(f"WRONG: shard {shard:02} does not add up.")
    for task_id in account.stranded:
        typer.echo(f"WRONG: nothing will move task {task_id} on (rl tasks inspect {task_id}).")
    verdict = "Every accepted task is accounted for." if account.adds_up else "The account does not add up."
    typer.echo(verdict)
