"""The process behind `rl chaos network-partition --container`: it takes a container away, and surely puts it back.

It ends, and puts back, when its time is over or when its standard input does: whoever started it has ended then.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

#: How often, and after what pause (s), putting back is tried again.
TRIES, PAUSE = 5, 1.0
#: Longest time (s) that one command may take.
PATIENCE = 60.0


def main(order: str) -> int:
    """Do what is ordered; says `away`, then `back`, or what failed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wanted = json.loads(order)
    failed = next(filter(None, (_run(words) for words in wanted["away"])), "")
    _say(failed or "away")
    if not failed:
        select.select([sys.stdin], [], [], float(wanted["seconds"]))
    left = [words for words in wanted["back"] if not _put_back(words)]
    if not failed:
        _say("back" if not left else f"not put back, run: {'; '.join(' '.join(words) for words in left)}")
    return 1 if failed or left else 0


def _put_back(words: Sequence[str]) -> bool:
    for _ in range(TRIES):
        failed = _run(words)
        if not failed or "already exists" in failed or "is not paused" in failed:
            return True
        time.sleep(PAUSE)
    return False


def _run(words: Sequence[str]) -> str:
    """Return what is wrong, or ''."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{' '.join(words)}: {type(error).__name__}"
    said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
    return "" if done.returncode == 0 else f"{' '.join(words)}: {said}"


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # Nobody listens any more.
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
