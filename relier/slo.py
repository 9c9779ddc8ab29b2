"""How fast actors burn their error budgets: arithmetic over what the store counted, after Google's SRE workbook.

An objective allows a rate of errors, 1 - its target. The burn rate over a window is what came to pass over what was
allowed: failures ÷ (allowed error rate × all). At 1 the budget lasts exactly its period, 30 days; at 14.4 an hour
spends 2 % of it (https://sre.google/workbook/alerting-on-slos/).

Success: a failure is a dead letter, all are the tasks that completed or became one. What was cancelled, purged or
discarded otherwise is neither, and a release does not undo the failure. Latency: a failure is a task that completed
later than `slo_latency` after its push, all are the tasks that completed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, NamedTuple, Protocol

from relier.settings import Settings
from relier.store import Store
from relier.store.objective import Objective

Kind = Literal["success", "latency"]
Severity = Literal["page", "ticket"]

#: The windows by name, in seconds: what alerts look at, and last the period of the budget.
WINDOWS = {"5m": 300.0, "30m": 1800.0, "1h": 3600.0, "6h": 21_600.0, "3d": 259_200.0, "30d": 2_592_000.0}
#: Those that are shown.
SHOWN = ("1h", "6h", "3d")
#: The one over which the budget is reckoned.
PERIOD = "30d"

#: Stands for the actor of messages that were refused (bad signature, undecodable): nobody believes what they claim.
REFUSED = "(refused)"


class Rule(NamedTuple):
    """When a burn rate alerts: above the factor over the long window, and still so over the short one."""

    severity: Severity
    long: str
    short: str
    factor: float


#: The workbook's: 2 % of the budget in an hour, 5 % in six, 10 % in three days.
RULES = (Rule("page", "1h", "5m", 14.4), Rule("page", "6h", "30m", 6.0), Rule("ticket", "3d", "6h", 1.0))

#: So many failures there are in the long window before it alerts. Among few tasks a single one exceeds any factor: one
#: of 20 is a burn rate of 50. It is in the DLQ for whoever looks; nobody needs to be woken.
LEAST_FAILURES: Mapping[Severity, int] = {"page": 5, "ticket": 3}


class Counted(Protocol):
    """What the store counted of the tasks of one actor and queue, over some time."""

    @property
    def actor(self) -> str: ...

    @property
    def counts(self) -> Mapping[str, int]: ...


class Tally(NamedTuple):
    """What came to pass in one window."""

    failures: int = 0
    all: int = 0
    allowed: float = 0.0  #: how many failures the objective allows among so many

    @property
    def burn_rate(self) -> float:
        """How many times as many failures as allowed; 0 where nothing came to pass."""
        return self.failures / self.allowed if self.allowed else 0.0

    @property
    def rate(self) -> float:
        """Which rate was good; 1 where nothing came to pass."""
        return 1 - self.failures / self.all if self.all else 1.0

    def plus(self, other: Tally) -> Tally:
        return Tally(self.failures + other.failures, self.all + other.all, self.allowed + other.allowed)


@dataclass(frozen=True, slots=True)
class Burn:
    """How one objective fares."""

    actor: str
    kind: Kind
    target: float
    #: Within how many seconds; of a latency objective.
    latency: float | None = None
    #: By the name of the window.
    tallies: Mapping[str, Tally] = field(default_factory=dict)

    def tally(self, window: str) -> Tally:
        return self.tallies.get(window, Tally())

    def burn_rate(self, window: str) -> float:
        return self.tally(window).burn_rate

    @property
    def budget_left(self) -> float:
        """Which share of the budget of the last 30 days' tasks is left; negative when more than all of it is spent."""
        return 1 - self.burn_rate(PERIOD)

    @property
    def alerts(self) -> list[Rule]:
        """The rules that alert, the most severe first."""
        return [rule for rule in RULES if self._exceeds(rule)]

    @property
    def severity(self) -> Severity | None:
        """Whether somebody is to be paged, or to get a ticket."""
        return next((rule.severity for rule in self.alerts), None)

    @property
    def state(self) -> str:
        """page, ticket, burning (faster than allowed, but no alert), ok, or idle (no tasks in three days)."""
        if severity := self.severity:
            return severity
        if any(self.burn_rate(window) > 1 for window in SHOWN):
            return "burning"
        return "ok" if self.tally("3d").all else "idle"

    def _exceeds(self, rule: Rule) -> bool:
        enough = self.tally(rule.long).failures >= LEAST_FAILURES[rule.severity]
        return enough and all(self.burn_rate(window) > rule.factor for window in (rule.long, rule.short))


