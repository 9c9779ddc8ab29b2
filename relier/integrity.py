"""Envelope integrity: what arrives is what a producer sent, and with keys: a producer who has one (R12).

A message is sealed when it is enqueued first-hand: with a signature when `RELIER_SIGNING_KEYS` is set, else with a
checksum, which shows corruption but is no authentication. The seal covers the whole message but for a closed list of
fields. It is examined before anything else is done with a message that was consumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import local
from typing import Any

from dramatiq import Broker, Message, get_encoder
from dramatiq.common import q_name
from dramatiq.encoder import JSONEncoder

from relier.canonical import canonical_bytes
from relier.envelope import OPTION, Fresh, Stamp, is_stamped, is_text, parsed
from relier.errors import PayloadIntegrityError, UnsignableError
from relier.keyring import KeyRing, same_text
from relier.settings import Settings

#: Version of the stamp of a sealed message; one without a seal has version 1.
SEALED = 2

#: The message options that no seal covers, and why: Dramatiq or the broker changes them on the way.
MUTABLE_OPTIONS = {
    "eta": "Dramatiq turns a delay into it, and removes it when the time has come",
    "redis_message_id": "every copy in Redis has another one",
    "retries": "Dramatiq's Retries counts in it: of workers without Relier, which may share a queue",
    "traceback": "Dramatiq's Retries notes the last failure in it",
    "requeue_timestamp": "Dramatiq's Retries notes the time of a retry in it",
}

#: The fields of the stamp that no seal covers, and why: the store decides them for each copy.
MUTABLE_STAMP = {
    "f": "the fence under which the store published a copy",
    "c": "how alone a task has to run after crashes",
    "q": "the task's own queue, where another one carries the copy; the own queue itself is covered",
    "g": "the seal",
    "n": "the rank that a push with a job key got from the store, after it was sealed",
}

#: Length of a checksum in hexadecimal digits.
CHECKSUM_DIGITS = 16


def covered(message: Any) -> bytes:
    """Return what the seal of a stamped message is made of. Raises `ValueError` when that has no canonical form."""
    options = {name: value for name, value in message.options.items() if name not in MUTABLE_OPTIONS}
    stamp = options[OPTION]
    options[OPTION] = {name: value for name, value in stamp.items() if name not in MUTABLE_STAMP}
    return canonical_bytes(
        {
            "queue": stamp.get("q") or q_name(message.queue_name),
            "actor": message.actor_name,
            "args": message.args,
            "kwargs": message.kwargs,
            "options": options,
            "id": message.message_id,
            "timestamp": message.message_timestamp,
        },
        "message",
    )


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:CHECKSUM_DIGITS]


class Integrity:
    """Seals messages and examines them.

    Parameters:
      keys: None: messages get checksums.
      required: whether a message without a signature is refused, once there are keys.
    """

    def __init__(self, keys: KeyRing | None = None, required: bool = True) -> None:
        self.keys = keys
        self.required = required

    @classmethod
    def of(cls, settings: Settings) -> Integrity:
        """Return that of the settings; the same for equal ones."""
        secret = settings.signing_keys
        return _integrity("" if secret is None else secret.get_secret_value(), settings.signing_required)

    # -- sealing ------------------------------------------------------------------------------------------------

    def seal(self, message: Message[Any]) -> int:
        """Seal a message that this process vouches for, in place; again, if it changed since. Others are left alone.

        Returns how many bytes the seal covers; 0 when there is none.

        Raises `UnsignableError` when there are keys and the message has no canonical form. Without keys it then goes
        without a checksum, and so it does with an encoder other than Dramatiq's for JSON.
        """
        option = message.options.get(OPTION)
        if type(option) is not Fresh:
            return 0
        fresh = message.options[OPTION] = Fresh(option)
        fresh.pop("g", None)
        if self.keys is None and type(get_encoder()) is not JSONEncoder:
            return 0
        fresh["v"] = SEALED
        try:
            data = covered(message) if self.keys is None else _as_received(message)
            fresh["g"] = _checksum(data) if self.keys is None else self.keys.sign(data)
            return len(data)
        except ValueError as error:
            fresh["v"] = 1
            if self.keys is not None:
                raise UnsignableError(f"This message cannot be signed: {error}") from None
            return 0

    # -- examining ----------------------------------------------------------------------------------------------

    def examine(self, message: Any, stamp: Stamp | None = None) -> bool:
        """Return whether a message that arrived may be vouched for: what follows from it is sealed then as well.

        False: it is unsigned, and accepted because signatures are not required yet. Raises `PayloadIntegrityError`
        when it must not be run. `stamp`: its own, if that was read already.
        """
        if not _is_message(message):
            raise PayloadIntegrityError("It has not the form of a message.")
        option = message.options.get(OPTION)
        if not is_stamped(message):
            return self._unsigned()
        if not isinstance(option, dict) or (stamp is None and parsed(option) is None):
            raise PayloadIntegrityError("Its stamp is broken.")
        seal = option.get("g")
        if isinstance(seal, str):
            if not same_text(seal, _checksum(_arrived(message))):
                raise PayloadIntegrityError("Its checksum does not fit: the message was changed on its way.")
            return self._unsigned()
        if isinstance(seal, list) and len(seal) == 2 and all(isinstance(part, str) for part in seal):
            self._check_signature(message, *seal)
            return True
        if seal is not None or option.get("v") == SEALED:
            raise PayloadIntegrityError("Its seal is broken or missing.")
        return self._unsigned()

    def _check_signature(self, message: Any, key_id: str, signature: str) -> None:
        if self.keys is None:  # It can only be verified by those who have keys.
            return
        if key_id not in self.keys.keys:
            known = ", ".join(self.keys.keys)
            raise PayloadIntegrityError(f"It was signed with the key {key_id[:40]!r}; this process has: {known}.")
        if not self.keys.verifies(key_id, signature, _arrived(message)):
            raise PayloadIntegrityError(
                f"Its signature does not fit: somebody without the key {key_id!r} made or changed it."
            )

    def _unsigned(self) -> bool:
        if self.keys is not None and self.required:
            raise PayloadIntegrityError("It is not signed.")
        return self.keys is None


@lru_cache(maxsize=64)
def _integrity(keys: str, required: bool) -> Integrity:
    return Integrity(KeyRing.parse(keys) if keys else None, required)


def _is_message(message: Any) -> bool:
    """Whether the parts of a message are of their types: what was decoded may be anything."""
    texts = message.queue_name, message.actor_name, message.message_id
    return (
        all(map(is_text, texts))
        and isinstance(message.message_timestamp, int)
        and isinstance(message.kwargs, dict)
        and isinstance(message.options, dict)
    )


def _arrived(message: Any) -> bytes:
    try:
        return covered(message)
    except ValueError:
        raise PayloadIntegrityError("It contains what no sealed message contains.") from None


def _as_received(message: Message[Any]) -> bytes:
    """Return what a seal covers after encoding and decoding. Raises `ValueError` when that is not stable."""
    if type(get_encoder()) is JSONEncoder:
        try:
            return covered(message)
        except ValueError:
            return covered(Message.decode(message.encode()))  # JSON makes text of numbers as keys.
    received: Message[Any] = Message.decode(message.encode())
    form = covered(received)
    if covered(Message.decode(received.encode())) != form:
        raise ValueError(f"{type(get_encoder()).__name__} does not give back what it was given.")
    return form


# -- on the way to the broker --------------------------------------------------------------------------------------


def announce(broker: Broker, integrity: Integrity, message: Message[Any], delay: int | None = None) -> None:
    """Emit `before_enqueue`, then seal what is fresh. Raises what the hooks raise, and `UnsignableError`.

    Hooks may add options to a fresh message, and the seal covers them. A further copy of a task keeps the options
    under which it was sealed, whatever hooks write into them.
    """
    if type(message.options.get(OPTION)) is Fresh:
        broker.emit_before("enqueue", message, delay)
        finish(integrity, message)
        return
    with keeping_options(message):
        broker.emit_before("enqueue", message, delay)
        finish(integrity, message)


def finish(integrity: Integrity, message: Message[Any]) -> int:
    """Seal a fresh message, and undo what hooks changed in another one, after `before_enqueue`.

    Returns how many bytes the seal covers; 0 when there is none.
    """
    if type(message.options.get(OPTION)) is Fresh:
        return integrity.seal(message)
    if (kept := getattr(_thread, "kept", None)) is not None:
        _restore(message.options, kept)
    return 0


_thread = local()


@contextmanager
def keeping_options(message: Message[Any]) -> Iterator[None]:
    """Note the options of a further copy, for `finish`."""
    before = getattr(_thread, "kept", None)
    option = message.options.get(OPTION)
    sealed = type(option) is not Fresh and isinstance(option, dict) and "g" in option
    _thread.kept = dict(message.options) if sealed else None
    try:
        yield
    finally:
        _thread.kept = before


def _restore(options: dict[str, Any], kept: dict[str, Any]) -> None:
    for name in [name for name in options if name not in kept and name not in MUTABLE_OPTIONS]:
        del options[name]
    options.update({name: value for name, value in kept.items() if name not in MUTABLE_OPTIONS})
