"""What is said when Redis refuses something to the user that it knows us by (see redis/users.acl)."""

from __future__ import annotations

import redis
from redis.exceptions import NoPermissionError

from relier.errors import RelierError

#: How Redis ends the error of a script that was refused a command or a key; it has no code of its own there.
_IN_SCRIPT = "The user executing the script can't "


class RefusedError(RelierError, NoPermissionError):
    """Redis refuses something to this process's user; the text names both, and never a password."""


def explained(error: Exception, client: redis.Redis, what: str = "") -> Exception:
    """Return an error that Redis replied to `what`, a script or a command; a refusal by its ACL in plain words."""
    text = " ".join(str(error).split())
    if isinstance(error, RefusedError) or not (isinstance(error, NoPermissionError) or is_refusal(text)):
        return error
    user = client.connection_pool.connection_kwargs.get("username") or "default"
    return RefusedError(
        f"Redis does not let its user {str(user)!r} {f'run {what!r}' if what else 'do this'} ({_reason(text)})."
        " Use the credentials of a role that may, or give this one the right: redis/users.acl."
    )


def is_refusal(text: str) -> bool:
    """Whether the text of an error is that of a script to which the ACL refused a command or a key."""
    return _IN_SCRIPT in text or "ACL failure in script" in text


def _reason(text: str) -> str:
    """Return Redis's own words without what names the script's digest."""
    return text.removeprefix("NOPERM ").partition(" script: ")[0].rstrip(".")
