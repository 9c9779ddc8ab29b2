"""The group `rl chaos`."""

from __future__ import annotations

import typer

from relier_cli.chaos import partition, worker_kill

app = typer.Typer(
    help="Break something on purpose, and see whether the promise holds. Refused unless RELIER_CHAOS_ENABLED=true.",
    no_args_is_help=True,
)
app.command("worker-kill")(worker_kill.worker_kill)
app.command("network-partition")(partition.network_partition)


@app.callback()
def _group() -> None:
    """Break something on purpose, and see whether the promise holds. Refused unless RELIER_CHAOS_ENABLED=true."""
