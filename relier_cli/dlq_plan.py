"""What would become of dead letters that are released now: who would run them, and under which payload version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relier.dlq import Planned
from relier.knowledge import FleetView
from relier.routes import Routes
from relier.settings import Settings
from relier.store import Due, Store, Suspicion
from relier_cli.output import print_table


@dataclass(frozen=True, slots=True)
class Prospect:
    """Letters of one actor, queue and payload version, and what they would meet."""

    planned: Planned
    #: The newest payload version that a worker of the queue takes; None: unknown, or no worker can run them.
    runs_as: int | None
    #: Why they would wait; '' when some worker can run them.
    waits_for: str

    def as_data(self) -> dict[str, Any]:
        return {
            "actor": self.planned.actor,
            "queue": self.planned.queue,
            "payload_version": self.planned.payload_version,
            "letters": self.planned.letters,
            "runs_as": self.runs_as,
            "waits_for": self.waits_for or None,
        }

    @property
    def outlook(self) -> str:
        if not self.planned.actor:
            return "examined again, then sent as the task it names"
        if self.waits_for:
            return f"waits: {self.waits_for}"
        if self.runs_as is None or self.runs_as <= self.planned.payload_version:
            return "runs as it is"
        return f"migrated to version {self.runs_as}, then runs"


def prospects(store: Store, plan: Sequence[Planned], settings: Settings) -> list[Prospect]:
    """Ask of each what the publisher would decide: who can run it now, or why it waits."""
    fleet, routes = FleetView(store), Routes(settings)
    fleet.look()
    return [_prospect(planned, fleet, routes) for planned in plan]


def _prospect(planned: Planned, fleet: FleetView, routes: Routes) -> Prospect:
    if not planned.actor:
        return Prospect(planned, None, "")
    due = Due(
        task_id="",
        shard=0,
        fence=0,
        state="s",
        suspicion=Suspicion.NONE,
        crashes=0,
        published=0,
        queue=planned.queue,
        actor=planned.actor,
        body=b"",
        payload_version=planned.payload_version,
    )
    if held := routes.of(due, fleet.knowledge, fleet.holds).held:
        return Prospect(planned, None, held)
    codes = fleet.knowledge.consumers.get(planned.queue, ())
    versions = [code.newest.get(planned.actor) for code in codes if code is not None]
    return Prospect(planned, max((version for version in versions if version), default=None), "")


def show_plan(plan: Sequence[Prospect], *, runs: bool) -> None:
    """Print a line for each; `runs`: whether they are to run, so that it matters what they would meet."""
    headers = ("actor", "queue", "payload version", "letters")
    rows = [(p.planned.actor, p.planned.queue, p.planned.payload_version, p.planned.letters) for p in plan]
    if runs:
        print_table((*headers, "then"), [(*row, p.outlook) for row, p in zip(rows, plan, strict=True)])
    else:
        print_table(headers, rows)
