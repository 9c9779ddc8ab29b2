"""`rl chaos task-corrupt`: a message that is not what was sent; is it kept, not run, and are the others run?"""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Annotated, Any

import typer
from dramatiq import Broker, Message, get_encoder
from dramatiq.encoder import JSONEncoder

from relier.brokers.rejected import REASON
from relier.chaos.actors import NOTHING, QUEUE
from relier.envelope import keeping_stamps
from relier.sending import prepared_together
from relier.store.letters import Place
from relier.store.records import Record
from relier_cli.chaos.counting import Counting
from relier_cli.chaos.letters import find_letter, remove_letter
from relier_cli.chaos.stage import Stage, Watch, Within, insist_on_workers, opened_stage, refuse
from relier_cli.chaos.verdict import Steps, Verdict
from relier_cli.chaos.victims import until
from relier_cli.output import AsJson

#: How many sound tasks are sent before the corrupt one, and behind it.
NEIGHBOURS = 3


class How(StrEnum):
    """What is done to a message."""

    SEAL = "seal"
    BYTES = "bytes"


class Changed(Message[Any]):
    """A message with other arguments than those that its seal covers."""

    def encode(self) -> bytes:
        changed: bytes = get_encoder().encode({**self.asdict(), "args": (*self.args, "changed on its way")})
        return changed


class Undecodable(Message[Any]):
    """Bytes that are no message at all."""

    def encode(self) -> bytes:
        return b"\xff\xfe no message: " + str(self.args[0]).encode()


_KINDS: dict[How, type[Message[Any]]] = {How.SEAL: Changed, How.BYTES: Undecodable}

Hows = Annotated[How, typer.Option("--how", help="Other arguments than were signed, or bytes that are no message.")]
Remove = Annotated[bool, typer.Option("--remove", help="Remove the dead letter afterwards.")]


def task_corrupt(
    *,
    how: Hows = How.SEAL,
    remove: Remove = False,
    watch: Watch = False,
    within: Within = 30.0,
    as_json: AsJson = False,
) -> None:
    """Send a message that was changed on its way, of a task that does nothing, and see it become a dead letter.

    It must not run, and sound tasks before and behind it must. Exit code 0: the promise held; 1: not; 2: refused.

    Example: rl chaos task-corrupt --how bytes --remove
    """
    with opened_stage() as stage:
        insist_on_workers(stage)
        broker = stage.broker()
        if how is How.SEAL and type(get_encoder()) is not JSONEncoder and stage.settings.signing_keys is None:
            refuse("Without RELIER_SIGNING_KEYS messages of an encoder of your own have no seal: use --how bytes.")
        verdict = experiment(stage, broker, how, Steps(watch, as_json), within=within, remove=remove)
    verdict.tell(as_json)


def experiment(stage: Stage, broker: Broker, how: How, steps: Steps, *, within: float, remove: bool) -> Verdict:
    """Send it among sound ones, and look at what becomes of all."""
    counting, token, since = Counting(stage, QUEUE, NOTHING), secrets.token_hex(8), stage.survey.now()
    corrupt = Message[Any](QUEUE, NOTHING, (token,), {}, {})
    sound = [Message[Any](QUEUE, NOTHING, (), {}, {}) for _ in range(2 * NEIGHBOURS)]
    steps.begin()
    _send(broker, [*sound[:NEIGHBOURS], corrupt, *sound[NEIGHBOURS:]], corrupt.message_id, _KINDS[how])
    steps.note(f"a corrupt message was sent among {len(sound)} sound ones")
    found: list[tuple[Place, Record]] = []

    def is_over() -> bool:
        counting.look()
        if not found and (letter := find_letter(stage, since, lambda record: token.encode() in record.body)):
            found.append(letter)
            steps.note(f"it is the dead letter {letter[0].task_id}")
        return bool(found) and counting["completed"] >= len(sound)

    until(is_over, within)
    findings = _findings(found, counting["completed"], len(sound), within)
    removed = bool(found) and remove and remove_letter(stage, found[0][0])
    if remove and found and not removed:
        findings.append(f"The dead letter could not be removed: rl dlq purge {found[0][0].task_id}.")
    details = {
        "how": how.value,
        "task": corrupt.message_id,
        "letter": found[0][0].task_id if found else None,
        "reason": found[0][1].reason if found else None,
        "removed": removed,
        "sound": len(sound),
        "sound_completed": counting["completed"],
    }
    where = f"dead letter {details['letter']}{', removed again' if removed else ''}"
    held = f"The corrupt message is kept ({where}), was not run, and {len(sound)} sound ones around it have."
    return Verdict("task-corrupt", held, steps, findings, details)


def _send(broker: Broker, messages: list[Message[Any]], corrupt: str, kind: type[Message[Any]]) -> None:
    """Enqueue messages; the corrupt one is admitted and sealed as any other, and changed when it is encoded."""
    ready = prepared_together(broker, messages)
    with keeping_stamps():
        for message in ready:
            broker.enqueue(kind(**message.asdict()) if message.message_id == corrupt else message)


def _findings(found: list[tuple[Place, Record]], completed: int, sound: int, within: float) -> list[str]:
    findings = []
    if not found:
        findings.append(f"There is no dead letter of it within {within:g} s.")
    elif found[0][1].reason != REASON:
        findings.append(f"Its dead letter has the reason {found[0][1].reason}, not {REASON}.")
    if completed < sound:
        findings.append(f"Of {sound} sound tasks around it {completed} completed within {within:g} s.")
    elif completed > sound:
        findings.append(f"{completed} tasks completed, of {sound} sound ones: the corrupt one may have run.")
    return findings