def allowed_rate(target: float) -> float:
    """Return which rate of errors a target allows: exactly what its digits say, 0.001 for 0.999."""
    return float(1 - Decimal(repr(float(target))))


def success_tally(rows: Iterable[Counted], target: float) -> Tally:
    """Sum up rows for a success objective."""
    dead = completed = 0
    for row in rows:
        dead += row.counts.get("dead", 0)
        completed += row.counts.get("completed", 0)
    return Tally(dead, dead + completed, allowed_rate(target) * (dead + completed))


def latency_tally(rows: Iterable[Counted], target: float) -> Tally:
    """Sum up rows for a latency objective."""
    slow = completed = 0
    for row in rows:
        slow += row.counts.get("slow", 0)
        completed += row.counts.get("completed", 0)
    return Tally(min(slow, completed), completed, allowed_rate(target) * completed)


def burns_of(
    windows: Mapping[str, Sequence[Counted]], objectives: Mapping[str, Objective], default_target: float
) -> list[Burn]:
    """Return how each objective fares, the fastest burning first.

    windows: what was counted in each window, by its name. objectives: what actors promise; of those that promise
    nothing `default_target` is expected when they have tasks.
    """
    by_actor = {window: _by_actor(rows) for window, rows in windows.items()}
    actors = {actor for found in by_actor.values() for actor in found} | set(objectives)
    burns = []
    for actor in actors:
        rows = {window: found.get(actor, []) for window, found in by_actor.items()}
        burns += _of_actor(actor, rows, objectives.get(actor, Objective()), default_target)
    return sorted(burns, key=_urgency)


def _by_actor(rows: Iterable[Counted]) -> dict[str, list[Counted]]:
    found: dict[str, list[Counted]] = {}
    for row in rows:
        if row.counts.get("dead") or row.counts.get("completed"):
            found.setdefault(row.actor or REFUSED, []).append(row)
    return found


def _of_actor(actor: str, rows: Mapping[str, list[Counted]], objective: Objective, default_target: float) -> list[Burn]:
    target = objective.target or default_target
    success = {window: success_tally(found, target) for window, found in rows.items()}
    burns = [Burn(actor, "success", target, tallies=success)]
    if objective.latency is not None:
        latency = {window: latency_tally(found, target) for window, found in rows.items()}
        burns.append(Burn(actor, "latency", target, objective.latency, latency))
    return burns


def _urgency(burn: Burn) -> tuple[int, float, float, str, str]:
    rank = {"page": 0, "ticket": 1, None: 2}[burn.severity]
    return rank, -max(map(burn.burn_rate, SHOWN)), burn.budget_left, burn.actor, burn.kind


def together(burns: Iterable[Burn], default_target: float) -> Burn:
    """Return all success objectives as one: what all actors' tasks were allowed together."""
    tallies: dict[str, Tally] = {}
    for burn in burns:
        if burn.kind == "success":
            for window, tally in burn.tallies.items():
                tallies[window] = tallies.get(window, Tally()).plus(tally)
    return Burn("", "success", default_target, tallies=tallies)


def burn_rates(store: Store, settings: Settings, windows: Mapping[str, float] = WINDOWS) -> list[Burn]:
    """Return how each objective fares by what the store counted, the fastest burning first.

    windows: their lengths (s) by name. `RELIER_SLO_TARGET` is that of the calling process; what actors set themselves
    their workers have told.
    """
    counted = store.statistics.windows(*windows.values())
    return burns_of(dict(zip(windows, counted, strict=True)), store.fleet.objectives(), settings.slo_target)
