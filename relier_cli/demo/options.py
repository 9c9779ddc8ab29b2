"""What the user may choose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """The demo's options."""

    limit: int | None  #: measure so many files only
    kills: int
    seed: int  #: chooses the moments of the kills
