"""An erasure from its request to its execution, on record.

What belongs here: asking, refusing, carrying out, and reading what was asked. What stays out: weighing (law.py,
holds.py), signatures (vault/approvals/), keys (vault/subjects/), certificates (certificate.py).

An erasure is named by the request for its approval, and so by everything that was decided on its strength: the fact
that destroys the keys names it too. Nobody is named but by subject ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.approvals import Approvals, Request
from dr_assets.vault.erasure.law import Opposition, Relationship, require_ground, require_unopposed
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.format.canonical import Json, malformed
from dr_assets.vault.subjects.deletion import delete, has_key
from dr_assets.vault.subjects.ids import require_subject_id
from dr_assets.vault.subjects.policy import ERASE
from dr_assets.vault.subjects.ring import SubjectRing, no_key
from dr_assets.vault.vault import Vault

KIND: Final = "erasure"
DATASET: Final = "vault"
_SHORTEST_NAME: Final = 3


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was asked. `keyless` have no key, so no documents; `relationships` is what was known of each then."""

    erasure_id: str
    subjects: tuple[str, ...]
    keyless: tuple[str, ...]
    ground: str
    reason: str
    requester: str
    requested_at: datetime
    relationships: Mapping[str, Json] = field(default_factory=dict)


def require_anonymous(text: str, personal_ids: Sequence[str]) -> None:
    """Raise PolicyError `erasure.names_somebody` for a text that would put on record for years who it was."""
    if any(len(one) >= _SHORTEST_NAME and one.casefold() in text.casefold() for one in personal_ids):
        raise PolicyError(
            "erasure.names_somebody",
            "the reason holds the identifier of somebody who is to be forgotten; it would stay on record, locked",
            "give the number of the case instead",
        )


def ask(
    ring: SubjectRing,
    approvals: Approvals,
    people: Sequence[str],
    *,
    ground: str,
    reason: str,
    requester: str,
    relationships: Mapping[str, Relationship],
    oppositions: Sequence[Opposition],
    may_lack_key: bool = False,
) -> tuple[Erasure, Request]:
    """Ask, on record, to erase exactly these people; what approvers are to sign.

    Raises PolicyError `erasure.opposed` (the refusal is on record then), `erasure.no_ground`, `subjects.final`, what
    `approvals.request` raises; VaultError `subjects.no_key` for somebody without a key, unless that is meant.
    """
    who = tuple(sorted({require_subject_id(one) for one in people}))
    require_ground(ground)
    decided = ring.decisions.of(ring.vaults)
    for one in who:
        decision = decided.decision_on(one)
        if decision is not None:
            raise PolicyError(
                "subjects.final",
                f"{one} is erased already, since {decision.deleted_at:%Y-%m-%d %H:%M}Z by {decision.approval}",
                "there is nothing left to ask for; `dr-assets erasure status` shows how far it is",
            )
    keyless = tuple(one for one in who if not has_key(ring, one))
    if keyless and not may_lack_key:
        raise no_key(keyless[0])
    _require_unopposed(ring.vault, oppositions, who)
    asked = approvals.request(ERASE, who, requester, reason)
    known: dict[str, Json] = {one: relationships[one].to_json() for one in who if one in relationships}
    body: dict[str, Json] = {
        "event": "requested",
        "erasure": asked.request_id,
        "subjects": list[Json](who),
        "keyless": list[Json](keyless),
        "ground": ground,
        "reason": asked.reason,
        "requester": requester,
        "relationships": known,
    }
    at = record_fact(ring.vault, DATASET, KIND, body).stored_at
    return Erasure(asked.request_id, who, keyless, ground, asked.reason, requester, at, known), asked


def execute(ring: SubjectRing, approvals: Approvals, erasure: Erasure, oppositions: Sequence[Opposition]) -> datetime:
    """Destroy the keys, softly first, in every region; when that becomes final. Killed anywhere, run it again.

    What opposes is weighed anew: a hold that was placed since the approval refuses too. Raises PolicyError
    `erasure.opposed` and what `subjects.deletion.delete` raises.
    """
    history = ring.decisions.of(ring.vaults)
    if not all(one in history.soft for one in erasure.subjects):
        _require_unopposed(ring.vault, oppositions, erasure.subjects)
    return delete(ring, erasure.subjects, approvals, keyless=erasure.keyless)


def erasures(vault: Vault) -> dict[str, Erasure]:
    """Every erasure that was asked for, by its id, oldest first. Raises VaultError for a damaged fact."""
    found: dict[str, Erasure] = {}
    for fact in facts(vault, DATASET, KIND):
        body = fact.body
        if body.get("event") != "requested":
            continue
        subjects, keyless, known = body.get("subjects"), body.get("keyless"), body.get("relationships")
        if not isinstance(subjects, list) or not isinstance(keyless, list) or not isinstance(known, dict):
            raise malformed(f"{fact.key}: no request for an erasure")
        one = Erasure(
            str(body.get("erasure")),
            tuple(map(str, subjects)),
            tuple(map(str, keyless)),
            str(body.get("ground")),
            str(body.get("reason")),
            str(body.get("requester")),
            fact.at,
            known,
        )
        found[one.erasure_id] = one
    return found


def find(vault: Vault, erasure_id: str) -> Erasure:
    """The erasure whose id begins so. Raises PolicyError `erasure.unknown`."""
    known = erasures(vault)
    fitting = [one for name, one in known.items() if name.startswith(erasure_id)]
    if len(fitting) != 1:
        raise PolicyError(
            "erasure.unknown",
            f"{len(fitting)} erasures have an id that begins with `{erasure_id[:32]}`",
            "`dr-assets erasure list` shows all",
        )
    return fitting[0]


def _require_unopposed(vault: Vault, oppositions: Sequence[Opposition], people: Sequence[str]) -> None:
    """A refusal is on record, with the rules: the person has to be answered, and an auditor asks what was answered."""
    if oppositions:
        rules = list[Json]([one.to_json() for one in oppositions])
        record_fact(vault, DATASET, KIND, {"event": "refused", "subjects": list[Json](people), "rules": rules})
    require_unopposed(oppositions)
