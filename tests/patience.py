"""Gives the workers of a test more time to end in order: on a busy machine the bound is passed now and then."""

from __future__ import annotations

import os

from relier import ending

_VARIABLE = "RL_TEST_END_WITHIN"

#: For the environment of workers that are to hand over everything, however slow the machine is.
UNHURRIED = {_VARIABLE: "20"}


def apply() -> None:
    """Set what the environment says; the modules of test actors call it."""
    ending.END_WITHIN = float(os.environ.get(_VARIABLE, ending.END_WITHIN))
