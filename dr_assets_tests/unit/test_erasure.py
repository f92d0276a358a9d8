"""A person asks to be forgotten: weighed, agreed to, carried out, certified; and how far each erasure has come."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dr_assets.estate.approvals import ApprovalRule, Approver
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.estate.model import Regime, Subjects
from dr_assets.estate.regimes import shipped_regimes
from dr_assets.proving.relationships import relationships
from dr_assets.vault.approvals import Approvals, sign
from dr_assets.vault.erasure import holds
from dr_assets.vault.erasure.certificate import issue, newest, open_certificate
from dr_assets.vault.erasure.daily import daily
from dr_assets.vault.erasure.law import (
    Opposition,
    Relationship,
    duties,
    opposed_by_duty,
    require_ground,
    require_unopposed,
)
from dr_assets.vault.erasure.requests import Erasure, ask, execute, find, require_anonymous
from dr_assets.vault.erasure.standing import ErasureStanding, Replay, standing
from dr_assets.vault.facts import facts
from dr_assets.vault.retention.holds import place_hold
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.subjects.deletion import restore
from dr_assets.vault.subjects.look import look
from dr_assets.vault.subjects.records import key_name
from dr_assets.vault.verify import verify
from dr_assets_tests.unit.test_subject_ring import ANNA, BORIS, GRACE, IDS, World

AML = Regime("aml", 1827, "compliance", "the law, article 40", opposes_erasure=True)
ESTATE = replace(load_estate(default_defs_dir()), name="casino")
ENDED = {ANNA: Relationship(datetime(2010, 1, 1, tzinfo=UTC), "a file")}


@dataclass
class Office:
    """A world with two approvers, of whom both have to sign."""

    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        self.signers = [Signer.generate(), Signer.generate()]
        people = tuple(Approver(f"a{number}", one.public_key.hex()) for number, one in enumerate(self.signers))
        self.rule = ApprovalRule(people, 2, timedelta(hours=72))
        self.estate = replace(ESTATE, approvals=self.rule)
        self.approvals = Approvals(self.world.vault, "subjects", self.rule)

    def ask(self, people: Sequence[str] = (ANNA,), opposed: Sequence[Opposition] = (), **more: bool) -> Erasure:
        """Ask for it; nothing is signed yet."""
        erasure, self.asked = ask(
            self.world.ring,
            self.approvals,
            people,
            ground="art17_1_a",
            reason="case 17",
            requester="dpo",
            relationships=ENDED,
            oppositions=opposed,
            **more,
        )
        return erasure

    def agree(self, count: int = 2) -> None:
        """So many approvers sign."""
        for one in self.signers[:count]:
            self.approvals.add(sign(self.asked, one))

    def execute(self, erasure: Erasure, opposed: Sequence[Opposition] = ()) -> datetime:
        """Carry it out."""
        return execute(self.world.ring, self.approvals, erasure, opposed)

    def standing(self, **replays: Replay | None) -> ErasureStanding:
        """The newest erasure."""
        return standing(self.world.vault, self.rule, replays, self.world.clock())[-1]


def test_an_erasure_needs_agreement_to_exactly_these_people_and_is_certified() -> None:
    """One signature is too few; two destroy the key; the certificate says what, when, by whom; verify stays green."""
    office = Office()
    ring = office.world.ring
    for who in (ANNA, BORIS):
        ring.key_for_sealing(who)
    erasure = office.ask()
    assert office.standing().state == "requested"
    office.agree(1)
    with pytest.raises(PolicyError, match=r"approvals\.too_few"):
        office.execute(erasure)
    assert ring.key_of(ANNA)
    office.agree()
    assert office.standing().state == "approved"
    final_after = office.execute(erasure)
    assert final_after == office.world.clock() + GRACE
    with pytest.raises(PolicyError, match=r"subjects\.deleted"):
        ring.key_of(ANNA)
    assert ring.key_of(BORIS)
    assert office.execute(erasure) == final_after  # killed and run again: no second approval
    data = issue(ring, office.estate, erasure, ["ledger"])
    assert newest(ring.vault, erasure.erasure_id) == data
    said = open_certificate(data, Trust.of(office.world.signer))
    assert (said["state"], said["subjects"], said["approved_by"]) == ("soft", [ANNA], ["a0", "a1"])
    assert said["still_to_be_replayed"] == ["ledger"]
    assert str(said["destroyed"]["what"]).startswith("nothing yet")  # type: ignore[index, call-overload]
    assert said["destroyed"]["regions"] == ["primary", "standby"]  # type: ignore[index, call-overload]
    assert verify(ring.vault).findings == ()
    assert look(ring).ok


def test_a_certificate_is_believed_only_as_it_was_signed() -> None:
    """Another signer's, an altered one, something else in an envelope: refused; no vault is asked."""
    office = Office()
    office.world.ring.key_for_sealing(ANNA)
    erasure = office.ask()
    with pytest.raises(PolicyError, match=r"erasure\.not_executed"):
        issue(office.world.ring, office.estate, erasure, [])
    office.agree()
    office.execute(erasure)
    data = issue(office.world.ring, office.estate, erasure, [])
    with pytest.raises(VaultError):
        open_certificate(data, Trust.of(Signer.generate()))
    body = json.loads(data)
    body["payload"] = body["payload"][:-8] + "AAAAAAA="
    with pytest.raises(VaultError):
        open_certificate(json.dumps(body).encode(), Trust.of(office.world.signer))
    with pytest.raises(VaultError):
        open_certificate(b"{}", Trust.of(office.world.signer))


