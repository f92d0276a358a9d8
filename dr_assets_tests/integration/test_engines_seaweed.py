"""Throwaway S3 regions with Object Lock, for real."""

import datetime as dt
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from dr_assets.engines import seaweed
from dr_assets.engines.errors import EngineError
from dr_assets.engines.ports import LOOPBACK
from dr_assets.engines.programs import Programs
from dr_assets.engines.seaweed import FilerSync, SeaweedRegion
from dr_assets.engines.waiting import wait_until

pytestmark = pytest.mark.integration


def put_locked(region: SeaweedRegion, bucket: str, key: str, body: bytes, days: int = 2) -> tuple[str, dt.datetime]:
    """Store an object under a compliance lock; its version and how long it is locked."""
    until = (dt.datetime.now(dt.UTC) + dt.timedelta(days=days)).replace(microsecond=0)
    answer = region.client().put_object(
        Bucket=bucket,
        Key=key,
        Body=body,
        ChecksumAlgorithm="SHA256",
        ObjectLockMode="COMPLIANCE",
        ObjectLockRetainUntilDate=until,
    )
    return answer["VersionId"], until


def assert_locked(region: SeaweedRegion, bucket: str, key: str, version: str, until: dt.datetime) -> None:
    """The version says it is locked until then, and a delete of it is refused."""
    client = region.client()
    head = client.head_object(Bucket=bucket, Key=key, VersionId=version)
    assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]) == ("COMPLIANCE", until)
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket=bucket, Key=key, VersionId=version)
    assert client.get_object(Bucket=bucket, Key=key, VersionId=version)["Body"].read()


@pytest.fixture(scope="module")
def pair(engines_dir: Path, weed_programs: Programs) -> Iterator[tuple[SeaweedRegion, SeaweedRegion]]:
    """Two regions of this module's own, which its tests may kill."""
    with (
        SeaweedRegion(engines_dir / "near", "near", weed_programs) as near,
        SeaweedRegion(engines_dir / "far", "far", weed_programs) as far,
    ):
        near.start()
        far.start()
        yield near, far


def test_a_locked_version_cannot_be_deleted(region: SeaweedRegion, bucket: Callable[..., str]) -> None:
    """Object Lock round trip: the lock is read back, a delete and a shorter lock are refused, a longer one is taken."""
    name, client = bucket(), region.client()
    version, until = put_locked(region, name, "key", b"money")
    assert_locked(region, name, "key", version, until)

    def relock(days: int) -> dt.datetime:
        later = until + dt.timedelta(days=days)
        client.put_object_retention(
            Bucket=name, Key="key", VersionId=version, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": later}
        )
        return later

    with pytest.raises(ClientError, match="AccessDenied"):
        relock(-1)
    assert_locked(region, name, "key", version, relock(1))


def test_everything_listens_on_loopback_only(region: SeaweedRegion, requires: Callable[..., None]) -> None:
    """The filer's and master's ports know no users, so none of the server's sockets may be reachable from outside."""
    requires("ss")

    def addresses() -> list[str]:
        printed = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout  # noqa: S607 - checked
        return [line.split()[3] for line in printed.splitlines() if f"pid={region.pid}," in line]

    wait_until(lambda: len(addresses()) >= len(region.ports), timeout_s=180, what="every port", every_s=0.1)
    assert sorted(addresses()) == sorted(f"127.0.0.1:{port}" for port in region.ports.values())


def test_a_wrong_key_is_refused(region: SeaweedRegion, bucket: Callable[..., str]) -> None:
    """The S3 door knows its users: another secret gets nothing."""
    name = bucket()
    import boto3  # noqa: PLC0415 - only this test makes a client of its own

    stranger = boto3.client(
        "s3",
        endpoint_url=region.endpoint,
        aws_access_key_id=region.access_key,
        aws_secret_access_key="wrong",
        region_name="us-east-1",
    )
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.list_objects_v2(Bucket=name)


def test_acknowledged_objects_survive_a_kill(pair: tuple[SeaweedRegion, SeaweedRegion]) -> None:
    """After SIGKILL the region starts again on the same ports with every object, still locked."""
    near, endpoint = pair[0], pair[0].endpoint
    near.create_bucket("survives")
    stored = {f"k{n}": put_locked(near, "survives", f"k{n}", b"x" * n * 1000 + b"!") for n in range(20)}
    near.kill()
    assert not near.running
    near.start()
    assert near.endpoint == endpoint
    for key, (version, until) in stored.items():
        assert_locked(near, "survives", key, version, until)


def test_replication_keeps_version_and_lock(pair: tuple[SeaweedRegion, SeaweedRegion]) -> None:
    """filer.sync copies objects with version and lock, goes on after a stop of its own and a crash of the source."""
    near, far = pair
    near.create_bucket("copied")
    arrived = far.client()

    def is_there(version: str) -> bool:
        try:
            arrived.head_object(Bucket="copied", Key="key", VersionId=version)
        except ClientError:
            return False
        return True

    def assert_copied(body: bytes) -> None:
        version, until = put_locked(near, "copied", "key", body)
        wait_until(lambda: is_there(version), timeout_s=180, what=f"the copy of {body!r}", every_s=0.1)
        assert_locked(far, "copied", "key", version, until)

    with FilerSync(near, far) as sync:
        assert_copied(b"first")
        sync.stop()
        assert not sync.running
        version, _ = put_locked(near, "copied", "key", b"while it was stopped")
        sync.start()
        wait_until(lambda: is_there(version), timeout_s=180, what="the copy of what it missed", every_s=0.1)
        near.kill()
        near.start()
        assert_copied(b"after a crash of the source")


def test_a_failed_start_shows_the_logs_end(engine_dir: Path, weed_programs: Programs) -> None:
    """The error of a region that doesn't come up holds what the server itself said, and no secret."""
    broken = SeaweedRegion(engine_dir / "broken", "broken", weed_programs)
    (engine_dir / "broken").mkdir()
    (engine_dir / "broken" / "filerldb2").write_text("not a folder")
    with pytest.raises(EngineError, match="filerldb2") as caught:
        broken.start()
    assert caught.value.code == "engine.did_not_start"
    assert broken.secret_key not in str(caught.value)
    assert not broken.running


def test_taken_ports_are_replaced_or_named(engine_dir: Path, weed_programs: Programs, region: SeaweedRegion) -> None:
    """A port that another process holds is picked anew before a first start, and is an error that names it after."""
    with SeaweedRegion(engine_dir / "late", "late", weed_programs) as late:
        late.ports["s3"] = region.ports["s3"]
        late.start()
        assert not set(late.ports.values()) & set(region.ports.values())
        late.kill()

        late.ports["s3"] = region.ports["s3"]
        with pytest.raises(EngineError, match=str(region.ports["s3"])):
            late.start()


@pytest.mark.parametrize("said", [b"SSH-2.0-somebody\r\n", b"HTTP/1.1 503 no\r\nContent-Length: 9\r\n\r\nx"])
def test_whoever_else_answers_on_a_port_is_no_region(said: bytes) -> None:
    """Something that speaks no HTTP, an answer that breaks off: the region is not there yet, that is all."""
    with socket.create_server((LOOPBACK, 0)) as door:

        def answer() -> None:
            peer, _ = door.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        assert seaweed._fetch(f"http://{LOOPBACK}:{door.getsockname()[1]}") is None
        thread.join(180)
