"""The shop, release 1."""

from __future__ import annotations

import asyncio
import time

from dramatiq import pipeline

from relier import rl_actor
from tests.versions.orders import WORK, carried_out, street

RELEASE = 1


@rl_actor(min_backoff=1, max_backoff=50)
def ship(order: int, street: str, city: str = "Paris") -> None:
    time.sleep(WORK)
    carried_out("shipped", RELEASE, order=order, address={"street": street, "city": city})


@rl_actor(min_backoff=1, max_backoff=50)
async def mail(order: int, to: str) -> None:
    await asyncio.sleep(WORK)
    carried_out("mailed", RELEASE, order=order, to=[to], text=f"Order {order} is on its way.")


def order(turn: int, number: int) -> int:
    """Place one order, in one of several ways; returns how many tasks it takes."""
    if turn % 4 == 0:
        first = ship.message_with_options(kwargs={"order": number, "street": street(number)})
        then = mail.message_with_options(args=(number, f"customer-{number}"), pipe_ignore=True)
        pipeline([first, then]).run()  # type: ignore[no-untyped-call]
        return 2
    if turn % 4 == 1:
        ship.send_with_options(args=(number, street(number)), delay=300)
        return 1
    if turn % 4 == 2:
        ship.push(number, street=street(number))
    else:
        ship.push(number, street(number), "Paris")
    return 1
