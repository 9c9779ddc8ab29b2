"""What a command logs besides what it prints: warnings, on stderr, easy to read."""

from __future__ import annotations

import logging

from relier.errors import RelierConfigError
from relier.logging import configure_logging
from relier.settings import Settings


def log_for_people() -> None:
    """Log warnings for whoever looks at the terminal, unless the settings ask for more, or for JSON.

    Commands that run for long give their lines the settings' form themselves. Where somebody has set logging up, as in
    tests, it stays.
    """
    if logging.getLogger().handlers:
        return
    try:
        settings = Settings()
    except RelierConfigError:  # The command says so, or is there to.
        settings = Settings.model_construct()
    configure_logging(settings, for_people=True)
