"""What Tab offers beside commands and options: names that the store knows, quickly or not at all."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from relier_cli.variables import names

if TYPE_CHECKING:
    from relier.settings import Settings
    from relier.store import Store

#: Longest wait (s) for the store: whoever presses Tab waits for nothing.
PATIENCE = 0.7

#: What a shell may get: it evaluates what it is given, and names may come from anywhere.
_HARMLESS = re.compile(r"[\w.:@/+-]+\Z", re.ASCII)


def complete_setting(incomplete: str) -> list[str]:
    """Return the variables that begin so: without their prefix, unless that is being typed."""
    wanted, full = incomplete.upper(), names()
    short = [name.partition("_")[2] for name in full]
    return [name for name in (full if wanted.startswith("RELIER") else short) if name.startswith(wanted)]


def one_of(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Return what completes one of some words."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def complete_queue(incomplete: str) -> list[str]:
    """Return the queues of the settings, and those that workers consume or somebody paused."""
    return _offered(incomplete, _queues)


def complete_actor(incomplete: str) -> list[str]:
    """Return the actors that workers told of, and those that are parked."""
    return _offered(incomplete, _actors)


def complete_worker(incomplete: str) -> list[str]:
    """Return the ids of the workers that are there."""
    begun = _before_colon()
    found = _offered(begun + incomplete, lambda store, _: store.fleet.workers())
    return [worker.removeprefix(begun) for worker in found]


def _queues(store: Store, settings: Settings) -> Iterable[str]:
    workers, _, holds = store.fleet.knowledge()
    consumed = {queue for told in workers.values() for queue in told.get("queues", ())}
    return {*settings.public_queues, *consumed, *holds.queues}


def _actors(store: Store, __: Settings) -> Iterable[str]:
    _, releases, holds = store.fleet.knowledge()
    return {*holds.actors, *(actor for newest in releases.values() for actor in newest)}


def _before_colon() -> str:
    """Return what bash took for words of their own because of a colon behind it: ids have some."""
    words = os.environ.get("COMP_WORDS", "").split("\n")[: int(os.environ.get("COMP_CWORD") or 0)]
    begun = ""
    while len(words) >= 2 and words[-1] == ":":
        begun = f"{words[-2]}:{begun}"
        words = words[:-2]
    return begun


def _offered(incomplete: str, ask: Callable[[Store, Settings], Iterable[str]]) -> list[str]:
    """Return what begins so of what the store answers in time; nothing whatever goes wrong, and not a word of it."""
    found: list[str] = []

    def look() -> None:
        with suppress(Exception):
            found.extend(_asked(ask))

    before, logging.root.manager.disable = logging.root.manager.disable, logging.CRITICAL
    looking = threading.Thread(target=look, daemon=True)  # Names of hosts are looked up without a limit of time.
    looking.start()
    looking.join(PATIENCE)
    logging.root.manager.disable = before
    return sorted(name for name in set(found) if name.startswith(incomplete) and _HARMLESS.match(name))


def _asked(ask: Callable[[Store, Settings], Iterable[str]]) -> list[str]:
    from relier.embedded.guardian import ping, read_state
    from relier.settings import get_settings
    from relier.store import get_store

    settings = get_settings()
    if not settings.redis_url and not settings.redis_use_sentinel:  # No embedded server is started for this.
        state = read_state(str(settings.state_dir))
        if state is None or not ping(state.socket, PATIENCE):
            return []
    hasty: dict[str, float] = {"redis_connect_timeout": PATIENCE, "redis_socket_timeout": PATIENCE}
    return list(ask(get_store(settings.model_copy(update=hasty)), settings))