def test_a_duty_to_keep_refuses_until_its_days_are_over() -> None:
    """Counted from the end of the relationship; while it lasts or nobody knows, there is no end; each rule is named."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    ended = Relationship(now - timedelta(days=1826), "the ledger")
    (found,) = opposed_by_duty({"aml": AML}, [ANNA], {ANNA: ended}, now)
    assert (found.rule, found.until, found.source) == (
        "retention duty aml",
        now + timedelta(days=1),
        "the law, article 40",
    )
    assert opposed_by_duty({"aml": AML}, [ANNA], {ANNA: ended}, now + timedelta(days=1)) == []
    for known in ({}, {ANNA: Relationship(None, "the ledger")}):
        (found,) = opposed_by_duty({"aml": AML}, [ANNA], known, now)
        assert found.until is None
        with pytest.raises(PolicyError, match=r"retention duty aml.*article 40") as caught:
            require_unopposed([found])
        assert caught.value.code == "erasure.opposed"


def test_the_duties_are_those_of_the_estates_regimes() -> None:
    """Shipped as data: knowing one's customer opposes, keeping books doesn't; only what a dataset names counts."""
    shipped = shipped_regimes()
    assert {name for name, regime in shipped.items() if regime.opposes_erasure} == {
        "eu_aml", "eu_aml_extended", "mt_pmlftr", "uk_mlr", "us_bsa",
    }  # fmt: skip
    ledger = ESTATE.postgres()["ledger"]
    kept = replace(ledger.retention, regimes=(shipped["eu_aml"], shipped["de_gobd"]))
    assert duties([replace(ledger, retention=kept)]).keys() == {"eu_aml"}
    assert duties([replace(ledger, retention=replace(kept, regimes=()))]) == {}


def test_a_refusal_is_on_record_and_nothing_was_asked_for() -> None:
    """With the rule and its end, for the answer to the person; no approval is open for it."""
    office = Office()
    office.world.ring.key_for_sealing(ANNA)
    opposed = opposed_by_duty({"aml": AML}, [ANNA], {}, office.world.clock())
    with pytest.raises(PolicyError, match=r"erasure\.opposed"):
        office.ask(opposed=opposed)
    (fact,) = facts(office.world.vault, "vault", "erasure")
    assert fact.body["event"] == "refused"
    assert fact.body["rules"] == [opposed[0].to_json()]
    assert office.approvals.standing() == []


def test_a_hold_that_came_after_the_approval_refuses_too() -> None:
    """On the person or on a dataset with documents; released or over, it opposes nothing."""
    office = Office()
    vault = office.world.vault
    office.world.ring.key_for_sealing(ANNA)
    erasure = office.ask()
    office.agree()
    held = holds.place(vault, [ANNA], reason="case 4711", placed_by="legal")
    passing = holds.place(
        vault, [ANNA, BORIS], reason="payout", placed_by="legal", until=office.world.clock() + timedelta(days=1)
    )
    legal, _ = place_hold(vault, "ledger", reason="the court", placed_by="legal")

    def opposed() -> list[Opposition]:
        found = holds.opposed_by_hold(holds.in_force(vault, office.world.clock()), erasure.subjects)
        return found + holds.opposed_by_legal_hold({"ledger": vault}, erasure.subjects)

    with pytest.raises(PolicyError, match=r"case 4711.*payout.*the court"):
        office.execute(erasure, opposed())
    assert office.world.ring.key_of(ANNA)
    office.world.after(timedelta(days=1, seconds=1))
    assert {one.rule for one in opposed()} == {
        f"hold {held.hold_id} on the person",
        f"legal hold {legal.hold_id} on ledger",
    }
    holds.release(vault, held.hold_id, reason="closed", released_by="legal")
    assert passing.hold_id in {one.hold_id for one in holds.in_force(vault, None)}
    with pytest.raises(PolicyError, match=r"hold\.unknown"):
        holds.release(vault, held.hold_id, reason="again", released_by="legal")
    assert [one.rule for one in opposed()] == [f"legal hold {legal.hold_id} on ledger"]


def test_how_far_an_erasure_is_follows_from_what_is_on_record() -> None:
    """Requested, lapsed; taken back; soft, unreplayed, still known; overdue; final, certified anew by the daily run."""
    office = Office()
    ring = office.world.ring
    ring.key_for_sealing(ANNA)
    lapsed = office.ask()
    office.world.after(timedelta(hours=73))
    assert office.standing().state == "lapsed"
    with pytest.raises(PolicyError, match=r"approvals\.expired"):
        office.execute(lapsed)
    taken = office.ask()
    office.agree()
    office.execute(taken)
    restore(ring, [ANNA], "the wrong one")
    assert office.standing().state == "taken_back"
    office.world.after(timedelta(seconds=1))
    erasure = office.ask()
    office.agree()
    office.execute(erasure)
    decided_at = office.standing().decided_at
    assert decided_at is not None
    before, after = Replay(decided_at - timedelta(seconds=1)), Replay(decided_at, known_after=1)
    assert office.standing(ledger=None, crm=before).unreplayed == ("crm", "ledger")
    seen = office.standing(ledger=after)
    assert (seen.state, seen.unreplayed, seen.still_known) == ("soft", (), ("ledger",))
    office.world.after(GRACE + timedelta(days=3))
    assert office.standing().state == "overdue"
    done = daily(ring, office.estate, {})
    assert done.troubles == ()
    assert done.ok
    assert done.certified == (erasure.erasure_id,)
    assert office.standing().state == "final"
    said = open_certificate(newest(ring.vault, erasure.erasure_id) or b"", ring.vault.trust)
    assert said["state"] == "final"
    assert "in every version" in str(said["destroyed"]["what"])  # type: ignore[index, call-overload]
    assert daily(ring, office.estate, {}).certified == ()
    assert find(ring.vault, erasure.erasure_id[:8]).erasure_id == erasure.erasure_id
    with pytest.raises(PolicyError, match=r"erasure\.unknown"):
        find(ring.vault, "zzz")


def test_one_step_of_the_day_that_fails_keeps_no_other_from_being_done() -> None:
    """Keys that can't be wrapped anew are told, and whoever is due is erased all the same."""
    office = Office()
    ring = office.world.ring
    ring.key_for_sealing(ANNA)
    erasure = office.ask()
    office.agree()
    office.execute(erasure)
    office.world.after(GRACE + timedelta(seconds=1))
    for shelf in office.world.shelves:
        shelf.put_new(key_name("casino", BORIS), b"rubbish")
    done = daily(ring, office.estate, {})
    assert done.finished is not None
    assert done.finished.erased == (ANNA,)
    assert any(one.startswith("rewrap: vault.malformed") for one in done.troubles)
    assert not done.ok


