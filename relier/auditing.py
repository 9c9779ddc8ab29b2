"""Takes the account of all tasks: reads counters, statistics, records, indexes, and the broker's queues.

Each shard is read until nothing moved in it meanwhile; one that never stands still is allowed as much difference as
tasks moved. Nothing in here changes anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from dramatiq import Broker
from dramatiq.errors import BrokerConnectionError

from relier.account import IN_BALANCE, Account, Gap, Line, Lost, Place, QueueAccount
from relier.brokers.adapters import adapter_of
from relier.fleet_checks import found_queues
from relier.queues import is_internal
from relier.settings import Settings
from relier.store import SHARDS, Store
from relier.store.connection import UNAVAILABLE
from relier.store.statistics import OTHER, ShardTotals
from relier.store.survey import Summary, Survey

#: How often a shard is read again when tasks moved in it meanwhile.
TRIES = 4

_AWAY: tuple[type[Exception], ...] = (*UNAVAILABLE, BrokerConnectionError)

#: How the index is called in which a worker's runs are.
_RUNNING = "running on "


@dataclass(slots=True)
class _Look:
    """One shard, as it was read."""

    before: ShardTotals
    after: ShardTotals
    records: dict[str, Summary] = field(default_factory=dict)
    letters: int = 0

    @property
    def motion(self) -> int:
        """How many steps tasks made meanwhile that a balance shows."""
        return _steps(self.before.counters, self.after.counters)

    def moved(self) -> Counter[Place]:
        """Return how many steps the tasks of each queue and actor made meanwhile."""
        nothing: Mapping[str, int] = {}
        old = {(row.queue, row.actor): row.counts for row in self.before.rows}
        moved: Counter[Place] = Counter()
        for row in self.after.rows:
            moved[row.queue, row.actor] = _steps(old.get((row.queue, row.actor), nothing), row.counts)
        return moved

    @property
    def newer(self) -> int:
        return sum(summary.state == "newer" for summary in self.records.values())

    @property
    def unattributed(self) -> int:
        """How much was counted that the statistics do not have."""
        counted = self.after.counters
        return sum(abs(counted.get(name, 0) - sum(row[name] for row in self.after.rows)) for name in IN_BALANCE)

    def lines(self) -> dict[Place, Line]:
        """Return the account by queue and actor."""
        lines = {}
        for row in self.after.rows:
            dead = row["dead"] - row["dlq_left"]
            line = Line(row.queue, row.actor, row["accepted"], row["completed"], dead, row["discarded"])
            if any((line.accepted, line.completed, line.dead_letters, line.discarded)):
                lines[row.queue, row.actor] = line
        for summary, name in _unended(self.records.values()):
            place = (summary.queue, summary.actor)
            if place not in lines and (OTHER, OTHER) in lines:
                place = (OTHER, OTHER)
            line = lines.setdefault(place, Line(*place))
            setattr(line, name, getattr(line, name) + 1)
        return lines


def _steps(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    return sum(abs(after.get(name, 0) - before.get(name, 0)) for name in IN_BALANCE)


def _unended(records: Iterable[Summary]) -> Iterator[tuple[Summary, str]]:
    names = {"s": "waiting", "r": "running"}
    return ((summary, names[summary.state]) for summary in records if summary.state in names)


def _gaps(look: _Look, lines: Mapping[Place, Line]) -> Iterator[Gap]:
    """Find what does not add up: by queue and actor where all of it is known by those, else in the shard."""
    shard, newer, moved = look.after.shard, look.newer, look.moved()
    if (OTHER, OTHER) in lines and abs(sum(line.difference for line in lines.values())) <= look.motion + newer:
        lines = {}  # A task may begin among the others, and end by its name.
    found = [
        Gap(shard, *place, line.difference)
        for place, line in sorted(lines.items())
        if abs(line.difference) > moved[place] + newer and not look.unattributed
    ]
    if found:
        yield from found
        return
    counted = Counter(look.after.counters)
    kept = counted["dead"] - counted["dlq_left"]
    unended = sum(1 for _ in _unended(look.records.values()))
    difference = counted["accepted"] - counted["completed"] - kept - counted["discarded"] - unended
    if abs(difference) > look.motion + newer or abs(kept - look.letters) > look.motion:
        yield Gap(shard, "", "", difference or kept - look.letters)


def take_account(store: Store, broker: Broker, settings: Settings) -> Account:
    """Read every shard and the broker's queues."""
    return _Taking(store, broker, settings).take()


