"""`python -m tests.model WORLD [RULE…]`: search one world, with these rules switched off, and print what was found."""

from __future__ import annotations

import sys
from dataclasses import replace

from tests.model.rules import Rules
from tests.model.scenarios import LARGE, MEDIUM, SMALL
from tests.model.search import search


def main(arguments: list[str]) -> int:
    worlds = SMALL | MEDIUM | LARGE
    if not arguments or arguments[0] not in worlds:
        print(__doc__, "Worlds:", *worlds, sep="\n  ")
        return 2
    off = replace(Rules(), **dict.fromkeys(arguments[1:], False))
    result = search(replace(worlds[arguments[0]], rules=off))
    print(result)
    return 1 if result.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
