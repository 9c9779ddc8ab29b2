"""A stranger's way, in a copy of what is checked in and with a home of their own: install, then the demo."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.documented.pages import ROOT, Block, blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy what is known to git, or everything that is no by-product."""
    copy = tmp_path / "checkout"
    by_products = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=by_products)
    return copy


def block_with(page: str, text: str) -> Block:
    (found,) = (block for block in blocks(ROOT / page, "sh") if text in block.code)
    return found


def follow(lines: str, folder: Path, home: Path) -> str:
    """Run lines in a shell that has nothing of ours; returns what they printed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RELIER_", "PYTHON", "VIRTUAL_ENV", "XDG_"))}
    done = subprocess.run(
        ["bash", "-e", "-c", lines],
        cwd=folder,
        env={**kept, "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_installation_of_the_readme_and_of_the_extras_works(checkout: Path, tmp_path: Path) -> None:
    install = block_with("README.md", "pip install '.[embedded]'").code
    more = [block_with(page, "pip install").code for page in ("docs/rabbitmq.md", "docs/tracing.md")]
    lines = [install, *more, "rl --version", "python -c 'import pika, opentelemetry.sdk'"]
    printed = follow("\n".join(lines), checkout, tmp_path)
    assert "rl " in printed.splitlines()[-1]


def test_the_demo_runs_with_nothing_but_python(checkout: Path, tmp_path: Path) -> None:
    assert "make demo" in block_with("README.md", "make demo").code
    assert "All agree: no task was lost" in follow("make demo", checkout, tmp_path)
