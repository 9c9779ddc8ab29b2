"""The module that workers run: `dramatiq relier.workers [modules…]`.

Importing it checks the settings and Redis, sets the broker up, and imports the actor modules of `RELIER_ACTORS`.
Whatever is wrong is said in one line, and the process ends.
"""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import dramatiq
from dramatiq import Broker, Worker
from dramatiq.middleware import Middleware

from relier.brokers import default_broker
from relier.errors import RelierError
from relier.installation import install, installation_of
from relier.logging import configure_logging
from relier.preflight import check_redis
from relier.settings import Settings, get_settings


def refuse(reason: str) -> NoReturn:
    """End the process with one line."""
    raise SystemExit(reason)


class Refusals(Middleware):
    """Refuses to boot a worker that would silently do nothing."""

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        if not broker.get_declared_actors():
            refuse(
                "Relier found no actors. Refusing to start. Name the modules that declare them: RELIER_ACTORS=module,…"
                " or `dramatiq relier.workers module …` (write -Q last, it takes every word that follows)."
            )
        declared = broker.get_declared_queues()
        unknown = sorted(set(worker.consumer_whitelist or ()) - declared)
        if unknown:
            refuse(
                f"Nobody declared the queue{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))} of -Q."
                f" Refusing to start. Declared are {', '.join(sorted(declared))}; -Q takes names separated by blanks."
            )


def import_actors(modules: tuple[str, ...]) -> None:
    """Import actor modules; a failing one is named before its own traceback."""
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:
            print(f"Relier could not import the actor module {name!r} (RELIER_ACTORS).", file=sys.stderr, flush=True)
            raise


def prepare(settings: Settings) -> Broker:
    """Set up the global broker, import the actors, and check Redis. Raises `RelierStartupError`."""
    if dramatiq.broker.global_broker is None:
        dramatiq.set_broker(default_broker(settings))
    import_actors(settings.actors)
    broker = install(dramatiq.get_broker(), settings)
    check_redis(installation_of(broker).store.client, settings)
    if not any(isinstance(m, Refusals) for m in broker.middleware):
        broker.middleware.insert(0, Refusals())
    return broker


def _boot() -> Broker:
    try:
        settings = get_settings()
        configure_logging(settings)
        return prepare(settings)
    except RelierError as error:
        refuse(str(error))


if __name__ == "relier.workers":
    broker = _boot()
