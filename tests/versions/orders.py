"""What both releases of the shop share: orders, and what is to be known of each when it was carried out."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relier import task_context
from tests.integration.actors import note

#: How long (s) an order takes, so that there is something to kill.
WORK = 0.03
#: Names the file to which producers append a line for each order that was accepted.
SENT_VARIABLE = "RL_TEST_SENT"


def street(order: int) -> str:
    return f"{order} Long Street"


def expected(what: str, order: int) -> Any:
    """Return what must be noted when an order was shipped or mailed, whichever release sent and ran it."""
    if what == "shipped":
        return {"order": order, "address": {"street": street(order), "city": "Paris"}}
    return {"order": order, "to": [f"customer-{order}"], "text": f"Order {order} is on its way."}


def carried_out(what: str, release: int, **detail: Any) -> None:
    """Note that an order was shipped or mailed; now and then a first attempt fails, and the task is tried again."""
    if detail["order"] % 11 in {3, 6} and task_context.attempt == 0:
        raise ConnectionError("try again")
    note(what, {"release": release, **detail})


def produce(order: Callable[[int, int], int], release: int, pause: float) -> None:
    """Place orders until a file `stop` appears beside that of what was sent; note each with the number of its tasks.

    The numbers of release 1 are even, those of release 2 are odd.
    """
    path = Path(os.environ[SENT_VARIABLE])
    with path.open("a", encoding="utf-8") as sent:
        for turn in itertools.count():
            if path.with_name("stop").exists():
                break
            number, at = 2 * turn + release - 1, time.time()
            line = {"order": number, "tasks": order(turn, number), "release": release, "at": at}
            sent.write(json.dumps(line) + "\n")
            sent.flush()
            time.sleep(pause)
