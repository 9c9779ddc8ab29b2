"""The application's actors, for commands that are better with them and do without."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import dramatiq
from dramatiq import Broker

from relier.boot import use_default_broker
from relier.settings import Settings
from relier_cli.opening import import_path


@dataclass(frozen=True, slots=True)
class Loaded:
    """A broker with the actors of RELIER_ACTORS, and why some are missing; '' when none is."""

    broker: Broker
    problem: str


def load_actors(settings: Settings) -> Loaded:
    """Import the modules of RELIER_ACTORS, which may also set an encoder. What fails there is told, not raised."""
    import_path()
    use_default_broker(settings)
    problem = "RELIER_ACTORS names no module" if not settings.actors else ""
    for name in settings.actors:
        try:
            importlib.import_module(name)
        except Exception as error:
            problem = f"the module {name!r} of RELIER_ACTORS cannot be imported ({type(error).__name__}: {error})"
    return Loaded(dramatiq.get_broker(), problem)
