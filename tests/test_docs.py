"""What the documents say is so: their code runs, and what they name exists."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from relier.account import COUNTERS
from relier.settings import PREFIX, Settings
from relier_cli.app import app
from tests import guard, sources, spawn
from tests.account import REQUIRE_VARIABLE
from tests.conftest import PrivateServers, SharedServers, skip
from tests.documented.pages import EXAMPLES, FENCE, PAGES, ROOT, Block, blocks, command_line
from tests.servers.rabbitmq_servers import RABBITMQ_MANAGEMENT_VARIABLE, RABBITMQ_URL_VARIABLE
from tests.servers.redis_servers import REDIS_URL_VARIABLE
from tests.waiting import wait_until


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Give a process a state folder of its own, and what a developer's shell would have."""
    return {**os.environ, "RELIER_STATE_DIR": str(folder), "PYTHONPATH": str(ROOT), **more}


# -- Python ---------------------------------------------------------------------------------------------------------

_RUN_BLOCKS = """
import ast, sys
namespace = {"__name__": "documented"}
for path in sys.argv[1:]:
    exec(compile(open(path, encoding="utf-8").read(), path, "exec"), namespace)
"""


def groups_of_blocks() -> list[Any]:
    """Return the blocks that share a process: those of a page, but for those that need one of their own."""
    groups = []
    for page in PAGES:
        found = blocks(page, "python")
        if shared := [block for block in found if not block.mark]:
            groups.append(pytest.param(shared, id=page.name))
        groups += [pytest.param([block], id=str(block)) for block in found if block.mark == "own process"]
    return groups


@pytest.mark.parametrize("group", groups_of_blocks())
def test_python_code_runs(group: list[Block], tmp_path: Path, private_server: PrivateServers) -> None:
    paths = [tmp_path / f"{block.page.stem}-line-{block.line}.py" for block in group]
    for block, path in zip(group, paths, strict=True):
        path.write_text(block.code, encoding="utf-8")
    result = spawn.run(
        [sys.executable, "-c", _RUN_BLOCKS, *map(str, paths)],
        cwd=tmp_path,
        env=environment(tmp_path / "state", RELIER_REDIS_URL=private_server("embedded").url),
        timeout=200,
    )
    assert result.returncode == 0, result.stderr


def test_the_documented_unit_tests_pass_without_a_redis(tmp_path: Path) -> None:
    marked = {block.mark: block.code for block in blocks(ROOT / "docs" / "guide.md", "python")}
    (tmp_path / "conftest.py").write_text(marked["conftest"], encoding="utf-8")
    (tmp_path / "test_documented.py").write_text(marked["test module"], encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:valkey", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=environment(tmp_path / "state"),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout


def test_the_documented_tests_with_a_clock_pass_without_a_redis(tmp_path: Path) -> None:
    marked = {block.mark: block.code for block in blocks(ROOT / "docs" / "testing.md", "python")}
    for mark, name in (("conftest", "conftest"), ("application", "application"), ("tests", "test_documented")):
        (tmp_path / f"{name}.py").write_text(marked[f"testing {mark}"], encoding="utf-8")
    result = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:valkey",
            "-p",
            "no:cacheprovider",
            str(tmp_path),
        ],
        cwd=tmp_path,
        env=environment(tmp_path / "state"),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "6 passed" in result.stdout


# -- commands -------------------------------------------------------------------------------------------------------


@cache
def known_commands() -> dict[str, set[str]]:
    """Return every `rl` command with its options."""
    found: dict[str, set[str]] = {}

    def walk(command: Any, path: str) -> None:
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                walk(inner, f"{path} {name}")
        else:
            found[path] = {"--help"}.union(*(p.opts for p in command.params))

    walk(typer.main.get_command(app), "rl")
    return found


def documented_commands(page: Path) -> Iterator[str]:
    """Yield the commands of a page's shell blocks and of its running text."""
    for block in blocks(page, "sh", "console"):
        for line in block.code.splitlines():
            if block.language == "sh" or line.startswith("$ "):
                yield line.removeprefix("$ ").partition("#")[0].rstrip("& ")
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    yield from re.findall(r"`((?:rl|make|python) [^`]+)`", prose)


