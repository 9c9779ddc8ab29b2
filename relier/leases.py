"""Who sweeps what: leases without clocks, shared fairly between resurrectors, taken over from the dead."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from relier.store import SHARDS, Store

logger = logging.getLogger(__name__)

#: The slot of whoever watches the fleet for deaths.
WATCH = "watch"
#: The shards are leased in this many pieces.
PIECES = 8
#: A lease whose counter stood still for this long (s, the observer's monotonic clock) is free.
STALE_AFTER = 2.0
#: Prefix of the slots in which resurrectors show that they are there.
MEMBER = "member:"

SLOTS = (WATCH, *(f"shards-{piece}" for piece in range(PIECES)))


def shards_of(slot: str) -> range:
    """Return the shards of a lease."""
    piece = int(slot.removeprefix("shards-"))
    size = SHARDS // PIECES
    return range(piece * size, (piece + 1) * size)


@dataclass
class _Seen:
    lease: str
    since: float


@dataclass
class Leases:
    """One sweeper's leases.

    Parameters:
      store: where the leases are.
      identity: the sweeper's worker id now.
      dedicated: whether this is a resurrector; a worker sweeps only while there is none.
      is_gone: answers whether a worker was seen dead (its lease is free at once).
    """

    store: Store
    identity: Callable[[], str]
    dedicated: bool
    is_gone: Callable[[str], bool]
    held: dict[str, str] = field(default_factory=dict)
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _counter: int = 0
    _token: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def watches(self) -> bool:
        return WATCH in self.held

    @property
    def shards(self) -> list[int]:
        return [shard for slot in self.held if slot != WATCH for shard in shards_of(slot)]

    def holders(self) -> set[str]:
        """Return the other sweepers that held a lease at the last look."""
        return {_holder(seen.lease) for slot, seen in self._seen.items() if slot not in self.held}

    def renew(self, leases: dict[str, str], elsewhere: bool = True) -> None:
        """Look at the leases as they are, keep ours moving, take what is free and our due."""
        now = time.monotonic()
        self._look(leases, now)
        wishes = self._wishes(leases, now)
        if wishes:
            self._settle(self.store.fleet.lease(wishes), {slot: wanted for slot, _, wanted in wishes})

    def release(self) -> None:
        """Give everything back."""
        slots = {**self.held, **({self._member: self._own_member} if self._own_member else {})}
        if slots:
            self.store.fleet.lease((slot, lease, "") for slot, lease in slots.items())
        self.held.clear()

    @property
    def _member(self) -> str:
        return MEMBER + self.identity()

    @property
    def _own_member(self) -> str:
        seen = self._seen.get(self._member)
        return seen.lease if seen else ""

    def _look(self, leases: dict[str, str], now: float) -> None:
        for slot in [slot for slot in self._seen if slot not in leases]:
            del self._seen[slot]
        for slot, lease in leases.items():
            seen = self._seen.get(slot)
            if seen is None or seen.lease != lease:
                self._seen[slot] = _Seen(lease, now)
        for slot in [slot for slot, lease in self.held.items() if leases.get(slot) != lease]:
            del self.held[slot]
            logger.info("Lease already claimed by another resurrector", extra={"lease": slot})

    def _is_free(self, slot: str, now: float) -> bool:
        seen = self._seen.get(slot)
        if seen is None:
            return True
        if slot in self.held:
            return False
        dedicated_lease = seen.lease.startswith("r|")
        if self.dedicated and not dedicated_lease:
            return True
        return now - seen.since > STALE_AFTER or self.is_gone(_holder(seen.lease))

    def _wishes(self, leases: dict[str, str], now: float) -> list[tuple[str, str, str]]:
        members = [s for s in leases if s.startswith(MEMBER) and s != self._member and not self._is_free(s, now)]
        self._counter += 1
        wanted = f"{'r' if self.dedicated else 'w'}|{self.identity()}|{self._token}{self._counter}"
        wishes = [(s, leases[s], "") for s in leases if s.startswith(MEMBER) and s not in members and s != self._member]
        if self.dedicated:
            wishes.append((self._member, leases.get(self._member, ""), wanted))
            share = -(-len(SLOTS) // (len(members) + 1))
        else:
            share = 0 if members else len(SLOTS)
        keep = list(self.held)[:share]
        wishes += [(slot, self.held[slot], wanted if slot in keep else "") for slot in self.held]
        free = [slot for slot in SLOTS if slot not in self.held and self._is_free(slot, now)]
        wishes += [(slot, leases.get(slot, ""), wanted) for slot in free[: share - len(keep)]]
        return wishes

    def _settle(self, leases: dict[str, str], wanted: dict[str, str]) -> None:
        before = bool(self.held)
        self.held = {slot: leases[slot] for slot in SLOTS if wanted.get(slot) and leases.get(slot) == wanted[slot]}
        self._look(leases, time.monotonic())
        if self.held and not before:
            logger.info("Acquired resurrection lease", extra={"leases": len(self.held)})


def _holder(lease: str) -> str:
    parts = lease.split("|")
    return parts[1] if len(parts) == 3 else ""
