"""One data key, several providers, several regions: what has to be there before its first use, and who opens it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.vault.keys import refusals
from dr_assets.vault.keys.life.audit import audit
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.keys.provider import WrapContext, Wrapping
from dr_assets.vault.keys.provider_set import Providers
from dr_assets.vault.keys.ring import KeyRing
from dr_assets.vault.keys.wrappings import Replica
from dr_assets.vault.retention import LockRules
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage import Blob, Lock, ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import ThrowawayRetention, throwaway_vault
from dr_assets_tests.faults.vault.sample import StillClock


class Moody(MemoryKeyProvider):
    """Gives no answer while it is `away`; with `wraps_only` it lets nobody unwrap."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.away = self.wraps_only = False
        self.asked = 0

    def wrap(self, secret: bytes, context: WrapContext) -> Wrapping:
        """As the port says."""
        self._answer()
        return super().wrap(secret, context)

    def unwrap(self, wrapping: Wrapping, context: WrapContext) -> bytes:
        """As the port says."""
        self._answer()
        if self.wraps_only:
            raise refusals.refused(self.name, "decrypt is not allowed")
        return super().unwrap(wrapping, context)

    def _answer(self) -> None:
        self.asked += 1
        if self.away:
            raise refusals.unreachable(self.name, "timed out")


@dataclass
class Choice:
    """What facts would say."""

    writing: str | None = None
    retired: set[str] = field(default_factory=set)

    def writing_key_id(self, dataset: str) -> str | None:
        """As the port says."""
        return self.writing if dataset == "ledger" else None

    def retired_keks(self) -> frozenset[str]:
        """As the port says."""
        return frozenset(self.retired)


class Site:
    """A vault's store, another region's, two providers, and rings that open them anew."""

    def __init__(self) -> None:
        self.clock = StillClock()
        self.store, self.second = MemoryStore(self.clock), MemoryStore(self.clock)
        self.signer = Signer.generate()
        self.one, self.two = Moody("kms"), Moody("hsm/standby")
        self.providers = Providers.of(self.one, self.two)
        self.choice = Choice()
        self.second_is_away = False

    def ring(self, **other: Any) -> KeyRing:
        """Opened anew, as after a restart."""
        given: dict[str, Any] = {
            "store": self.store,
            "estate": "casino",
            "providers": self.providers,
            "trust": Trust.of(self.signer),
            "signer": self.signer,
            "locks": LockRules({"ledger": (ThrowawayRetention(), timedelta(days=1))}),
            "clock": self.clock,
            "replicas": self.replicas,
            "choice": self.choice,
        }
        return KeyRing(**(given | other))

    def replicas(self, _dataset: str) -> Sequence[Replica]:
        """The second region, unless it is away."""
        return [Replica("standby", self.open_second)]

    def open_second(self) -> ObjectStore:
        """Its store."""
        if self.second_is_away:
            raise VaultError("vault.unreachable", "standby does not answer", "look")
        return self.second

    def names(self, store: MemoryStore) -> set[str]:
        """What key objects a store holds."""
        return {row.key for row in store.list_versions("casino/ledger/keys/")}


@pytest.fixture
def site() -> Site:
    """Two regions, two providers, no key yet."""
    return Site()


def refusal(attempt: Callable[[], object]) -> DrError:
    """Why not."""
    with pytest.raises(DrError) as caught:
        attempt()
    return caught.value


def test_a_new_key_is_wrapped_by_every_provider_in_every_region_before_its_first_use(site: Site) -> None:
    """Two wrappings of one generation under names of their own, the same bytes in both regions."""
    ring = site.ring()
    key = ring.for_writing("ledger")
    assert len(site.names(site.store)) == 2
    assert site.names(site.store) == site.names(site.second)
    held = [held for _, held in ring.wrappings("ledger")]
    assert {one.provider for one in held} == {"kms", "hsm/standby"}
    assert {one.context.generation for one in held} == {1}
    assert {one.context.key_id for one in held} == {key.key_id}


@pytest.mark.parametrize("dead", ["one", "two"])
def test_either_provider_alone_opens_what_both_wrapped(site: Site, dead: str) -> None:
    """The first region's key service is gone, the second one lives; and the other way round."""
    key = site.ring().for_writing("ledger")
    setattr(getattr(site, dead), "away", True)  # noqa: B010 - which of the two is the parameter
    again = site.ring()
    assert again.for_writing("ledger") == key
    assert site.ring().by_id("ledger", key.key_id) == key
    alive = site.two if dead == "one" else site.one
    assert site.ring(providers=Providers.of(alive)).by_id("ledger", key.key_id) == key


def test_a_second_region_opens_with_its_own_provider_alone(site: Site) -> None:
    """First store gone, first provider gone: what the second region holds is enough."""
    key = site.ring().for_writing("ledger")
    there = site.ring(store=site.second, providers=Providers.of(site.two), replicas=lambda _: (), signer=None)
    assert there.by_id("ledger", key.key_id) == key


