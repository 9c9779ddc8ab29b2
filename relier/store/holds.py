"""Holds: queues that an operator paused, and actors that are parked. Their tasks wait until somebody lifts the hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal["queue", "actor"]

#: Those that this release knows.
_KINDS = get_args(Kind)

#: The reason of a task that is not published because its queue is paused.
PAUSED = "paused"
#: The reason of one that is not published because its actor is parked.
ACTOR_PARKED = "parked"

#: The field that names the state of all holds: it differs after each change.
_VERSION = "version"


@dataclass(frozen=True, slots=True)
class Hold:
    """Why the tasks of a queue or an actor wait."""

    kind: Kind
    name: str
    since: float  #: seconds since the epoch, on the server's clock
    by: str = ""  #: who asked for it
    reason: str = ""  #: in that one's words
    fingerprint: str = ""  #: of an actor: the failure that many of its tasks had
    codes: tuple[str, ...] = ()  #: of an actor: the codes that failed so, and must not run it; empty: no code may

    @classmethod
    def of(cls, field_name: str, value: str) -> Hold:
        kind, _, name = field_name.partition("\n")
        told = json.loads(value)
        texts = {key: str(told.get(key, "")) for key in ("by", "reason", "fingerprint")}
        codes = tuple(map(str, told.get("codes") or ()))
        return cls("actor" if kind == "actor" else "queue", name, int(told["since"]) / 1e6, **texts, codes=codes)

    @property
    def field(self) -> str:
        """Its name in the store."""
        return f"{self.kind}\n{self.name}"

    def told(self) -> str:
        """Return what the store keeps of it, but for the time, which the store knows."""
        told = {"by": self.by, "reason": self.reason, "fingerprint": self.fingerprint, "codes": self.codes}
        return json.dumps(told)

    def binds(self, code: str) -> bool:
        """Whether workers with this code must not start what is held."""
        return not self.codes or code in self.codes


@dataclass(frozen=True, slots=True)
class Holds:
    """All holds of a namespace at one moment."""

    version: str = ""
    queues: Mapping[str, Hold] = field(default_factory=dict)
    actors: Mapping[str, Hold] = field(default_factory=dict)

    @classmethod
    def of(cls, flat: Iterable[Any]) -> Holds:
        """Read what the store keeps: a flat list of fields and values."""
        parts = [part.decode() if isinstance(part, bytes) else str(part) for part in flat]
        pairs = dict(zip(parts[::2], parts[1::2], strict=True))
        version = pairs.pop(_VERSION, "")
        holds = [Hold.of(name, value) for name, value in pairs.items() if name.partition("\n")[0] in _KINDS]
        return cls(
            version,
            {hold.name: hold for hold in holds if hold.kind == "queue"},
            {hold.name: hold for hold in holds if hold.kind == "actor"},
        )

    def __bool__(self) -> bool:
        return bool(self.queues or self.actors)

    def why(self, queue: str, actor: str, codes: Iterable[str] = ("",)) -> str:
        """Return the reason for which a task of this queue and actor waits: `paused`, `parked`, or '' for none.

        `codes`: those that could run it; the hold of an actor binds some codes only.
        """
        if queue in self.queues:
            return PAUSED
        hold = self.actors.get(actor)
        return ACTOR_PARKED if hold is not None and all(map(hold.binds, codes)) else ""


NO_HOLDS = Holds()
