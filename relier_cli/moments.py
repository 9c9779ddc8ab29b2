"""Lengths of time and moments as people type them: 90s, 30m, 2h, 3d; 2026-01-31T12:00."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import typer

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def length(text: str) -> float:
    """Return a length of time in seconds. Raises `typer.BadParameter`."""
    match = _LENGTH.fullmatch(text.strip().lower())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no length of time, such as 90s, 30m, 2h, 3d")
    return float(match[1]) * _UNITS[match[2]]


def moment(text: str, now: float) -> float:
    """Return a moment in seconds since the epoch: so long before `now`, or an ISO 8601 time (UTC unless it says).

    Raises `typer.BadParameter`.
    """
    if _LENGTH.fullmatch(text.strip().lower()):
        return now - length(text)
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither so long ago (30m, 2h, 3d) nor a time (2026-01-31T12:00)"
        ) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
