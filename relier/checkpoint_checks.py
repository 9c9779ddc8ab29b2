"""Look at the folder of checkpoints: what `rl doctor` adds where `RELIER_CHECKPOINT_BACKEND` is `filesystem`."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator

import redis

from relier.checkpoint_files import CheckpointFiles, make_folder
from relier.errors import RelierStartupError
from relier.preflight import Check, Finding
from relier.settings import Settings
from relier.store import Store


def check_checkpoint_folder(settings: Settings) -> None:
    """Make the folder of checkpoints where it is missing. Raises `RelierStartupError` when that cannot be done."""
    if settings.checkpoint_backend != "filesystem":
        return
    folder = settings.checkpoint_dir
    try:
        make_folder(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise RelierStartupError(
            f"Relier cannot use its folder of checkpoints, RELIER_CHECKPOINT_DIR ({folder}): {error.strerror}. Refusing"
            f" to start. Make it for the workers' user (mkdir -m 700 {folder}), name another one, or set"
            " RELIER_CHECKPOINT_BACKEND=inline."
        ) from error


def checkpoint_check(store: Store) -> Check:
    """Return the check of the folder of checkpoints, as this host sees it and as the workers told."""

    def check(_: redis.Redis, settings: Settings) -> Iterator[Finding]:
        if settings.checkpoint_backend == "filesystem":
            wrong = list(local_folder(settings))
            yield from wrong or [_sharing(store, settings)]
            yield from _elsewhere(store)

    return check


def local_folder(settings: Settings) -> Iterator[Finding]:
    """Tell what is wrong with the folder of checkpoints on this host; nothing where none is used."""
    if settings.checkpoint_backend != "filesystem":
        return
    folder = settings.checkpoint_dir
    if not folder.is_dir():
        fix = f"Make it on every host, writable for the workers' user: mkdir -m 700 {folder}."
        yield Finding("error", "checkpoints", f"RELIER_CHECKPOINT_DIR ({folder}) is no folder on this host.", fix)
        return
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"RELIER_CHECKPOINT_DIR ({folder}) cannot be written to: {error.strerror}."
        yield Finding("error", "checkpoints", message, "Give it to the workers' user, or free space.")


def _sharing(store: Store, settings: Settings) -> Finding:
    folder = settings.checkpoint_dir
    files = CheckpointFiles(folder, store.fleet.checkpoint_folder)
    standing, marker = files.standing(), files.marker()
    if standing == "apart":
        message = f"RELIER_CHECKPOINT_DIR ({folder}) is not the folder that the workers use: it lacks their marker."
        fix = f"Mount the same folder on every host. If this is it, and was emptied, make the file {marker} again."
        return Finding("error", "checkpoints", message, fix)
    use = "is shared with the workers" if standing == "shared" else "can be written to; nothing was kept there yet"
    return Finding("ok", "checkpoints", f"RELIER_CHECKPOINT_DIR ({folder}) {use}.")


def _elsewhere(store: Store) -> Iterator[Finding]:
    """Name what workers told at their start of the folder that they see."""
    told = store.fleet.workers().values()
    for standing, message in (
        ("apart", "Workers do not see the folder of checkpoints that others use"),
        ("inline", "Workers run without RELIER_CHECKPOINT_BACKEND=filesystem"),
    ):
        hosts = sorted({str(worker.get("host")) for worker in told if worker.get("checkpoints") == standing})
        if hosts:
            fix = "Give every worker and the resurrector the same settings and the same folder."
            yield Finding("warning", "checkpoints", f"{message}, on {', '.join(hosts)}.", fix)
