"""A task with a result, and one that fails for good.

In one terminal, in this folder:  dramatiq relier.workers quickstart -p 1
In another one:                   python quickstart.py

It prints:

    Hello, Ann!
    divide is dead: see rl dlq list
"""

from __future__ import annotations

import time

from relier import TaskContext, rl_actor


@rl_actor(store_results=True)
def greet(name: str, ctx: TaskContext) -> str:
    """Return a greeting; the context says which run of which task this is."""
    print(f"task {ctx.task_id}: {ctx.resurrection_count} crashes, {ctx.attempt} failures so far")
    return f"Hello, {name}!"


@rl_actor(deterministic=(ZeroDivisionError,))
def divide(dividend: int, divisor: int) -> None:
    """Fail in a way that no retry can cure."""
    print(dividend / divisor)


def main() -> None:
    """Push both and wait for their ends."""
    message = greet.send("Ann")
    print(message.get_result(block=True, timeout=30_000))
    receipt = divide.push(1, 0)
    while receipt.status() != "dead":
        time.sleep(0.1)
    print(f"divide is {receipt.status()}: see rl dlq list")


if __name__ == "__main__":
    main()
