"""What the help of `rl` and of each group of commands teaches: a question, and the command that answers it."""

from __future__ import annotations

#: By group; '' is `rl` itself.
QUESTIONS: dict[str, dict[str, str]] = {
    "": {
        "Is anything running?": "rl tasks inflight",
        "What goes on, at a glance?": "rl top; rl ui",
        "Why does my task not run?": "rl queue list; rl worker status; rl tasks list --state due; rl dlq list",
        "Who puts back the tasks of dead workers?": "rl worker status; rl tasks list --state due",
        "Why is it in the DLQ?": "rl dlq inspect ID",
        "Did it run twice?": "rl tasks inspect ID",
        "Is the cluster shedding?": "rl admission status",
        "Is the failure rate rising?": "rl slo status",
        "Is everything set up right?": "rl doctor; rl config validate",
        "Is every task accounted for?": "rl audit",
    },
    "tasks": {
        "What runs now, and where?": "rl tasks inflight --follow",
        "What waits for the resurrector?": "rl tasks list --state due",
        "What happened to one task?": "rl tasks inspect 3f6c7a1e",
        "Run it now, or never?": "rl tasks retry ID; rl tasks cancel ID",
    },
    "worker": {
        "Who is there, and who sweeps?": "rl worker status",
        "Run four workers?": "rl worker start --processes 4 -- my_app.tasks",
        "Take one out of service?": "rl worker drain web-1:4711 --wait",
    },
    "queue": {
        "What waits, and who consumes it?": "rl queue list",
        "Stop a queue for a while?": "rl queue pause default --reason maintenance",
        "Clear it for good?": "rl queue purge default --dry-run",
    },
    "dlq": {
        "What fails most?": "rl dlq groups",
        "Why, and what mends it?": "rl dlq inspect ID",
        "It is mended: run them again?": "rl dlq retry-all --reason TypeError --canary 5",
    },
    "admission": {
        "Is the cluster shedding?": "rl admission status",
        "Let every limit begin anew?": "rl admin reset-admission --yes",
    },
    "admin": {
        "A lock is held by nobody who lives?": "rl admin purge-locks --yes",
        "Start over, without flushing Redis?": "rl admin reset --yes",
    },
    "config": {
        "What is in effect, and from where?": "rl config show --origin",
        "Would it work?": "rl config validate",
        "Change one?": "rl config set HEARTBEAT_TTL 20",
        "Does the new release fit what waits?": "rl config check-deploy my_app.tasks",
    },
    "slo": {
        "Is the failure rate rising?": "rl slo status",
        "What to show on Monday?": "rl slo report --format markdown",
        "Should the rollout stop?": "rl slo status --check",
    },
    "chaos": {
        "Do the tasks of a killed worker run again?": "rl chaos worker-kill --yes",
        "Is every task accounted for afterwards?": "rl chaos verify",
    },
}


def epilog(group: str) -> str:
    """Return what stands below a group's commands, aligned as it is; the first command is the example."""
    known = QUESTIONS.get(group, {})
    width = max(map(len, known), default=0)
    lines = [f"{question:{width}}  {command}" for question, command in known.items()]
    example = next(iter(known.values()), "").partition(";")[0]
    return "\b\n" + "\n".join([*lines, "", f"Example: {example}"]) if known else ""
