"""Processes whose every connection goes through proxies of their own."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import redis

from tests.faults.proxy import Proxy
from tests.integration.harness import Harness, Process


@dataclass
class Linked:
    """A process, its link to the store and its link to the broker (the same one where that is the same Redis)."""

    process: Process
    store: Proxy
    broker: Proxy
    _pid: int = 0

    @property
    def proxies(self) -> list[Proxy]:
        return [self.store] if self.store is self.broker else [self.store, self.broker]

    @property
    def pid(self) -> int:
        """The process that runs tasks; 0 until the store has known it, and could be asked."""
        if not self._pid:
            with suppress(redis.RedisError, OSError):
                if self.process.identity:
                    self._pid = self.process.pid
        return self._pid

    def heal(self) -> None:
        for proxy in self.proxies:
            proxy.heal()

    def close(self) -> None:
        """End the links; the process is the harness's."""
        for proxy in self.proxies:
            proxy.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self.close()


def linked(fleet: Harness, kind: str = "worker", **options: Any) -> Linked:
    """Start a `worker` or a `resurrector` behind proxies; `options` are settings, and those of `Harness.worker`."""
    store = Proxy(str(fleet.settings.redis_url))
    broker = store
    urls: dict[str, Any] = {"redis_url": store.url}
    if fleet.settings.broker_url:
        broker = Proxy(fleet.settings.broker_url)
        urls["broker_url"] = broker.url
    start = fleet.worker if kind == "worker" else fleet.resurrector
    return Linked(start(**urls, **options), store, broker)
