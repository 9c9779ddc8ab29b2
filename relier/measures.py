"""Measures what metrics tell: turns what store and broker know into samples. Knows nothing of any exposition format."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from relier.leases import MEMBER, SLOTS
from relier.metric_table import BY_REASON, DECISIONS, EVENTS, OF_TASKS, OUTCOMES, STATES
from relier.slo import LEAST_FAILURES, REFUSED, SHOWN, Burn
from relier.store.admissions import GLOBAL, Usage
from relier.store.members import Members
from relier.store.state import Contents, Kind, ServerHealth
from relier.store.statistics import Histogram, Row

#: What stands for all that has no room.
OTHER = "(other)"
#: So many queues and actors, limits, or kinds of dead letters have series of their own.
MOST = 400

#: The number, or what there is of each length.
Value = float | Histogram


@dataclass
class Sheet:
    """The samples of one page, by metric; a sample is its label values and its value."""

    samples: dict[str, list[tuple[tuple[str, ...], Value]]] = field(default_factory=lambda: defaultdict(list))

    def put(self, name: str, value: Value | None, *labels: str) -> None:
        """Add a sample; None is none."""
        if value is not None:
            self.samples[name].append((labels, value))


class Ratchet:
    """Keeps counters from going back a little, as they do when a failover loses the last writes.

    Prometheus takes any step back for a new beginning, and counts the whole number once more. So a number that is
    lower, but not by half, stays where it was until it is passed again. By half and more is a new beginning.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, ...], float] = {}

    def hold(self, value: float, *name: str) -> float:
        last = self._last.get(name, 0.0)
        if value >= last or value < last / 2:
            self._last[name] = value
            return value
        return last


class Rows:
    """The rows of the statistics that have series of their own: those that came first, and one for the others."""

    def __init__(self) -> None:
        self._named: dict[tuple[str, str], tuple[str, str]] = {}

    def named(self, row: Row) -> tuple[str, str]:
        """Return the labels of a row. Once given they stay: a row that moved would take its counts with it."""
        kind = row.queue, row.actor or (REFUSED if row.queue else "")
        if kind not in self._named and len(self._named) < MOST:
            self._named[kind] = kind
        return self._named.get(kind, (OTHER, OTHER))


class Counters:
    """Turns the statistics into counters and histograms that never go back while this process lives."""

    def __init__(self) -> None:
        self._rows = Rows()
        self._ratchet = Ratchet()

    def measure(self, rows: Iterable[Row], sheet: Sheet) -> None:
        sums: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
        lengths: dict[str, dict[tuple[str, ...], Histogram]] = defaultdict(dict)
        for name in EVENTS:
            sums["relier_events_total"][(name,)] = 0
        for decision in DECISIONS.values():
            sums["relier_admission_total"][(decision,)] = 0
        for row in rows:
            self._add(row, sums)
            if row.queue or row.actor:
                self._add_lengths(row, lengths)
        for metric, counts in sums.items():
            for labels, count in counts.items():
                sheet.put(metric, self._ratchet.hold(count, metric, *labels), *labels)
        for metric, histograms in lengths.items():
            for labels, histogram in histograms.items():
                sheet.put(metric, self._held(histogram, metric, *labels), *labels)

    def _add(self, row: Row, sums: dict[str, Counter[tuple[str, ...]]]) -> None:
        queue, actor = self._rows.named(row)
        of_task = bool(row.queue or row.actor)
        for name, metric in OF_TASKS.items():
            if of_task or row.counts.get(name):
                sums[metric][queue, actor] += row.counts.get(name, 0)
        for name in OUTCOMES:
            if of_task or row.counts.get(name):
                sums["relier_tasks_total"][queue, actor, name] += row.counts.get(name, 0)
        for name, count in row.counts.items():
            kind, _, reason = name.partition(":")
            if reason and kind in BY_REASON:
                sums[BY_REASON[kind]][queue, actor, reason] += count
            elif name in EVENTS:
                sums["relier_events_total"][(name,)] += count
            elif name in DECISIONS:
                sums["relier_admission_total"][(DECISIONS[name],)] += count

    def _add_lengths(self, row: Row, lengths: dict[str, dict[tuple[str, ...], Histogram]]) -> None:
        queue, actor = self._rows.named(row)
        for metric, labels, histogram in (
            ("relier_queue_wait_seconds", (queue, actor), row.waits),
            ("relier_run_seconds", (queue, actor), row.runs),
            ("relier_resurrection_seconds", (queue,), row.resurrections),
        ):
            before = lengths[metric].get(labels)
            lengths[metric][labels] = histogram if before is None else _sum(before, histogram)

    def _held(self, histogram: Histogram, *name: str) -> Histogram:
        hold = self._ratchet.hold
        counts = tuple(int(hold(count, *name, str(i))) for i, count in enumerate(histogram.counts))
        return Histogram(counts, hold(histogram.sum, *name))


