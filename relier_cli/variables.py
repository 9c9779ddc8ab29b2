"""The variables behind the settings: which there are, where a value comes from, which are secret."""

from __future__ import annotations

import difflib
import os
from typing import Literal

from relier.errors import RelierConfigError
from relier.settings import PREFIX, Settings
from relier.urls import safe_url

#: Where a value comes from, the strongest first.
Source = Literal["environment", ".env", "default"]


def names() -> list[str]:
    """Return the name of every variable."""
    return [PREFIX + field.upper() for field in Settings.model_fields]


def variable(key: str) -> str:
    """Return the variable that a key means, with or without its prefix. Raises `RelierConfigError`."""
    name = PREFIX + key.strip().upper().removeprefix(PREFIX)
    if name in names():
        return name
    close = difflib.get_close_matches(name, names(), n=1, cutoff=0.7)
    hint = f"; did you mean {close[0]}?" if close else "; rl config show lists all."
    raise RelierConfigError(f"There is no setting {key!r}{hint}")


def is_secret(name: str, value: str | None) -> bool:
    """Whether a value is nobody's business: that of a secret, or a URL with a password."""
    if not value:
        return False
    return "SecretStr" in str(Settings.model_fields[_field(name)].annotation) or safe_url(value) != value


def sources(in_file: dict[str, str]) -> dict[str, Source]:
    """Return where each variable's value comes from, given what `.env` says; an empty one does not count."""
    there = {name.upper() for name, value in os.environ.items() if value}
    return {name: "environment" if name in there else ".env" if name in in_file else "default" for name in names()}


def problems_of(path: str, given: dict[str, str] | None = None) -> list[str]:
    """Return what is wrong with the settings when `.env` is this file; what is `given` wins over everything."""
    try:
        Settings(_env_file=path, **{_field(name): value for name, value in (given or {}).items()})
    except RelierConfigError as error:
        return list(error.problems)
    return []


def _field(name: str) -> str:
    return name.removeprefix(PREFIX).lower()
