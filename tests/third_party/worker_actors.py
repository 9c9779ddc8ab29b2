"""The module that workers on somebody else's broker import: it sets the broker, then declares the actors."""

from __future__ import annotations

import dramatiq

from tests import patience
from tests.integration.actors import Actors
from tests.third_party.brokers import broker_of_environment

patience.apply()
dramatiq.set_broker(broker_of_environment())
ACTORS = Actors(dramatiq.get_broker())
