"""Deleting people's keys: approved by m of n, soft first, final after the grace; and taking a soft deletion back.

What belongs here: the order of the steps. What stays out: who approves, and the backups (backup.py).

A deletion is decided by a fact in the vault, then marked in every region. Killed anywhere in between, the fact stands,
and `delete` with the same people, or `finish`, goes on from there without a second approval.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.subjects.backup import held_until, purge
from dr_assets.vault.subjects.history import History, SoftDeletion, read_history, record, times
from dr_assets.vault.subjects.ids import require_subject_id
from dr_assets.vault.subjects.policy import ERASE, Approvals
from dr_assets.vault.subjects.records import Deletion, deletion_name, key_name, parse_deletion, subject_of
from dr_assets.vault.subjects.ring import SubjectRing, no_key
from dr_assets.vault.subjects.shelf import Shelf

DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run of `finish` did: whose marks it completed, who is erased for good, and until when others wait.

    `returned` had been erased before, and a region had the key or lacked the mark again: put back from a copy, say.
    They are erased again. `away` are regions that gave no answer: nobody counts as erased before they did.
    """

    marked: tuple[str, ...]
    erased: tuple[str, ...]
    waiting: tuple[tuple[str, datetime], ...]
    returned: tuple[str, ...] = ()
    away: tuple[str, ...] = ()


def delete(
    ring: SubjectRing, subject_ids: Sequence[str], approvals: Approvals, *, keyless: Collection[str] = ()
) -> datetime:
    """Soft-delete these people's keys in every region; returns when that becomes final.

    `keyless` are those who are known to have no key: they are forgotten too, so that none is made for them later, and
    every restore leaves them out. Raises PolicyError `subjects.mass_deletion`, `subjects.final` (erased before), what
    `approvals` raises; VaultError `subjects.no_key` for anybody else who has none, and those of a region that is away,
    after the others were marked.
    """
    people = sorted({require_subject_id(subject_id) for subject_id in subject_ids})
    now = _now(ring)
    history = read_history(ring.vault, now - DAY)
    new = [subject_id for subject_id in people if subject_id not in history.soft]
    if new:
        _require_few(ring, new, history.deleted_in_a_day)
        for subject_id in new:
            _require_deletable(ring, subject_id, history, keyless)
        approval = approvals.consume(action=ERASE, objects=new)
        now = _now(ring)  # people may have been asked for their approval meanwhile
        record(ring.vault, "deleting", new, **times(now, now + ring.policy.grace, approval))
        ring.decisions.forget()
        history = read_history(ring.vault, now - DAY)
    _mark_everywhere(ring, [history.soft[subject_id] for subject_id in people])
    return max(history.soft[subject_id].final_after for subject_id in people)


def restore(ring: SubjectRing, subject_ids: Sequence[str], reason: str) -> None:
    """Take soft deletions back within the grace. A key that is away is laid back by `backup.recover` afterwards.

    Raises PolicyError `subjects.not_deleted`, `subjects.final`.
    """
    people = sorted({require_subject_id(subject_id) for subject_id in subject_ids})
    now = _now(ring)
    history = read_history(ring.vault, now - DAY)
    for subject_id in people:
        soft = history.soft.get(subject_id)
        if soft is not None and soft.final_after <= now:
            raise PolicyError(
                "subjects.final",
                f"the deletion of {subject_id} became final {soft.final_after:%Y-%m-%d %H:%M}Z",
                "what a person asked to be forgotten for longer than the grace stays forgotten",
            )
        if soft is None and not any(shelf.get(deletion_name(ring.estate, subject_id)) for shelf in ring.shelves):
            raise PolicyError("subjects.not_deleted", f"the key of {subject_id} is not deleted", "nothing to restore")
        if subject_id in history.erased:
            raise PolicyError("subjects.final", f"the key of {subject_id} is erased", "nothing brings it back")
    # The decision first: a run that dies before the marks are gone leaves marks without a decision, and is repeated.
    record(ring.vault, "restored", people, reason=reason)
    ring.decisions.forget()
    for subject_id in people:
        for shelf in ring.shelves:
            shelf.erase(deletion_name(ring.estate, subject_id))


def finish(ring: SubjectRing) -> Finished:
    """Complete what was begun: marks that lack, final deletions whose grace is over, and whoever came back since.

    To be run every day. A person counts as erased once every version is gone from every region and no backup holds the
    key any more; a region that is away keeps nobody's key in the others.
    """
    now = _now(ring)
    history = read_history(ring.vault, now - DAY)
    shelves, away = _answering(ring)
    unmarked = [soft for soft in history.soft.values() if not soft.is_marked]
    _mark(ring, unmarked, shelves, is_everywhere=not away)
    due = sorted((soft for soft in history.soft.values() if soft.final_after <= now), key=lambda soft: soft.subject_id)
    waiting = [(soft.subject_id, soft.final_after) for soft in history.soft.values() if soft.final_after > now]
    kept, silent = purge(ring, now)
    away = tuple(dict.fromkeys((*away, *silent)))
    erased: list[str] = []
    for soft in due:
        for shelf in shelves:
            _erase(ring, soft.subject_id, shelf)
        until = soft.final_after if away else held_until(kept, soft.subject_id, soft.deleted_at)
        if until is None:
            erased.append(soft.subject_id)
        else:
            waiting.append((soft.subject_id, until))
    if erased:
        record(ring.vault, "erased", erased)
        ring.decisions.forget()
    returned = _erase_returned(ring, history, shelves)
    marked = () if away else tuple(soft.subject_id for soft in unmarked)
    return Finished(marked, tuple(erased), tuple(sorted(waiting)), returned, away)


