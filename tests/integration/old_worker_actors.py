"""What workers of an older release import: it has few of the actors."""

from __future__ import annotations

import dramatiq

from relier import rl_actor
from tests.integration.actors import quick

QUICK = rl_actor(quick, broker=dramatiq.get_broker())
