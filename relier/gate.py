"""What a process may not start now: tasks of queues that are paused, and of actors that are parked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from relier.store.fleet import Beat, Busy
from relier.store.holds import NO_HOLDS, Holds

if TYPE_CHECKING:
    from relier.brokers.generic import Adapter
    from relier.store import Store

#: A view older (s) than this decides no claim: a pause is to be known everywhere within 2 seconds, and a worker that
#: was cut off from the store must not begin with what was paused meanwhile.
FRESH = 1.5


class Gate:
    """Knows the holds, and closes the consumers of what is paused.

    Parameters:
      store: where the holds are.
      adapter: of the broker that this process consumes.
    """

    def __init__(self, store: Store, adapter: Adapter) -> None:
        self._store = store
        self._adapter = adapter
        self._learning = threading.Lock()
        self._at = float("-inf")
        #: What is held, as far as this process knows.
        self.holds: Holds = NO_HOLDS

    def beat(self, identity: str, busy: Iterable[Busy] = ()) -> str:
        """Beat once, and learn from the answer; returns what the beat says of this worker."""
        return self._learn(lambda: self._store.fleet.beat(identity, self.holds.version, busy)).answer

    def look(self) -> None:
        """Ask what is held."""
        self._learn(lambda: Beat("", self._store.fleet.holds()))

    def known(self) -> Holds:
        """Return what is held, from a view that is fresh. Raises what the store raises when it has to be asked."""
        came = time.monotonic()
        if came - self._at > FRESH:
            with self._learning:
                if self._at < came:  # Else somebody has asked since; the beat need not wait for all of us.
                    self._take_over(lambda: Beat("", self._store.fleet.holds()))
        return self.holds

    def _learn(self, ask: Callable[[], Beat]) -> Beat:
        """Take over an answer of the store, one at a time: an older one must not replace a newer one."""
        with self._learning:
            return self._take_over(ask)

    def _take_over(self, ask: Callable[[], Beat]) -> Beat:
        asked = time.monotonic()
        found = ask()
        if found.holds is not None:
            self._adapter.close_queues(frozenset(found.holds.queues))
            self.holds = found.holds
        self._at = asked
        return found
