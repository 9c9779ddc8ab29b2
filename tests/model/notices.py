"""Who is told that a task is dead (`on_dead`): a notice for each death, with kills, lost replies and releases.

How a task runs, is republished and ends is the other model's concern, also for the notice, which is a task like any
other: here a task that always fails runs, dies, and may be released.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.small import Result, plain, search


@dataclass(frozen=True, slots=True)
class Rules:
    """What makes a notice sure. One off must give a counterexample."""

    one_step: bool = True
    """The notice is written in the step that dead-letters. Off: the worker writes it afterwards."""
    named_by_fence: bool = True
    """Its id is made of the task's id and fence. Off: of the task's id alone."""
    first_verdict: bool = True
    """A failure that is told again gets its first verdict and does nothing. Off: it dead-letters once more."""
    snapshot: bool = True
    """It carries the dead record. Off: that is read when the notice is published."""
    quiet: bool = True
    """A notice that dies itself has no notice."""


@dataclass(frozen=True, slots=True)
class World:
    kills: int = 1
    lost_replies: int = 1
    releases: int = 1
    notice_fails: bool = False  #: whether the actor that is told fails as well
    rules: Rules = Rules()


class Notice(NamedTuple):
    name: str
    of: int  #: the fence of the run whose end it tells of; 0: it will be read
    place: str = "due"  #: due, published, told, dead
    depth: int = 1  #: 2: a notice of a notice


class State(NamedTuple):
    task: str = "waiting"  #: waiting, running, dead
    fence: int = 0
    process: str = ""  #: what the process that ran it is about to do: fail, write; '' nothing
    deaths: tuple[int, ...] = ()  #: the fences under which it died
    notices: tuple[Notice, ...] = ()
    kills: int = 0
    lost: int = 0
    releases: int = 0


def explore(world: World) -> Result:
    start = State(kills=world.kills, lost=world.lost_replies, releases=world.releases)
    return search(start, lambda state: plain(steps(world, state)), violation, goal=all_told, otherwise="not told")


def violation(state: State) -> str:
    told = _told(state)
    if any(notice.depth > 1 for notice in state.notices):
        return "a notice has a notice"
    if len(told) != len(set(told)):
        return "told twice"
    return "told of what it cannot tell" if set(told) - set(state.deaths) else ""


def all_told(state: State) -> bool:
    unheard = any(notice.place in ("due", "published") for notice in state.notices)
    return not unheard and set(state.deaths) <= set(_told(state))


def _told(state: State) -> list[int]:
    return [notice.of for notice in state.notices if notice.depth == 1]


def steps(world: World, state: State) -> Iterator[State]:
    rules = world.rules
    if state.task == "waiting":
        yield state._replace(task="running", fence=state.fence + 1, process="fail")
    if state.process == "fail":
        yield from fails(rules, state)
    if state.process == "write":
        yield with_notice(rules, state)._replace(process="")
    if state.process and state.kills:
        buried = state._replace(process="", kills=state.kills - 1)
        yield buried._replace(task="waiting", fence=state.fence + 1) if state.task == "running" else buried
    if state.task == "dead" and state.releases:
        yield state._replace(task="waiting", fence=state.fence + 1, releases=state.releases - 1)
    for i, notice in enumerate(state.notices):
        yield from moved(world, state, i, notice)


def fails(rules: Rules, state: State) -> Iterator[State]:
    """The worker tells the store that its run failed; the reply may be lost, then it tells it again."""
    if state.task == "dead" and rules.first_verdict:
        yield state._replace(process="")
        return
    dead = state._replace(task="dead", deaths=tuple(sorted({*state.deaths, state.fence})))
    dead = with_notice(rules, dead) if rules.one_step else dead
    yield dead._replace(process="" if rules.one_step else "write")
    if state.lost:
        yield dead._replace(lost=state.lost - 1)


def with_notice(rules: Rules, state: State, depth: int = 1) -> State:
    fence, again = state.fence if rules.named_by_fence else "", "" if rules.first_verdict else len(state.notices)
    name = f"{fence}/{again}/{depth}"
    if any(notice.name == name for notice in state.notices):
        return state
    notice = Notice(name, state.fence if rules.snapshot else 0, depth=depth)
    return state._replace(notices=(*state.notices, notice))


def moved(world: World, state: State, i: int, notice: Notice) -> Iterator[State]:
    def put(after: Notice) -> State:
        return state._replace(notices=(*state.notices[:i], after, *state.notices[i + 1 :]))

    if notice.place == "due":
        of = notice.of or (state.fence if state.task == "dead" else -1)
        yield put(notice._replace(place="published", of=of))
    elif notice.place == "published":
        if not world.notice_fails:
            yield put(notice._replace(place="told"))
        else:
            dead = put(notice._replace(place="dead"))
            yield dead if world.rules.quiet else with_notice(world.rules, dead, notice.depth + 1)
