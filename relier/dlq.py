"""Dead letters from an application: what there is, and the ways out. `rl dlq` is made of this.

from relier.dlq import DeadLetters, Wanted

letters = DeadLetters(who="billing admin")
for group in letters.groups(Wanted(queue="invoices")):
    print(group.count, group.sample_message, group.trend)
letters.release_all(Wanted(actor="send_invoice", reason="ConnectionError"), rate=50)
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dramatiq.broker
from dramatiq import Broker

from relier import failpoints
from relier.integrity import Integrity
from relier.letter_edits import EditRefusedError, edited
from relier.people import somebody
from relier.settings import Settings, get_settings
from relier.store import Store, get_store
from relier.store.letter_entries import Entry, arguments_of, read_entries
from relier.store.letters import Group, Letter, Place, Planned, Wanted
from relier.store.survey import Survey

__all__ = ["Canary", "DeadLetters", "EditRefusedError", "Entry", "Group", "Letter", "Place", "Planned", "Wanted"]

#: Most letters in one piece when nobody asked for a rate: one round trip, a few milliseconds.
PIECE = 1000
#: Pieces a second when somebody did.
PIECES_A_SECOND = 10
#: How often (s) a canary is looked at.
LOOK = 0.1
#: Longest wait (s) for a canary's end, unless told otherwise.
PATIENCE = 300.0

#: Told of each piece: what happened to which letter.
Told = Callable[[Mapping[Place, str]], None]


@dataclass(frozen=True, slots=True)
class Canary:
    """The letter that was released before all others, and what became of it."""

    task_id: str
    #: completed, dead, discarded; or what it was when nobody waited any longer: queued, scheduled, running.
    outcome: str

    @property
    def succeeded(self) -> bool:
        return self.outcome == "completed"


class DeadLetters:
    """The dead letters of one store.

    Parameters:
      store: where they are. Default: that of the settings.
      who: asks, for the history of each letter. Default: user and host of this process.
    """

    def __init__(self, store: Store | None = None, who: str = "") -> None:
        self.store = store or get_store()
        self.who = who or somebody()

    # -- what there is ----------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Return how many dead letters there are."""
        return self.store.letters.count()

    def places(self, wanted: Wanted | None = None, limit: int | None = None) -> list[Place]:
        """Return the dead letters that are wanted (default: all) and died until now, the oldest first."""
        return self.store.letters.places(self._until_now(wanted))[:limit]

    def newest(self, wanted: Wanted | None = None, limit: int = 50) -> tuple[list[Letter], int]:
        """Return the newest dead letters that are wanted, the newest first, and how many are wanted."""
        if wanted is None or wanted.everything:
            places, matching = self.store.letters.newest(limit), self.count()
        else:
            found = self.places(wanted)
            places, matching = found[: -limit - 1 : -1], len(found)
        return self.store.letters.summaries(places), matching

    def groups(self, wanted: Wanted | None = None) -> list[Group]:
        """Return the dead letters that are wanted by fingerprint, the largest group first."""
        return self.store.letters.groups(self._until_now(wanted))

    def plan(self, wanted: Wanted | None = None, limit: int | None = None) -> list[Planned]:
        """Return how many dead letters would run as what: actor, queue and payload version; the most first.

        limit: of the oldest so many.
        """
        if limit is None:
            return self.store.letters.plan(self._until_now(wanted))
        letters = self.store.letters.summaries(self.places(wanted, limit))
        kinds = Counter((letter.actor, letter.queue, letter.payload_version) for letter in letters)
        return [Planned(*kind, count) for kind, count in kinds.most_common()]

    # -- the ways out -----------------------------------------------------------------------------------------------

    def release(self, *task_ids: str) -> dict[str, str]:
        """Let dead letters run again, with fresh attempts and the crashes they had.

        Returns of each what happened: `released`; `unknown`, there is no such task; `gone`, it is no dead letter;
        `pending`, the hooks of its failure are not done yet; `superseded`, another task has had its job key since;
        `newer`, a newer version wrote it. May be repeated.
        """
        shards = {task_id: self.store.known(task_id).shard for task_id in dict.fromkeys(task_ids)}
        places = [Place(0, shard, task_id) for task_id, shard in shards.items()]
        outcomes = self._released(places)
        return {place.task_id: outcomes[place] for place in places}  # As they were asked for, not by their shards.

    def release_edited(
        self,
        task_id: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        settings: Settings | None = None,
        broker: Broker | None = None,
    ) -> tuple[str, str]:
        """Release a dead letter with other arguments (None: its own); returns what happened, as `release` does.

        The second part says why the arguments were not compared with the actor's parameters; empty when they were.
        Its message is sealed again, with a signature where there are keys. Raises `EditRefusedError` for arguments
        that do not fit, and for a letter whose message a worker would refuse: it stays what it is.

        Parameters:
          settings: keys and limits. Default: those of the environment.
          broker: its actors tell what parameters there are. Default: the global one, if any.
        """
        settings = settings or get_settings()
        shard = self.store.known(task_id).shard
        record = self.store.records([task_id], shard).get(task_id)
        if record is None or record.state != "d":
            return self.release(task_id)[task_id], ""
        if not record.actor:
            raise EditRefusedError("It is the letter of a refused message, which is no task: enqueue one instead.")
        died = round(Survey(self.store).dead_lettered_at(task_id, shard) * 1e6)
        integrity, known = Integrity.of(settings), broker or dramatiq.broker.global_broker
        new = edited(record.body, args, kwargs, integrity=integrity, broker=known, limit=settings.max_payload_bytes)
        place = Place(died, shard, task_id)
        outcome = self._released([place], "with other arguments", new.body)[place]
        return outcome, new.unchecked

    def release_all(
        self,
        wanted: Wanted | Sequence[Place] | None = None,
        *,
        limit: int | None = None,
        rate: float | None = None,
        told: Told | None = None,
    ) -> Counter[str]:
        """Let all wanted dead letters that there are now run again, the oldest first; returns how many were what.

        What dies again meanwhile stays a dead letter. It may be ended at any moment: each letter is released, or there.

        Parameters:
          wanted: which (default: all); or those that `places` returned.
          limit: at most so many.
          rate: at most so many a second. Default: as fast as the store takes them.
          told: called after each piece.
        """
        return _tally(self._pieces(self._chosen(wanted, limit), self._released, rate), told)

    def try_one(
        self,
        places: Sequence[Place],
        patience: float = PATIENCE,
        insist: Callable[[Letter], None] | None = None,
    ) -> Canary | None:
        """Release the first of these letters that can be, and wait for its end. None: none of them could be.

        Parameters:
          patience: seconds after which nobody waits any longer; the letter is released all the same.
          insist: called with each letter before it is released; what it raises ends the search.
        """
        for place in places:
            if insist is not None:
                for letter in self.store.letters.summaries([place]):
                    insist(letter)
            if self._released([place])[place] == "released":
                return Canary(place.task_id, self._end_of(place, patience))
        return None

    def purge(
        self, wanted: Wanted | Sequence[Place], *, limit: int | None = None, told: Told | None = None
    ) -> Counter[str]:
        """Discard dead letters for good, counted as `discarded: purged`; returns how many were what.

        Parameters are those of `release_all`. To be ended at any moment, too.
        """
        return _tally(self._pieces(self._chosen(wanted, limit), self._purged, None), told)

    # -- files ------------------------------------------------------------------------------------------------------

    def export(self, wanted: Wanted | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Iterate over whole dead letters, the oldest first; see `relier.letter_lines` for their form in files."""
        return read_entries(self.store.letters, self.places(wanted, limit))

    def take_in(self, entries: Iterable[Entry]) -> list[str]:
        """Make dead letters of exported ones, here or from another store; returns of each what happened.

        `imported`; `exists`, it is a dead letter here; `known`, a task of this id waits, runs or has ended here: then
        nothing was changed. Only a purged one comes back. May be repeated.
        """
        return self.store.letters.take_in(self.who, [(entry.shard, arguments_of(entry)) for entry in entries])

    # -- how --------------------------------------------------------------------------------------------------------

    def _until_now(self, wanted: Wanted | None) -> Wanted:
        wanted = wanted or Wanted()
        if wanted.until is not None:
            return wanted
        names = wanted.names()
        return Wanted(**names, since=wanted.since, until=Survey(self.store).now())

    def _chosen(self, wanted: Wanted | Sequence[Place] | None, limit: int | None) -> Sequence[Place]:
        if wanted is None or isinstance(wanted, Wanted):
            return self.places(wanted, limit)
        return wanted[:limit]

    def _released(self, places: Sequence[Place], how: str = "", body: bytes | None = None) -> dict[Place, str]:
        failpoints.hit("before-release")
        outcomes = self.store.letters.release(places, self.who, how, body)
        failpoints.hit("released")
        return outcomes

    def _purged(self, places: Sequence[Place]) -> dict[Place, str]:
        failpoints.hit("before-purge")
        outcomes = self.store.letters.purge(places, self.who)
        failpoints.hit("purged")
        return outcomes

    def _pieces(
        self,
        places: Sequence[Place],
        act: Callable[[Sequence[Place]], dict[Place, str]],
        rate: float | None,
    ) -> Iterator[dict[Place, str]]:
        size = PIECE if rate is None else max(1, min(PIECE, int(rate / PIECES_A_SECOND)))
        due = time.monotonic()
        for i in range(0, len(places), size):
            piece = places[i : i + size]
            if rate is not None:
                time.sleep(max(0.0, due - time.monotonic()))
                due = time.monotonic() + len(piece) / rate  # What was late does not catch up.
            yield act(piece)

    def _end_of(self, place: Place, patience: float) -> str:
        end = time.monotonic() + patience
        while True:
            status = self.store.known(place.task_id, place.shard).status or "unknown"
            if status in ("completed", "dead", "discarded", "unknown") or time.monotonic() >= end:
                return status
            time.sleep(LOOK)


def _tally(pieces: Iterator[dict[Place, str]], told: Told | None) -> Counter[str]:
    tally: Counter[str] = Counter()
    for outcomes in pieces:
        tally.update(outcomes.values())
        if told is not None:
            told(outcomes)
    return tally
