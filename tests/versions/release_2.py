"""The shop, release 2: `ship` has changed twice since release 1, `mail` once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from dramatiq import pipeline

from relier import SchemaRegistry, TaskContext, rl_actor
from tests.versions.orders import WORK, carried_out, street

RELEASE = 2


@rl_actor(schema_version=3, min_backoff=1, max_backoff=50)
def ship(order: int, *, address: dict[str, str], express: bool) -> None:
    if not isinstance(express, bool):
        raise TypeError(f"express is {express!r}")
    time.sleep(WORK)
    carried_out("shipped", RELEASE, order=order, address=address)


@SchemaRegistry.register_migration("ship", from_version=1)
def ship_from_1(order: int, street: str, city: str = "Paris") -> dict[str, Any]:
    if street == "nowhere":
        raise ValueError("There is no such street.")
    return {"order": order, "address": {"street": street, "city": city}}


@SchemaRegistry.register_migration("ship", from_version=2)
def ship_from_2(order: int, address: dict[str, str]) -> tuple[list[Any], dict[str, Any]]:
    return [order], {"address": address, "express": False}


@rl_actor(schema_version=2, min_backoff=1, max_backoff=50)
async def mail(ctx: TaskContext, *, order: int, to: list[str], text: str) -> None:
    if ctx.kwargs != {"order": order, "to": to, "text": text} or ctx.args:
        raise TypeError(f"The context has {ctx.args} and {ctx.kwargs}.")
    await asyncio.sleep(WORK)
    carried_out("mailed", RELEASE, order=order, to=to, text=text)


@SchemaRegistry.register_migration("mail", from_version=1)
def mail_from_1(order: int, to: str) -> dict[str, Any]:
    return {"order": order, "to": [to], "text": f"Order {order} is on its way."}


def order(turn: int, number: int) -> int:
    """Place one order, in one of several ways; returns how many tasks it takes."""
    address = {"street": street(number), "city": "Paris"}
    if turn % 4 == 0:
        letter = {"order": number, "to": [f"customer-{number}"], "text": f"Order {number} is on its way."}
        first = ship.message_with_options(kwargs={"order": number, "address": address, "express": True})
        pipeline([first, mail.message_with_options(kwargs=letter, pipe_ignore=True)]).run()  # type: ignore[no-untyped-call]
        return 2
    if turn % 4 == 1:
        ship.send_with_options(args=(number,), kwargs={"address": address, "express": False}, delay=300)
    else:
        ship.push(number, address=address, express=turn % 4 == 2)
    return 1
