"""Where a benchmark runs: a private embedded server, or a namespace of its own on a given one; it leaves nothing."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dramatiq import Broker

from relier.embedded import ensure_server
from relier.errors import RelierConfigError
from relier.preflight import check_redis, place
from relier.settings import PREFIX, Settings
from relier.store import Store, get_store
from relier.store.client import connect
from relier_cli.demo import tie
from relier_cli.demo.cleanup import remove_keys, stop_server
from relier_cli.demo.environment import DemoSettings, heeded_settings, python_path

#: Variables that tell the processes of a benchmark what to do. Not RELIER_*: they are no settings.
TIE = "RL_BENCH_TIE"
KIND = "RL_BENCH_KIND"
MARKS = "RL_BENCH_MARKS"


class Ground:
    """One benchmark's server, settings and folder; to be entered.

    Parameters:
      given: use the Redis of the user's settings, rather than an embedded server of its own.

    Raises `RelierError` when the server cannot be used.
    """

    def __init__(self, *, given: bool) -> None:
        self._given = given
        self._cleanup = ExitStack()

    def __enter__(self) -> Ground:
        with ExitStack() as cleanup:
            self.folder = Path(tempfile.mkdtemp(prefix="rl-bench-"))
            cleanup.callback(shutil.rmtree, self.folder, ignore_errors=True)
            heeded = heeded_settings() if self._given else {}
            if self._given and not ("redis_url" in heeded or "redis_use_sentinel" in heeded):
                raise RelierConfigError(
                    "There is no server to use: --here needs RELIER_REDIS_URL, or Sentinels; a Cluster will not do."
                )
            self.values = {
                "namespace": f"bench-{secrets.token_hex(6)}",
                "log_level": "error",
                "admission_limit": str(10**9),
                "state_dir": str(self.folder / "state"),
                **heeded,
            }
            self.marks = self.folder / "marks"
            self.marks.mkdir()
            tie.hold(self.folder / "tie")
            values: dict[str, Any] = dict(self.values)
            self.settings: Settings = DemoSettings(**values)
            if self._given:
                cleanup.callback(remove_keys, self.settings)
            else:
                cleanup.callback(stop_server, ensure_server(self.settings.state_dir))
            self.store: Store = get_store(self.settings)
            check_redis(self.store.client, self.settings)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @property
    def server(self) -> str:
        """The server's place, without secrets."""
        return "a private embedded server" if not self._given else place(self.store.client, self.settings)

    def on_leaving(self, call: Callable[[], object]) -> None:
        """Do something before the server goes."""
        self._cleanup.callback(call)

    def environment(self, kind: str, **more: str) -> dict[str, str]:
        """Return the environment of a process: nothing of the user's settings disturbs it."""
        inherited = {n: v for n, v in os.environ.items() if not n.upper().startswith(PREFIX) and "_prefetch" not in n}
        own = {PREFIX + name.upper(): value for name, value in self.values.items()}
        told = {TIE: str(self.folder / "tie"), KIND: kind, MARKS: str(self.marks)}
        return {**inherited, **own, **told, "PYTHONPATH": python_path(inherited), **more}


def broker_of(kind: str, settings: Settings) -> Broker:
    """Return Dramatiq's own broker as it comes, or Relier's, both of this benchmark alone."""
    if kind == "plain":
        from dramatiq.brokers.redis import RedisBroker

        return RedisBroker(client=connect(settings), namespace=f"dramatiq:{settings.namespace}:plain")  # type: ignore[no-untyped-call]
    from relier.brokers import default_broker

    return default_broker(settings)
