import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.stores.sealing.linked import Body, Chain, Linked, Prepare
from dr_assets.vault.format.segment import Prepared
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
WAIT_S = 180


def preparing(vault: Vault, first: int, size: int) -> Prepare:
    """The header of the piece at [first, first + size)."""
    make = partial(
        vault.prepare, dataset="ledger", stream="wal", kind="wal", system_id="7", timeline=1, first=first,
        last=first + size, begin_at=AT, end_at=AT,
    )  # fmt: skip
    return lambda plaintext, sha256, previous: make(plaintext=plaintext, plaintext_sha256=sha256, previous=previous)


def linked_pieces(vault: Vault, count: int) -> list[Linked]:
    """Pieces of four bytes each, in two parts."""
    chain = Chain("ab" * 32)
    return [
        chain.link(Body((bytes([number] * 2), memoryview(bytes(2)))), preparing(vault, 4 * number, 4))
        for number in range(count)
    ]


def test_each_header_names_the_one_before_it_whoever_hashes_first() -> None:
    """The last piece's thread begins first, and waits for its turn; what opens is what came in."""
    vault = throwaway_vault()
    pieces = linked_pieces(vault, 6)
    with ThreadPoolExecutor(6) as pool:
        begun = [pool.submit(piece.seal) for piece in reversed(pieces)]
        sealed = [each.result(WAIT_S) for each in reversed(begun)]
    assert [each.header.previous for each in sealed] == ["ab" * 32, *(each.header.digest for each in sealed[:-1])]
    for number, each in enumerate(sealed):
        vault.put(each, vault.locks.lock("ledger", "wal", vault.clock()))
        assert vault.open(vault.find(each.key)).plaintext == bytes([number, number, 0, 0])


def test_a_piece_is_sealed_again_to_the_same_bytes() -> None:
    """A piece that no spool could take goes to a putter: its retry must be recognised by its name."""
    piece = linked_pieces(throwaway_vault(), 1)[0]
    assert piece.seal().data == piece.seal().data


def test_a_sealed_piece_holds_no_plaintext() -> None:
    """Puts last longer than seals: what waits for one must not hold the many times larger plaintext."""
    body = Body((b"p" * 64, b"q" * 64))
    vault = throwaway_vault()
    Chain(None).link(body, preparing(vault, 0, 128)).seal()
    with pytest.raises(AssertionError, match="let go"):
        body.whole()


def test_a_piece_that_cannot_be_sealed_stops_all_behind_it() -> None:
    """Nothing is ever linked past a hole, and nobody waits for a header that will not come."""
    vault = throwaway_vault()
    chain = Chain(None)

    def refuses(*_: object) -> Prepared:
        raise VaultError("vault.no_key", "no key", "none")

    first = chain.link(Body((b"one",)), refuses)
    second = chain.link(Body((b"two",)), preparing(vault, 3, 3))
    refused: list[str] = []

    def seal(piece: Linked) -> None:
        try:
            piece.seal()
        except VaultError as error:
            refused.append(error.code)

    threads = [threading.Thread(target=seal, args=(piece,), daemon=True) for piece in (second, first)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert refused == ["vault.no_key"] * 2
    with pytest.raises(VaultError):
        second.seal()
