"""The worlds that are searched: small ones on every run, medium ones with the slow tests, large ones on request."""

from __future__ import annotations

from tests.model.rules import Scenario


def _world(faults: str, budget: int = 2, **options: int | str) -> Scenario:
    return Scenario(frozenset(faults.split(", ")), budget, **options)  # type: ignore[arg-type]


SMALL = {
    "crashes": _world("kill, lost reply, resurrector crash"),
    "beats": _world("kill, lost reply, stale beat, impatience"),
    "clocks": _world("clock set back, clock set ahead, stale beat, kill"),
    "clocks, amqp": _world("clock set back, clock set ahead, blip, kill", broker="amqp"),
    "clocks, lost copies": _world("clock set back, clock set ahead, hand over, copy lost", budget=3),
    "choices": _world("kill, lost reply, fail, final fail, hand over"),
    "drain": _world("drain, kill", max_crashes=0),
    "false death, one crash": _world("false death, kill", max_crashes=0),
    "late requests": _world("late request, kill"),
    "follow-up": _world("duplicate, kill, lost reply", follow_up=True),
    "mixed fleet": _world("kill, lost reply", budget=1, mixed=True),
    "amqp": _world("blip, kill, duplicate, lost reply", broker="amqp"),
    "amqp, rollback and blip": _world("rollback, blip", broker="amqp"),
    "two servers, rollback and failure": _world("rollback, fail"),
    "two servers, rollback and lost reply": _world("rollback, lost reply, hand over"),
    "two servers, rollback and one kill": _world("rollback, kill", max_crashes=0),
    "one server, rollback and failure": _world("rollback, fail", same_server=True),
    "one server, rollback and lost reply": _world("rollback, lost reply, hand over", same_server=True),
}

#: Ten seconds each.
MEDIUM = {
    "false death": _world("false death, kill"),
    "amqp, rollback": _world("rollback, blip, kill", broker="amqp"),
    "two servers, rollback and kill": _world("rollback, kill"),
    "one server, rollback, false death, one crash": _world("rollback, false death", same_server=True, max_crashes=0),
}

#: Seconds to minutes each: run with RELIER_MODEL_DEEP=1.
LARGE = {
    "starting": _world("rollback, kill", workers_started=False),
    "crashes, false deaths": _world("kill, false death, lost reply, resurrector crash"),
    "late requests, false deaths": _world("late request, kill, false death"),
    "follow-up, false deaths": _world("duplicate, kill, false death, lost reply", follow_up=True),
    "amqp, false deaths": _world("blip, kill, false death, duplicate, lost reply", broker="amqp"),
    "one server, rollback and kill": _world("rollback, kill", same_server=True),
    "one server, rollback and false death": _world("rollback, false death", same_server=True),
    "two servers, rollback and false death": _world("rollback, false death"),
    "mixed fleet, late requests": _world("kill, lost reply, resurrector crash, late request", mixed=True),
    "mixed fleet, amqp": _world("blip, kill, duplicate, lost reply", broker="amqp", mixed=True),
    "drain, lost replies": _world("drain, kill, lost reply"),
    "drain, amqp": _world("drain, kill, blip", broker="amqp"),
    "drain and everything else": _world("drain, kill, lost reply, false death, late request, resurrector crash"),
    "drain, one server, rollback": _world("drain, rollback, kill", same_server=True),
    "drain, two servers, rollback": _world("drain, rollback, kill"),
    "drain of both": _world("drain, kill, lost reply, resurrector crash", budget=3),
    "three crashes": _world("kill, lost reply, resurrector crash", budget=3),
    "three beats": _world("kill, lost reply, stale beat, impatience", budget=3),
    "three choices": _world("kill, lost reply, fail, final fail, hand over", budget=3),
}
