"""`rl run-resurrector`: the process that puts back the tasks of dead workers."""

from __future__ import annotations

from relier.boot import prepare
from relier.brokers import default_broker
from relier.errors import RelierStartupError
from relier.logging import configure_logging
from relier.settings import get_settings


def run_resurrector() -> None:
    """Watch the fleet and put back the tasks of dead workers, until SIGTERM or Ctrl-C. Workers do it while none runs.

    Several may run: they share the work.

    Example: rl run-resurrector
    """
    from relier.resurrector import run_resurrector as run

    settings = get_settings()
    configure_logging(settings)
    if not settings.resurrection_enabled:
        raise RelierStartupError(
            "RELIER_RESURRECTION_ENABLED is false: a resurrector would do nothing. Refusing to start."
        )
    broker = default_broker(settings)
    prepare(broker, settings)
    run(broker, settings)
