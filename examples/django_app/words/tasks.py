"""The work of the Django example. Imported by the site, which pushes, and by the workers, which run it."""

from __future__ import annotations

import time
from collections import Counter

from relier import rl_actor


@rl_actor(store_results=True, deterministic=ValueError)
def count_words(text: str) -> dict[str, int]:
    """Count the words of a text. An empty one is an error, and no retry would change it."""
    time.sleep(0.1)  # as if it took some time
    if not text.strip():
        raise ValueError("there are no words")
    return dict(Counter(text.lower().split()))
