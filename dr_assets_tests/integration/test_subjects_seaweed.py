"""People's keys over two real regions: declared, made, destroyed past the program, laid back, deleted, forgotten."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dr_assets.engines.programs import Programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.estate.model import Subjects
from dr_assets.vault.connect import init_vault
from dr_assets.vault.subjects.backup import back_up, recover
from dr_assets.vault.subjects.connect import init_ring, open_ring, subject_ids
from dr_assets.vault.subjects.deletion import delete, finish, restore
from dr_assets.vault.subjects.look import look
from dr_assets.vault.subjects.policy import ErasurePolicy
from dr_assets.vault.subjects.records import deletion_name, key_name
from dr_assets.vault.subjects.ring import SubjectRing
from dr_assets.vault.subjects.s3_shelf import S3Shelf

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vault-seaweed")]

SHORT = ErasurePolicy(timedelta(seconds=20))  # a backup has to be put before its lock is over


class Agreed:
    """Approvals of whatever is asked."""

    def consume(self, *, action: str, objects: Sequence[str]) -> str:
        """Agree."""
        return f"{action}-{len(objects)}"


@pytest.fixture
def other(engine_dir: Path, weed_programs: Programs) -> Iterator[SeaweedRegion]:
    """A second region, of this test's own: it is killed."""
    with SeaweedRegion(engine_dir / "other", "other", weed_programs) as server:
        server.start()
        yield server


@pytest.fixture
def opened(
    region: SeaweedRegion, other: SeaweedRegion, bucket: Callable[..., str], tmp_path: Path
) -> Callable[[], SubjectRing]:
    """The packaged estate's ring, as a new process opens it."""
    keys = bucket() + "-keys"
    estate = load_estate(default_defs_dir()).only("ledger")
    places = {name: replace(place, bucket=keys.removesuffix("-keys")) for name, place in estate.vaults.items()}
    subjects = Subjects(("primary", "standby"), keys, "DR_SUBJECT_ID_KEY")
    estate = replace(estate, vaults=places, subjects=subjects)
    env = {
        "DR_KEYS_DIR": str(tmp_path / "keys"),
        "DR_TRUST_FILE": str(tmp_path / "trust.json"),
        "DR_SIGNING_KEY": str(tmp_path / "signing.pem"),
        "DR_SUBJECT_ID_KEY": str(tmp_path / "subject-ids.hex"),
    }
    for name, server in (("PRIMARY", region), ("STANDBY", other)):
        env[f"DR_VAULT_{name}_ENDPOINT"] = server.endpoint
        env[f"DR_VAULT_{name}_ACCESS_KEY"] = server.access_key
        env[f"DR_VAULT_{name}_SECRET_KEY"] = server.secret_key
    for name in places:
        init_vault(estate, name, env)
    assert any("created" in line for line in init_ring(estate, env))
    assert not any("key of subject ids" in line for line in init_ring(estate, env))
    assert subject_ids(estate, env).of("anna@example.com") != "anna@example.com"
    return lambda: open_ring(estate, env)


@pytest.mark.slow
def test_the_whole_life_of_peoples_keys_over_two_regions(
    opened: Callable[[], SubjectRing], other: SeaweedRegion
) -> None:
    """Made in both, opened from one, destroyed with the owner's rights and laid back, deleted, restored, forgotten."""
    people = [f"{number:032x}" for number in range(3)]
    first = opened()
    keys = {who: first.key_for_sealing(who) for who in people}
    ring = opened()
    for shelf in ring.shelves:
        assert len(list(shelf.names("casino/"))) == len(people)

    back_up(replace(ring, policy=SHORT))
    for shelf in ring.shelves:
        assert isinstance(shelf, S3Shelf)
        shelf.client.delete_object(Bucket=shelf.bucket, Key=key_name("casino", people[0]))
        shelf.erase(key_name("casino", people[1]))
    with pytest.raises(VaultError, match=r"subjects\.vanished"):
        ring.key_for_sealing(people[0])
    assert look(ring).vanished == tuple(people[:2])
    assert recover(ring) == tuple(people[:2])
    assert {who: ring.key_of(who) for who in people} == keys
    assert look(ring).ok

    delete(ring, people[:2], Agreed())
    with pytest.raises(PolicyError, match=r"subjects\.deleted"):
        ring.key_of(people[0])
    assert finish(ring).erased == ()
    restore(ring, people[:2], "the wrong ones")
    assert ring.key_of(people[1]) == keys[people[1]]

    hasty = replace(ring, policy=SHORT)
    last = delete(hasty, people[:1], Agreed())
    while finish(hasty).erased != (people[0],):
        assert ring.vault.clock() < last + timedelta(seconds=120), "the grace never ended"
        time.sleep(0.5)
    assert ring.vault.clock() >= last
    for shelf in ring.shelves:
        assert shelf.versions(key_name("casino", people[0])) == []
        assert shelf.get(deletion_name("casino", people[0])) is not None
    for vault in ring.vaults:
        assert not list(vault.objects("subjects", "ring"))

    other.kill()
    assert ring.key_of(people[2]) == keys[people[2]]
    with pytest.raises(VaultError, match=r"vault\.unreachable"):
        ring.key_for_sealing("f" * 32)


def test_a_locked_bucket_is_no_place_for_keys_that_must_go(region: SeaweedRegion, bucket: Callable[..., str]) -> None:
    """Object Lock, or no versioning: refused in words, since a deletion there would be a lie or for ever."""
    for name in (bucket(object_lock=True), bucket(object_lock=False)):
        with pytest.raises(PolicyError, match=r"subjects\.bucket_unfit"):
            S3Shelf(region.client(), name, "primary").require_fit()
