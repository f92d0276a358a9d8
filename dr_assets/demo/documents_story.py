"""The demo's chapter on documents: put, copied, a person forgotten, all others brought back.

What belongs here: the order of events, and comparing what came back with what the casino had put. What stays out:
copying and restoring (stores/bucket), keys and law (vault/subjects, vault/erasure), the documents (casino/kyc.py).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from dr_assets.casino.kyc import documents, put_documents, read_documents
from dr_assets.demo.embedded import EmbeddedEstate
from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.approvals import ApprovalRule, Approver
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import BucketDataset
from dr_assets.proving.weighing import weigh
from dr_assets.stores.bucket.plan import Wanted, plan_restore
from dr_assets.stores.bucket.restore import restore
from dr_assets.stores.bucket.site import Site, open_site
from dr_assets.stores.bucket.source import place_of
from dr_assets.vault.approvals import Approvals
from dr_assets.vault.approvals.papers import sign
from dr_assets.vault.erasure.certificate import issue, open_certificate
from dr_assets.vault.erasure.requests import ask, execute
from dr_assets.vault.signing import Signer
from dr_assets.vault.subjects.connect import open_ring, subject_ids
from dr_assets.vault.subjects.gather import gather
from dr_assets.vault.subjects.records import DATASET
from dr_assets.vault.subjects.ring import SubjectRing
from dr_assets.vault.vault import Vault

PLAYERS: Final = 100
FORGOTTEN: Final = 42  # whose erasure is asked for
_BUCKET: Final = "kyc-restored"


@dataclass(frozen=True)
class DocumentsBack:
    """What came back, held to what the casino had put; `gone` of the erased people are beyond every key there is."""

    put: int
    due: int
    restored: int
    identical: bool
    erased: int
    gone: int
    recovery_point_at: datetime | None
    duration_s: float


class DocumentsStory:
    """One run's documents. `put` first, `forget` behind a copy, `bring_back` once the source is lost."""

    def __init__(self, estate: EmbeddedEstate) -> None:
        self._estate = estate
        self._dataset: BucketDataset = estate.estate.buckets()["kyc"]
        self._put: dict[str, str] = {}

    def put(self) -> int:
        """Make the players' documents and put them into the casino's own bucket; how many."""
        players = range(1, PLAYERS + 1)
        self._put = put_documents(self._estate.documents.client(), self._dataset.bucket, documents(players))
        return len(self._put)

    def forget(self) -> str:
        """Erase one player, as the law has it: asked for, weighed, signed by two, done in every region, certified."""
        signers = [Signer.generate(), Signer.generate()]
        approvers = tuple(Approver(f"approver-{n}", one.public_key.hex()) for n, one in enumerate(signers, start=1))
        estate = replace(self._estate.estate, approvals=ApprovalRule(approvers, needed=len(approvers)))
        ring = open_ring(estate, self._estate.env)
        who = self._subject_id()
        known, oppositions = weigh(estate, ring, [who], self._estate.env)
        approvals = Approvals(ring.vault, DATASET, estate.approvals)
        erasure, asked = ask(
            ring, approvals, [who], ground="art17_1_b", reason="case 1", requester="the demo",
            relationships=known, oppositions=oppositions,
        )  # fmt: skip
        for signer in signers:
            approvals.add(sign(asked, signer))
        execute(ring, approvals, erasure, oppositions)
        issued = open_certificate(issue(ring, estate, erasure, []), ring.vault.trust)
        return f"1 person, {issued['state']} deletion certified; for good after {str(issued['final_after'])[:10]}"

    def bring_back(self, vault: Vault, folder: Path, show: Callable[[str], None]) -> DocumentsBack:
        """Restore everything into a new store, then try every key there is for the one who was forgotten."""
        begin_s = time.monotonic()
        estate, env = self._estate.estate, self._estate.env
        with SeaweedRegion(folder / "documents", "documents-restored", find_programs("weed")) as region:
            show("start a store")
            region.start()
            region.create_bucket(_BUCKET, object_lock=False)
            into = place_of(region.endpoint, _BUCKET, access_key=region.access_key, secret_key=region.secret_key)
            site = open_site(estate, self._dataset, vault, env, folder / "work", signing=False)
            plan = plan_restore(site, Wanted(), gather(estate, vault, env), target=_BUCKET)
            show("restore")
            restore(plan, site, into, erasures_now=lambda: gather(estate, vault, env))
            duration_s = time.monotonic() - begin_s
            show("compare")
            back = read_documents(region.client(), _BUCKET)
            due = {name: sha256 for name, sha256 in self._put.items() if not name.startswith(_folder_of(FORGOTTEN))}
            is_gone = not any(name.startswith(_folder_of(FORGOTTEN)) for name in back)
            return DocumentsBack(
                put=len(self._put),
                due=len(due),
                restored=len(back),
                identical=back == due,
                erased=1,
                gone=int(is_gone and self._is_beyond_keys(site)),
                recovery_point_at=plan.point_at,
                duration_s=duration_s,
            )

    def _subject_id(self) -> str:
        return subject_ids(self._estate.estate, self._estate.env).of(str(FORGOTTEN))

    def _is_beyond_keys(self, site: Site) -> bool:
        """Whether no region hands out the person's key any more."""
        assert isinstance(site.ring, SubjectRing)  # noqa: S101 - for the type checker: the dataset is of people
        try:
            site.ring.key_of(self._subject_id())
        except DrError as error:
            return error.code in {"subjects.deleted", "subjects.no_key"}
        return False


def _folder_of(player_id: int) -> str:
    return f"players/{player_id}/"
