"""The demo itself: push, kill, wait, compare."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from dramatiq import Message

from relier.brokers.redis import RelierRedisBroker
from relier.embedded import ensure_server
from relier.preflight import check_redis
from relier.store import get_store
from relier_cli.demo import tie
from relier_cli.demo.account import Account, Evidence, draw_up
from relier_cli.demo.cleanup import remove_keys, stop_server
from relier_cli.demo.direct import measure_directly
from relier_cli.demo.display import Display, Scene
from relier_cli.demo.effects import Effects
from relier_cli.demo.environment import ACTOR_NAME, Surroundings
from relier_cli.demo.files import FileFacts, library_files, library_folder
from relier_cli.demo.fleet import STOP_PATIENCE, THREADS, Fleet
from relier_cli.demo.interruption import Interruption
from relier_cli.demo.killing import Killer, plans
from relier_cli.demo.options import Options

#: Worker processes.
WORKERS = 2
#: Time (s) between two looks at the effects: how exactly a death is timed does not depend on it.
LOOK_EVERY = 0.01
#: Work must last this long (s), and this much longer for each kill, so that every kill meets some.
LEAST_WORK, LEAST_WORK_PER_KILL = 1.0, 1.8
#: A demo in which nothing happens for this long (s) is over.
STUCK_AFTER = 30.0


class Demo:
    """One run of the demo.

    Parameters:
      options: of the command line.
      display: shows it.
      effects: the display's.
      interruption: tells when the user wants it to end.
    """

    def __init__(self, options: Options, display: Display, effects: Effects, interruption: Interruption) -> None:
        self.options = options
        self.display = display
        self.effects = effects
        self.interruption = interruption
        self.library = library_folder()
        self.names = library_files(self.library, options.limit)
        self.folder = Path(tempfile.mkdtemp(prefix="rl-demo-"))
        work = LEAST_WORK + LEAST_WORK_PER_KILL * options.kills
        least_seconds = work * WORKERS * THREADS / max(1, len(self.names))
        self.surroundings = Surroundings(self.folder, self.library, least_seconds)
        self.fleet = Fleet(self.surroundings, effects, WORKERS)
        planned = plans(options.seed, options.kills, len(self.names), WORKERS)
        self.killer = Killer(self.fleet, effects, planned)
        self.pushed: dict[str, str] = {}
        self.keep_folder = False

    def run(self) -> Account:
        """Run it, clean up behind it, and return the account. Raises `Interrupted` when the user wants it to end."""
        with ExitStack() as cleanup:
            cleanup.callback(self._remove_folder)
            tie.hold(self.surroundings.tie)
            if self.surroundings.embedded:
                cleanup.callback(stop_server, ensure_server(self.surroundings.state_dir))
            else:
                cleanup.callback(remove_keys, self.surroundings.settings)
            store = get_store(self.surroundings.settings)
            check_redis(store.client, self.surroundings.settings)
            cleanup.callback(self.fleet.close)
            account = self._work()
            self.keep_folder = bool(account.disagreements)
            return account

    def _work(self) -> Account:
        with self.display.shown():
            self.fleet.start()
            self._push()
            self._watch()
            self.display.say(f"{len(self.effects.tasks_done)} of {len(self.pushed)} tasks are done.")
            counters, crashed = self._ask_store()
            self.fleet.stop()
            direct = self._measure_directly()
            self._wait_for_end()
        deaths, wanted = self.killer.deaths, self.options.kills
        return draw_up(Evidence(self.pushed, counters, crashed, self.effects, direct, deaths, wanted))

    def _push(self) -> None:
        broker = RelierRedisBroker(settings=self.surroundings.settings)
        messages: list[Message[None]] = [
            Message(queue_name="default", actor_name=ACTOR_NAME, args=(name,), kwargs={}, options={})
            for name in self.names
        ]
        sent = broker.enqueue_many(messages)
        self.pushed = {message.message_id: str(message.args[0]) for message in sent}
        broker.close()
        self.display.say(f"Pushed {len(sent)} tasks: one for each .py file of {self.library}.")

    def _watch(self) -> None:
        """Let the work be done, and kill, until every task has ended and every planned worker was killed."""
        moved, moved_at = -1, time.monotonic()
        while not self._is_over():
            self.interruption.check()
            self.effects.read()
            for worker in self.fleet.tend():
                self.display.say(f"Started worker {worker.place} again.")
            self._kill()
            done = len(self.effects.tasks_done)
            self.display.update(Scene("Working", done, len(self.pushed), self.fleet.workers))
            if self.effects.runs != moved:
                moved, moved_at = self.effects.runs, time.monotonic()
            if time.monotonic() - moved_at > STUCK_AFTER:
                self.display.say(f"Nothing happens any more after {done} tasks.", "bold red")
                return
            time.sleep(LOOK_EVERY)

    def _kill(self) -> None:
        death = self.killer.step()
        if death is not None:
            self.display.killed(death)
        for death in self.killer.deaths:
            if not death.told and death.is_over(self.effects):
                death.told = True
                self.display.recovered(death)

    def _is_over(self) -> bool:
        if len(self.effects.tasks_done) < len(self.pushed) or not all(death.told for death in self.killer.deaths):
            return False
        counters = get_store(self.surroundings.settings).counters()
        return sum(counters.get(end, 0) for end in ("completed", "dead", "discarded")) >= len(self.pushed)

    def _ask_store(self) -> tuple[dict[str, int], Counter[str]]:
        store = get_store(self.surroundings.settings)
        events = store.events(limit=10 * len(self.pushed))
        return store.counters(), Counter(event["task"] for event in events if event["event"] == "crashed")

    def _measure_directly(self) -> dict[str, FileFacts]:
        def progress(done: int) -> None:
            self.interruption.check()
            self.display.update(Scene("Comparing", done, len(self.names), []))

        self.display.say("Measuring all files again, directly, to compare.")
        return measure_directly(self.library, self.names, self.surroundings.tie, progress)

    def _wait_for_end(self) -> None:
        deadline = time.monotonic() + STOP_PATIENCE
        while not self.fleet.ended() and time.monotonic() < deadline:
            self.interruption.check()
            time.sleep(LOOK_EVERY)

    def _remove_folder(self) -> None:
        if not self.keep_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
