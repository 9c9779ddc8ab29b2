"""What `rl doctor` and a starting worker say of seals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.encoder import JSONEncoder, PickleEncoder
from dramatiq.message import get_encoder

from relier.integrity_checks import check_integrity
from relier.settings import Settings

LONG = 32 * "s"


def said(**settings: Any) -> list[tuple[str, str]]:
    findings = check_integrity(None, Settings(**settings))  # type: ignore[arg-type]
    return [(finding.level, finding.message) for finding in findings]


@pytest.fixture
def encoder() -> Iterator[Any]:
    before = get_encoder()
    yield dramatiq.set_encoder
    dramatiq.set_encoder(before)


def test_without_keys_it_says_that_a_checksum_is_no_authentication() -> None:
    ((level, message),) = said()
    assert level == "ok"
    assert "this is no authentication" in message


def test_with_keys_it_names_them_without_their_secrets() -> None:
    ((level, message),) = said(signing_keys=f"new:{LONG},old:{LONG}")
    assert level == "ok"
    assert message == "Messages are signed with the key 'new'; accepted are: new, old."


def test_it_warns_while_the_unsigned_is_accepted() -> None:
    assert ("warning", "Unsigned messages are accepted (RELIER_SIGNING_REQUIRED=false).") in said(
        signing_keys=f"a:{LONG}", signing_required=False
    )


def test_it_warns_of_short_secrets() -> None:
    ((level, message),) = said(signing_keys=f"a:{LONG},b:hidden")[1:]
    assert level == "warning"
    assert message.endswith("may be guessed: 'b'.")
    assert "hidden" not in message


def test_it_warns_of_an_encoder_that_runs_code(encoder: Any) -> None:
    encoder(PickleEncoder())
    assert "warning" in dict(said(signing_keys=f"a:{LONG}"))
    ((level, message),) = said()
    assert (level, message[:45]) == ("ok", "Messages of PickleEncoder carry no checksum: ")


def test_it_warns_of_no_encoder_for_json(encoder: Any) -> None:
    encoder(JSONEncoder())
    assert [level for level, _ in said(signing_keys=f"a:{LONG}")] == ["ok"]
