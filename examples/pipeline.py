"""A pipeline, and a group with a callback: each follow-up happens once, also when a worker dies in between.

In one terminal, in this folder:  dramatiq relier.workers pipeline -p 1
In another one:                   python pipeline.py

It prints:

    3 words
    6 words in all
"""

from __future__ import annotations

import asyncio

from dramatiq import group

from relier import rl_actor

TEXTS = ("to be", "or not", "to be")


@rl_actor(store_results=True)
def words(text: str) -> list[str]:
    """Split a text."""
    return text.split()


@rl_actor(store_results=True)
async def count(items: list[str]) -> int:
    """Count what the stage before returned; async actors are stages like any other."""
    await asyncio.sleep(0)
    return len(items)


@rl_actor
def counted() -> None:
    """Run once all members of the group have completed."""
    print("the group has completed")


def main() -> None:
    """Run both and print their results."""
    stages = words.message("one two three") | count.message()
    print(f"{stages.run().get_result(block=True, timeout=30_000)} words")
    members = group([words.message(text) | count.message() for text in TEXTS])
    members.add_completion_callback(counted.message())
    members.run()
    print(f"{sum(members.get_results(block=True, timeout=30_000))} words in all")


if __name__ == "__main__":
    main()