def test_no_answer_is_told_apart_from_a_wrong_key(site: Site) -> None:
    """Unreachable says nothing of the key; a provider that answers and can't open it does."""
    key = site.ring().for_writing("ledger")
    site.one.away = site.two.away = True
    assert refusal(lambda: site.ring().by_id("ledger", key.key_id)).code == "keys.unreachable"
    strangers = Providers.of(Moody("kms"), Moody("hsm/standby"))
    assert refusal(lambda: site.ring(providers=strangers).by_id("ledger", key.key_id)).code == "vault.wrong_key"
    half = Providers.of(site.one, Moody("hsm/standby"))
    assert refusal(lambda: site.ring(providers=half).by_id("ledger", key.key_id)).code == "keys.unreachable"
    unknown = refusal(lambda: site.ring(providers=Providers.of(Moody("other"))).by_id("ledger", key.key_id))
    assert unknown.code == "vault.wrong_key"
    assert "declared is other" in unknown.found


def test_a_renamed_provider_still_opens_what_it_wrapped(site: Site) -> None:
    """Its kind is what counts when no provider has the old name."""
    key = site.ring().for_writing("ledger")
    site.two.name = "hsm"
    assert site.ring(providers=Providers.of(site.two)).by_id("ledger", key.key_id) == key


def test_a_provider_that_gave_no_answer_is_asked_last_from_then_on(site: Site) -> None:
    """A dead one costs its time-out once, not for every key."""
    ring = site.ring(replicas=lambda _: ())
    keys = [ring.for_writing("ledger")]
    keys += [site.ring(store=site.store, replicas=lambda _: ())._made("ledger").data_key for _ in range(16)]
    site.one.away = site.two.away = False
    site.one.asked, site.one.away = 0, True
    fresh = site.ring()
    assert [fresh.by_id("ledger", key.key_id) for key in keys] == keys
    assert site.one.asked <= 1


@pytest.mark.parametrize("away", ["provider", "region"])
def test_no_new_key_while_a_provider_or_a_region_is_away_but_keys_in_use_go_on(site: Site, away: str) -> None:
    """The refusal names who is away; nothing is left in the vault's own store; afterwards it works."""
    if away == "provider":
        site.two.away = True
    else:
        site.second_is_away = True
    refused = refusal(lambda: site.ring().for_writing("ledger"))
    assert refused.code == "keys.not_everywhere"
    assert "standby" in refused.found
    assert site.names(site.store) == set()
    site.two.away = site.second_is_away = False
    key = site.ring().for_writing("ledger")
    if away == "provider":
        site.two.away = True
    else:
        site.second_is_away = True
    going_on = site.ring()
    assert going_on.for_writing("ledger") == key
    going_on.settle()


def test_a_region_that_loses_what_it_took_gets_no_new_key(site: Site) -> None:
    """Each wrapping is read back there before the vault's own store has it."""

    class Forgetful(MemoryStore):
        """Gives other bytes back than it took."""

        def get(self, key: str, version_id: str | None = None, *, limit_bytes: int | None = None) -> Blob:
            """Nothing that was put."""
            raise VaultError("vault.missing", f"{key} {version_id} is gone ({limit_bytes})", "look")

    site.second = Forgetful(site.clock)
    assert refusal(lambda: site.ring().for_writing("ledger")).code == "keys.not_everywhere"
    assert site.names(site.store) == set()


def test_a_provider_and_a_region_declared_later_get_their_wrappings(site: Site) -> None:
    """Beside the writer, which doesn't wait; who is away then is told in `trouble`, asked again later."""
    key = site.ring(providers=Providers.of(site.one), replicas=lambda _: ()).for_writing("ledger")
    assert len(site.names(site.store)) == 1
    site.second_is_away = True
    ring = site.ring()
    assert ring.for_writing("ledger") == key
    ring.settle()
    assert ring.trouble["ledger"].code == "keys.not_everywhere"
    site.second_is_away = False
    ring = site.ring()
    assert ring.for_writing("ledger") == key
    ring.settle()
    assert "ledger" not in ring.trouble
    assert len(site.names(site.store)) == 2
    assert site.names(site.store) == site.names(site.second)


def test_completing_twice_changes_nothing(site: Site) -> None:
    """Nor does it put a second wrapping by the same key-encryption key."""
    ring = site.ring()
    key = ring.for_writing("ledger")
    before = site.names(site.store) | site.names(site.second)
    assert len(ring.complete("ledger", key.key_id)) == 2
    assert site.names(site.store) | site.names(site.second) == before


