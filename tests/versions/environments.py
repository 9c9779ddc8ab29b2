"""Environments with one release of an application installed in each; no network is needed."""

from __future__ import annotations

import site
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.integration.harness import ROOT

#: The module that a release installs.
APPLICATION = "shop"


@dataclass(frozen=True)
class Release:
    """One installed release. `number` is that of its source, `release_<number>.py`."""

    number: int
    folder: Path

    @property
    def python(self) -> str:
        """The interpreter that has it."""
        return str(self.folder / "bin" / "python")


def install(number: int, folder: Path) -> Release:
    """Make an environment in `folder` that sees what this interpreter sees, and install one release in it."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    packages = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (packages / "beyond.pth").write_text("".join(f"{path}\n" for path in _visible()), encoding="utf-8")
    source = (Path(__file__).parent / f"release_{number}.py").read_text(encoding="utf-8")
    (packages / f"{APPLICATION}.py").write_text(source, encoding="utf-8")
    metadata = packages / f"{APPLICATION}-{number}.0.dist-info"
    metadata.mkdir()
    text = f"Metadata-Version: 2.1\nName: {APPLICATION}\nVersion: {number}.0\n"
    (metadata / "METADATA").write_text(text, encoding="utf-8")
    return Release(number, folder)


def _visible() -> list[str]:
    """Return where this interpreter finds packages: a new environment would only see those of the system."""
    found = [*site.getsitepackages(), str(ROOT)]
    return [path for path in found if path in sys.path or path == str(ROOT)]
