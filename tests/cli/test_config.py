"""`rl config set` and `validate`: a file that stays what it was but for one line, and all findings at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from relier.errors import RelierConfigError
from relier.preflight import Finding
from relier.sentinel_checks import check_sentinels
from relier.settings import Settings
from relier_cli.config_set import change_setting
from relier_cli.config_validate import examine
from relier_cli.env_file import EnvFile, edited_alone, quoted, values
from relier_cli.variables import variable
from tests import sources
from tests.cli.conftest import CommandLine
from tests.processes import Started, rl
from tests.servers.groups import SentinelGroup
from tests.waiting import wait_until

WRITTEN = """\
# What the shop needs.

export RELIER_HEARTBEAT_TTL=5   # short: tests
OTHER='x y'
relier_max_resurrections=3
RELIER_REDIS_PASSWORD="multi
line"
# the end"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, in an environment without settings, which is read as a process would."""

    for name in list(os.environ):
        if name.upper().startswith("RELIER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    monkeypatch.setenv("RELIER_STATE_DIR", str(tmp_path / "state"))
    return tmp_path


def levels(findings: Sequence[Finding]) -> set[tuple[str, str]]:
    return {(finding.level, finding.name) for finding in findings}


def texts(findings: Sequence[Finding]) -> str:
    return "\n".join(f"{finding.level} {finding.message} {finding.fix}" for finding in findings)


# -- the file -------------------------------------------------------------------------------------------------------


def test_one_line_changes_and_every_other_stays(folder: Path) -> None:
    path = folder / ".env"
    path.write_text(WRITTEN)
    path.chmod(0o600)

    change_setting(path, "RELIER_HEARTBEAT_TTL", "20")
    change_setting(path, "RELIER_MAX_RESURRECTIONS", "4")
    change_setting(path, "RELIER_NAMESPACE", "shop")

    changed = WRITTEN.replace("=5 ", "=20 ").replace("relier_max_resurrections=3", "RELIER_MAX_RESURRECTIONS=4")
    assert path.read_text() == changed + "\nRELIER_NAMESPACE=shop\n"
    assert Settings().heartbeat_ttl == 20


def test_a_variable_is_removed_wherever_it_is(folder: Path) -> None:
    path = folder / ".env"
    path.write_text("RELIER_HEARTBEAT_TTL=5\nA=1\n\nrelier_heartbeat_ttl=6 # again\nB=2\n")

    change_setting(path, "RELIER_HEARTBEAT_TTL", None)

    assert "heartbeat" not in path.read_text().lower()
    assert values(path.read_text()) == {"A": "1", "B": "2"}
    assert not change_setting(path, "RELIER_HEARTBEAT_TTL", None).changed


@pytest.mark.parametrize("value", ["plain", "a b", "it's", 'say "so"', "#no comment", "back\\slash", "ü", "a=b", "$X"])
def test_what_is_written_is_what_is_read(folder: Path, value: str) -> None:
    assert values(f"X={quoted(value)}\n") == {"X": value}
    change_setting(folder / ".env", "RELIER_REDIS_PASSWORD", value)
    password = Settings().redis_password
    assert password is not None
    assert password.get_secret_value() == value


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("'abc #secret'\n", "new\n"),
        ("'abc #sec\\'ret' # mine\r\n", "new # mine\r\n"),
        ('"abc #sec\nret" # mine\n', "new # mine\n"),
        ("abc#secret # mine\n", "new # mine\n"),
    ],
)
def test_nothing_of_an_old_value_stays_as_a_comment(folder: Path, before: str, after: str) -> None:
    path = folder / ".env"
    path.write_bytes(f"RELIER_REDIS_PASSWORD={before}B=1\n".encode())

    change_setting(path, "RELIER_REDIS_PASSWORD", "new")

    assert path.read_bytes().decode() == f"RELIER_REDIS_PASSWORD={after}B=1\n"


def test_what_the_file_would_expand_is_refused(folder: Path) -> None:
    with pytest.raises(RelierConfigError, match="expands"):
        change_setting(folder / ".env", "RELIER_REDIS_PASSWORD", "a${HOME}b")
    assert not (folder / ".env").exists()


