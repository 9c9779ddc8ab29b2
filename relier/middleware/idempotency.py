"""Idempotent tasks: of all that mean the same, one completes."""

from __future__ import annotations

from dramatiq.middleware import Middleware


class Idempotency(Middleware):
    """Gives actors the options that make their tasks idempotent.

    The key is made where a message is enqueued (`relier.sending`), and the store decides about it in the claim.

    Parameters:
      idempotent(bool): Tasks with the same arguments are the same. Defaults to False.
      idempotency_key: A function of the arguments, or a template such as `order:{order_id}`: tasks with the same key
        are the same, whatever else they are given.
      idempotency_ttl(float): How long, in seconds, a completion counts. Defaults to `RELIER_IDEMPOTENCY_DEFAULT_TTL`.
      on_duplicate(str): `wait` (default), `join` or `drop`, while another task runs under the key.
    """

    @property
    def actor_options(self) -> set[str]:
        return {"idempotent", "idempotency_key", "idempotency_ttl", "on_duplicate"}
