"""Dead letters that an experiment brings about."""

from __future__ import annotations

from collections.abc import Callable

from relier.store.letters import Place
from relier.store.records import Record
from relier_cli.chaos.stage import Stage
from relier_cli.opening import who

#: Among how many of the newest letters one is looked for.
NEWEST = 200


def find_letter(stage: Stage, since: float, is_it: Callable[[Record], bool]) -> tuple[Place, Record] | None:
    """Return the letter that is meant, among those that died since a time (s, the server's clock)."""
    for task_id, shard, died in stage.store.dead_letters(NEWEST):
        if died < since:
            break
        record = stage.store.records([task_id], shard).get(task_id)
        if record is not None and is_it(record):
            return Place(int(died * 1e6), shard, task_id), record
    return None


def remove_letter(stage: Stage, place: Place) -> bool:
    """Discard a letter for good; returns whether it is gone."""
    return stage.store.letters.purge([place], who())[place] in ("purged", "gone")
