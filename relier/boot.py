"""What a process does before it works: settings, broker, actors, Redis. What is wrong is said in one line."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import dramatiq
from dramatiq import Broker, Worker
from dramatiq.middleware import Middleware

from relier.brokers import default_broker
from relier.checkpoint_checks import check_checkpoint_folder
from relier.drain import Drain
from relier.ending import end_by_signals
from relier.errors import RelierError
from relier.fleet_checks import broker_check, record_format
from relier.installation import install, installation_of, is_installed
from relier.integrity_checks import check_integrity
from relier.logging import configure_logging
from relier.orphan import follow_parent
from relier.preflight import check_redis
from relier.queues import RECOVERY_QUEUE
from relier.settings import Settings, get_settings

#: Exit code of a process that refuses to start: the same start will fail again until somebody changes something.
REFUSED = 78
#: Dramatiq's exit code for a module that cannot be imported.
IMPORT_FAILED = 2


def refuse(reason: str, code: int = REFUSED) -> NoReturn:
    """End the process with the reason and no traceback. Of several processes that are refused at once, one says why.

    It is said on the real stderr: what a dying child hands to Dramatiq's main process may be lost.
    """
    if not _elder_sibling_ended():
        print(reason, file=sys.__stderr__ or sys.stderr, flush=True)
    raise SystemExit(code)


def _elder_sibling_ended(patience: float = 2.0) -> bool:
    """Whether another process of this `dramatiq` started first and ends right now: it has met the same refusal."""
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return False
    try:
        elder = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()[0]
        deadline = time.monotonic() + patience
        while int(elder) != os.getpid() and time.monotonic() < deadline:
            if Path(f"/proc/{elder}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
            time.sleep(0.02)
    except (OSError, IndexError):  # no such list on this system
        pass
    return False


class Refusals(Middleware):
    """Refuses to boot a worker that would silently do nothing."""

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        if not broker.get_declared_actors():
            refuse(
                "Relier found no actors. Refusing to start. Name the modules that declare them: RELIER_ACTORS=module,…"
                " or `dramatiq relier.workers module …` (write -Q last, it takes every word that follows)."
            )
        declared = broker.get_declared_queues() | {RECOVERY_QUEUE}
        unknown = sorted(set(worker.consumer_whitelist or ()) - declared)
        if unknown:
            refuse(
                f"Nobody declared the queue{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))} of -Q."
                f" Refusing to start. Declared are {', '.join(sorted(declared - {RECOVERY_QUEUE}))};"
                " -Q takes names separated by blanks, and every word that follows it."
            )


def boot_worker() -> Broker:
    """Prepare a process of `dramatiq relier.workers`, or end it with one line."""
    if multiprocessing.parent_process() is not None:
        end_by_signals(_drain)
        follow_parent()
    try:
        settings = get_settings()
        configure_logging(settings)
        use_default_broker(settings)
        import_actors(settings.actors, " (RELIER_ACTORS)")
        import_actors(_command_line_modules())
        broker = dramatiq.get_broker()
        prepare(broker, settings)
    except RelierError as error:
        refuse(str(error))
    if not any(isinstance(m, Refusals) for m in broker.middleware):
        broker.middleware.insert(0, Refusals())
    return broker


def _drain() -> Drain | None:
    broker = dramatiq.broker.global_broker
    return installation_of(broker).drain if broker is not None and is_installed(broker) else None


def use_default_broker(settings: Settings) -> None:
    """Make Relier's own broker the global one, unless somebody has set another."""
    if dramatiq.broker.global_broker is None:
        dramatiq.set_broker(default_broker(settings))


def prepare(broker: Broker, settings: Settings, role: str = "worker") -> None:
    """Install Relier on the broker and look at Redis and the broker. Raises `RelierStartupError`."""
    store = installation_of(install(broker, settings)).store
    if settings.otel_enabled:
        from relier.tracing import provide  # Else OpenTelemetry is not imported.

        provide(settings, role)
    check_redis(store.client, settings, [broker_check(broker), check_integrity])
    check_checkpoint_folder(settings)
    record_format(store, settings)


def _command_line_modules() -> tuple[str, ...]:
    """Return the modules that Dramatiq's command line names behind ours, so that a failing one is named too."""
    from dramatiq.cli import make_argument_parser

    if multiprocessing.parent_process() is None or not any(arg.startswith("relier.workers") for arg in sys.argv[1:]):
        return ()
    found, _ = make_argument_parser().parse_known_args()  # type: ignore[no-untyped-call]
    return tuple(found.modules)


def import_actors(modules: Iterable[str], source: str = "") -> None:
    """Import actor modules; a failing one is named before its own traceback, and ends the process."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                _refuse_module(name, source, error)
            reason = f"Relier could not import the actor module {name!r}{source}: there is no module {error.name!r}."
            refuse(reason, IMPORT_FAILED)
        except Exception as error:
            _refuse_module(name, source, error)


def _refuse_module(name: str, source: str, error: Exception) -> NoReturn:
    own = "".join(traceback.format_exception(error.with_traceback(_user_frames(error.__traceback__)))).rstrip()
    refuse(f"Relier could not import the actor module {name!r}{source}.\n{own}", IMPORT_FAILED)


def _user_frames(frames: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the user's module on; a syntax error has none, and says where it is."""
    ours = (__file__, importlib.__file__)
    while frames is not None and (
        frames.tb_frame.f_code.co_filename in ours or frames.tb_frame.f_code.co_filename.startswith("<frozen importlib")
    ):
        frames = frames.tb_next
    return frames
