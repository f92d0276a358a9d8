"""m of n: exactly this list, each person once, not too late, once only, and all of it on record."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from dr_assets.cli.approvals import app
from dr_assets.estate.approvals import ApprovalRule, Approver
from dr_assets.estate.errors import PolicyError
from dr_assets.vault.approvals import APPROVAL, Approvals, Request, Signature, digest_of, open_papers, sign
from dr_assets.vault.approvals.papers import papers
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault

ALICE, BOB, CAROL, MALLORY = (Signer.from_seed(bytes([number]) * 32) for number in (1, 2, 3, 9))
RULE: Final = ApprovalRule(
    tuple(Approver(name, key.public_key.hex()) for name, key in (("alice", ALICE), ("bob", BOB), ("carol", CAROL))),
    needed=2,
    valid_for=timedelta(hours=72),
)
LIST: Final = ("casino/ledger/a v1", "casino/ledger/b v2")


@dataclass
class Desk:
    """A vault with a clock that is turned by hand, and its approvals."""

    now: datetime = datetime(2026, 11, 22, 6, tzinfo=UTC)
    vault: Vault = field(init=False)

    def __post_init__(self) -> None:
        self.vault = throwaway_vault(clock=lambda: self.now)

    def approvals(self, rule: ApprovalRule | None = RULE, vault: Vault | None = None) -> Approvals:
        """As a process opens them, with nothing in memory."""
        return Approvals(vault or self.vault, "ledger", rule)

    def asked(self, *signers: Signer) -> Request:
        """A request that these have signed."""
        request = self.approvals().request("expire", LIST, "alice", "outside the window")
        for signer in signers:
            self.later(1)
            self.approvals().add(sign(request, signer))
        return request

    def later(self, minutes: float) -> None:
        """Turn the clock."""
        self.now += timedelta(minutes=minutes)

    def consume(self, objects: tuple[str, ...] = LIST, rule: ApprovalRule | None = RULE) -> str:
        """Use an approval of this list up."""
        return self.approvals(rule).consume(action="expire", objects=objects)


@pytest.fixture
def desk() -> Desk:
    """An empty desk."""
    return Desk()


def refusal(act: Callable[[], object]) -> str:
    """The code with which something is refused."""
    with pytest.raises(PolicyError) as refused:
        act()
    return refused.value.code


def test_two_of_three_over_the_exact_list_are_enough_once(desk: Desk) -> None:
    """The approval is used up on record with who asked and who agreed; the order of the list doesn't matter."""
    request = desk.asked(BOB, CAROL)
    assert desk.consume(tuple(reversed(LIST))) == request.request_id
    (used,) = [fact.body for fact in facts(desk.vault, "ledger", APPROVAL) if fact.body["event"] == "used"]
    assert (used["requester"], used["approvers"], used["objects"]) == ("alice", ["bob", "carol"], 2)
    assert used["digest"] == digest_of("expire", LIST)
    assert refusal(desk.consume) == "approvals.used"
    assert sum(fact.body["event"] == "used" for fact in facts(desk.vault, "ledger", APPROVAL)) == 1


def test_a_list_that_is_not_the_one_that_was_signed_is_refused(desk: Desk) -> None:
    """One object more, one fewer, another version of one, another action: nobody agreed to that."""
    desk.asked(BOB, CAROL)
    for objects in ((*LIST, "casino/ledger/c v3"), LIST[:1], (LIST[0], "casino/ledger/b v9"), (*LIST, LIST[1])):
        assert refusal(lambda: desk.consume(objects)) == "approvals.none"  # noqa: B023 - called here
    assert refusal(lambda: desk.approvals().consume(action="erase-subjects", objects=LIST)) == "approvals.none"


def test_another_vault_or_dataset_needs_an_approval_of_its_own(desk: Desk) -> None:
    """What was agreed to of the first region is not agreed to of the second."""
    desk.asked(BOB, CAROL)
    desk.vault.name = "standby"
    assert refusal(desk.consume) == "approvals.none"


def test_one_person_counts_once(desk: Desk) -> None:
    """Signing twice, or asking and signing, is one signature: a second person has to look."""
    desk.asked(ALICE)
    assert refusal(desk.consume) == "approvals.too_few"
    request = desk.approvals().standing()[0].request
    assert desk.approvals().add(sign(request, ALICE)).approvers == ["alice"]
    # Put on record past `add`, as a host that was taken over could:
    record_fact(desk.vault, "ledger", APPROVAL, {"event": "signed", **sign(request, ALICE).to_json()})
    assert refusal(desk.consume) == "approvals.too_few"


def test_only_declared_keys_count_and_only_over_this_request(desk: Desk) -> None:
    """A stranger's key, a host's key, somebody else's name on a signature, a signature on another request: refused."""
    request, other = desk.asked(ALICE), None
    desk.later(1)
    other = desk.approvals().request("expire", LIST[:1], "alice", "less")
    add = desk.approvals().add
    forged = replace(sign(request, MALLORY), public_key=BOB.public_key.hex())
    misplaced = replace(sign(other, BOB), request_id=request.request_id)
    assert refusal(lambda: add(sign(request, MALLORY))) == "approvals.unknown_key"
    assert refusal(lambda: add(forged)) == "approvals.bad_signature"
    assert refusal(lambda: add(misplaced)) == "approvals.bad_signature"
    assert refusal(lambda: add(replace(forged, signature="zz"))) == "approvals.bad_signature"
    assert refusal(lambda: add(Signature("0" * 32, BOB.public_key.hex(), "00"))) == "approvals.unknown_request"
    for laid in (sign(request, MALLORY), forged, misplaced):  # even where they are on record
        record_fact(desk.vault, "ledger", APPROVAL, {"event": "signed", **laid.to_json()})
    assert refusal(desk.consume) == "approvals.too_few"


