"""Opens the store for one command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from relier.errors import StoreUnavailableError
from relier.people import somebody
from relier.preflight import place
from relier.settings import Settings, get_settings
from relier.store import Store, get_store
from relier.store.connection import UNAVAILABLE
from relier.store.permissions import explained
from relier_cli.output import UNWRITABLE


@contextmanager
def opened_store(settings: Settings | None = None) -> Iterator[Store]:
    """Give the store of the settings. Raises `StoreUnavailableError` with one line when it is away."""
    settings = settings or get_settings()
    store = get_store(settings)
    try:
        yield store
    except UNAVAILABLE as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:  # It is not Redis that is in trouble.
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        text = f"Relier cannot reach Redis ({place(store.client, settings)}). {reason}"
        raise StoreUnavailableError(text) from None
    except RedisError as error:
        raise explained(error, store.client) from None
    finally:
        store.close()


def who() -> str:
    """Return who asks, for the history of what was asked for by hand."""
    return f"rl:{somebody()}"


def import_path() -> None:
    """Let modules of the current folder be imported, as Dramatiq's command line does."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
