"""Processes whose clock is wrong, or jumps: libfaketime, told by a file that is read again and again.

Only the wall clock lies. The monotonic clock goes on as it is, as it does on a machine whose clock is set.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests import sources

HOUR = 3600

#: How long (s) a process may go on with the time before a jump.
NOTICED_WITHIN = 1

_PRELOAD = Path(__file__).parent / "preload"
_SHARED_MEMORY = Path("/dev/shm")


class FakeClock:
    """The wall clock of every process that is started while `applied()`, and of their children.

    The server needs to use the C library's own memory allocator, as the embedded one does: Debian's jemalloc asks for
    the time before libfaketime can tell it.

    Parameters:
      folder: where the file is kept that tells the time.
      offset: seconds by which the clock is ahead.
    """

    def __init__(self, folder: Path, offset: float = 0) -> None:
        self._file = folder / f"clock-{os.urandom(3).hex()}"
        self.set(offset)

    def set(self, offset: float) -> None:
        """Make the clock jump to so many seconds ahead of the real time; noticed within `NOTICED_WITHIN` seconds."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset:+.0f}\n")
        fresh.replace(self._file)
        self.offset = offset

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give this clock to the processes that are started in the block."""
        _clean_up()
        ours = {
            "LD_PRELOAD": str(sources.faketime()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": str(NOTICED_WITHIN),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": os.pathsep.join([str(_PRELOAD), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def is_told_by(self, told: float) -> bool:
        """Whether a time (s since the epoch) is this clock's, give or take a minute."""
        return abs(told - time.time() - self.offset) < 60


def _clean_up() -> None:
    """Remove what libfaketime left of killed processes: it would hinder a new one that gets the same process id."""
    for path in [*_SHARED_MEMORY.glob("faketime_shm_*"), *_SHARED_MEMORY.glob("sem.faketime_sem_*")]:
        pid = path.name.rpartition("_")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with suppress(OSError):
                path.unlink()
