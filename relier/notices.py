"""Notices: the message that tells an `on_dead` actor of a dead letter, made of what the store keeps.

The store writes a notice in the step that dead-letters (see `include/letters.lua`). Until its first claim its body is
the dead record; whoever publishes it makes the same message of it each time. From the claim on it is a task like any
other.
"""

from __future__ import annotations

from typing import Any

from dramatiq import Message

from relier.dead_letters import dead_record
from relier.envelope import Stamp, stamped
from relier.integrity import Integrity
from relier.store import Due
from relier.store.notices import read_notice


def message_of(due: Due, integrity: Integrity) -> Message[Any]:
    """Return the message of a notice that is due: its argument is the dead record.

    It is sealed only if its task's own message may be vouched for, as everything that follows from a task. Raises
    `PayloadIntegrityError` for a broken notice, `UnsignableError` when it cannot be signed.
    """
    letter, died_at = read_notice(due.body)
    message: Message[Any] = Message(
        due.queue, due.actor, (dead_record(letter, died_at),), {}, {}, due.task_id, int(died_at * 1000)
    )
    stamp = Stamp(due.task_id, due.shard, payload_version=due.payload_version, created_ms=message.message_timestamp)
    ready = stamped(message, stamp, fresh=_is_vouched_for(letter.body, integrity))
    integrity.seal(ready)
    return ready


def _is_vouched_for(body: bytes, integrity: Integrity) -> bool:
    try:
        return integrity.examine(Message.decode(body))
    except Exception:  # Undecodable, by whatever encoder, or refused.
        return False
