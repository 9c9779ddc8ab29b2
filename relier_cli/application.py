"""The application that a command looks at: its actors are those of RELIER_ACTORS."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field

import dramatiq
from dramatiq import Broker

from relier.boot import use_default_broker
from relier.settings import Settings
from relier_cli.opening import import_path


@dataclass(slots=True)
class Application:
    """What importing the actors brought."""

    broker: Broker
    #: The queues that the actors declare.
    queues: set[str]
    #: What could not be imported, and why.
    trouble: list[str] = field(default_factory=list)


def application(settings: Settings) -> Application:
    """Import the actors; what cannot be imported is left out and told."""
    import_path()
    use_default_broker(settings)
    trouble = []
    for name in settings.actors:
        try:
            importlib.import_module(name)
        except Exception as error:
            trouble.append(f"The actor module {name!r} cannot be imported: {type(error).__name__}: {error}")
    broker = dramatiq.get_broker()
    return Application(broker, {actor.queue_name for actor in broker.actors.values()}, trouble)
