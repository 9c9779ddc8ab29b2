"""Who asks for something by hand."""

from __future__ import annotations

import getpass
import os
import socket


def somebody() -> str:
    """Return the user of this process, and the machine."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
