"""What is the application's code, and when it is another one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from relier.application import code_digest, is_application

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("file", "module", "own", "expected"),
    [
        ("/srv/shop/tasks.py", "shop.tasks", "", True),
        ("<string>", "shop.models", "", True),
        ("/venv/lib/python3.11/site-packages/requests/api.py", "requests.api", "", False),
        ("/usr/lib/python3/dist-packages/yaml/__init__.py", "yaml", "", False),
        ("/venv/lib/python3.11/site-packages/shop/tasks.py", "shop.tasks", "shop", True),
        (os.__file__, "os", "", False),
        ("<frozen importlib._bootstrap>", "importlib._bootstrap", "", False),
        ("/srv/relier/runner.py", "relier.runner", "", False),
        ("/srv/dramatiq/actor.py", "dramatiq.actor", "dramatiq", False),
    ],
)
def test_whose_code_a_file_is(file: str, module: str, own: str, expected: bool) -> None:
    assert is_application(file, module, own) is expected


def digest_of(folder: Path, helper: str) -> str:
    """Return the digest of a process that loads two modules, of which one changes."""
    folder.mkdir(exist_ok=True)
    (folder / "shop_tasks.py").write_text("import shop_helper\n")
    (folder / "shop_helper.py").write_text(helper)
    code = "import shop_tasks; from relier.application import code_digest; print(code_digest())"
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_code_has_one_name_in_every_process_and_folder_and_another_one_once_any_module_changed(tmp_path: Path) -> None:
    first = digest_of(tmp_path / "here", "RATE = 1\n")
    assert digest_of(tmp_path / "there", "RATE = 1\n") == first
    assert digest_of(tmp_path / "here", "RATE = 2\n") != first
    assert len(first) == 12


def test_a_package_that_was_installed_counts_when_it_is_the_applications() -> None:
    assert code_digest({"pydantic"}) != code_digest()
