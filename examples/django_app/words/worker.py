"""What workers import: Django first, then the actors."""

from __future__ import annotations

import os

import django
import dramatiq
from django.db import close_old_connections

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "words.settings")
django.setup()

from words import tasks  # noqa: E402

__all__ = ["tasks"]


class CloseOldConnections(dramatiq.Middleware):
    """Does for tasks what Django does for requests: it drops database connections that are broken or too old."""

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        close_old_connections()

    def after_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy, **_: object) -> None:
        close_old_connections()


dramatiq.get_broker().add_middleware(CloseOldConnections())
