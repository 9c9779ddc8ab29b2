"""Tasks with a job key: of all that are pushed under one, the newest wins."""

from __future__ import annotations

from dramatiq.middleware import Middleware

from relier.job_keys import OPTIONS


class JobKeys(Middleware):
    """Gives actors the options of job keys.

    The key is made where a message is enqueued (`relier.sending`); the push ends the older task (`relier.pushing`).

    Parameters:
      job_key: A function of the arguments, or a template such as `report:{report_id}`. A push ends the older task with
        the same key, wherever that is: queued, delayed, waiting for a retry, running, or a dead letter.
      on_superseded(str): What becomes of an older one that runs: `cancel` (default), or `finish`; it completes in
        neither case.
      on_dead_job(str): Whether a push ends a dead letter with its key, `supersede` (default), or is refused, `refuse`.
    """

    @property
    def actor_options(self) -> set[str]:
        return set(OPTIONS)
