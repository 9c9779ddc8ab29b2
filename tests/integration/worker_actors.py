"""The module that the workers of the integration tests import."""

from __future__ import annotations

import dramatiq

from tests.integration.actors import Actors

ACTORS = Actors(dramatiq.get_broker())
