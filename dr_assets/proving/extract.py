"""An extract: what a database held of one person at a moment, signed, for a responsible-gambling or AML review.

What belongs here: refusing, restoring, asking, the record that somebody asked. What stays out: the queries
(reconciliation/extracts.py), the file (extract_file.py).

The order is: refuse, restore, ask, write aside, put on record, hand out. Who was erased is refused, though some backup
may still hold them. On record is the keyed digest of the identifier, never the identifier.
"""

import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Estate, PostgresDataset
from dr_assets.proving.attempt import fresh_workdir
from dr_assets.proving.erasures import erasures_for, record_replayed
from dr_assets.proving.extract_file import files_of, manifest_of, signature_of, write_zip
from dr_assets.proving.record import plain
from dr_assets.reconciliation.extracts import Answer, ExtractRules, ask, load_extract
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import Restored, restore
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.erasure.requests import require_anonymous
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.signing import Signer
from dr_assets.vault.subjects.connect import subject_ids
from dr_assets.vault.subjects.erased import ErasureList
from dr_assets.vault.vault import Vault

EXTRACT: Final = "extract"


@dataclass(frozen=True, slots=True)
class Review:
    """Who asks for whom, as of when, and by what right. `reason` is the legal basis and the case's number."""

    person: str
    target: str
    by: str
    reason: str
    may_be_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Extracted:
    """A written extract."""

    path: Path
    manifest: Mapping[str, Any]
    rows: Mapping[str, int]


def extract(
    estate: Estate,
    dataset: PostgresDataset,
    vault: Vault,
    review: Review,
    out: Path,
    env: Mapping[str, str] | None = None,
) -> Extracted:
    """Write the signed file `out`; that somebody asked is on record before it is there, and also when it is refused.

    Raises PolicyError `extract.no_reason`, `extract.exists`, `extract.no_folder`, `extract.undeclared`,
    `extract.erased`, `extract.unknown`, `erasure.names_somebody`, `vault.read_only`, and what a restore raises.
    """
    env = os.environ if env is None else env
    _require_reason(review)
    if out.exists():
        raise PolicyError("extract.exists", f"{out} is there already", "name a new file: none is written over")
    if not out.absolute().parent.is_dir():
        raise PolicyError("extract.no_folder", f"there is no folder {out.absolute().parent}", "make it first")
    rules = load_extract(dataset.restore_test.contract)
    erasures = erasures_for(estate, dataset, vault, env)
    subject_id = None if estate.subjects is None else subject_ids(estate, env).of(review.person)
    said = _said(vault, dataset, review, rules, subject_id)
    try:
        _require_not_erased(erasures.listed, subject_id)
        plan = plan_restore(vault, dataset.name, Target.parse(review.target))
        with restore(plan, vault, fresh_workdir(dataset.name, env), env=env, erasures=erasures) as restored:
            record_replayed(vault, restored, purpose="extract")
            answers = ask(restored.reader_dsn(), rules, review.person)
            said |= _point(restored)
        _require_known(answers, review)
    except PolicyError as error:
        if error.code in {"extract.erased", "extract.unknown"}:
            _record(vault, dataset, {**said, "outcome": "refused", "why": error.code})
        raise
    return _written(vault, dataset, said, answers, out)


def _written(
    vault: Vault, dataset: PostgresDataset, said: dict[str, Json], answers: list[Answer], out: Path
) -> Extracted:
    contents = files_of(answers)
    manifest = manifest_of(said, answers, contents)
    draft = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    rows = {answer.name: len(answer.rows) for answer in answers}
    try:
        write_zip(draft, manifest, signature_of(manifest, _signer(vault)), contents)
        digest = hashlib.sha256(manifest).hexdigest()
        _record(vault, dataset, {**said, "outcome": "handed out", "manifest_sha256": digest, "rows": dict(rows)})
        draft.rename(out)
    finally:
        draft.unlink(missing_ok=True)
    return Extracted(out, {**said, "manifest_sha256": digest}, rows)


def _signer(vault: Vault) -> Signer:
    if vault.signer is None:
        raise PolicyError("vault.read_only", f"{vault} was opened without a signing key", "open it for writing")
    return vault.signer


def _record(vault: Vault, dataset: PostgresDataset, body: Mapping[str, object]) -> None:
    record_fact(vault, dataset.name, EXTRACT, plain(body))


def _require_reason(review: Review) -> None:
    if not review.by.strip() or not review.reason.strip() or not review.person.strip():
        raise PolicyError(
            "extract.no_reason",
            "nobody says for whom this is, who asks, or by what right",
            "give --player, --by and --reason (the legal basis and the case's number: both go on record)",
        )
    require_anonymous(f"{review.reason} {review.by}", [review.person])


def _require_not_erased(listed: ErasureList, subject_id: str | None) -> None:
    found = None if subject_id is None else listed.people.get(subject_id)
    if found is not None:
        raise PolicyError(
            "extract.erased",
            f"this person was erased on {found.deleted_at:%Y-%m-%d} (erasure {found.approval}); nothing of them is "
            "brought back out of older backups",
            "answer the review with the certificate: `dr-assets erasure certificate`",
        )


def _require_known(answers: list[Answer], review: Review) -> None:
    if not review.may_be_unknown and not any(answer.rows for answer in answers):
        raise PolicyError(
            "extract.unknown",
            "at that moment the database held nothing of anybody with this identifier, which is not repeated here",
            "look for a slip in it; where that is the answer, add --may-be-unknown for a signed file that says so",
        )


def _said(
    vault: Vault, dataset: PostgresDataset, review: Review, rules: ExtractRules, subject_id: str | None
) -> dict[str, Json]:
    return {
        "extract_id": secrets.token_hex(8),
        "estate": vault.estate,
        "dataset": dataset.name,
        "subject_id": subject_id,
        "target": review.target,
        "by": review.by,
        "reason": review.reason,
        "made_at": format_time(vault.clock()),
        "contract": rules.contract,
        "contract_digest": rules.digest,
    }


def _point(restored: Restored) -> dict[str, Json]:
    at, commit_at = restored.recovered_at, restored.last_commit_at
    return {
        "base_backup": restored.plan.base_key,
        "replayed_lsn": format_lsn(restored.replayed_lsn),
        "timeline": restored.timeline,
        "recovered_at": None if at is None else format_time(at),
        "last_commit_at": None if commit_at is None else format_time(commit_at),
    }
