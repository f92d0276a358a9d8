"""Roll-up and expiry against a real store: what is locked stays, what is not and not needed goes."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.capture_facts import Anchor, record_capture
from dr_assets.stores.postgres.expire import expire
from dr_assets.stores.postgres.full_cut import Limits
from dr_assets.stores.postgres.full_segments import stored_wal
from dr_assets.stores.postgres.rollup_run import roll_up
from dr_assets.vault.full_segment import FULL
from dr_assets.vault.storage import Lock
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vault-seaweed")]

SIZE = 1000
COUNT = 24


def put_pieces(vault: Vault, until: Callable[[int], datetime]) -> None:
    """Pieces of WAL with locks of their own, and the word of a capture."""
    previous = None
    for number in range(COUNT):
        now = vault.clock()
        prepared = vault.prepare(
            dataset="ledger", stream="wal", kind="wal", system_id="7", timeline=1, first=number * SIZE,
            last=(number + 1) * SIZE, begin_at=now, end_at=now, plaintext=bytes([number]) * SIZE, previous=previous,
        )  # fmt: skip
        vault.put(prepared.seal(), Lock("COMPLIANCE", until(number).replace(microsecond=0)))
        previous = prepared.header.digest
    record_capture(vault, "ledger", "stopped", Anchor("7", 1, 0, COUNT * SIZE, None, None, 1, None))


def test_a_locked_object_stays_and_one_whose_lock_is_over_goes(
    region: SeaweedRegion, bucket: Callable[[], str]
) -> None:
    """Compliance locks of a few seconds on half of the micros beneath fulls: those go, by version, and no other."""
    store = S3Store(make_client(region.endpoint, region.access_key, region.secret_key), bucket())
    vault = throwaway_vault(store=store)
    put_pieces(vault, lambda number: datetime.now(UTC) + (timedelta(seconds=12) if number % 2 else timedelta(days=15)))
    soon = datetime.now(UTC) + timedelta(seconds=12)
    assert roll_up(vault, "ledger", limits=Limits(size_bytes=8 * SIZE)).fulls == 2
    while store.now() <= soon + timedelta(seconds=1):
        time.sleep(0.5)
    locked = next(vault.objects("ledger", "wal"))
    with pytest.raises(VaultError, match="lock_refused"):
        store.delete_version(str(locked.key), locked.version_id)
    done = expire(vault, "ledger", micro_age=timedelta())
    assert (done.removed, done.refused) == (8, [])
    left = [obj.key.first // SIZE for obj in vault.objects("ledger", "wal")]
    assert left == [*range(0, 16, 2), *range(16, 24)]
    chain = stored_wal(vault, "ledger", "7", 1, 0)
    assert [obj.key.stream for obj in chain.segments] == [FULL] * 2 + ["wal"] * 8
    data = b"".join(vault.open(obj).plaintext for obj in chain.segments)
    assert data == b"".join(bytes([number]) * SIZE for number in range(COUNT))
    # These micros never had the lock of their rule; nothing else is wrong, and nothing is missed.
    # The bucket has no default lock, which is told as well.
    assert {finding.kind for finding in verify(vault).findings} <= {"unlocked", "lock_expired", "bucket_changed"}
