"""What would become of dead letters that are released now: who would run them, and under which payload version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relier.dlq import Planned
from relier.knowledge import FleetView, Knowledge
from relier.store import Store
from relier.store.survey import NEWER_VERSION, NO_CONSUMER, UNKNOWN_ACTOR
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


def prospects(store: Store, plan: Sequence[Planned]) -> list[Prospect]:
    """Compare what would be released with what the living workers can run."""
    fleet = FleetView(store)
    fleet.look()
    return [_prospect(planned, fleet.knowledge) for planned in plan]


def _prospect(planned: Planned, knowledge: Knowledge) -> Prospect:
    actor, queue, version = planned.actor, planned.queue, planned.payload_version
    if not actor or knowledge.can_run(queue, actor, version):
        known = [code.newest.get(actor) for code in knowledge.consumers.get(queue, ()) if code is not None]
        return Prospect(planned, max((newest for newest in known if newest), default=None), "")
    if queue not in knowledge.queues or knowledge.has(actor, version):
        return Prospect(planned, None, NO_CONSUMER)
    return Prospect(planned, None, NEWER_VERSION if knowledge.has(actor) else UNKNOWN_ACTOR)


def show_plan(plan: Sequence[Prospect]) -> None:
    headers = ("actor", "queue", "payload version", "letters", "then")
    rows = [(p.planned.actor, p.planned.queue, p.planned.payload_version, p.planned.letters, p.outlook) for p in plan]
    print_table(headers, rows)
