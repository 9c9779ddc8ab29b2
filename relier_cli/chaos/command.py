"""The group `rl chaos`."""

from __future__ import annotations

import typer

from relier_cli.chaos import load_spike, partition, slow_task, task_corrupt, verify, worker_kill

app = typer.Typer(
    help="Break something on purpose, and see whether the promise holds. Refused unless RELIER_CHAOS_ENABLED=true.",
    no_args_is_help=True,
)
app.command("worker-kill")(worker_kill.worker_kill)
app.command("network-partition")(partition.network_partition)
app.command("load-spike")(load_spike.load_spike)
app.command("task-corrupt")(task_corrupt.task_corrupt)
app.command("slow-task")(slow_task.slow_task)
app.command("verify")(verify.verify)


@app.callback()
def _group() -> None:
    """Break something on purpose, and see whether the promise holds. Refused unless RELIER_CHAOS_ENABLED=true."""
