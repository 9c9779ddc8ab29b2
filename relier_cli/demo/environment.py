"""Where the demo runs: settings of its own, a server or a namespace of its own, and what its processes are told."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

import relier
from relier.settings import ENV_FILE, PREFIX, Settings

#: Variables that tell the demo's processes what to do. Not RELIER_*: they are no settings.
TIE = "RL_DEMO_TIE"
EFFECTS = "RL_DEMO_EFFECTS"
FOLDER = "RL_DEMO_FOLDER"
LEAST_SECONDS = "RL_DEMO_LEAST_SECONDS"

ACTORS = "relier_cli.demo.actors"
ACTOR_NAME = "measure_file"

#: The user's settings that the demo heeds: where Redis is, and nothing else.
_HEEDED = (
    "redis_url",
    "redis_password",
    "redis_use_sentinel",
    "redis_sentinel_nodes",
    "redis_sentinel_master_name",
    "redis_sentinel_password",
)


class DemoSettings(Settings):
    """Settings that come from the demo alone: neither from the environment nor from `.env`."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


class Surroundings:
    """One demo's settings and environment.

    Parameters:
      folder: private to this demo; everything it writes is in there.
      library: what the tasks measure.
      least_seconds: how long a task takes at least.

    Raises `RelierConfigError` when the user's Redis settings are wrong.
    """

    def __init__(self, folder: Path, library: Path, least_seconds: float) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self._values = {
            **heeded_settings(),
            "namespace": f"demo-{secrets.token_hex(6)}",
            "state_dir": str(self.state_dir),
            "log_level": "info",
            "admission_limit": str(10**9),
        }
        values: dict[str, Any] = dict(self._values)
        self.settings: Settings = DemoSettings(**values)
        self._told = {
            TIE: str(self.tie),
            FOLDER: str(library),
            LEAST_SECONDS: repr(least_seconds),
        }

    @property
    def embedded(self) -> bool:
        """Whether the demo has a server of its own, rather than a namespace on a given one."""
        return not (self.settings.redis_url or self.settings.redis_use_sentinel)

    @property
    def tie(self) -> Path:
        return self.folder / "tie"

    def environment(self, effects: Path | None = None) -> dict[str, str]:
        """Return the environment of one of the demo's processes: nothing of the user's settings disturbs it."""
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
        own = {PREFIX + name.upper(): value for name, value in self._values.items()}
        if effects is not None:
            own |= {PREFIX + "ACTORS": ACTORS, EFFECTS: str(effects)}
        return {**inherited, **own, **self._told, "PYTHONPATH": python_path(inherited)}


def python_path(environ: Mapping[str, str]) -> str:
    """Let processes that start in a folder of their own import what this one imported."""
    home = str(Path(relier.__file__).resolve().parent.parent)
    given = (os.path.abspath(part) for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part)
    return os.pathsep.join(dict.fromkeys([home, *given]))


def heeded_settings() -> dict[str, str]:
    """Return where the user's Redis is, from the environment and `.env`, and nothing else of their settings.

    Nothing for a Cluster: an embedded server is used instead.
    """
    found = {name.upper(): value for name, value in (*_dotenv().items(), *os.environ.items()) if value}
    if found.get(PREFIX + "REDIS_USE_CLUSTER", "").lower() in ("true", "1", "yes", "on", "t", "y"):
        return {}  # What is left behind on several servers is not found with one search.
    return {name: found[PREFIX + name.upper()] for name in _HEEDED if PREFIX + name.upper() in found}


def _dotenv() -> dict[str, str]:
    try:
        return {name: value for name, value in dotenv_values(ENV_FILE).items() if value}
    except (OSError, UnicodeDecodeError):
        return {}


def command(*module_and_arguments: str) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    return [sys.executable, "-m", *module_and_arguments]