def test_somebody_without_documents_is_erased_only_when_that_is_meant() -> None:
    """A mistyped identifier is refused; said so, the person is erased from every restore from then on."""
    office = Office()
    with pytest.raises(VaultError, match=r"subjects\.no_key"):
        office.ask()
    erasure = office.ask(may_lack_key=True)
    office.agree()
    office.execute(erasure)
    said = open_certificate(issue(office.world.ring, office.estate, erasure, []), office.world.vault.trust)
    assert said["destroyed"]["without_documents"] == [ANNA]  # type: ignore[index, call-overload]
    with pytest.raises(PolicyError, match=r"subjects\.final"):
        office.ask(may_lack_key=True)


def test_a_ground_is_one_of_the_laws_and_a_reason_names_nobody() -> None:
    """What goes on record for years is checked before it does."""
    assert require_ground("art17_1_b")
    with pytest.raises(PolicyError, match=r"erasure\.no_ground"):
        require_ground("because")
    require_anonymous("case 17", ["anna@example.com", "17"])
    with pytest.raises(PolicyError, match=r"erasure\.names_somebody") as caught:
        require_anonymous("for Anna@Example.com", ["anna@example.com"])
    assert "example" not in str(caught.value)


def test_ends_of_relationships_come_from_a_file(tmp_path: Path) -> None:
    """The latest end counts, none at all while it lasts for one; what is no such file is refused without its lines."""
    ring = Subjects(("primary", "standby"), "keys", "DR_SUBJECT_ID_KEY", relationships_env="DR_ENDS")
    estate = replace(ESTATE, datasets={}, subjects=ring)
    path = tmp_path / "ends.csv"
    env = {"DR_ENDS": str(path)}
    path.write_text(
        "personal_id,ended_at\nanna@example.com,2020-01-01\nanna@example.com,2021-06-01T00:00:00+02:00\n"
        "boris@example.com,2020-01-01\nboris@example.com,\nsomebody,2020-01-01\n"
    )
    found = relationships(estate, IDS, frozenset({ANNA, BORIS}), env)
    assert found.keys() == {ANNA, BORIS}
    assert found[ANNA].ended_at == datetime(2021, 5, 31, 22, tzinfo=UTC)
    assert found[BORIS].ended_at is None
    assert found[ANNA].source == "file ends.csv"
    for text in ("", "name,when\n", "personal_id,ended_at\nanna@example.com,soon\n", "personal_id,ended_at\nanna\n"):
        path.write_text(text)
        with pytest.raises(PolicyError, match=r"erasure\.relationships") as caught:
            relationships(estate, IDS, frozenset({ANNA}), env)
        assert "anna" not in str(caught.value)
    path.unlink()
    with pytest.raises(PolicyError, match=r"erasure\.relationships"):
        relationships(estate, IDS, frozenset({ANNA}), env)
