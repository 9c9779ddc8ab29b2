"""One dead letter and the people who let it out: releases, purges, an export that comes back, commands that are killed.

How a task is republished and taken over is the other model's concern: here it died of its crashes, runs when it is
released, fails, completes or kills its worker again, and each of its copies may come at any time, and again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.small import Result, plain, search

#: How many crashes it may survive.
LIMIT = 1


@dataclass(frozen=True, slots=True)
class Rules:
    """What makes the ways out safe. One off must give a counterexample."""

    meant: bool = True
    """A release and a purge touch only the death that somebody looked at. Off: whichever there is."""
    one_step: bool = True
    """A release takes the letter out and makes it due in one step. Off: in two, with a kill in between."""
    keeps_crashes: bool = True
    """A release keeps the count of crashes. Off: that begins anew as well."""
    remembered: bool = True
    """The id of a purged task is kept. Off: nothing is known of it."""
    known: bool = True
    """An import makes no letter of what the store knows, but for what was purged. Off: of anything."""
    above: bool = True
    """What comes back has a fence above all that were presented. Off: the one that it had."""


@dataclass(frozen=True, slots=True)
class World:
    looks: int = 2  #: how often somebody looks, to release or purge what is there
    kills: int = 0  #: of whoever does
    crashes: int = 0  #: of workers
    imports: int = 0
    rules: Rules = Rules()


class State(NamedTuple):
    place: str = "dead"  #: dead, waiting, running, completed, purged, limbo (out of the DLQ, and not due)
    fence: int = 1
    highest: int = 1  #: the shard's highest fence
    death: int = 1  #: the number of its last death
    crashes: int = LIMIT + 1
    copies: frozenset[int] = frozenset({0})  #: the fences in their stamps; 0: first-hand
    requests: tuple[tuple[str, int], ...] = ()  #: on their way: what is asked for, and of which death
    exported: tuple[int, int] = (0, 0)  #: fence and number of the death; (0, 0): it was not
    runs: int = 0
    releases: int = 0
    completions: int = 0
    wrong: bool = False  #: a death was let out that nobody had looked at
    looks: int = 0
    kills: int = 0
    deaths: int = 0  #: of workers, still to come
    imports: int = 0


def explore(world: World) -> Result:
    start = State(looks=world.looks, kills=world.kills, deaths=world.crashes, imports=world.imports)
    return search(start, lambda state: plain(steps(world.rules, state)), violation)


def violation(state: State) -> str:
    if state.wrong:
        return "a death was let out that nobody looked at"
    if state.completions > 1:
        return "completed twice"
    if state.runs > state.releases:
        return "ran without a release"
    if state.place == "limbo" and not state.requests:
        return "lost"
    return ""


def steps(rules: Rules, state: State) -> Iterator[State]:
    yield from people(state)
    for i, (what, meant) in enumerate(state.requests):
        rest = state._replace(requests=state.requests[:i] + state.requests[i + 1 :])
        yield answered(rules, rest, what, meant)
        if state.kills:
            yield rest._replace(kills=state.kills - 1)
    if state.imports and state.exported[0]:
        yield taken_in(rules, state)
    if state.place == "waiting":
        yield state._replace(copies=state.copies | {state.fence})
    for stamp in sorted(state.copies):
        if claims(rules, state, stamp):
            yield risen(state)._replace(place="running", runs=state.runs + 1)
    if state.place == "running":
        yield from ends(state)


def people(state: State) -> Iterator[State]:
    """Somebody looks at the letter and asks for something; the request takes its time."""
    if state.place != "dead":
        return
    if state.looks:
        for what in ("release", "purge"):
            yield state._replace(requests=(*state.requests, (what, state.death)), looks=state.looks - 1)
    if state.imports and not state.exported[0]:
        yield state._replace(exported=(state.fence, state.death))


def answered(rules: Rules, state: State, what: str, meant: int) -> State:
    if what == "finish":
        return risen(state)._replace(place="waiting")
    if state.place != "dead" or (rules.meant and meant != state.death):
        return state
    state = state._replace(wrong=meant != state.death)
    if what == "purge":
        return state._replace(place="purged")
    state = state._replace(releases=state.releases + 1, crashes=state.crashes if rules.keeps_crashes else 0)
    if rules.one_step:
        return risen(state)._replace(place="waiting")
    return state._replace(place="limbo", requests=(*state.requests, ("finish", meant)))


def taken_in(rules: Rules, state: State) -> State:
    state = state._replace(imports=state.imports - 1)
    if rules.known and (state.place != "purged"):
        return state
    fence, death = state.exported
    state = state._replace(place="dead", death=death)
    return risen(state) if rules.above else state._replace(fence=fence)


def claims(rules: Rules, state: State, stamp: int) -> bool:
    """Whether the store lets a copy run: as claim.lua decides."""
    if state.place == "waiting":
        return stamp == state.fence
    if state.place == "purged":
        return not rules.remembered and stamp == 0
    return state.place == "dead" and stamp > state.fence  # It is taken for a loss of data.


def ends(state: State) -> Iterator[State]:
    yield state._replace(place="completed", completions=state.completions + 1)
    yield risen(state)._replace(place="dead", death=state.death + 1)
    if state.deaths:
        crashed = risen(state)._replace(crashes=state.crashes + 1, deaths=state.deaths - 1)
        over = crashed.crashes > LIMIT
        yield crashed._replace(place="dead", death=state.death + 1) if over else crashed._replace(place="waiting")


def risen(state: State) -> State:
    return state._replace(fence=state.highest + 1, highest=state.highest + 1)
