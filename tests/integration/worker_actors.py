"""The module that the workers of the integration tests import."""

from __future__ import annotations

import dramatiq

from tests import patience
from tests.integration.actors import Actors

patience.apply()

ACTORS = Actors(dramatiq.get_broker())
