"""What every experiment stands on: permission, the store, the workers' broker, and who takes part."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import typer
from dramatiq import Broker

from relier.installation import install
from relier.settings import Settings, get_settings
from relier.store import Store
from relier.store.survey import Survey
from relier_cli.application import application
from relier_cli.opening import opened_store, who

Yes = Annotated[bool, typer.Option("--yes", help="Do it: on a shared server nothing is done without.")]
Watch = Annotated[bool, typer.Option("--watch", help="Show each step as it happens.")]
Within = Annotated[float, typer.Option("--within", min=1, help="Seconds in which it must have come right.")]


def refuse(text: str) -> NoReturn:
    """End the command with exit code 2: nothing was done."""
    typer.echo(text, err=True)
    raise typer.Exit(2)


@dataclass(frozen=True)
class Stage:
    """A running system, seen from the command line."""

    settings: Settings
    store: Store
    survey: Survey

    def broker(self) -> Broker:
        """Return the workers' broker, with the tasks of experiments declared."""
        from relier.chaos.actors import declare

        broker = install(application(self.settings).broker, self.settings)
        declare(broker)
        return broker

    def fleet(self) -> dict[str, dict[str, Any]]:
        """Return what each living worker and resurrector told about itself."""
        return self.store.fleet.workers()

    def willing(self) -> dict[str, dict[str, Any]]:
        """Return the workers that take part: they allow it, can be reached, and are not on their way out."""
        fleet = {w: told for w, told in self.fleet().items() if told.get("chaos") and not told.get("state")}
        present = self.store.fleet.present(sorted(fleet))
        return {worker: told for worker, told in fleet.items() if present[worker] and told.get("role") == "worker"}

    def ask(self, worker: str, what: str, **more: Any) -> None:
        """Ask one worker for something. Refuses when it does not listen any more."""
        from relier.chaos.obedience import MESSAGE

        if not self.store.fleet.order(worker, {"type": MESSAGE, "what": what, "by": who(), **more}):
            refuse(f"Worker {worker} does not listen any more: rl worker status.")

    def insist(self, yes: bool, consequence: str) -> None:
        """Refuse without --yes what hurts a system that others may use; an embedded server is one's own."""
        if not yes and (self.settings.redis_url is not None or self.settings.redis_use_sentinel):
            refuse(f"{consequence} Add --yes to do it.")


@contextmanager
def opened_stage() -> Iterator[Stage]:
    """Give the system of the settings, if they allow chaos. SIGTERM ends an experiment as Ctrl-C does, in order."""
    settings = get_settings()
    if not settings.chaos_enabled:
        refuse(
            "rl chaos is refused: RELIER_CHAOS_ENABLED is not true. Set it for this command, and for the workers that"
            " shall suffer."
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with opened_store(settings) as store:
        yield Stage(settings, store, Survey(store))


def insist_on_workers(stage: Stage, least: int = 1) -> dict[str, dict[str, Any]]:
    """Return the workers that take part. Refuses when they are too few, naming those that do not."""
    willing = stage.willing()
    if len(willing) < least:
        fleet = [w for w, told in stage.fleet().items() if told.get("role") == "worker" and w not in willing]
        others = f" These do not allow it: {', '.join(sorted(fleet))}." if fleet else ""
        have = ", ".join(sorted(willing)) or "none"
        refuse(
            f"This takes {least} worker{'s' * (least > 1)} with RELIER_CHAOS_ENABLED=true that can be reached; there"
            f" is {have}.{others}"
        )
    return willing
