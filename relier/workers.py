"""The module that workers run: `dramatiq relier.workers [modules…]`.

Importing it checks the settings and Redis, sets the broker up, and imports the actor modules of `RELIER_ACTORS` and
of the command line. Whatever is wrong is said in one line, and the process ends.
"""

from __future__ import annotations

from relier.boot import boot_worker

broker = boot_worker()