def test_a_file_with_a_secret_is_its_owners_alone(folder: Path) -> None:
    path = folder / ".env"
    path.write_text("RELIER_HEARTBEAT_TTL=5\n")
    path.chmod(0o644)

    assert not change_setting(path, "RELIER_HEARTBEAT_TTL", "6").made_private
    assert stat.S_IMODE(path.stat().st_mode) == 0o644, "a file without secrets keeps its permissions"
    change = change_setting(path, "RELIER_REDIS_URL", "redis://:hidden@server:6379/0")

    assert change.made_private
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    change_setting(folder / "new", "RELIER_HEARTBEAT_TTL", "6")
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o600


def test_a_link_stays_a_link_and_nothing_is_left_over(folder: Path) -> None:
    (folder / "shared").mkdir()
    (folder / ".env").symlink_to(folder / "shared" / "env")
    change_setting(folder / ".env", "RELIER_HEARTBEAT_TTL", "6")
    assert (folder / ".env").is_symlink()
    assert [path.name for path in (folder / "shared").iterdir()] == ["env"]


def test_a_wrong_value_changes_nothing(folder: Path) -> None:
    path = folder / ".env"
    path.write_text("RELIER_HEARTBEAT_TTL=5\n")
    with pytest.raises(RelierConfigError, match="RELIER_HEARTBEAT_TTL='soon': expected a number of seconds"):
        change_setting(path, "RELIER_HEARTBEAT_TTL", "soon")
    with pytest.raises(RelierConfigError, match="needs RELIER_REDIS_SENTINEL_NODES"):
        change_setting(path, "RELIER_REDIS_USE_SENTINEL", "true")
    assert path.read_text() == "RELIER_HEARTBEAT_TTL=5\n"


def test_what_is_wrong_already_can_be_corrected_step_by_step(folder: Path) -> None:
    path = folder / ".env"
    path.write_text("RELIER_HEARTBEAT_TTL=soon\nRELIER_MAX_RESURRECTIONS=many\n")
    change = change_setting(path, "RELIER_HEARTBEAT_TTL", "5")
    assert [problem.partition("=")[0] for problem in change.problems] == ["RELIER_MAX_RESURRECTIONS"]
    assert change_setting(path, "RELIER_MAX_RESURRECTIONS", None).problems == []


@pytest.mark.parametrize("key", ["RELIER_HEARTBEAT_TTL", "heartbeat_ttl", "Heartbeat_TTL"])
def test_a_key_has_a_prefix_or_none(key: str) -> None:
    assert variable(key) == "RELIER_HEARTBEAT_TTL"


def test_a_misspelt_key_is_told_what_it_may_be() -> None:
    with pytest.raises(RelierConfigError, match="did you mean RELIER_HEARTBEAT_TTL"):
        variable("HEARTBEET_TTL")


# -- the command ----------------------------------------------------------------------------------------------------


def test_the_command_says_that_a_restart_is_needed_and_when_nothing_changes_by_it(tmp_path: Path) -> None:
    done = rl(tmp_path, "config", "set", "heartbeat_ttl", "20")
    assert done.returncode == 0
    assert f"RELIER_HEARTBEAT_TTL is written to {tmp_path / '.env'}." in done.stdout
    assert "Restart workers, resurrector and producers" in done.stdout

    done = rl(tmp_path, "config", "set", "RELIER_HEARTBEAT_TTL", "30", heartbeat_ttl="9")
    assert "Nothing changes by it here: the environment has a RELIER_HEARTBEAT_TTL of its own" in done.stdout
    assert (tmp_path / ".env").read_text() == "RELIER_HEARTBEAT_TTL=30\n"

    shown = rl(tmp_path, "config", "show", "--origin", heartbeat_ttl="9").stdout.splitlines()
    assert "RELIER_HEARTBEAT_TTL=9.0  # environment" in shown
    assert "RELIER_HEARTBEAT_TTL=30.0  # .env" in rl(tmp_path, "config", "show", "--origin").stdout.splitlines()


@pytest.mark.parametrize("line", [["heartbeat_ttl"], ["heartbeat_ttl", ""], ["heartbeat_ttl", "5", "--unset"]])
def test_a_value_or_unset_is_needed(line: list[str], tmp_path: Path) -> None:
    assert rl(tmp_path, "config", "set", *line).returncode == 2
    assert not (tmp_path / ".env").exists()


# -- validate -------------------------------------------------------------------------------------------------------