def test_a_dataset_may_choose_its_providers(site: Site) -> None:
    """The others get no wrapping of it: a subset is as closed as its own weakest."""
    chosen = Providers((site.one, site.two), {"ledger": ("hsm/standby",)})
    ring = site.ring(providers=chosen)
    ring.for_writing("ledger")
    assert [held.provider for _, held in ring.wrappings("ledger")] == ["hsm/standby"]


def test_a_wrapping_that_one_provider_cannot_open_stops_a_new_key(site: Site) -> None:
    """Each is unwrapped once before the key seals anything; who may wrap only is believed beside one who opens."""
    site.two.wraps_only = True
    assert site.ring().for_writing("ledger")
    other = Site()
    other.one.wraps_only = other.two.wraps_only = True
    assert refusal(lambda: other.ring().for_writing("ledger")).code == "keys.refused"


def test_nothing_is_wrapped_or_written_under_a_retired_key(site: Site) -> None:
    """Neither a new key, nor one that lies open to whoever took the retired one."""
    site.choice.retired.add(site.one.kek_id)
    assert refusal(lambda: site.ring().for_writing("ledger")).code == "keys.kek_retired"
    site.choice.retired.clear()
    site.ring().for_writing("ledger")
    site.choice.retired.add(site.two.kek_id)
    refused = refusal(lambda: site.ring().for_writing("ledger"))
    assert isinstance(refused, PolicyError)
    assert "keys rotate" in refused.hint


def test_a_newer_key_is_taken_up_beside_the_writer(site: Site) -> None:
    """The writer gets the old key at once and the new one later; the choice is asked anew by take_up too."""
    ring = site.ring(take_up_s=-1.0)
    old = ring.for_writing("ledger")
    new = site.ring()._made("ledger").data_key
    site.choice.writing = new.key_id
    assert ring.for_writing("ledger") == old
    ring.settle()
    assert ring.for_writing("ledger") == new
    other = site.ring()
    assert other.for_writing("ledger") == new
    site.choice.writing = old.key_id
    assert other.take_up("ledger") == old


def test_a_failed_look_for_a_newer_key_is_kept_as_trouble(site: Site) -> None:
    """And the writer goes on with what it has."""
    ring = site.ring(take_up_s=-1.0)
    old = ring.for_writing("ledger")
    site.choice.writing = "ab" * 16
    assert ring.for_writing("ledger") == old
    ring.settle()
    assert ring.trouble["ledger"].code == ring.stale["ledger"].code == "vault.no_key"
    assert ring.for_writing("ledger") == old
    ring.settle()
    site.choice.writing = None
    assert ring.for_writing("ledger") == old
    ring.settle()
    assert ring.stale == {}


def test_a_writer_that_may_not_extend_goes_on_while_its_key_outlives_what_it_seals(site: Site) -> None:
    """And stops before anything could be sealed that its key wouldn't outlive."""

    class Strict(MemoryStore):
        """Lets nobody lengthen a lock."""

        def extend(self, key: str, version_id: str, lock: Lock) -> None:
            """Refuse."""
            found = f"{key} {version_id} until {lock.retain_until}: not yours to extend"
            raise VaultError("vault.refused_credentials", found, "ask the roller")

    site.store = Strict(site.clock)
    ring = site.ring(replicas=lambda _: ())
    key = ring.for_writing("ledger")
    length = site.ring()._locks.length("ledger", "key")
    site.clock.at += length * 6 / 10
    assert ring.for_writing("ledger") == key
    site.clock.at += length * 39 / 100
    assert refusal(lambda: ring.for_writing("ledger")).code == "vault.refused_credentials"


def test_every_wrapping_in_use_is_renewed(site: Site) -> None:
    """Not just the one that was opened: the other provider's must live as long."""
    ring = site.ring(replicas=lambda _: ())
    ring.for_writing("ledger")
    site.clock.at += site.ring()._locks.length("ledger", "key") * 2 / 3
    ring.for_writing("ledger")

    def until(name: str) -> datetime:
        head = site.store.head(name)
        assert head is not None
        assert head.lock is not None
        return head.lock.retain_until

    needed = site.clock.at + site.ring()._locks.length("ledger", "key")
    assert all(until(name) >= needed for name in site.names(site.store))


def test_what_lies_on_top_of_a_wrapping_in_another_region_changes_nothing(site: Site) -> None:
    """Behind a delete marker it is there all the same; rubbish in the place of one that lacks is none."""
    vault = throwaway_vault(store=site.store, signer=site.signer, clock=site.clock)
    vault.keys = site.ring()
    vault.keys.for_writing("ledger")
    vault.keys.settle()
    first, second = sorted(site.names(site.second))
    site.second.add(first, None)
    assert audit(vault, timedelta(days=90)).elsewhere == ()
    del site.second.rows[second]
    site.second.add(second, b"rubbish")
    assert audit(vault, timedelta(days=90)).elsewhere == (f"{second} in standby",)
