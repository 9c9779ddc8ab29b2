"""Keeps worker processes running, each under a `dramatiq -p 1` of its own: one's death does not stop the others."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from relier.boot import IMPORT_FAILED, REFUSED
from relier.ending import DRAINED, RESTARTED, end_with_parent
from relier.hosting import SUPERVISED_VARIABLE
from relier.logging import get_logger

log = get_logger(__name__)

#: Signals that end the supervisor.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Exit codes of a worker whose next start will fail like this one.
HOPELESS = (REFUSED, IMPORT_FAILED)
#: A worker that lived this long (s) was up: its death says nothing about its start.
UP_AFTER = 10.0
#: Pause (s) after the second quick death in a row; it doubles up to the longest. The first restart is immediate.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
#: A supervisor ends this long (s) after its workers' time is up: they have ended before.
END_WITHIN = 2.0
#: In a fleet that was up, every process is refused this often in a row before the supervisor gives up.
REFUSALS_ALLOWED = 3


def worker_command(flags: Sequence[str]) -> list[str]:
    """Return the command line of one worker process, with Dramatiq's own flags."""
    named = bool(flags) and flags[0].partition(":")[0] == "relier.workers"
    # A worker killed while it boots is noticed only after this time; there is no fork to be held back for.
    quick = [] if any(flag.startswith("--worker-fork-timeout") for flag in flags) else ["--worker-fork-timeout", "1000"]
    return [sys.executable, "-m", "dramatiq", "-p", "1", *quick, *([] if named else ["relier.workers"]), *flags]


