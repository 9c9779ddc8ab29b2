"""The logging actors, in a worker."""

from __future__ import annotations

import dramatiq

from tests.integration.logging_actors import LoggingActors

ACTORS = LoggingActors(dramatiq.get_broker())
