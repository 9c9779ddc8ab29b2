"""`rl config validate`: would processes with these settings work, and what else do the settings say wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from relier.brokers import default_broker
from relier.checkpoint_checks import checkpoint_check, local_folder
from relier.config_checks import check_checkpoint_dir, check_keys, check_timing, pool_check, reachable_broker
from relier.errors import RelierConfigError, RelierError
from relier.fleet_checks import format_check
from relier.integrity_checks import check_integrity
from relier.preflight import Finding, inspect_redis
from relier.sentinel_checks import check_sentinels
from relier.settings import ENV_FILE, Settings, unknown_variables
from relier.store import get_store
from relier_cli.doctor import report
from relier_cli.env_file import EnvFile, values
from relier_cli.output import AsJson, number
from relier_cli.variables import is_secret, sources


def validate(as_json: AsJson = False) -> None:
    """Check every setting, and Redis, Sentinels, broker and folders that they name; tells all at once, with the fix.

    What cannot be reached is one finding; the rest is looked at all the same. Workers and queues are not: see rl
    doctor. Exits 1 when processes with these settings would not start or would lose tasks.

    Example: rl config validate
    """
    report(list(examine()), as_json)


def examine() -> Iterator[Finding]:
    """Yield what was found; never raises for what it finds."""
    yield from _unknown()
    try:
        yield from _env_file(EnvFile(Path(ENV_FILE)))
        settings = Settings()
    except RelierConfigError as error:
        for problem in error.problems:
            yield Finding("error", "variables", problem, "Correct it: rl config set, or where the environment is set.")
        yield Finding("warning", "variables", "Redis and the broker were not looked at: correct the variables first.")
        return
    yield from _variables(settings)
    yield from check_timing(settings)
    yield from check_keys(settings)
    yield from check_checkpoint_dir(settings)
    yield from local_folder(settings)
    yield from check_sentinels(settings)
    yield from _redis(settings)
    yield from _broker(settings)


def _unknown() -> Iterator[Finding]:
    try:
        strangers = unknown_variables()
    except (OSError, UnicodeDecodeError):  # The file is told of by itself.
        return
    for line in strangers:
        yield Finding("warning", "variables", line, "Remove or correct it.")


def _env_file(file: EnvFile) -> Iterator[Finding]:
    """Tell what `.env` says, who else may read it, and what of it the environment overrides."""
    said = {name: value for name, value in values(file.text).items() if name in sources({})}
    if file.mode is None:
        yield Finding("ok", ".env", f"There is no {file.path}: the environment says it all.")
        return
    yield Finding("ok", ".env", f"{file.path} has {number(len(said), 'setting')}.")
    if file.is_public and any(is_secret(name, value) for name, value in said.items()):
        message = f"{file.path} holds secrets, and others than its owner may read it (mode {file.mode:o})."
        yield Finding("warning", ".env", message, f"chmod 600 {file.path}")
    for name, source in sources(said).items():
        if source == "environment" and name in said:
            message = f"The environment has a {name} of its own: that of {file.path.name} has no effect."
            yield Finding("warning", ".env", message, "Remove one of them.")


def _variables(settings: Settings) -> Iterator[Finding]:
    given = len(settings.model_fields_set)
    message = f"{number(given, 'variable')} set and well-formed; {len(Settings.model_fields) - given} have defaults."
    yield Finding("ok", "variables", message)


def _redis(settings: Settings) -> Iterator[Finding]:
    """Look at Redis: eviction, persistence, version, clock, pool, checkpoints that others keep."""
    try:
        store = get_store(settings)
    except RelierError as error:
        yield Finding("error", "server", str(error))
        return
    checks = (pool_check(store), check_integrity, format_check(store), checkpoint_check(store))
    yield from inspect_redis(store.client, settings, checks)
    store.close()


def _broker(settings: Settings) -> Iterator[Finding]:
    """Look at a broker that is not the store's Redis."""
    if settings.broker_url is None:
        return
    try:
        broker = default_broker(settings)
    except RelierError as error:
        yield Finding("error", "broker", str(error))
        return
    yield from reachable_broker(broker)
    broker.close()
