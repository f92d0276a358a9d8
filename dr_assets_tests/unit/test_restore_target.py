from datetime import UTC, datetime

import pytest

from dr_assets.estate.errors import PolicyError
from dr_assets.stores.postgres.target import Target


@pytest.mark.parametrize(
    "text",
    ["latest", "immediate", "2026-01-31T12:00:00.123456+00:00", "lsn:16/B374D848", "xid:1234", "name:before release"],
)
def test_a_target_survives_its_text_form(text: str) -> None:
    """What is printed can be given back on a command line."""
    assert str(Target.parse(text)) == text
    assert Target.parse(str(Target.parse(text))) == Target.parse(text)


def test_times_are_taken_with_their_zone_and_told_to_the_server_in_utc() -> None:
    """An offset is converted, microseconds are kept."""
    target = Target.parse("2026-01-31T14:00:00.5+02:00")
    assert target.at == datetime(2026, 1, 31, 12, 0, 0, 500000, tzinfo=UTC)
    assert target.settings()["recovery_target_time"] == "2026-01-31 12:00:00.500000+00:00"
    assert Target.parse("time:2026-01-31T12:00:00Z") == Target.parse("2026-01-31T12:00:00Z")


def test_every_target_pauses_and_only_latest_sets_none() -> None:
    """A server that reaches a target waits for our proof; `latest` has none, since Postgres would guess the end."""
    assert Target.parse("latest").settings() == {}
    for text in ("immediate", "lsn:0/5", "xid:9", "name:x", "2026-01-31T12:00:00Z"):
        assert Target.parse(text).settings()["recovery_target_action"] == "pause"


def test_an_lsn_is_exclusive() -> None:
    """`lsn:` is the first byte that is not replayed, like every end of an interval here."""
    assert Target.parse("lsn:0/1000028").settings() == {
        "recovery_target_lsn": "0/1000028",
        "recovery_target_inclusive": "off",
        "recovery_target_action": "pause",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2026-01-31T12:00:00", "no zone"),
        ("yesterday", "neither a keyword nor a time"),
        ("", "neither"),
        ("lsn:banana", "no LSN"),
        ("xid:-5", "whole number"),
        ("xid:2", "whole number"),
        ("name:" + "x" * 64, "63"),
        ("time:soon", "neither"),
    ],
)
def test_nonsense_is_one_clear_policy_error(text: str, reason: str) -> None:
    """Bad input names itself, the reason and what to write instead."""
    with pytest.raises(PolicyError, match=reason) as caught:
        Target.parse(text)
    assert caught.value.code == "target.unreadable"
    assert caught.value.hint
