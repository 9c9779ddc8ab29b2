"""The `rl` command line: one Typer application; each group of commands is a module of its own."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from redis.exceptions import RedisError

import relier
from relier.errors import RelierError
from relier_cli import admin, admission, audit, config, dlq, doctor, metrics, queue, resurrector, slo, tasks, worker
from relier_cli.bench.command import bench
from relier_cli.chaos import command as chaos
from relier_cli.demo.command import demo
from relier_cli.examples import epilog
from relier_cli.logs import log_for_people
from relier_cli.output import UNWRITABLE
from relier_cli.top import top
from relier_cli.ui.command import ui

app = typer.Typer(
    name="rl",
    help="Relier for Dramatiq: every accepted task reaches exactly one recorded end.",
    epilog=epilog(""),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rl {relier.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    log_for_people()


app.command()(demo)
app.command()(bench)
app.command()(doctor.doctor)
app.command()(audit.audit)
app.command()(top)
app.command()(ui)
app.command()(metrics.metrics)
app.command()(resurrector.run_resurrector)
app.add_typer(tasks.app, name="tasks", epilog=epilog("tasks"))
app.add_typer(worker.app, name="worker", epilog=epilog("worker"))
app.add_typer(queue.app, name="queue", epilog=epilog("queue"))
app.add_typer(dlq.app, name="dlq", epilog=epilog("dlq"))
app.add_typer(slo.app, name="slo", epilog=epilog("slo"))
app.add_typer(admission.app, name="admission", epilog=epilog("admission"))
app.add_typer(admin.app, name="admin", epilog=epilog("admin"))
app.add_typer(config.app, name="config", epilog=epilog("config"))
app.add_typer(chaos.app, name="chaos", epilog=epilog("chaos"))


def main() -> None:
    """Run `rl`. Expected errors print one line and exit 1; misuse exits 2; Ctrl-C exits 130."""
    if sys.stdout is None:  # Started with it closed, as by `>&-`: nobody wants to read.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        app()
    except RelierError as error:
        _fail(str(error))
    except RedisError as error:
        _fail(f"Redis failed: {error}")
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Else the last flush would complain as well.
        _fail(f"The output cannot be written: {error.strerror}.")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(text: str) -> None:
    for line in text.splitlines():
        typer.echo(line, err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
