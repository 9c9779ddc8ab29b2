"""The image: small, nobody's root, and every file and command it names is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.deploy.commands import resolve
from tests.deploy.shipped import ROOT

DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Return the instructions, lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    pairs = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(word, " ".join(rest.split())) for word, rest in pairs]


def of(word: str) -> list[str]:
    return [rest for found, rest in instructions() if found == word]


def final() -> list[tuple[str, str]]:
    """Return the instructions of the last stage."""
    everything = instructions()
    last = max(i for i, (word, _) in enumerate(everything) if word == "FROM")
    return everything[last:]


def test_it_is_built_in_two_stages_on_a_pinned_base() -> None:
    bases = of("FROM")
    assert [base.endswith(" AS build") for base in bases] == [True, False]
    assert all(re.match(r"python:3\.1[1-3]\.\d+-slim-bookworm\b", base) for base in bases)
    assert not any(word == "RUN" and "pip" in rest for word, rest in final())


def test_its_last_user_is_not_root_and_none_of_its_layers_has_a_secret() -> None:
    assert [rest for word, rest in final() if word == "USER"] == ["10001:10001"]
    assert not re.search(r"PASSWORD|SECRET|TOKEN|RELIER_[A-Z_]+=", " ".join(of("ENV") + of("ARG")))


def test_what_it_runs_are_commands_of_ours() -> None:
    (health,) = of("HEALTHCHECK")
    assert resolve(json.loads(health[health.index("[") :])) == "worker status"
    (command,) = of("CMD")
    assert resolve(json.loads(command)) == "worker start"


def copied() -> list[str]:
    return [source for line in of("COPY") if "--from" not in line for source in line.split()[:-1]]


def test_what_it_copies_is_there_and_reaches_the_engine() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*"
    for source in copied():
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, source
        assert not any(fnmatch(source, pattern) for pattern in ignored[1:] if not pattern.startswith("!"))


@pytest.mark.slow
def test_the_package_can_be_built_of_what_is_copied(tmp_path: Path) -> None:
    """Needs a package index for the build backend, as the image does."""
    for source in copied():
        place = tmp_path / "src" / source
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place.parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / source, place)
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(tmp_path), str(tmp_path / "src")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("relier_dramatiq-*.whl")
    assert wheel.stat().st_size > 100_000
