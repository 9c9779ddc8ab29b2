"""Which workers an experiment holds its probes on, and where those ran: two keys, which expire by themselves."""

from __future__ import annotations

import time

from relier.store import Store

#: How long (s) probes stay when the command that holds them is gone.
KEPT = 15.0
#: How often (s) the command renews that, at most.
RENEW = 2.0
#: Stands for every worker.
EVERYONE = "*"


class Holding:
    """What one experiment holds.

    Parameters:
      store: where that is known.
      token: names the experiment.
    """

    def __init__(self, store: Store, token: str) -> None:
        self._runner = store.runner
        self._key = store.keys.chaos(token)
        self._ran = store.keys.chaos(token) + ":ran"
        self._whom = EVERYONE
        self._renewed = 0.0

    def hold(self, whom: str = EVERYONE) -> None:
        """Let probes stay on one worker, and end on all others."""
        self._whom, self._renewed = whom, time.monotonic()
        kept = int(KEPT * 1000)
        self._runner.commands([("SET", self._key, whom, "PX", kept), ("PEXPIRE", self._ran, kept)])

    def keep(self) -> None:
        """Go on holding; to be called now and then."""
        if time.monotonic() - self._renewed > RENEW:
            self.hold(self._whom)

    def release(self) -> None:
        """Let every probe end."""
        self._runner.command("DEL", self._key, self._ran)

    def holds(self, worker: str) -> bool:
        """Whether a probe is to stay on this worker."""
        whom: bytes | None = self._runner.command("GET", self._key)
        return whom is not None and whom.decode() in (EVERYONE, worker)

    def ran(self, task_id: str, worker: str, fence: int) -> None:
        """Note a run of a probe."""
        add = ("HSET", self._ran, f"{task_id} {fence}", worker)
        self._runner.commands([add, ("PEXPIRE", self._ran, int(KEPT * 1000))])

    def runs(self) -> dict[tuple[str, int], str]:
        """Return the worker of each run of a probe, by its task and fence."""
        flat = [part.decode() for part in self._runner.command("HGETALL", self._ran)]
        found = {}
        for name, worker in zip(flat[::2], flat[1::2], strict=True):
            task_id, _, fence = name.partition(" ")
            found[task_id, int(fence)] = worker
        return found
