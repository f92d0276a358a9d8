"""The certificate of an erasure: what was destroyed, when that is final, by whose approval, and what remains.

What belongs here: its content, signing, sealing it in the vault, and believing one. What stays out: destroying.

A DSSE envelope (as the log's statements are) over canonical JSON: it can be printed, handed to an authority, and
checked offline with the trust file alone. It names nobody: subject ids are keyed digests, and whoever has the key of
subject ids can show that one of them is a given person's (docs/erasure.md).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import BucketDataset, Dataset, Estate, PostgresDataset, TopicsDataset
from dr_assets.vault.approvals import APPROVAL
from dr_assets.vault.erasure.law import GROUNDS
from dr_assets.vault.erasure.requests import Erasure
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, format_time, malformed
from dr_assets.vault.log.statement import open_envelope, seal_envelope
from dr_assets.vault.retention import LockRules
from dr_assets.vault.signing import Trust
from dr_assets.vault.subjects.history import SoftDeletion, read_history
from dr_assets.vault.subjects.records import DATASET as SUBJECTS
from dr_assets.vault.subjects.ring import SubjectRing
from dr_assets.vault.vault import Vault

KIND: Final = "erasure_certificate"
DATASET: Final = "vault"
BODY_KIND: Final = "dr_assets erasure certificate v1"
PAYLOAD_TYPE: Final = "application/vnd.dr-assets.erasure-certificate+json"
LIMIT_BYTES: Final = 4 << 20
CertifiedState = Literal["soft", "final"]
_DESTROYED: Final[Mapping[CertifiedState, str]] = {
    "soft": "nothing yet: the person's key is on record as deleted and opens nothing; removed after `final_after`",
    "final": "the person's key, in every version, and with it every document sealed under it",
}


def issue(ring: SubjectRing, estate: Estate, erasure: Erasure, unreplayed: Sequence[str]) -> bytes:
    """Make, sign and seal the certificate of what holds now; the envelope, a line of JSON.

    Raises PolicyError `erasure.not_executed`, `vault.read_only`.
    """
    vault, signer = ring.vault, ring.signer()
    history = read_history(vault, vault.clock())
    decisions = [one for who in erasure.subjects if (one := history.decision_on(who)) is not None]
    ours = [one for one in decisions if one.approval == erasure.erasure_id]
    if len(ours) != len(erasure.subjects):
        raise PolicyError(
            "erasure.not_executed",
            f"of {len(erasure.subjects)} people of erasure {erasure.erasure_id} {len(ours)} are erased by it",
            "`dr-assets erasure status` shows how far it is",
        )
    state: CertifiedState = "final" if all(who in history.gone for who in erasure.subjects) else "soft"
    body = _body(ring, estate, erasure, ours, state, unreplayed)
    envelope = seal_envelope(canonical.encode(body), PAYLOAD_TYPE, signer)
    record_fact(
        vault, DATASET, KIND, {"erasure": erasure.erasure_id, "state": state, "envelope": envelope.decode("ascii")}
    )
    return envelope + b"\n"


def newest(vault: Vault, erasure_id: str) -> bytes | None:
    """The newest certificate of an erasure, as it was issued."""
    found: bytes | None = None
    for fact in facts(vault, DATASET, KIND):
        if fact.body.get("erasure") == erasure_id:
            found = str(fact.body.get("envelope")).encode("ascii") + b"\n"
    return found


def certificates(vault: Vault) -> dict[str, str]:
    """The state that each erasure's newest certificate speaks of."""
    return {str(fact.body.get("erasure")): str(fact.body.get("state")) for fact in facts(vault, DATASET, KIND)}


def open_certificate(data: bytes, trust: Trust) -> dict[str, Json]:
    """What a certificate says, if one of the trusted signed it: neither vault nor network is asked.

    Raises VaultError `log.malformed`, `log.bad_leaf`, `vault.malformed`.
    """
    payload = open_envelope(data.strip(), PAYLOAD_TYPE, trust, limit_bytes=LIMIT_BYTES)
    body = canonical.decode(payload, limit_bytes=LIMIT_BYTES, what="a certificate")
    if body.get("kind") != BODY_KIND:
        raise malformed("no certificate of an erasure")
    return body


def _body(
    ring: SubjectRing,
    estate: Estate,
    erasure: Erasure,
    decisions: Sequence[SoftDeletion],
    state: CertifiedState,
    unreplayed: Sequence[str],
) -> dict[str, Json]:
    decided_at = min(one.deleted_at for one in decisions)
    destroyed = [who for who in erasure.subjects if who not in erasure.keyless]
    return {
        "kind": BODY_KIND,
        "estate": estate.name,
        "authority": estate.licence.authority,
        "erasure": erasure.erasure_id,
        "state": state,
        "issued_at": format_time(ring.vault.clock()),
        "subjects": list[Json](erasure.subjects),
        "ground": erasure.ground,
        "ground_says": GROUNDS.get(erasure.ground, ""),
        "reason": erasure.reason,
        "requester": erasure.requester,
        "requested_at": format_time(erasure.requested_at),
        "approved_by": _approvers(ring.vault, erasure),
        "decided_at": format_time(decided_at),
        "final_after": format_time(max(one.final_after for one in decisions)),
        "destroyed": {
            "what": _DESTROYED[state],
            "people": list[Json](destroyed),
            "regions": list[Json]([shelf.region for shelf in ring.shelves]),
            "without_documents": list[Json](erasure.keyless),
        },
        "remains": _remains(estate, ring.vault.locks, decided_at, state),
        "still_to_be_replayed": list[Json](sorted(unreplayed)),
    }


def _remains(estate: Estate, locks: LockRules, decided_at: datetime, state: CertifiedState) -> list[Json]:
    """What of each dataset stays locked, how long at most, and why it doesn't bring the person back."""
    rows: list[Json] = []
    for dataset in estate.datasets.values():
        until = decided_at + max(locks.length(dataset.name, kind) for kind in ("part", "wal"))
        told: dict[str, Json] = {"dataset": dataset.name, "kind": dataset.kind, "locked_until": format_time(until)}
        rows.append({**told, **_why(dataset, state)})
    return rows


def _why(dataset: Dataset, state: CertifiedState) -> Mapping[str, Json]:
    if isinstance(dataset, BucketDataset):
        if dataset.subject.kind == "none":
            return {"what": "documents of nobody in particular", "way": "not reached"}
        key = "destroyed" if state == "final" else "unusable, and destroyed when this is final"
        return {
            "what": f"ciphertext whose only key is {key}; documents that the rule gives to nobody are not reached",
            "way": "the missing key",
        }
    if isinstance(dataset, PostgresDataset):
        return {"what": "base backups and WAL of before, encrypted", "way": "erased again from every restore"}
    reached = isinstance(dataset, TopicsDataset) and dataset.erase_key is not None
    way = "left out of every restore" if reached else "not reached"
    return {"what": "records of before, encrypted", "way": way}


def _approvers(vault: Vault, erasure: Erasure) -> list[Json]:
    for fact in facts(vault, SUBJECTS, APPROVAL, erasure.requested_at):
        if fact.body.get("event") == "used" and fact.body.get("request_id") == erasure.erasure_id:
            approvers = fact.body.get("approvers")
            return list(approvers) if isinstance(approvers, list) else []
    return []
