"""The event loops of a worker process: one as a rule, a fresh one while a coroutine blocks it.

Dramatiq keeps one thread with an event loop per process, reachable for everybody. While it is blocked, another one
takes its place; when it goes on and nothing that was given up is left on it, it comes back, because user code may keep
objects that are bound to it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Coroutine
from contextvars import Context
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

import dramatiq.logging
from dramatiq.asyncio import EventLoopThread, get_event_loop_thread, set_event_loop_thread

from relier.runs import Run, current

logger = logging.getLogger(__name__)

#: Longest time (s) for a thread to start or to stop.
START_TIME = 30.0
STOP_TIME = 1.0


class Guest(Protocol):
    """A coroutine's run, as its event loop knows it."""

    def move(self, place: Place) -> bool:
        """Begin in another place. False: it has begun already."""

    def strand(self) -> None:
        """Take note that the place will not go on."""


class OurTask(asyncio.Task[Any]):
    """A task that knows to which run it belongs: its own or one that started it."""

    __slots__ = ("run",)
    run: Run | None


def _our_task(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> OurTask:
    task = OurTask(coroutine, loop=loop, **options)
    context: Context | None = options.get("context")
    task.run = current.get() if context is None else context.get(current)
    return task


class LoopThread(EventLoopThread):
    """Dramatiq's thread with an event loop; a blocked one keeps no process alive."""

    def __init__(self) -> None:
        super().__init__(dramatiq.logging.get_logger(__name__, type(self)))  # type: ignore[no-untyped-call]
        self.name, self.daemon = "relier-event-loop", True
        self.loop.set_task_factory(_our_task)  # type: ignore[arg-type]  # its options differ by version

    def stop(self) -> None:
        """Stop when the loop can; returns after `STOP_TIME` when it is blocked."""
        if self.loop.is_running():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.join(STOP_TIME)


def start_loop() -> LoopThread:
    """Start a thread with an event loop, and make it the process's one."""
    thread = LoopThread()
    thread.start(timeout=START_TIME)
    set_event_loop_thread(thread)
    return thread


@dataclass(eq=False)
class Place:
    """One event loop and who is on it."""

    thread: EventLoopThread
    guests: set[Guest] = field(default_factory=set)
    #: Guests that were given up and have not ended.
    left_behind: set[Guest] = field(default_factory=set)
    #: Whether it is to end with its last guest.
    retired: bool = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self.thread.loop

    def blocker(self) -> Run | None:
        """Return the run whose code holds the loop at this moment, as far as can be told."""
        task = asyncio.current_task(self.loop)
        return getattr(task, "run", None)

    def stack(self) -> str:
        """Return what the loop's thread is doing at this moment."""
        frame: FrameType | None = sys._current_frames().get(self.thread.ident or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else ""


class EventLoops:
    """The event loops of one worker process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[EventLoopThread, Place] = {}
        #: Where user code began, and returns to.
        self._home: Place | None = None

    def enter(self, guest: Guest) -> Place:
        """Give a guest its place. Raises `RuntimeError` when the process has no event loop."""
        with self._lock:
            place = self._current()
            place.guests.add(guest)
            return place

    def leave(self, place: Place, guest: Guest) -> None:
        with self._lock:
            place.guests.discard(guest)
            self._end_if_idle(place)

    def replace(self, place: Place) -> None:
        """Let those that have not begun on a blocked loop begin on a fresh one; new guests go there as well."""
        with self._lock:
            if get_event_loop_thread() is place.thread:
                try:
                    fresh = self._place_of(start_loop())
                except RuntimeError:
                    logger.exception("There is no fresh event loop to be had.")
                    return
                place.loop.call_soon_threadsafe(self._goes_on, place)
            else:
                fresh = self._current()
            if fresh is place:
                return
            moved = {guest for guest in place.guests if guest.move(fresh)}
            place.guests -= moved
            fresh.guests |= moved
        logger.warning("The event loop is blocked; a fresh one takes what has not begun.", extra={"moved": len(moved)})

    def give_up(self, place: Place) -> None:
        """Replace a loop that is blocked by what was given up; whoever else is on it is stranded."""
        self.replace(place)
        with self._lock:
            stranded = set(place.guests)
        for guest in stranded:
            guest.strand()

    def leave_behind(self, place: Place, guest: Guest) -> None:
        """Note that a guest was given up and is not over."""
        with self._lock:
            place.guests.discard(guest)
            place.left_behind.add(guest)

    def ended(self, place: Place, guest: Guest) -> None:
        """Note that a guest that was left behind has ended; called on its loop."""
        with self._lock:
            place.left_behind.discard(guest)
        self._goes_on(place)

    def _goes_on(self, place: Place) -> None:
        """A loop that was blocked goes on: return to it, or end it with its last guest."""
        with self._lock:
            if place.left_behind or get_event_loop_thread() in (None, place.thread):
                return
            if place is not self._home:
                place.retired = True
            elif (substitute := self._places.get(get_event_loop_thread())) is not None:  # type: ignore[arg-type]
                logger.info("The event loop goes on.")
                set_event_loop_thread(place.thread)
                substitute.retired = True
                self._end_if_idle(substitute)
            self._end_if_idle(place)

    def _current(self) -> Place:
        thread = get_event_loop_thread()
        if thread is None:
            raise RuntimeError("There is no event loop for async actors: install Relier on the broker before it boots.")
        if not thread.loop.is_running():  # What ends a process, raised in a coroutine, ended its event loop.
            logger.error("The event loop ended; a fresh one takes its place.")
            thread, self._home = start_loop(), None
        return self._place_of(thread)

    def _place_of(self, thread: EventLoopThread) -> Place:
        place = self._places.get(thread) or self._places.setdefault(thread, Place(thread))
        if self._home is None or not self._home.thread.is_alive():
            self._home = place
        return place

    def _end_if_idle(self, place: Place) -> None:
        if place.retired and not place.guests and not place.left_behind:
            self._places.pop(place.thread, None)
            place.loop.call_soon_threadsafe(place.loop.stop)
