"""Notices as the store keeps them until their first claim: the dead record of the task that they tell of."""

from __future__ import annotations

from relier.errors import PayloadIntegrityError
from relier.store.records import Record, Run

#: What the body of a notice begins with; no message does.
MARK = b"\0relier notice 1\n"

#: How many texts tell of the task, and how many of each run.
_TASK, _RUN = 16, 5


def is_notice(body: bytes) -> bool:
    """Whether a record's body is a notice."""
    return body.startswith(MARK)


def read_notice(body: bytes) -> tuple[Record, float]:
    """Return the dead letter that a notice tells of, and when it became one. Raises `PayloadIntegrityError`."""
    try:
        texts = _texts(body[len(MARK) :])
        letter = _letter(texts[:_TASK], [texts[i : i + _RUN] for i in range(_TASK, len(texts), _RUN)])
        return letter, int(texts[11]) / 1e6
    except (ValueError, IndexError) as error:
        raise PayloadIntegrityError(f"A notice is broken: {error}.") from error


def _texts(framed: bytes) -> list[bytes]:
    """Split texts that have each its length in front. Raises `ValueError`."""
    texts, at = [], 0
    while at < len(framed):
        colon = framed.index(b":", at)
        end = colon + 1 + int(framed[at:colon])
        if end > len(framed):
            raise ValueError("it is cut off")
        texts.append(framed[colon + 1 : end])
        at = end
    return texts


def _letter(task: list[bytes], runs: list[list[bytes]]) -> Record:
    task_id, actor, queue, reason, fingerprint = (text.decode("utf-8", "replace") for text in task[:5])
    fence, attempt, crashes, limit, version, created = map(int, task[5:11])
    return Record(
        task_id=task_id,
        state="d",
        fence=fence,
        owner="",
        granted_at=0.0,
        sticky=True,
        suspect=False,
        attempt=attempt,
        crashes=crashes,
        max_resurrections=limit,
        published=0,
        created_at=created / 1e6,
        queue=queue,
        actor=actor,
        outcome="dead",
        reason=reason,
        fingerprint=fingerprint,
        result=task[14],
        payload_version=version,
        body=task[15],
        due_at=0.0,
        runs=tuple(map(_run, runs)),
        identical=int(task[12]),
        checkpoint=task[13].decode("utf-8", "replace"),
    )


def _run(texts: list[bytes]) -> Run:
    worker, started, ended, outcome, detail = (text.decode("utf-8", "replace") for text in texts)
    return Run(worker, int(started) / 1e6, int(ended) / 1e6, outcome, detail)
