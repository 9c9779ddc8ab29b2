"""`rl run-resurrector`: the process that puts back the tasks of dead workers."""

from __future__ import annotations

import importlib
from typing import Annotated

import dramatiq
import typer

from relier.boot import import_actors, prepare, use_default_broker
from relier.errors import RelierStartupError
from relier.logging import configure_logging, get_logger
from relier.settings import Settings, get_settings
from relier_cli.opening import import_path

log = get_logger(__name__)


def run_resurrector(
    modules: Annotated[
        list[str] | None, typer.Argument(help="Modules that set the workers' broker, besides RELIER_ACTORS.")
    ] = None,
) -> None:
    """Watch the fleet and put back the tasks of dead workers, until SIGTERM or Ctrl-C. Workers do it while none runs.

    Several may run: they share the work. It uses the workers' broker: one that an application makes itself is set by a
    module of RELIER_ACTORS or of the command line.

    Example: rl run-resurrector
    """
    from relier.resurrector import run_resurrector as run

    settings = get_settings()
    configure_logging(settings)
    if not settings.resurrection_enabled:
        raise RelierStartupError(
            "RELIER_RESURRECTION_ENABLED is false: a resurrector would do nothing. Refusing to start."
        )
    broker = _workers_broker(settings, modules or [])
    prepare(broker, settings, "resurrector")
    run(broker, settings)


def _workers_broker(settings: Settings, modules: list[str]) -> dramatiq.Broker:
    """Return the broker that the modules set, else Relier's own."""
    import_path()
    use_default_broker(settings)
    for name in settings.actors:
        try:
            importlib.import_module(name)
        except Exception as error:  # Not its business, unless the module sets the broker: then the start is refused.
            log.warning("An actor module cannot be imported.", module=name, error=f"{type(error).__name__}: {error}")
    import_actors(modules)
    return dramatiq.get_broker()
