"""The demo's resurrector process."""

from __future__ import annotations

import os

from relier import get_settings
from relier.brokers import default_broker
from relier.logging import configure_logging
from relier.resurrector import run_resurrector
from relier_cli.demo import tie
from relier_cli.demo.environment import TIE


def main() -> None:
    """Sweep until the demo ends."""
    tie.follow(os.environ[TIE])
    settings = get_settings()
    configure_logging(settings)
    run_resurrector(default_broker(settings), settings)


if __name__ == "__main__":
    main()
