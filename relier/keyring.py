"""The keys that sign messages: the first one signs, every one of them verifies."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Any

#: Shorter secrets (characters) are warned of: 32 hexadecimal digits are 128 bits.
SHORT = 32

#: Keeps our signatures apart from others that somebody may make with the same secret.
_DOMAIN = b"relier message 2\0"

_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}\Z")


@dataclass(frozen=True, slots=True)
class Key:
    """One secret and its public name."""

    key_id: str
    is_short: bool
    _hmac: Any = field(repr=False)

    @classmethod
    def of(cls, key_id: str, secret: str) -> Key:
        return cls(key_id, len(secret) < SHORT, hmac.new(secret.encode(), _DOMAIN, hashlib.sha256))

    def signature(self, data: bytes) -> str:
        """Return the HMAC-SHA256 of the data in hexadecimal digits."""
        mac = self._hmac.copy()  # It has taken in the secret already.
        mac.update(data)
        digits: str = mac.hexdigest()
        return digits


class KeyRing:
    """The keys of `RELIER_SIGNING_KEYS`.

    Parameters:
      keys: the first one signs.
    """

    def __init__(self, keys: list[Key]) -> None:
        self.signer = keys[0]
        self.keys = {key.key_id: key for key in keys}

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Read `kid:secret,…`. Raises `ValueError`, which names a key by its place: either part may be the secret."""
        parts = [part.strip() for part in text.split(",")]
        if parts[-1] == "" and len(parts) > 1:
            parts.pop()
        pairs = [_pair(part, place) for place, part in enumerate(parts, 1)]
        for place, (key_id, _) in enumerate(pairs, 1):
            if key_id in [other for other, _ in pairs[: place - 1]]:
                raise ValueError(f"key {place} has the name of an earlier one; each key needs a name of its own")
        return cls([Key.of(*pair) for pair in pairs])

    def sign(self, data: bytes) -> list[str]:
        """Return the name of the signing key and its signature."""
        return [self.signer.key_id, self.signer.signature(data)]

    def verifies(self, key_id: str, signature: str, data: bytes) -> bool:
        """Whether a signature is that of a key. Raises `KeyError` for a key that is not on the ring."""
        return same_text(signature, self.keys[key_id].signature(data))


def same_text(given: str, right: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), right.encode())


def _pair(part: str, place: int) -> tuple[str, str]:
    key_id, colon, secret = part.partition(":")
    if not colon:
        raise ValueError(f"key {place} is not name:secret (several keys are separated by commas)")
    if not _KEY_ID.match(key_id):
        raise ValueError(f"key {place} needs a name of 1 to 32 letters, digits, or . _ - before its colon")
    if ":" in secret or re.search(r"\s", secret):
        raise ValueError(f"key {place} has a colon or a blank in its secret, perhaps for want of a comma")
    if not secret:
        raise ValueError(f"key {place} has no secret after its colon")
    return key_id, secret
