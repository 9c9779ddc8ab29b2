"""The fleet: which workers there are, which were declared dead, what is owed to them, who holds which lease."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from relier.store.connection import Argument, ScriptRunner
from relier.store.holds import Hold, Holds, Kind
from relier.store.keys import Keys
from relier.store.objective import Objective
from relier.store.scripts import Script, script

#: How long (s) a parted identity is refused: longer than any zombie sleeps.
GONE_KEPT = 86_400.0


class Signs(NamedTuple):
    """What tells that a worker lives: counters that move."""

    beat: int
    pulse: int | None = None  #: None: it has none


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at the fleet."""

    server_time: int  #: µs
    beats: dict[str, int]
    obligations: tuple[str, ...]
    leases: dict[str, str]
    pulses: dict[str, int]

    @property
    def signs(self) -> dict[str, Signs]:
        """The signs of life of every worker."""
        return {worker: Signs(beat, self.pulses.get(worker)) for worker, beat in self.beats.items()}


class Beat(NamedTuple):
    """The answer to a heartbeat."""

    answer: str  #: ok, gone (declared dead) or unknown (register again)
    holds: Holds | None  #: all holds, when they are others than those that the worker knew


class Busy(NamedTuple):
    """What runs of one actor in one worker process, as it told with its last beat."""

    queue: str
    actor: str
    runs: int
    longest: float  #: seconds that the longest of them has run


def pass_gate(runner: ScriptRunner, keys: Keys) -> None:
    """Begin what only an operator may do, where no script asks. Raises `RefusedError` for everybody else."""
    runner.command("EXISTS", keys.gate(0))


def _pairs(flat: Iterable[Any]) -> dict[str, str]:
    parts = [part.decode() if isinstance(part, bytes) else str(part) for part in flat]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _flat(reply: Any) -> Iterable[Any]:
    return (part for pair in reply.items() for part in pair) if isinstance(reply, dict) else reply


def _counters(flat: Iterable[Any]) -> dict[str, int]:
    return {worker: int(count) for worker, count in _pairs(flat).items()}


def _versions(found: Any) -> dict[str, int | None]:
    return found if isinstance(found, dict) else dict.fromkeys(found)


