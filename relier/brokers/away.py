"""What a push says when Redis is away: where it was looked for, and what is known of the task."""

from __future__ import annotations

import redis

#: Errors of a connection; whatever it was, the call may have arrived.
AWAY = (redis.ConnectionError, redis.TimeoutError)


def explained(error: redis.RedisError, where: str) -> redis.RedisError:
    """Return an error of the same class that says where Redis was looked for (`where`, without secrets), and what now.

    Its class stays that of redis-py: applications catch those.
    """
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    text = (
        f"Relier cannot reach Redis ({where}): {reason}. Whether a push was accepted is not known then: repeat it, with"
        " an idempotency key or a job key where running twice would do harm."
    )
    try:
        return type(error)(text)
    except TypeError:  # One that takes other arguments.
        return redis.ConnectionError(text)