@dataclass
class Slot:
    """One place of the fleet: a process, or the time of its next start."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    next_start: float = 0.0
    quick_deaths: int = 0
    refusals: int = 0
    #: Whether its worker was drained, so that there will be no other.
    drained: bool = False


@dataclass
class Supervisor:
    """Starts `processes` times `command`, and restarts whichever ends, unless `rl worker drain` ended it.

    Its children get SIGTERM when it dies, however it dies (on Linux).

    Parameters:
      patience: seconds that workers have for what they run when all is to end.
    """

    command: Sequence[str]
    processes: int
    patience: float = 30.0
    clock: Callable[[], float] = time.monotonic
    _slots: list[Slot] = field(default_factory=list)
    _signals: list[int] = field(default_factory=list)
    _was_up: bool = False

    def run(self) -> int:
        """Supervise until SIGTERM, SIGINT or SIGHUP, then until every child has ended; returns the exit code.

        Children that take too long are killed, all of them at a second signal. Ends by itself when every worker was
        drained, and with exit code 1 when every process refuses to start.
        """
        with _woken_by_signals(self._signals) as wait:
            self._slots = [Slot(number) for number in range(self.processes)]
            while not self._signals:
                self._tend()
                if all(slot.drained for slot in self._slots):
                    log.info("Every worker was drained; ending.")
                    return 0
                if self._hopeless():
                    log.error("Every worker process refused to start; giving up.", processes=self.processes)
                    self._send(signal.SIGKILL)
                    return 1
                wait(self._until_next_start())
            return self._stop(wait)

    # -- running ------------------------------------------------------------------------------------------------

    def _tend(self) -> None:
        for slot in self._slots:
            if slot.process is not None and (code := slot.process.poll()) is not None:
                self._ended(slot, code)
            elif slot.process is not None and self.clock() - slot.started >= UP_AFTER:
                slot.quick_deaths, slot.refusals, self._was_up = 0, 0, True
            if slot.process is None and not slot.drained and self.clock() >= slot.next_start and not self._hopeless():
                self._start(slot)

    def _start(self, slot: Slot) -> None:
        parent = os.getpid()
        slot.started = self.clock()
        try:
            slot.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                env={**os.environ, SUPERVISED_VARIABLE: str(parent)},
                start_new_session=True,  # Ctrl-C is for us only: a second signal would kill the worker.
                preexec_fn=lambda: end_with_parent(parent),  # noqa: PLW1509 - this process has no other thread
            )
        except OSError as error:  # no memory, or no process left
            slot.next_start = slot.started + LONGEST_PAUSE
            log.error("A worker process cannot be started.", number=slot.number, error=str(error))
            return
        log.info("Started a worker process.", number=slot.number, pid=slot.process.pid)

    def _ended(self, slot: Slot, code: int) -> None:
        assert slot.process is not None
        pid, slot.process = slot.process.pid, None
        if code:
            _kill_remains(pid)
        if code in (DRAINED, RESTARTED):
            self._ended_in_order(slot, pid, code)
            return
        refused = code in HOPELESS
        slot.quick_deaths = slot.quick_deaths + 1 if self.clock() - slot.started < UP_AFTER else 0
        slot.refusals = slot.refusals + 1 if refused else 0
        pause = _pause(slot.quick_deaths + refused)
        slot.next_start = self.clock() + pause
        what = "A worker process refused to start." if refused else "A worker process ended; starting another."
        log.warning(what, number=slot.number, pid=pid, code=code, pause=pause)

    def _ended_in_order(self, slot: Slot, pid: int, code: int) -> None:
        """Start another at once, unless there is to be none: somebody asked for this end, so it is no quick death."""
        slot.quick_deaths, slot.refusals, slot.next_start = 0, 0, self.clock()
        slot.drained = code == DRAINED
        what = "A worker was drained; its place stays empty." if slot.drained else "A worker is restarted."
        log.info(what, number=slot.number, pid=pid)

    def _hopeless(self) -> bool:
        allowed = REFUSALS_ALLOWED if self._was_up else 1
        return all(slot.refusals >= allowed or slot.drained for slot in self._slots)

    def _until_next_start(self) -> float:
        pauses = [slot.next_start - self.clock() for slot in self._slots if not (slot.process or slot.drained)]
        return max(0.0, min(pauses, default=1.0))

    # -- stopping -----------------------------------------------------------------------------------------------

    def _stop(self, wait: Callable[[float], None]) -> int:
        log.info("Stopping: the workers end what they run.", signal=signal.Signals(self._signals[0]).name)
        self._send(signal.SIGTERM)
        latest = self.clock() + self.patience + END_WITHIN
        while self._alive():
            if self.clock() > latest:
                log.error("Killing workers that do not end; their tasks run again elsewhere.", count=len(self._alive()))
                self._send(signal.SIGKILL)
                return 1
            if len(self._signals) > 1:
                log.warning("A second signal: killing the workers; their tasks run again elsewhere.")
                self._send(signal.SIGKILL)
                return 128 + self._signals[1]
            wait(max(0.0, min(1.0, latest - self.clock())))
        return 0

    def _alive(self) -> list[subprocess.Popen[bytes]]:
        return [slot.process for slot in self._slots if slot.process is not None and slot.process.poll() is None]

    def _send(self, number: signal.Signals) -> None:
        """Send a signal: SIGTERM to Dramatiq's main processes, which pass it on; SIGKILL to all that they started."""
        for process in self._alive():
            if number is signal.SIGKILL:
                _kill_remains(process.pid)
                process.wait()
            else:
                process.send_signal(number)


def _pause(deaths: int) -> float:
    """Return how long (s) to wait after so many quick deaths in a row: not at all after the first."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (deaths - 2)) if deaths > 1 else 0.0


def _kill_remains(pid: int) -> None:
    """Kill what is left of a process group: a worker without its main process has nobody to stop or restart it."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS says EPERM when only zombies are left.
        return


@contextmanager
def _woken_by_signals(arrived: list[int]) -> Iterator[Callable[[float], None]]:
    """Collect SIGTERM, SIGINT and SIGHUP, and give a wait that these and SIGCHLD end early."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)

    def note(number: int, _: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            arrived.append(number)

    def wait(seconds: float) -> None:
        if select.select([reader], [], [], seconds)[0]:
            os.read(reader, 1024)

    before = {number: signal.signal(number, note) for number in (*ENDING, signal.SIGCHLD)}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield wait
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
