"""What `rl doctor` and the start of a worker say of how messages are sealed."""

from __future__ import annotations

from collections.abc import Iterator

import redis
from dramatiq.encoder import JSONEncoder, PickleEncoder
from dramatiq.message import get_encoder

from relier.integrity import Integrity
from relier.keyring import SHORT, KeyRing
from relier.preflight import Finding
from relier.settings import Settings


def check_integrity(_: redis.Redis, settings: Settings) -> Iterator[Finding]:
    """Tell how messages are sealed, and what weakens that."""
    keys = Integrity.of(settings).keys
    if keys is None:
        yield _unsigned()
        return
    names = ", ".join(keys.keys)
    yield Finding("ok", "integrity", f"Messages are signed with the key {keys.signer.key_id!r}; accepted are: {names}.")
    if not settings.signing_required:
        message = "Unsigned messages are accepted (RELIER_SIGNING_REQUIRED=false)."
        yield Finding("warning", "integrity", message, "Unset it once `unsigned` in `rl audit` stands still.")
    yield from _weaknesses(keys)


def _unsigned() -> Finding:
    if type(get_encoder()) is not JSONEncoder:
        text = f"Messages of {type(get_encoder()).__name__} carry no checksum: only RELIER_SIGNING_KEYS protects them."
        return Finding("ok", "integrity", text)
    text = (
        "Messages carry a checksum: corruption is caught, but this is no authentication. Whoever can write to the"
        " broker can enqueue tasks; RELIER_SIGNING_KEYS prevents that."
    )
    return Finding("ok", "integrity", text)


def _weaknesses(keys: KeyRing) -> Iterator[Finding]:
    short = ", ".join(repr(key.key_id) for key in keys.keys.values() if key.is_short)
    if short:
        message = f"A secret of RELIER_SIGNING_KEYS has fewer than {SHORT} characters, and may be guessed: {short}."
        yield Finding("warning", "integrity", message, "Make a longer one with `openssl rand -hex 32`, and rotate.")
    if isinstance(get_encoder(), PickleEncoder):
        message = "PickleEncoder runs code while it decodes a message, before its signature can be examined."
        yield Finding("warning", "integrity", message, "Use Dramatiq's JSONEncoder.")