def _sum(one: Histogram, other: Histogram) -> Histogram:
    return Histogram(tuple(map(sum, zip(one.counts, other.counts, strict=True))), one.sum + other.sum)


def measure_contents(found: Contents, sheet: Sheet) -> None:
    """Measure what waits in the store, and the DLQ."""
    sheet.put("relier_store_records", found.records)
    sheet.put("relier_tasks_waiting", found.waiting)
    sheet.put("relier_tasks_due", found.due)
    sheet.put("relier_due_lag_seconds", found.due_lag)
    letters = found.letters.most_common()
    rest = sum(count for _, count in letters[MOST:])
    for kind, count in letters[:MOST] + [(Kind(OTHER, OTHER, OTHER), rest)] * bool(rest):
        sheet.put("relier_dead_letters", count, *kind)
    for (queue, actor), count in found.parked.most_common(MOST):
        sheet.put("relier_tasks_parked", count, queue, actor)


def measure_members(members: Members, sheet: Sheet) -> None:
    """Measure the fleet, and what runs in it."""
    workers = {w: told for w, told in members.told.items() if told.get("role") != "resurrector"}
    states = Counter(_state(told, members.present.get(worker)) for worker, told in workers.items())
    for state in STATES:
        sheet.put("relier_workers", states[state], state)
    sheet.put("relier_worker_threads", sum(int(told.get("threads") or 0) for told in workers.values()))
    sheet.put("relier_resurrectors", len(members.told) - len(workers))
    sheet.put("relier_sweep_leases_free", len(SLOTS) - _held_leases(members))
    sheet.put("relier_workers_unburied", len(members.owed))
    sheet.put("relier_orphan_lag_seconds", members.longest_owed)
    _measure_runs(members, sheet)


def consumers_of(members: Members) -> Counter[str]:
    """Return how many workers consume each queue."""
    alike = Counter(
        tuple(told.get("queues", ())) for told in members.told.values() if told.get("role") != "resurrector"
    )
    found: Counter[str] = Counter()
    for queues, workers in alike.items():  # Most workers consume the same ones.
        found.update(dict.fromkeys(queues, workers))
    return found


def _state(told: Mapping[str, object], present: bool | None) -> str:
    state = str(told.get("state") or "alive")
    return (state if state in STATES else "alive") if present else "silent"


def _held_leases(members: Members) -> int:
    held = {slot for slot in members.leases if not slot.startswith(MEMBER)} & set(SLOTS)
    holders = (members.leases[slot].split("|") for slot in held)
    return sum(len(parts) == 3 and parts[1] in members.told for parts in holders)


def _measure_runs(members: Members, sheet: Sheet) -> None:
    runs: Counter[tuple[str, str]] = Counter()
    longest: dict[tuple[str, str], float] = {}
    for worker, told in members.busy.items():
        for busy in told if worker in members.told else ():
            kind = busy.queue, busy.actor
            runs[kind] += busy.runs
            longest[kind] = max(longest.get(kind, 0.0), busy.longest)
    for kind, count in runs.most_common(MOST):
        sheet.put("relier_tasks_in_flight", count, *kind)
        sheet.put("relier_longest_run_seconds", longest[kind], *kind)


def measure_server(health: ServerHealth, sheet: Sheet) -> None:
    """Measure how Redis does."""
    used, most = health.fullest
    sheet.put("relier_store_ping_seconds", health.ping)
    sheet.put("relier_store_memory_bytes", used)
    sheet.put("relier_store_memory_max_bytes", most)
    sheet.put("relier_store_clients", health.total("connected_clients"))
    sheet.put("relier_store_aof_ok", health.aof_works)
    sheet.put("relier_store_replicas", health.total("connected_slaves"))
    sheet.put("relier_store_evicted_keys_total", health.total("evicted_keys"))


def measure_admission(usages: Sequence[Usage], sheet: Sheet) -> None:
    """Measure the limits of everything and of actors. Those of keys are any number: they are not told."""
    told = [usage for usage in usages if usage.scope == GLOBAL or usage.scope.startswith("actor:")]
    for usage in {usage.scope: usage for usage in reversed(told[:MOST])}.values():
        sheet.put("relier_admission_used", usage.used, usage.scope)
        sheet.put("relier_admission_limit", usage.most, usage.scope)


def measure_burns(burns: Iterable[Burn], sheet: Sheet) -> None:
    """Measure how objectives fare, the fastest burning first."""
    for burn in list(burns)[:MOST]:
        sheet.put("relier_slo_target_ratio", burn.target, burn.actor, burn.kind)
        sheet.put("relier_slo_budget_left_ratio", burn.budget_left, burn.actor, burn.kind)
        if burn.latency is not None:
            sheet.put("relier_slo_latency_seconds", burn.latency, burn.actor)
        for severity in LEAST_FAILURES:
            sheet.put("relier_slo_alert", burn.severity == severity, burn.actor, burn.kind, severity)
        for window in SHOWN:
            sheet.put("relier_slo_burn_rate", burn.burn_rate(window), burn.actor, burn.kind, window)
