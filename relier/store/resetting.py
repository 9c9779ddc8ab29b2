"""Removes everything that Relier keeps for one namespace, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator

from relier.store.connection import ScriptRunner
from relier.store.fleet import pass_gate
from relier.store.keys import SHARDS, Keys

#: About how many keys one call looks at, and how many are unlinked at once.
PAGE = 500


class Resetting:
    """Looks for the keys of one namespace by their names: some belong to workers, groups or keys that nobody lists.

    Parameters:
      runner: of the store.
      keys: names the keys.
    """

    def __init__(self, runner: ScriptRunner, keys: Keys) -> None:
        self._runner = runner
        self._keys = keys
        # The namespace `a:b` begins like a namespace `a`: a shard's number has to follow.
        numbers = "|".join(f"{shard:02d}" for shard in range(SHARDS))
        self._ours = re.compile(rf"{re.escape(keys.prefix)}\{{(?:{numbers})\}}:".encode())
        self._pattern = re.sub(r"([\\*?\[\]])", r"\\\1", keys.prefix) + "{*"

    def remove(self) -> int:
        """Remove every key, in pieces that block nobody; returns how many there were.

        Killed in between, it is repeated. What is written meanwhile may stay.
        """
        removed = 0
        pass_gate(self._runner, self._keys)
        for page in self._pages():
            removed += sum(self._runner.commands(("UNLINK", name) for name in page))
        return removed

    def _pages(self) -> Iterator[list[bytes]]:
        for names in self._runner.scan(self._pattern, PAGE):
            found = [name for name in names if self._ours.match(name)]
            for i in range(0, len(found), PAGE):
                yield found[i : i + PAGE]
