"""What is on record of approvals in a vault: asked for, signed, used; each a fact `approval`, signed and locked.

What belongs here: recording, counting, and using one up. What stays out: what is signed (papers.py).

An approval is used up on record *before* anything is deleted: a run that is killed afterwards needs a new one for what
is left. Times are judged by the store's clock, since that of a host can be set back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from dr_assets.estate.approvals import LONGEST_VALID, ApprovalRule
from dr_assets.estate.errors import PolicyError
from dr_assets.vault.approvals.papers import Request, Signature, digest_of
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.format.canonical import format_time
from dr_assets.vault.signing import signer_id_of
from dr_assets.vault.vault import Vault

APPROVAL: Final = "approval"
_SLACK: Final = timedelta(days=1)
_LONGEST_REASON: Final = 500


@dataclass(slots=True)
class Standing:
    """A request and how far it has come: who of the declared approvers signed, and whether it was used up."""

    request: Request
    approvers: list[str] = field(default_factory=list)
    used: bool = False

    def lacks(self, rule: ApprovalRule) -> int:
        """How many signatures are still needed."""
        return max(0, rule.needed - len(self.approvers))


class Approvals:
    """The approvals of one dataset. Every method that reads the vault may raise what the vault raises."""

    def __init__(self, vault: Vault, dataset: str, rule: ApprovalRule | None) -> None:
        self._vault = vault
        self._dataset = dataset
        self._rule = rule

    @property
    def rule(self) -> ApprovalRule:
        """Who may agree. Raises PolicyError `approvals.not_declared`."""
        if self._rule is None:
            raise PolicyError(
                "approvals.not_declared",
                "the estate declares no approvers",
                "declare `approvals: {needed: 2, approvers: […]}` in the estate's defs.yaml (docs/approvals.md)",
            )
        return self._rule

    def request(
        self, action: str, objects: Sequence[str], requester: str, reason: str, *, valid_for: timedelta | None = None
    ) -> Request:
        """Ask, on record, to do `action` to exactly these objects.

        Raises PolicyError `approvals.not_declared`, `.empty`, `.too_long`.
        """
        lasting = self.rule.valid_for if valid_for is None else valid_for
        if lasting > self.rule.valid_for:
            found = f"a request is to hold for {lasting}, at most {self.rule.valid_for} are declared"
            raise PolicyError("approvals.too_long", found, "ask for less")
        if not objects or not reason.strip() or not requester.strip():
            raise PolicyError(
                "approvals.empty",
                "a request needs something to delete, a requester and a reason",
                "with nothing to delete there is nothing to ask for",
            )
        now = self._vault.store.now()
        made = Request(
            estate=self._vault.estate,
            vault=self._vault.name,
            dataset=self._dataset,
            action=action,
            digest=digest_of(action, objects),
            objects=len(objects),
            requester=requester,
            reason=reason[:_LONGEST_REASON],
            requested_at=format_time(now),
            expires_at=format_time(now + lasting),
        )
        record_fact(self._vault, self._dataset, APPROVAL, {"event": "requested", "request": made.to_json()})
        return made

    def add(self, signature: Signature) -> Standing:
        """Put an approver's signature on record; one that is there already is not put again.

        Raises PolicyError `approvals.unknown_request`, `.expired`, `.used`, `.unknown_key`, `.host_key`,
        `.bad_signature`.
        """
        standing = next((one for one in self.standing() if one.request.request_id == signature.request_id), None)
        if standing is None:
            raise PolicyError(
                "approvals.unknown_request",
                f"no request {signature.request_id} of {self._dataset} is on record since {LONGEST_VALID.days} days",
                "`dr-assets approvals list` shows those there are",
            )
        self._require_open(standing)
        name = self._require_approver(signature)
        if not signature.is_of(standing.request):
            raise PolicyError(
                "approvals.bad_signature",
                f"the signature of {name} is not over this request",
                "sign the file as it was written: `dr-assets approvals sign`",
            )
        if name not in standing.approvers:
            record_fact(self._vault, self._dataset, APPROVAL, {"event": "signed", **signature.to_json()})
            standing.approvers.append(name)
        return standing

    def standing(self) -> list[Standing]:
        """Every request that could still be open, oldest first; what counts is judged by today's declaration."""
        found: dict[str, Standing] = {}
        begin = self._vault.store.now() - LONGEST_VALID - _SLACK
        for fact in facts(self._vault, self._dataset, APPROVAL, begin):
            event = fact.body.get("event")
            if event == "requested":
                request = Request.of(fact.body.get("request"))
                # One that were to hold for longer than the word of its use is looked for could be used again.
                if request.has_expired(fact.at + LONGEST_VALID + _SLACK):
                    found.setdefault(request.request_id, Standing(request))
                continue
            standing = found.get(str(fact.body.get("request_id")))
            if standing is None:
                continue
            if event == "used":
                standing.used = True
            elif event == "signed":
                self._count(standing, Signature.of(fact.body))
        return list(found.values())

    def consume(self, *, action: str, objects: Sequence[str]) -> str:
        """Use up, on record, an approval over exactly this; returns the request's id. Then, and only then, delete.

        Raises PolicyError `approvals.not_declared`, `.none`, `.too_few`, `.expired`, `.used`.
        """
        rule, digest = self.rule, digest_of(action, objects)
        fitting = [one for one in self.standing() if self._is_over(one.request, action, digest)]
        now = self._vault.store.now()
        ready = [one for one in fitting if not one.used and not one.request.has_expired(now) and not one.lacks(rule)]
        if not ready:
            raise self._refusal(action, len(objects), fitting, now)
        chosen = ready[0]
        mine = record_fact(
            self._vault,
            self._dataset,
            APPROVAL,
            {
                "event": "used",
                "request_id": chosen.request.request_id,
                "action": action,
                "digest": digest,
                "objects": len(objects),
                "requester": chosen.request.requester,
                "approvers": list(chosen.approvers),
            },
        )
        self._require_first(chosen.request, str(mine.key))
        return chosen.request.request_id

    def _is_over(self, request: Request, action: str, digest: str) -> bool:
        own = (self._vault.estate, self._vault.name, self._dataset, action, digest)
        return own == (request.estate, request.vault, request.dataset, request.action, request.digest)

    def _require_first(self, request: Request, mine: str) -> None:
        """Two runs may have used it up at once: the first on record has it."""
        begin = self._vault.store.now() - LONGEST_VALID - _SLACK
        for fact in facts(self._vault, self._dataset, APPROVAL, begin):
            if fact.body.get("event") == "used" and fact.body.get("request_id") == request.request_id:
                if str(fact.key) != mine:
                    raise self._used(request)
                return

    def _count(self, standing: Standing, signature: Signature) -> None:
        """Count a signature on record if it counts today, each approver once; the requester no more than others."""
        name = self._name_of(signature)
        if name is not None and name not in standing.approvers and signature.is_of(standing.request):
            standing.approvers.append(name)

    def _name_of(self, signature: Signature) -> str | None:
        if self._rule is None or self._is_a_hosts(signature):
            return None
        return next((one.name for one in self._rule.approvers if one.public_key == signature.public_key), None)

    def _is_a_hosts(self, signature: Signature) -> bool:
        try:
            return signer_id_of(bytes.fromhex(signature.public_key)) in self._vault.trust.public_keys
        except ValueError:
            return False

    def _require_approver(self, signature: Signature) -> str:
        name = self._name_of(signature)
        if name is not None:
            return name
        if self._is_a_hosts(signature):
            raise PolicyError(
                "approvals.host_key",
                "the key seals objects on some host, so it is no person's word",
                "an approver's key is their own and lies nowhere else: `dr-assets approvals key`",
            )
        raise PolicyError(
            "approvals.unknown_key",
            f"no approver is declared with the public key {signature.public_key[:64]}",
            "only those under `approvals.approvers` in the estate's defs.yaml count",
        )

    def _require_open(self, standing: Standing) -> None:
        if standing.used:
            raise self._used(standing.request)
        if standing.request.has_expired(self._vault.store.now()):
            raise _expired(standing.request)

    def _refusal(self, action: str, objects: int, fitting: Sequence[Standing], now: datetime) -> PolicyError:
        """The one that tells most: of a request that is open, else of the newest that isn't."""
        still = [one for one in fitting if not one.used and not one.request.has_expired(now)]
        if still:
            best = max(still, key=lambda one: len(one.approvers))
            who = ", ".join(best.approvers) or "nobody"
            return PolicyError(
                "approvals.too_few",
                f"request {best.request.request_id} needs {self.rule.needed} approvals and was signed by {who}",
                "collect the others' signatures: `dr-assets approvals add`",
            )
        if fitting:
            newest = fitting[-1]
            return self._used(newest.request) if newest.used else _expired(newest.request)
        return PolicyError(
            "approvals.none",
            f"nobody asked for `{action}` of exactly these {objects} objects of {self._dataset}",
            "`dr-assets approvals request`, or take the list as it was approved",
        )

    def _used(self, request: Request) -> PolicyError:
        return PolicyError(
            "approvals.used",
            f"request {request.request_id} was used up: an approval holds once",
            "ask anew for what is left: `dr-assets approvals request`",
        )


def _expired(request: Request) -> PolicyError:
    return PolicyError(
        "approvals.expired",
        f"request {request.request_id} held until {request.expires_at}",
        "ask anew: `dr-assets approvals request`",
    )