def problem_of(command: str) -> str:
    """Return what is wrong with a documented command, or an empty string."""
    words = shlex.split(command.replace("[", "").replace("]", ""))
    if words[:1] == ["make"]:
        return "" if re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE) else "no such target"
    if words[:1] in (["python"], [".ci/run"]):
        scripts = [word for word in words if word.endswith(".py") and "/" in word]
        scripts += [word.replace(".", "/") + ".py" for word in words if word.startswith("benchmarks.")]
        packages = [word.removesuffix(".py") + "/__main__.py" for word in scripts]
        found = ((ROOT / a).exists() or (ROOT / b).exists() for a, b in zip(scripts, packages, strict=True))
        return "" if all(found) else "no such file"
    if words[:1] != ["rl"] or words[1:] in (["--version"], ["--help"]):
        return ""
    name = next((" ".join(words[:n]) for n in (3, 2) if " ".join(words[:n]) in known_commands()), "")
    if not name:
        is_group = any(known.startswith(" ".join(words) + " ") for known in known_commands())
        return "" if is_group else "no such command"
    ends = [words.index(end) for end in ("--", "|") if end in words]
    own = words[: min(ends, default=len(words))]
    unknown = {word for word in own if word.startswith("--")} - known_commands()[name]
    return f"no such option: {unknown}" if unknown else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_commands_exist(page: Path) -> None:
    problems = {command: problem_of(command) for command in documented_commands(page)}
    assert {command: problem for command, problem in problems.items() if problem} == {}


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_settings_exist(page: Path) -> None:
    named = set(re.findall(rf"{PREFIX}[A-Z_]*[A-Z]", page.read_text(encoding="utf-8")))
    ours = {REQUIRE_VARIABLE, REDIS_URL_VARIABLE, RABBITMQ_URL_VARIABLE, RABBITMQ_MANAGEMENT_VARIABLE}
    assert named <= {PREFIX + name.upper() for name in Settings.model_fields} | ours


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def texts_of_the_source() -> str:
    """Return every text in the library and the command line; what is formatted into one is left out."""
    texts = []
    for path in (*(ROOT / "relier").rglob("*.py"), *(ROOT / "relier_cli").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def in_source(message: str) -> bool:
    return all(part.strip() in texts_of_the_source() for part in message.split("…"))


def test_messages_of_troubleshooting_exist() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").partition("## By message")[2]
    messages = re.findall(r"^### `(.*)`$", text, re.MULTILINE)
    assert messages
    assert [message for message in messages if not in_source(message)] == []


def section(title: str) -> str:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    return re.split(r"^## ", text.partition(f"## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_documented_log_lines_exist() -> None:
    sentences = re.findall(r"^\| [A-Z]+ \| `(.*?)` \|", section("Log lines"), re.MULTILINE)
    assert sentences
    assert [sentence for sentence in sentences if not in_source(sentence)] == []


def test_every_failpoint_is_documented() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "relier").rglob("*.py"))
    rows = re.findall(r"^\| (`.*?) \|", section("Failpoints"), re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(.*?)`", row)}
    assert documented == set(re.findall(r'failpoints\.hit\("(.*?)"\)', sources))


def test_every_counter_is_documented() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "relier" / "store").rglob("*.lua"))
    documented = re.findall(r"^\| `(.*?)` \|", section("Counters"), re.MULTILINE)
    assert set(documented) == {name.partition(":")[0] for name in re.findall(r"\bcount\(\w+, '(.*?)'", sources)}
    assert tuple(documented) == COUNTERS, "rl audit prints them"


def test_the_generated_reference_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate_reference.py"), "--check"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=200)
    assert result.returncode == 0, result.stderr


# -- the README's example, and the examples -------------------------------------------------------------------------

_TASK_ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b")


@dataclass
class Shell:
    """Follows the lines of a console block: runs its commands, and waits for each line of output."""

    folder: Path
    environ: dict[str, str]
    outputs: list[Path] = field(default_factory=list)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def follow(self, lines: list[str]) -> None:
        for line in lines:
            if not line.startswith("$ "):
                self.wait_for(line)
            elif line.startswith("$ kill -9 "):
                os.kill(int(self.found(r"runs in process (\d+), crashes so far: 0")), signal.SIGKILL)
            else:
                self.run(line.removeprefix("$ "))

    def wait_for(self, line: str) -> None:
        try:
            wait_until(lambda: self.shows(line), 60, repr(line))
        except AssertionError as error:
            raise AssertionError(f"{error} in:\n{self.output()}") from None

    def run(self, command: str) -> None:
        if _TASK_ID.search(command):
            command = _TASK_ID.sub(self.found(_TASK_ID.pattern), command)
        path = self.folder / f"output-{len(self.outputs)}"
        with path.open("wb") as out:
            process = subprocess.Popen(
                command_line(command.rstrip("& ")),
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        guard.watch(process.pid)
        self.outputs.append(path)
        self.started.append(process)
        if command.endswith("&"):
            wait_until(lambda: "ready for action" in path.read_text(), 60, "a worker: " + path.read_text())
        else:
            process.wait(100)

    def output(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in self.outputs)

    def found(self, pattern: str) -> str:
        matches = wait_until(lambda: list(re.finditer(pattern, self.output())), 60, pattern)
        return str(matches[0][matches[0].re.groups])

    def shows(self, line: str) -> bool:
        """Whether the output has this line; ids, times and large numbers are other ones each time."""
        pattern = re.escape(line)
        pattern = re.sub(r"[0-9a-f]{8}(\\-[0-9a-f]+){4}", r"[0-9a-f-]{36}", pattern)
        pattern = re.sub(r"[\w.-]+:\d+:[0-9a-f]{8,10}", r"\\S+:\\d+:[0-9a-f]{10}", pattern)
        pattern = re.sub(r"\d{4}\\-\d\d\\-\d\d(T|\\ )[\d:]+\\.\d+Z?", r"[\\d:TZ. -]+", pattern)
        pattern = re.sub(r"[\d.\\]+\\ m?s(?=\\| |$)", r"[\\d.]+ m?s", pattern)
        pattern = re.sub(r"\d{4,}", r"\\d+", pattern)
        return re.search(re.sub(r"(\\ )+", r"\\s+", pattern), self.output()) is not None

    def close(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            guard.forget(process.pid)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path, environment(tmp_path / "state", PYTHONUNBUFFERED="1"))
    yield shell
    shell.close()


#: The servers on which a page's example is followed: what to set, by the fixture that has it.
_ON = {"embedded": {}, "redis": {"RELIER_REDIS_URL": "own_redis"}, "rabbitmq": {"RELIER_BROKER_URL": "vhost"}}


@pytest.fixture
def own_redis(servers: SharedServers, request: pytest.FixtureRequest) -> str:
    try:
        server = servers.store("redis")
    except sources.Unavailable as error:
        skip(request, error)
    server.empty()
    return server.url


@pytest.mark.parametrize(
    ("page", "on"),
    [
        ("README.md", "embedded"),
        ("README.md", "rabbitmq"),
        pytest.param("docs/quickstart.md", "redis", marks=pytest.mark.slow),
    ],
)
def test_the_first_example_works_as_shown(page: str, on: str, shell: Shell, request: pytest.FixtureRequest) -> None:
    shell.environ |= {variable: request.getfixturevalue(fixture) for variable, fixture in _ON[on].items()}
    (code,) = (block.code for block in blocks(ROOT / page, "python") if block.code.startswith("# tasks.py"))
    (shell.folder / "tasks.py").write_text(code, encoding="utf-8")
    (console,) = (b for b in blocks(ROOT / page, "console") if "$ kill -9 " in b.code)
    shell.follow(console.code.splitlines())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_it_says(example: Path, shell: Shell) -> None:
    (shell.folder / example.name).write_text(example.read_text(encoding="utf-8"), encoding="utf-8")
    documentation = ast.get_docstring(ast.parse(example.read_text(encoding="utf-8"))) or ""
    worker, script = (line.partition(":  ")[2].strip() for line in documentation.splitlines() if ":  " in line)
    expected = documentation.partition("It prints:\n")[2].split("\n")
    shell.run(worker + " &")
    shell.run(script)
    printed = shell.outputs[-1].read_text()
    assert printed.split() == " ".join(expected).split(), shell.output()
