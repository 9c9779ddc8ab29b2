"""Payload versions: arguments that an older producer sent become those that this code takes."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from dramatiq.middleware import SkipMessage

from relier.errors import SchemaMigrationError

__all__ = ["Arguments", "Migration", "Migrations", "SchemaRegistry", "Unusable"]

#: Positional and keyword arguments of a call.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]
#: Takes the arguments of one version, as its parameters; returns those of the next.
Migration = Callable[..., Mapping[str, Any] | tuple[Any, Any]]

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Migration)


@dataclass(frozen=True, slots=True)
class Unusable:
    """A migration that can never run, and why."""

    actor: str
    from_version: int
    why: str


class Migrations:
    """Migrations by actor and version; each leads from its version to the next one."""

    def __init__(self) -> None:
        self._steps: dict[str, dict[int, Migration]] = {}

    def add(self, actor_name: str, from_version: int, migration: Migration) -> None:
        """Add one step. Raises `ValueError` or `TypeError`, which name the fix, for one that could not work."""
        if isinstance(from_version, bool) or not isinstance(from_version, int) or from_version < 1:
            raise ValueError(
                f"Migration of {actor_name!r}: from_version is a whole number from 1, not {from_version!r}."
            )
        if not callable(migration) or inspect.iscoroutinefunction(migration):
            raise TypeError(
                f"Migration of {actor_name!r} from version {from_version}: a plain function, with `def`, is wanted."
            )
        steps = self._steps.setdefault(actor_name, {})
        if from_version in steps:
            there = _name(steps[from_version])
            raise ValueError(f"Actor {actor_name!r} has a migration from version {from_version} already: {there}.")
        steps[from_version] = migration

    def gap(self, actor_name: str, from_version: int, to_version: int) -> int | None:
        """Return the first version from which no migration leads on; None when there is a path."""
        steps = self._steps.get(actor_name, {})
        return next((version for version in range(from_version, to_version) if version not in steps), None)

    def apply(
        self, actor_name: str, args: tuple[Any, ...], kwargs: dict[str, Any], from_version: int, to_version: int
    ) -> Arguments:
        """Return the arguments as `to_version` has them; those that were passed stay as they are.

        Raises `SchemaMigrationError` when there is no path, or when a step fails. A `SkipMessage` passes through.
        """
        if from_version >= to_version:
            return args, kwargs
        if (missing := self.gap(actor_name, from_version, to_version)) is not None:
            raise SchemaMigrationError(
                f"No migration leads {actor_name!r} from payload version {missing} to {missing + 1}: the task has"
                f" version {from_version}, its actor expects {to_version}."
            )
        arguments: Arguments = copy.deepcopy((tuple(args), dict(kwargs)))
        for version in range(from_version, to_version):
            arguments = _step(actor_name, version, self._steps[actor_name][version], arguments)
        return arguments

    def unusable(self, versions: Mapping[str, int]) -> Iterator[Unusable]:
        """Tell which migrations can never run, given the payload version of each actor that there is."""
        for actor, steps in sorted(self._steps.items()):
            for from_version in sorted(steps):
                if why := self._obstacle(actor, from_version, versions.get(actor)):
                    yield Unusable(actor, from_version, why)

    def _obstacle(self, actor: str, from_version: int, expected: int | None) -> str:
        if expected is None:
            return "no actor of this name is declared"
        if from_version >= expected:
            return f"the actor's schema_version is {expected}, so nothing older than that needs it"
        missing = self.gap(actor, from_version, expected)
        return "" if missing is None else f"no migration leads on from version {missing}"


def _step(actor: str, version: int, migration: Migration, arguments: Arguments) -> Arguments:
    args, kwargs = arguments
    try:
        return _checked(migration(*args, **kwargs))
    except SkipMessage:  # the task is not wanted any more
        raise
    except Exception as error:
        raise SchemaMigrationError(
            f"The migration of {actor!r} from payload version {version} failed: {type(error).__name__}: {error}"
        ) from error


def _checked(returned: Any) -> Arguments:
    """Return what a migration returned as arguments. Raises `TypeError` for anything else."""
    if isinstance(returned, tuple) and len(returned) == 2:
        args, kwargs = returned
    else:
        args, kwargs = (), returned
    if not isinstance(args, tuple | list) or not isinstance(kwargs, Mapping) or not all(map(_is_name, kwargs)):
        raise TypeError(
            "a migration returns the keyword arguments of the next version as a dict, or a pair (args, kwargs), not"
            f" {type(returned).__name__}"
        )
    return tuple(args), dict(kwargs)


def _is_name(key: Any) -> bool:
    return isinstance(key, str)


def _name(migration: Migration) -> str:
    return f"{getattr(migration, '__module__', '?')}.{getattr(migration, '__qualname__', repr(migration))}"


def report_unusable(versions: Mapping[str, int]) -> None:
    """Log each migration that can never run; its tasks would be dead letters, or run with the wrong shape."""
    for found in migrations.unusable(versions):
        extra = {"actor": found.actor, "from_version": found.from_version, "why": found.why}
        logger.error("A migration can never run.", extra=extra)


#: The migrations of this process: an actor's name means the same everywhere in it.
migrations = Migrations()


class SchemaRegistry:
    """The migrations of this process's actors.

    An actor with `schema_version=3` gets what was sent with version 1 through its migrations from 1 and from 2, each
    time it runs; the stored message stays as it was sent. Declare migrations beside their actor, so that whatever
    imports the actor has them.
    """

    @staticmethod
    def register_migration(actor_name: str, from_version: int) -> Callable[[F], F]:
        """Register the decorated function as the way from `from_version` to the version after it.

        It is called with the arguments as they were sent, so its parameters are those that the actor had in that
        version; it returns the arguments of the next version: a dict of keyword arguments, or a pair `(args, kwargs)`.
        The task's context is not among them. It runs before every run of such a task, so it must be fast and free of
        side effects. What it raises makes the task a dead letter (`SchemaMigrationError`); `SkipMessage` discards it.

        Raises `ValueError` for a version that is no whole number from 1 and for a second migration from the same
        version, `TypeError` for an `async def`.
        """

        def register(migration: F) -> F:
            migrations.add(actor_name, from_version, migration)
            return migration

        return register

    @staticmethod
    def migrate(
        actor_name: str,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        from_version: int,
        to_version: int,
    ) -> Arguments:
        """Return arguments of `from_version` as `to_version` has them, for tests of migrations.

        Raises `SchemaMigrationError` as a worker would.
        """
        return migrations.apply(actor_name, args, dict(kwargs or {}), from_version, to_version)