def returned_to(ring: SubjectRing, shelf: Shelf, history: History) -> tuple[str, ...]:
    """Who was erased for good and has a key in this region, or no mark: it was put back from a copy."""
    names = {"key": set[str](), "deletion": set[str]()}
    for name in shelf.names(f"{ring.estate}/"):
        subject = subject_of(name)
        if subject is not None:
            names[subject[1]].add(subject[0])
    return tuple(sorted(who for who in history.gone if who in names["key"] or who not in names["deletion"]))


def _erase_returned(ring: SubjectRing, history: History, shelves: Sequence[Shelf]) -> tuple[str, ...]:
    found: set[str] = set()
    for shelf in shelves:
        for who in returned_to(ring, shelf, history):
            _erase(ring, who, shelf)
            _mark_in(ring, history.gone[who], shelf)
            found.add(who)
    if found:
        record(ring.vault, "erased_again", sorted(found))
    return tuple(sorted(found))


def _answering(ring: SubjectRing) -> tuple[list[Shelf], tuple[str, ...]]:
    """The regions that answer, and the names of those that don't."""
    there: list[Shelf] = []
    away: list[str] = []
    for shelf in ring.shelves:
        try:
            next(iter(shelf.names(f"{ring.estate}/")), None)
        except VaultError as error:
            if error.code not in STORE_AWAY:
                raise
            away.append(shelf.region)
        else:
            there.append(shelf)
    return there, tuple(away)


def _now(ring: SubjectRing) -> datetime:
    """This host's clock, once it was seen to be the store's: a clock set ahead must not end a grace."""
    ring.vault.check_clock()
    return ring.vault.clock()


def _require_few(ring: SubjectRing, new: list[str], in_a_day: int) -> None:
    policy = ring.policy
    if len(new) <= policy.most_at_once and in_a_day + len(new) <= policy.most_a_day:
        return
    record(ring.vault, "refused", new[: policy.most_at_once], asked=len(new), deleted_in_a_day=in_a_day)
    raise PolicyError(
        "subjects.mass_deletion",
        f"{len(new)} keys are to be deleted at once, {in_a_day} were within a day; at most {policy.most_at_once} at"
        f" once and {policy.most_a_day} a day are allowed, approved or not",
        "find out who asks for it: a ring of keys is what an extortionist would delete. If it is right, do it in days",
    )


def has_key(ring: SubjectRing, subject_id: str) -> bool:
    """Whether any region holds a key of this person."""
    return any(shelf.get(key_name(ring.estate, subject_id)) for shelf in ring.shelves)


def _require_deletable(ring: SubjectRing, subject_id: str, history: History, keyless: Collection[str]) -> None:
    """Raise VaultError `subjects.no_key` for somebody whom no region knows: a mistyped id must not look deleted."""
    if subject_id in history.gone:
        raise PolicyError(
            "subjects.final",
            f"{subject_id} is erased already, since {history.gone[subject_id].deleted_at:%Y-%m-%d %H:%M}Z",
            "there is nothing left to delete; `dr-assets erasure status` shows what still has to be replayed",
        )
    if subject_id not in keyless and not any(shelf.get(key_name(ring.estate, subject_id)) for shelf in ring.shelves):
        raise no_key(subject_id)


def _mark_everywhere(ring: SubjectRing, softs: Sequence[SoftDeletion]) -> None:
    """Put the mark in every region that answers, then raise for one that doesn't: the fact stands, `finish` goes on."""
    shelves, away = _answering(ring)
    _mark(ring, softs, shelves, is_everywhere=not away)
    if away:
        raise VaultError(
            "vault.unreachable",
            f"the deletion is decided, but {', '.join(away)} did not answer and may still hold the keys unmarked",
            "`dr-assets keys subjects finish` completes it once that region is back; nobody counts as erased before",
        )


def _mark(ring: SubjectRing, softs: Sequence[SoftDeletion], shelves: Sequence[Shelf], *, is_everywhere: bool) -> None:
    """Put the mark in these regions, read it back; say so once that is all of them."""
    lacking = [soft for soft in softs if not soft.is_marked]
    for soft in lacking:
        for shelf in shelves:
            _mark_in(ring, soft, shelf)
    if lacking and is_everywhere:
        record(ring.vault, "deleted", [soft.subject_id for soft in lacking])


def _mark_in(ring: SubjectRing, soft: SoftDeletion, shelf: Shelf) -> None:
    signer = ring.signer()
    deletion = Deletion(
        ring.estate, soft.subject_id, soft.deleted_at, soft.final_after, soft.approval, signer.signer_id
    )  # fmt: skip
    name = deletion_name(ring.estate, soft.subject_id)
    shelf.put_new(name, deletion.sealed(signer))
    there = shelf.get(name)
    if there is not None:
        found = parse_deletion(there, estate=ring.estate, subject_id=soft.subject_id, trust=ring.vault.trust)
        if replace(found, signer_id=signer.signer_id) == deletion:  # another of ours may have begun it
            return
    raise VaultError(
        "subjects.not_marked",
        f"{shelf.region} holds another mark for {soft.subject_id}, or none",
        "somebody wrote to the store past this program; `dr-assets keys subjects verify` shows where",
    )


def _erase(ring: SubjectRing, subject_id: str, shelf: Shelf) -> None:
    """Remove every version in a region; the mark stays, and says that nothing is missing here."""
    name = key_name(ring.estate, subject_id)
    shelf.erase(name)
    if shelf.versions(name):
        raise VaultError(
            "subjects.not_erased",
            f"the key of {subject_id} is still in {shelf.region}",
            "that bucket keeps versions that were removed: it may be locked; see docs/keys.md, People's keys",
        )