class _Taking:
    """One look at everything."""

    def __init__(self, store: Store, broker: Broker, settings: Settings) -> None:
        self._store = store
        self._survey = Survey(store)
        self._broker = broker
        self._settings = settings
        self._account = Account()
        self._fleet = store.fleet.workers()
        self._doubtful: list[Summary] = []
        self._dangling: list[Lost] = []
        self._recorded: Counter[str] = Counter()
        self._held: Counter[str] = Counter()

    def take(self) -> Account:
        for shard in range(SHARDS):
            self._add_shard(shard)
        self._account.stranded = self._still_stranded()
        self._account.lost = self._still_dangling(self._dangling)
        self._add_queues()
        return self._account

    def _add_shard(self, shard: int) -> None:
        look = self._look_at(shard)
        account, lines = self._account, look.lines()
        account.gaps += _gaps(look, lines)
        account.counters.update(look.after.counters)
        account.dead_letters += look.letters
        account.in_motion += look.motion
        account.newer += look.newer
        account.unattributed += look.unattributed
        for place, line in lines.items():
            account.lines.setdefault(place, Line(*place)).add(line)
        self._note_copies(look.records.values())
        self._doubtful += [summary for summary in look.records.values() if not summary.moves_on]
        self._dangling += self._dangling_in(shard, look.records)

    def _look_at(self, shard: int) -> _Look:
        now = self._totals(shard)
        for _ in range(TRIES):
            look = _Look(now, now, self._survey.shard(shard), self._survey.dead_letters(shard))
            look.after = now = self._totals(shard)
            if not look.motion:
                break
        return look

    def _totals(self, shard: int) -> ShardTotals:
        return self._store.statistics.shard_totals([shard])[0]

    def _note_copies(self, records: Iterable[Summary]) -> None:
        """Count the tasks whose copies may wait in the broker, and those whose copies workers hold."""
        for summary in records:
            if summary.state == "s" and (summary.published or summary.reason == "pushed"):
                self._recorded[summary.queue] += 1
            elif summary.owner:
                self._held[summary.queue] += 1

    def _dangling_in(self, shard: int, records: dict[str, Summary]) -> list[Lost]:
        """Return the ids that an index of the shard has, and that have no record."""
        owners = {*self._fleet, *(summary.owner for summary in records.values() if summary.owner)}
        found = []
        for index in ("due", "dlq", *(f"{_RUNNING}{worker}" for worker in sorted(owners))):
            ids = self._store.runner.command("ZRANGE", self._key(shard, index), 0, -1)
            found += [
                Lost(task_id, shard, index) for i in ids if (task_id := i.decode("utf-8", "replace")) not in records
            ]
        return found

    def _key(self, shard: int, index: str) -> str:
        keys = self._store.keys.shard(shard, index.removeprefix(_RUNNING))
        return keys[1] if index == "due" else keys[5] if index == "dlq" else keys[-1]

    def _still_dangling(self, doubtful: list[Lost]) -> list[Lost]:
        """Look twice again at ids without a record: they may have come, or gone, while the shard was read."""
        for _ in range(2):
            if not doubtful:
                break
            looks: list[tuple[str, ...]] = []
            for lost in doubtful:
                records = self._store.keys.shard(lost.shard, "")[0]
                looks.append(("ZSCORE", self._key(lost.shard, lost.found_in), lost.task_id))
                looks.append(("HEXISTS", records, lost.task_id))
            seen = self._store.runner.commands(looks)
            pairs = zip(doubtful, seen[::2], seen[1::2], strict=True)
            doubtful = [lost for lost, there, record in pairs if there is not None and not record]
        return doubtful

    def _still_stranded(self) -> list[str]:
        """Look again, to make sure, at what nothing seems to move on."""
        again = [self._survey.shard(shard) for shard in {summary.shard for summary in self._doubtful}]
        seen = {task_id: summary for page in again for task_id, summary in page.items()}
        return sorted(s.task_id for s in self._doubtful if s.task_id in seen and not seen[s.task_id].moves_on)

    def _add_queues(self) -> None:
        consumed = {queue for told in self._fleet.values() for queue in told.get("queues", ())}
        known = {queue for queue, _ in self._account.lines}
        names = {*self._settings.public_queues, *consumed, *known, *found_queues(self._broker)}
        for queue in sorted(name for name in names - {"", OTHER} if not is_internal(name)):
            if account := self._queue(queue):
                self._account.queues[queue] = account

    def _queue(self, queue: str) -> QueueAccount | None:
        adapter = adapter_of(self._broker)
        try:
            messages = adapter.depth(queue)
            held = adapter.held(queue) if messages is not None else None
        except _AWAY:
            return None
        if messages is None:
            return None
        recorded = self._recorded[queue] + min(held or 0, self._held[queue])
        return QueueAccount(queue, messages, held, recorded)
