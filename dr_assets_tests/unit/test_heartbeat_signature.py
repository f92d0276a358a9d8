from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.heartbeat import SIGNATURE_DOMAIN, HeartbeatRow, verify_heartbeat
from dr_assets.vault.signing import Signer, Trust

SIGNER = Signer.from_seed(b"h" * 32)
AT = datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)


def _signed(**changes: object) -> HeartbeatRow:
    row = replace(HeartbeatRow("casino", "ledger", 5, AT, "7700", 3, SIGNER.signer_id), **changes)
    return replace(row, signature=SIGNER.sign(SIGNATURE_DOMAIN, row.signed_text()))


def test_a_beat_of_ours_is_believed_in_any_time_zone() -> None:
    """A restored server may print `at` in its own zone: the instant is what is signed."""
    row = _signed()
    verify_heartbeat(row, Trust.of(SIGNER))
    verify_heartbeat(replace(row, at=AT.astimezone(timezone(timedelta(hours=5)))), Trust.of(SIGNER))


@pytest.mark.parametrize(
    "change",
    [
        {"estate": "other"},
        {"dataset": "other"},
        {"seq": 6},
        {"at": AT + timedelta(microseconds=1)},
        {"system_id": "7701"},
        {"epoch": 4},
        {"signature": bytes(64)},
    ],
)
def test_every_field_is_covered_by_the_signature(change: dict[str, object]) -> None:
    """Whoever can write to the database can't make it look fresher than it is."""
    with pytest.raises(VaultError, match=r"vault\.bad_signature"):
        verify_heartbeat(replace(_signed(), **change), Trust.of(SIGNER))


def test_a_stranger_is_not_believed() -> None:
    """A valid signature by somebody the trust file doesn't list is nothing."""
    with pytest.raises(VaultError, match=r"vault\.untrusted_signer"):
        verify_heartbeat(_signed(), Trust.of(Signer.generate()))