class Fleet:
    """Fleet operations of one namespace, all in shard 00."""

    def __init__(self, runner: ScriptRunner, keys: Keys) -> None:
        self._runner = runner
        self._keys = keys

    def _run(self, name: str, *args: Argument) -> Any:
        return self._runner.run(script("fleet_" + name), self._keys.fleet, ("", *args))

    def _by_hand(self, name: str, *args: Argument) -> Any:
        """Run a script that only an operator may run; see `Keys.gate`."""
        return self._runner.run(script("fleet_" + name), (*self._keys.fleet, self._keys.gate(0)), ("", *args))

    def register(
        self,
        worker: str,
        told: dict[str, Any],
        actors: Mapping[str, int] | None = None,
        objectives: Mapping[str, Objective] | None = None,
    ) -> bool:
        """Make a worker known. False: this identity was declared dead.

        `actors` are the names behind `told["actors"]`, their digest, and the newest payload version of each;
        `objectives` are what its actors promise.
        """
        names = (str(told.get("actors", "")), json.dumps(dict(actors or {})))
        begun = float(told.get("started_at") or 0)
        pairs = [part for name, aim in (objectives or {}).items() for part in (name, aim.told(begun))]
        return bool(self._run("register", worker, json.dumps(told), *names, repr(begun), *pairs) == b"ok")

    def objectives(self) -> dict[str, Objective]:
        """Return what actors promise, those that promise something: as the worker said that began last."""
        told = _pairs(_flat(self._runner.command("HGETALL", self._keys.fleet[9])))
        found = {actor: Objective.of(text) for actor, text in told.items()}
        return {actor: aim for actor, aim in found.items() if aim != Objective()}

    def knowledge(self) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, int | None]], Holds]:
        """Return what each living worker told about itself, by digest the actors with their newest versions, and what
        is held.

        An older Relier told only names; its versions are None.
        """
        workers, actors, holds = self._runner.commands(("HGETALL", self._keys.fleet[place]) for place in (0, 7, 8))
        names = {digest: _versions(json.loads(found)) for digest, found in _pairs(_flat(actors)).items()}
        told = {worker: json.loads(told) for worker, told in _pairs(_flat(workers)).items()}
        return told, names, Holds.of(_flat(holds))

    def beat(self, worker: str, known_holds: str = "", busy: Iterable[Busy] = ()) -> Beat:
        """Beat once. `known_holds`: the version of the holds that the worker knows. `busy`: what runs in it."""
        runs = [list(what) for what in busy]
        answer, holds = self._run("beat", worker, known_holds, json.dumps(runs) if runs else "")
        return Beat(answer.decode(), None if holds is None else Holds.of(holds))

    def holds(self) -> Holds:
        """Return everything that is held."""
        return Holds.of(_flat(self._runner.command("HGETALL", self._keys.fleet[8])))

    def hold(self, hold: Hold) -> tuple[bool, Hold]:
        """Hold a queue or an actor. Returns whether this call did it, and the hold that is there now."""
        run = self._by_hand if hold.kind == "queue" else self._run  # Workers park actors by themselves.
        done, told = run("hold", "set", hold.field, hold.told(), "")
        return bool(done), Hold.of(hold.field, told.decode())

    def lift(self, kind: Kind, name: str, only: Hold | None = None) -> tuple[bool, Hold | None]:
        """Lift a hold; `only`: this one, none that came later. Returns whether this call did it, and what it found."""
        field, since = f"{kind}\n{name}", "" if only is None else round(only.since * 1e6)
        done, told = (self._by_hand if only is None else self._run)("hold", "lift", field, "", since)
        return bool(done), None if told is None else Hold.of(field, told.decode())

    def busy(self) -> dict[str, list[Busy]]:
        """Return what ran in each worker at its last beat; idle ones are left out."""
        told = _pairs(_flat(self._runner.command("HGETALL", self._keys.fleet[10])))
        return {worker: [Busy(*what) for what in json.loads(runs)] for worker, runs in told.items()}

    def pulse(self, worker: str) -> tuple[Script, tuple[Argument, ...]]:
        """Return the script of one pulse and what follows it in the command: a worker's child process sends it."""
        keys = self._keys.fleet
        return script("fleet_pulse"), (len(keys), *keys, "", worker)

    def declare_dead(self, worker: str) -> bool:
        """Declare a worker dead; True for the one caller that did it."""
        return bool(self._run("part", worker, "crash", int(GONE_KEPT * 1e6)))

    def leave(self, worker: str) -> bool:
        """Leave in order; what the worker still owns, be it by a request that arrives late, is handed over."""
        return bool(self._run("part", worker, "left", int(GONE_KEPT * 1e6)))

    def observe(self) -> Observation:
        """Look at beats, pulses, obligations and leases."""
        time, beats, obligations, leases, pulses = self._run("observe")
        owed = tuple(worker.decode() for worker in obligations)
        return Observation(int(time), _counters(beats), owed, _pairs(leases), _counters(pulses))

    def signs(self, workers: list[str]) -> dict[str, Signs]:
        """Return the signs of life of those workers that are registered."""
        if not workers:
            return {}
        beats, pulses = self._runner.commands(("HMGET", self._keys.fleet[place], *workers) for place in (1, 6))
        return {
            worker: Signs(int(beat), None if pulse is None else int(pulse))
            for worker, beat, pulse in zip(workers, beats, pulses, strict=True)
            if beat is not None
        }

    def leases(self) -> dict[str, str]:
        """Return all leases by slot."""
        flat = self._runner.command("HGETALL", self._keys.fleet[4])
        return _pairs(part for pair in flat.items() for part in pair) if isinstance(flat, dict) else _pairs(flat)

    def lease(self, wishes: Iterable[tuple[str, str, str]]) -> dict[str, str]:
        """Apply (slot, lease last seen, lease wanted) wishes; returns all leases afterwards."""
        return _pairs(self._run("lease", *(part for wish in wishes for part in wish)))

    def format(self, version: int, shards: int) -> tuple[int, int]:
        """Record format version and shard count at the first start; return what is recorded."""
        reply = self._run("format", version, shards)
        return int(reply[0]), int(reply[1])

    def checkpoint_folder(self, proposed: str = "") -> str:
        """Return the name of the folder of this store's checkpoints: the first that anybody proposed; '' for none."""
        name: bytes = self._run("folder", proposed)
        return name.decode()

    def workers(self) -> dict[str, dict[str, Any]]:
        """Return what each living worker told about itself."""
        flat = self._runner.command("HGETALL", self._keys.fleet[0])
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        return {worker.decode(): json.loads(told) for worker, told in pairs}

    def subscribed(self, worker: str) -> bool:
        """Whether a worker was subscribed to its control channel when it registered."""
        told = self._runner.command("HGET", self._keys.fleet[0], worker)
        return bool(told and json.loads(told).get("subscribed"))

    def obligation(self, worker: str) -> dict[str, Any] | None:
        """Return what is owed to a dead worker: how it parted, when, and what it told."""
        raw = self._runner.command("HGET", self._keys.fleet[3], worker)
        if raw is None:
            return None
        owed: dict[str, Any] = json.loads(raw)
        owed["told"] = json.loads(owed["told"])
        return owed

    def fulfilled(self, worker: str) -> None:
        """Drop an obligation after everything in it was done."""
        self._runner.command("HDEL", self._keys.fleet[3], worker)

    def present(self, workers: list[str]) -> dict[str, bool]:
        """Return for each worker whether anybody is subscribed to its control channel."""
        if not workers:
            return {}
        channels = [self._keys.control(worker) for worker in workers]
        flat = self._runner.command("PUBSUB", self._runner.channels.numsub, *channels)
        if isinstance(flat, dict):
            return {w: bool(flat[c.encode()]) for w, c in zip(workers, channels, strict=True)}
        return {w: bool(int(n)) for w, n in zip(workers, flat[1::2], strict=True)}

    def tell(self, worker: str, message: dict[str, Any]) -> bool:
        """Send a control message; False when nobody listens."""
        publish, text = self._runner.channels.publish, json.dumps({"v": 1, **message})
        return bool(self._runner.command(publish, self._keys.control(worker), text))

    def order(self, worker: str, message: dict[str, Any]) -> bool:
        """Send a control message that only an operator may send; False when nobody listens. See `Keys.gate`."""
        pass_gate(self._runner, self._keys)
        return self.tell(worker, message)

    def tell_all(self, message: dict[str, Any]) -> None:
        """Send a control message to every process of the fleet; who does not listen misses it."""
        text = json.dumps({"v": 1, **message})
        workers = self._runner.command("HKEYS", self._keys.fleet[0])
        channels = [self._keys.control(worker.decode()) for worker in workers]
        if channels:
            self._runner.commands((self._runner.channels.publish, channel, text) for channel in channels)
