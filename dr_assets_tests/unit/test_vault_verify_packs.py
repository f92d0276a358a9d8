"""A verification of packs: their chain like any other, and every stream's offsets from pack to pack."""

from datetime import UTC, datetime, timedelta

import pytest

from dr_assets.vault.format.pack import Break, PackIndex, Row, Slice
from dr_assets.vault.throwaway import ThrowawayRetention, throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify

TOPIC = "ab" * 16
AT = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)


@pytest.fixture
def vault() -> Vault:
    """A vault in memory."""
    return throwaway_vault(rules={"events": (ThrowawayRetention(), timedelta(days=1))})


def put(vault: Vault, number: int, slices: list[tuple[int, int, Break | None]], previous: str | None, *,
        table: int | None = None) -> str:  # fmt: skip
    """One pack of one partition; `table` is where its table says that it ends. Returns its header's digest."""
    made = tuple(
        Slice(TOPIC, 0, 0, first, end, at * 4, 4, end - first, 1, 0, end, end, 0, broken=broken)
        for at, (first, end, broken) in enumerate(slices)
    )
    rows = None if table is None else (Row(TOPIC, 0, 0, 0, table, 0, table, table, 0, AT, complete=True),)
    plaintext = PackIndex("cluster", {TOPIC: "bets"}, made, rows).encoded() + b"\0\0\0\0" * len(made)
    now = vault.clock()
    sealed = vault.prepare(
        dataset="events", stream="packs", kind="pack", system_id="0" * 32, timeline=0, first=number, last=number + 1,
        begin_at=now, end_at=now, plaintext=plaintext, previous=previous, writer_epoch=1,
    ).seal()  # fmt: skip
    vault.put(sealed, vault.locks.lock("events", "pack", now))
    return sealed.header.digest


def found(vault: Vault) -> list[tuple[str, str]]:
    """Kinds and details, of the chain and the offsets."""
    return [(each.kind, each.detail) for each in verify(vault).findings]


def test_offsets_that_continue_each_other_are_sound(vault: Vault) -> None:
    """Over three packs, an empty one among them."""
    first = put(vault, 0, [(0, 5, None)], None, table=5)
    second = put(vault, 1, [], first)
    put(vault, 2, [(5, 9, None), (9, 10, None)], second, table=10)
    assert found(vault) == []


def test_offsets_that_jump_without_a_word_are_red(vault: Vault) -> None:
    """Forwards, backwards, and a table that tells another end than the slices."""
    last = put(vault, 0, [(0, 5, None)], None)
    last = put(vault, 1, [(6, 9, None)], last)
    last = put(vault, 2, [(8, 10, None)], last)
    put(vault, 3, [(10, 11, None)], last, table=12)
    assert [kind for kind, _ in found(vault)] == ["hole", "hole", "hole"]


def test_a_jump_on_record_is_told_and_not_red(vault: Vault) -> None:
    """A gap and a divergence, each from where the stream was; one from elsewhere is red."""
    last = put(vault, 0, [(0, 5, None)], None)
    last = put(vault, 1, [(7, 9, Break("gap", 5)), (8, 10, Break("diverged", 9))], last)
    assert [kind for kind, _ in found(vault)] == ["gap", "gap"]
    put(vault, 2, [(20, 21, Break("gap", 12))], last)
    assert sorted(kind for kind, _ in found(vault)) == ["gap", "gap", "gap", "hole"]


def test_a_pack_that_is_gone_is_a_hole(vault: Vault) -> None:
    """By its number; the offsets behind it are nobody's to judge."""
    put(vault, 0, [(0, 5, None)], None)
    put(vault, 2, [(9, 10, None)], "ab" * 32)
    assert [kind for kind, _ in found(vault)] == ["hole"]


def test_a_pack_that_lost_a_fork_tells_nothing_of_offsets(vault: Vault) -> None:
    """A dead writer's late pack repeats offsets; the chain that reaches farther counts."""
    first = put(vault, 0, [(0, 5, None)], None)
    put(vault, 1, [(5, 6, None)], first)
    own = put(vault, 1, [(5, 8, None)], first)
    put(vault, 2, [(8, 9, None)], own)
    assert [kind for kind, _ in found(vault)] == ["fork"]
