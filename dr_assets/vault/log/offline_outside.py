"""What outsiders say of an exported log's checkpoints, checked with their keys alone.

What belongs here: cosignatures and their quorum, time stamps, anchors as far as they prove something offline; what of
the export nobody vouches for. What stays out: the tree (offline_tree.py).
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.belief import Belief
from dr_assets.vault.log.checkpoint import Signed
from dr_assets.vault.log.cosignature import cosigned_at
from dr_assets.vault.log.export_files import Export
from dr_assets.vault.log.names import OUTSIDE
from dr_assets.vault.log.offline import HISTORY, NEWEST, OfflineReport
from dr_assets.vault.log.shelf import ANCHOR, PROOF_LIMIT_BYTES, TIMESTAMP, WITNESSED, Proof
from dr_assets.vault.log.witness_client import verify_cosignature

Checkpoints = Mapping[int, Signed]


def check_outsiders(export: Export, belief: Belief, checkpoints: Checkpoints, report: OfflineReport) -> None:
    """Rows for witnesses, time stamps and anchors."""
    _check_witnesses(export, belief, checkpoints, report)
    _check_stamps(export, belief, checkpoints, report)
    _check_anchors(export, belief, checkpoints, report)


def name_strangers(export: Export, seen: set[str], report: OfflineReport) -> None:
    """Note the files that none of the checks looked at: nobody vouches for them."""
    for path in export.paths():
        if path not in seen and path != NEWEST and path.partition("/")[0] not in {HISTORY, *OUTSIDE}:
            report.doubt(path)
    if report.strangers_total:
        detail = f"{report.strangers_total} files that nobody vouches for and that prove nothing"
        report.say("every file belongs to the log", detail, proven=False)


def _proofs(
    export: Export, kind: str, checkpoints: Checkpoints, report: OfflineReport
) -> Iterator[tuple[str, Signed, bytes]]:
    """Path, checkpoint and bytes of every whole proof of a kind.

    What isn't what its name says was damaged. What is whole and proves nothing was laid there by somebody who could
    write to the store; that is doubtful, and no damage to the log.
    """
    for path in export.paths(kind):
        try:
            proof = Proof.of(path, export.read(path, limit_bytes=PROOF_LIMIT_BYTES) or b"")
        except VaultError as error:
            report.hurt(path, error.found)
            continue
        if proof is None:
            report.hurt(path, "is not what its name says")
        elif proof.size not in checkpoints:
            report.doubt(path)
        else:
            yield path, checkpoints[proof.size], proof.data


def _check_witnesses(export: Export, belief: Belief, checkpoints: Checkpoints, report: OfflineReport) -> None:
    since = report.damage_total
    told: dict[int, dict[str, datetime]] = {}
    for path, signed, data in _proofs(export, WITNESSED, checkpoints, report):
        try:
            told.setdefault(signed.checkpoint.size, {}).update(_cosigned(signed, data, belief))
        except VaultError:
            report.doubt(path)
    needed = max(belief.quorum, 1)
    sizes = [size for size, at in told.items() if len(at) >= needed]
    report.quorum_missed = belief.quorum > 0 and not sizes
    claim = f"{needed} of {len(belief.witnesses)} witnesses saw this history and no other"
    if not sizes:
        report.say(claim, "no checkpoint has enough believed cosignatures", proven=False, since=since)
        return
    newest = max(sizes)
    late = f"; the {report.size - newest} leaves after it wait for theirs" if newest < report.size else ""
    detail = f"up to {newest} leaves, at {max(told[newest].values()).isoformat()}{late}"
    report.say(claim, detail, proven=True, since=since)


def _cosigned(signed: Signed, data: bytes, belief: Belief) -> dict[str, datetime]:
    """Which believed witnesses cosigned, and when. Raises VaultError for lines that are no cosignatures, or bad."""
    told: dict[str, datetime] = {}
    for witness in belief.witnesses:
        try:
            told[str(witness.key)] = cosigned_at(verify_cosignature(signed, data, witness))
        except VaultError as error:
            if error.code != "log.unsigned_note":  # that is another witness's
                raise
    return told


def _check_stamps(export: Export, belief: Belief, checkpoints: Checkpoints, report: OfflineReport) -> None:
    since = report.damage_total
    claim = "a time-stamping authority saw a checkpoint"
    proofs = list(_proofs(export, TIMESTAMP, checkpoints, report))
    if not proofs or not belief.tsa_roots:
        detail = f"{len(proofs)} tokens, and no roots to check them with" if proofs else "there are no tokens"
        report.say(claim, detail, proven=False, since=since)
        return
    try:
        from dr_assets.vault.log.timestamp import verify_stamp  # noqa: PLC0415 - wants an extra
    except ImportError:
        report.say(claim, f"{len(proofs)} tokens: install the extra `timestamp` to check them", proven=False)
        return
    held: list[tuple[int, datetime, str]] = []
    for path, signed, data in proofs:
        try:
            stamp = verify_stamp(data, signed.note, belief.tsa_roots)
        except VaultError:
            report.doubt(path)
            continue
        held.append((signed.checkpoint.size, stamp.at, stamp.by))
    if not held:
        report.say(claim, f"none of {len(proofs)} tokens is by a believed authority", proven=False, since=since)
        return
    size, at, by = max(held, key=lambda row: (row[0], -row[1].timestamp()))
    others = f"; {len(proofs) - len(held)} tokens are not believed" if len(held) < len(proofs) else ""
    report.say(claim, f"{size} leaves existed at {at.isoformat()}, says {by}{others}", proven=True, since=since)


def _check_anchors(export: Export, belief: Belief, checkpoints: Checkpoints, report: OfflineReport) -> None:
    since = report.damage_total
    claim = "a signed transaction carries a checkpoint's root"
    proofs = list(_proofs(export, ANCHOR, checkpoints, report))
    if not proofs or belief.anchor is None:
        detail = f"{len(proofs)} records, and nobody's are believed" if proofs else "there are no anchors"
        report.say(claim, detail, proven=False, since=since)
        return
    held: list[tuple[int, str, int | None, str | None]] = []
    verify = _anchor_check(belief.anchor.address, belief.anchor.chain_id)
    if verify is None:
        report.say(claim, f"{len(proofs)} records: install the extra `anchor` to check them", proven=False)
        return
    for path, signed, data in proofs:
        try:
            record = verify(data, signed)
        except VaultError:
            report.doubt(path)
            continue
        if record:
            held.append((signed.checkpoint.size, *record))
    if not held:
        report.say(
            claim, f"none of {len(proofs)} records is of the believed payer and chain", proven=False, since=since
        )
        return
    size, tx, number, block = max(held, key=lambda row: (row[0], row[2] or 0))
    report.say(claim, f"{size} leaves, transaction {tx}", proven=True, since=since)
    where = f"said to be in block {number} ({block})" if number is not None else "not confirmed when this was exported"
    report.say(f"chain {belief.anchor.chain_id} holds that transaction", f"{where}: ask the chain", proven=False)


def _anchor_check(
    address: str, chain_id: int
) -> Callable[[bytes, Signed], tuple[str, int | None, str | None] | None] | None:
    """How to judge a record: transaction, block number and hash, or None for a payer or chain that isn't believed."""
    try:
        from dr_assets.vault.log.anchor import verify_anchor  # noqa: PLC0415 - wants an extra
    except ImportError:
        return None

    def verify(data: bytes, signed: Signed) -> tuple[str, int | None, str | None] | None:
        record = verify_anchor(data, signed.checkpoint)
        if (record.sender.lower(), record.chain_id) != (address.lower(), chain_id):
            return None
        return record.tx, record.block_number, record.block_hash

    return verify
