"""The pages of the documentation, and their blocks of code."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

FENCE = re.compile(
    r"^(?: *<!-- (?P<mark>[^\n]+) -->\n)?(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code; `mark` is the comment right before it."""

    page: Path
    line: int
    language: str
    mark: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return a page's blocks in these languages; without any, all of them."""
    text = page.read_text(encoding="utf-8")
    found = (
        Block(page, text[: m.start("code")].count("\n") + 1, m["language"], m["mark"] or "", dedent(m["code"]))
        for m in FENCE.finditer(text)
    )
    return [block for block in found if not languages or block.language in languages]


def command_line(command: str) -> list[str]:
    """Return a documented command as one that runs what is tested, not what else may be installed."""
    words = shlex.split(command, comments=True)
    modules = {"dramatiq": ["-m", "dramatiq"], "rl": ["-m", "relier_cli.app"], "python": []}
    return [sys.executable, *modules[words[0]], *words[1:]]