def test_a_key_that_seals_on_a_host_is_no_person(desk: Desk) -> None:
    """Should an approver's key be a writer's as well, whoever owns that host could agree with himself."""
    request = desk.asked(ALICE)
    desk.vault.trust = Trust({**desk.vault.trust.public_keys, BOB.signer_id: BOB.public_key})
    assert refusal(lambda: desk.approvals().add(sign(request, BOB))) == "approvals.host_key"


def test_an_approval_ends_by_the_stores_clock(desk: Desk) -> None:
    """After its time neither a signature nor its use counts, however the host's own clock is set."""
    request = desk.asked(BOB, CAROL)
    desk.later(73 * 60)
    desk.vault.clock = lambda: datetime(2026, 11, 22, 7, tzinfo=UTC)
    assert refusal(desk.consume) == "approvals.expired"
    assert refusal(lambda: desk.approvals().add(sign(request, ALICE))) == "approvals.expired"


def test_a_request_needs_approvers_a_reason_and_no_more_time_than_declared(desk: Desk) -> None:
    """Nothing to delete, no reason, too long, nobody declared: refused before anything is on record."""
    ask = desk.approvals().request
    assert refusal(lambda: ask("expire", (), "alice", "why")) == "approvals.empty"
    assert refusal(lambda: ask("expire", LIST, "alice", " ")) == "approvals.empty"
    assert refusal(lambda: ask("expire", LIST, "alice", "why", valid_for=timedelta(days=4))) == "approvals.too_long"
    assert refusal(lambda: desk.approvals(None).request("expire", LIST, "alice", "why")) == "approvals.not_declared"
    assert refusal(lambda: desk.consume(rule=None)) == "approvals.not_declared"
    assert not list(facts(desk.vault, "ledger", APPROVAL))


def test_todays_declaration_decides_who_counts(desk: Desk) -> None:
    """An approver who was taken out no longer counts, and more may be needed than when it was signed."""
    desk.asked(BOB, CAROL)
    assert refusal(lambda: desk.consume(rule=replace(RULE, approvers=RULE.approvers[:2]))) == "approvals.too_few"
    assert refusal(lambda: desk.consume(rule=replace(RULE, needed=3))) == "approvals.too_few"
    assert desk.consume()


def test_the_first_of_two_uses_on_record_has_it(desk: Desk) -> None:
    """Two runs that use one approval at the same moment: the later one on record is refused."""
    request = desk.asked(BOB, CAROL)
    approvals = desk.approvals()
    ready = approvals.standing()
    desk.consume()
    approvals.standing = lambda: ready  # type: ignore[method-assign]  # it looked before the other had written
    assert refusal(lambda: approvals.consume(action="expire", objects=LIST)) == "approvals.used"
    assert request.request_id


def test_the_paper_is_what_was_asked_for(desk: Desk) -> None:
    """A file whose list or request was changed on its way to an approver is refused before it is signed."""
    request = desk.asked()
    data = papers(request, LIST)
    assert open_papers(data) == (request, sorted(LIST))
    body = json.loads(data)
    assert refusal(lambda: open_papers(data.replace(b"a v1", b"a v2"))) == "approvals.list_changed"
    for broken in (b"{}", b"[", json.dumps({**body, "approval_request": 2}).encode(), data[:-40]):
        assert refusal(lambda: open_papers(broken)) == "approvals.malformed"  # noqa: B023 - called here
    body["request"]["expires_at"] = "2036-01-01T00:00:00.000000Z"  # another request, which nobody made
    changed, _ = open_papers(json.dumps(body).encode())
    assert refusal(lambda: desk.approvals().add(sign(changed, BOB))) == "approvals.unknown_request"


def test_a_request_that_was_to_hold_for_ever_never_counts(desk: Desk) -> None:
    """The word of its use is looked for as long as a request may hold: one of a host's own making would outlive it."""
    made = desk.asked()
    for_ever = replace(made, expires_at="2099-01-01T00:00:00.000000Z")
    record_fact(desk.vault, "ledger", APPROVAL, {"event": "requested", "request": for_ever.to_json()})
    for signer in (ALICE, BOB):
        desk.later(1)
        record_fact(desk.vault, "ledger", APPROVAL, {"event": "signed", **sign(for_ever, signer).to_json()})
    assert refusal(desk.consume) == "approvals.too_few"
    assert [one.request for one in desk.approvals().standing()] == [made]


def test_an_approver_sees_what_the_request_says_and_nothing_that_plays_with_the_terminal(
    desk: Desk, tmp_path: Path
) -> None:
    """Who asks chooses the reason: it can't wipe a line, turn the text round or add one that looks like ours."""
    request = replace(
        desk.asked(), reason="old\x1b[2K\rfine\nlist: sha256 00\u202e", digest=digest_of("expire", ["a\x1b[1A v1"])
    )
    request = replace(request, objects=1)
    (tmp_path / "request.json").write_bytes(papers(request, ["a\x1b[1A v1"]))
    BOB.save(tmp_path / "bob.pem")
    for words in (["show"], ["sign", "--key", str(tmp_path / "bob.pem")]):
        ran = CliRunner().invoke(app, [*words, str(tmp_path / "request.json")])
        assert ran.exit_code == 0
        assert r"old\x1b[2K\rfine\nlist: sha256 00\u202e" in ran.output
        assert all(line.isprintable() for line in ran.output.splitlines())