def test_everything_wrong_with_variables_is_told_at_once(folder: Path) -> None:
    (folder / ".env").write_text("RELIER_HEARTBEAT_TTL=soon\nRELIER_LOG_FORMAT=xml\nRELIER_HEARTBEET=1\n")
    found = list(examine())
    assert all(word in texts(found) for word in ("HEARTBEAT_TTL='soon'", "LOG_FORMAT='xml'", "did you mean"))
    assert ("error", "variables") in levels(found)


def test_each_setting_that_does_not_fit_is_told_while_redis_is_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".env").write_text("RELIER_REDIS_URL=redis://:s3cr3t@127.0.0.1:1/0\nRELIER_HEARTBEAT_TTL=2\n")
    (folder / ".env").chmod(0o644)
    monkeypatch.setenv("RELIER_HEARTBEAT_TTL", "3")
    monkeypatch.setenv("RELIER_BROKER_URL", "redis://127.0.0.1:2/0")
    monkeypatch.setenv("RELIER_CHECKPOINT_BACKEND", "filesystem")
    monkeypatch.setenv("RELIER_CHECKPOINT_DIR", str(folder / "none"))
    found = list(examine())

    assert {
        ("error", "reachability"),
        ("error", "broker reachability"),
        ("error", "checkpoints"),
        ("warning", "timing"),
        ("warning", "signing keys"),
        ("warning", ".env"),
    } <= levels(found)
    told = texts(found)
    assert "others than its owner may read it (mode 644)" in told
    assert "The environment has a RELIER_HEARTBEAT_TTL of its own" in told
    assert "s3cr3t" not in told
    assert all(finding.fix or finding.level == "ok" for finding in found)


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_pool_and_eviction_are_looked_at(rl: CommandLine) -> None:
    found = rl.json("config", "validate", redis_max_connections="4")
    names = {finding["name"]: finding for finding in found["findings"]}
    assert names["pool size"]["level"] == "warning"
    assert "Set it to 12 at least" in names["pool size"]["fix"]
    assert names["eviction policy"]["level"] == "ok"
    assert names["persistence"]["level"] in ("ok", "warning")
    assert found["ok"]


def test_sentinels_that_are_away_are_named(folder: Path) -> None:
    settings = Settings(redis_use_sentinel=True, redis_sentinel_nodes=(("127.0.0.1", 1), ("127.0.0.1", 2)))
    found = list(check_sentinels(settings))
    assert "needs 3" in texts(found)
    assert "The Sentinel 127.0.0.1:1 does not answer" in texts(found)
    assert "The Sentinel 127.0.0.1:2 does not answer" in texts(found)


def test_sentinels_are_asked_for_the_master_and_the_quorum(folder: Path) -> None:
    group = sources.start("sentinel", private=True)
    assert isinstance(group, SentinelGroup)
    try:
        settings = Settings(**group.settings)
        (well,) = check_sentinels(settings)
        assert well.message == f"3 Sentinels agree that 'relier-master' is 127.0.0.1:{group.master().port}."

        misspelt = texts(list(check_sentinels(settings.model_copy(update={"redis_sentinel_master_name": "relier"}))))
        assert misspelt.count("knows no master 'relier'; did you mean 'relier-master'?") == 3
        assert "RELIER_REDIS_SENTINEL_MASTER_NAME" in misspelt

        for sentinel in group.sentinels[1:]:
            sentinel.kill()
        wait_until(lambda: "No failover" in texts(list(check_sentinels(settings))), 60, "the loss of the quorum")
        alone = levels(list(check_sentinels(settings)))
        assert alone == {("warning", "sentinel"), ("error", "sentinel")}
    finally:
        group.close()


def test_a_command_waits_while_another_one_edits_the_file(folder: Path) -> None:
    path = folder / ".env"
    with edited_alone(path):
        file = EnvFile(path)
        other = Started(folder, "relier_cli.app", "config", "set", "NAMESPACE", "shop")
        waits = f" {other.process.pid} "
        wait_until(
            lambda: (
                any(" -> " in line and waits in line for line in Path("/proc/locks").read_text().splitlines())
                or other.process.poll() is not None
            ),
            60,
            "the other command at the file",
        )
        file.put("RELIER_MAX_RESURRECTIONS", "4")
        file.save(private=False)
    with other:
        assert other.ended() == 0, other.output

    assert values(path.read_text()) == {"RELIER_MAX_RESURRECTIONS": "4", "RELIER_NAMESPACE": "shop"}


def test_an_interrupted_write_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        change_setting(folder / ".env", "RELIER_REDIS_PASSWORD", "secret")

    assert list(folder.iterdir()) == []
