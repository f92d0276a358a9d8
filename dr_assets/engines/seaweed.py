"""A throwaway SeaweedFS region with an S3 door and Object Lock, and the copying of one region into another.

What belongs here: one region's life, buckets with Object Lock for the embedded estate and tests, `filer.sync`.
What stays out: what is stored, and every judgement about replication (it has to be proven object by object).

The lock is enforced behind the S3 door only. The filer's and master's own ports know no users, so whoever reaches
them can erase a locked object; all of them are bound to loopback, and this server is for demonstration and tests.
"""

import http.client
import json
import os
import secrets
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dr_assets.engines.errors import EngineError
from dr_assets.engines.placement import engine_home, engine_user, give
from dr_assets.engines.ports import LOOPBACK, free_ports, is_free, start_on_free_ports
from dr_assets.engines.programs import Programs
from dr_assets.engines.supervise import Child, start_child, tail
from dr_assets.engines.throwaway_ca import make_certificates, write_authority
from dr_assets.engines.waiting import START_TIMEOUT_S, wait_until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PORTS = ("master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc", "s3", "s3_grpc")
_SOCKET_PATH_LIMIT_BYTES = 100
# It makes sockets there whatever it is told, and leaves them behind.
_COMMON_SOCKETS = Path("/tmp")  # noqa: S108 - only names with our own ports are removed
S3_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody beside the admin: a pair of keys, and one IAM policy document that says what they may do."""

    name: str
    access_key: str
    secret_key: str = field(repr=False)
    policy: Mapping[str, Any] = field(repr=False)

    @classmethod
    def throwaway(cls, name: str, policy: Mapping[str, Any]) -> Self:
        """With new keys."""
        return cls(name, secrets.token_hex(10), secrets.token_urlsafe(30), policy)


class SeaweedRegion:
    """One region: master, volume server, filer and S3 door in one process, an admin identity and those given.

    Ports, access key and secret key stay the same over restarts; `keys` gives ones chosen before. `data_dir` may
    come out elsewhere than asked for (see placement); read it back. `notes` says why.

    With `tls` the S3 door speaks https only, and clients must believe the certificate in `ca_file` (else None),
    which a throwaway authority signed; it is made at the first start and stays the same over restarts.
    """

    def __init__(
        self,
        data_dir: Path,
        name: str,
        programs: Programs,
        *,
        keys: tuple[str, str] | None = None,
        tls: bool = False,
        identities: Sequence[Identity] = (),
    ) -> None:
        self.user = engine_user()
        place = engine_home(data_dir.parent, self.user)
        self.data_dir = place.path / data_dir.name
        self.run_dir = place.path / f"{data_dir.name}.run"
        self.programs = programs.reachable(self.user)
        self.notes = [note for note in (place.why, self.programs.note) if note]
        self.name = name
        self.ca_file = self.run_dir / "ca.pem" if tls else None
        self.access_key, self.secret_key = keys or (secrets.token_hex(10), secrets.token_urlsafe(30))
        self.identities = tuple(identities)
        self.ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.log_path = self.run_dir / "weed.log"
        self.child: Child | None = None
        self._ports_fixed = False

    @property
    def endpoint(self) -> str:
        """The S3 door's URL."""
        return f"{'https' if self.ca_file else 'http'}://{LOOPBACK}:{self.ports['s3']}"

    @property
    def filer(self) -> str:
        """The filer's address as `weed` writes it: host:port.grpc_port."""
        return f"{LOOPBACK}:{self.ports['filer']}.{self.ports['filer_grpc']}"

    @property
    def running(self) -> bool:
        """Whether the server lives."""
        return self.child is not None and self.child.alive

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self.child is not None, "the region was not started"  # noqa: S101 - a bug of ours if it fails
        return self.child.pid

    def start(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start the server and wait until it can store an object.

        Raises EngineError `engine.did_not_start` with the tail of the log.
        """
        assert not self.running, f"{self.name} runs already"  # noqa: S101 - a bug of ours if it fails
        self._prepare()

        def start() -> None:
            self._launch()
            self.wait_ready(timeout_s)

        start_on_free_ports(start, self.kill, self._moved)
        self._ports_fixed = True

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the volume server has joined the master and the S3 door answers."""
        child = self.child
        assert child is not None, "the region was not started"  # noqa: S101 - a bug of ours if it fails
        try:
            wait_until(
                lambda: not child.alive or self._answers(), timeout_s=timeout_s, what=f"{self.name} ready", every_s=0.1
            )
        except EngineError as error:
            raise self._did_not_start(error.found) from None
        if not child.alive:
            raise self._did_not_start(f"{self.name} ended with return code {child.poll()}")

    def stop(self, *, timeout_s: float = 20.0) -> None:
        """Stop the server in order; killed after `timeout_s` seconds."""
        if self.child is not None:
            self.child.stop(grace_s=timeout_s)
            self._gone()

    def kill(self) -> None:
        """Crash the server with SIGKILL. What it acknowledged is there after `start`."""
        if self.child is not None:
            self.child.kill()
            self._gone()

    def restart(self) -> None:
        """Stop, then start on the same ports."""
        self.stop()
        self.start()

    def client(self, identity: Identity | None = None, **config: Any) -> "S3Client":
        """An S3 client, by default with the admin identity; `config` adds to botocore's Config."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=identity.access_key if identity else self.access_key,
            aws_secret_access_key=identity.secret_key if identity else self.secret_key,
            region_name=S3_REGION,
            verify=str(self.ca_file) if self.ca_file else None,
            config=Config(**{"s3": {"addressing_style": "path"}, "max_pool_connections": 32, **config}),
        )

    def create_bucket(self, name: str, *, object_lock: bool = True) -> None:
        """Make a bucket, with Object Lock (and so versioning) unless told otherwise; no default retention."""
        self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=object_lock)

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of the server's log."""
        return tail(self.log_path, lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()  # a throwaway region has nothing to finish, and an orderly stop takes seconds

    def _launch(self) -> None:
        if taken := self._taken():
            raise EngineError(
                "engine.port_taken",
                f"{self.name} needs the ports {taken}, on which something else listens",
                "stop what listens there, or make the region anew",
            )
        self.child = start_child(
            self._command(),
            cwd=self.run_dir,
            env=_environment(self.run_dir),
            log_path=self.log_path,
            user=self.user,
            grace_s=2.0,  # an orderly stop takes up to 15 s and saves nothing that a kill would lose
        )

    def _taken(self) -> list[int]:
        return [port for port in self.ports.values() if not is_free(port)]

    def _moved(self) -> bool:
        """Take other ports if another process has one of ours; never once a first start has fixed them."""
        if self._ports_fixed or not self._taken():
            return False
        self.ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        return True

    def _gone(self) -> None:
        self.child = None
        for door in ("master", "volume", "filer", "s3"):
            left = _COMMON_SOCKETS / f"seaweedfs-{door}-grpc-{self.ports[f'{door}_grpc']}.sock"
            with suppress(PermissionError):  # another user's, whose server was killed: ours ran without one
                left.unlink(missing_ok=True)

    def _prepare(self) -> None:
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        self.run_dir.mkdir(mode=0o711, exist_ok=True)
        self.run_dir.chmod(0o711)
        # One volume for a new bucket instead of seven: else every bucket eats up -volume.max.
        self._publish("master.toml", "[master.volume_growth]\ncopy_1 = 1\n")
        self._publish("identities.json", json.dumps(self._identities()))
        if self.ca_file and not self.ca_file.exists():
            authority, certificate, private_key = make_certificates(self.name)
            self._publish("server.pem", certificate.decode())
            self._publish("server.key", private_key.decode())
            write_authority(self.ca_file, authority)
        give(self.data_dir, self.user)

    def _identities(self) -> dict[str, Any]:
        """The admin and the others. Theirs are policies, not the store's own actions: its `Write` includes delete."""
        admin = {
            "name": "admin",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        others = [
            {
                "name": one.name,
                "credentials": [{"accessKey": one.access_key, "secretKey": one.secret_key}],
                "policyNames": [one.name],
            }
            for one in self.identities
        ]
        policies = [{"name": one.name, "content": json.dumps(one.policy)} for one in self.identities]
        return {"identities": [admin, *others], "policies": policies}

    def _publish(self, name: str, text: str) -> None:
        """Write a file that the engine's user alone may read."""
        path = self.run_dir / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)
        give(path, self.user)

    def _command(self) -> list[str | Path]:
        port = self.ports
        return [
            self.programs.path("weed"),
            "-logtostderr",
            "server",
            f"-dir={self.data_dir}",
            *(f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}"),
            *("-master.telemetry=false", "-master.electionTimeout=1s"),
            *(f"-master.port={port['master']}", f"-master.port.grpc={port['master_grpc']}"),
            *(f"-volume.port={port['volume']}", f"-volume.port.grpc={port['volume_grpc']}"),
            *("-volume.max=500", "-volume.preStopSeconds=0"),
            *("-filer", f"-filer.port={port['filer']}", f"-filer.port.grpc={port['filer_grpc']}"),
            *("-s3", f"-s3.port={port['s3']}", f"-s3.port.grpc={port['s3_grpc']}"),
            *(("-s3.cert.file=server.pem", "-s3.key.file=server.key") if self.ca_file else ()),
            *("-s3.config=identities.json", "-s3.iam.readOnly=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *self._socket_options(),
        ]

    def _socket_options(self) -> list[str]:
        """Keep its Unix sockets out of /tmp, where a crash leaves them, if the path isn't too long for a socket."""
        paths = {door: self.data_dir / f"{door}.sock" for door in ("filer", "s3")}
        if any(len(str(path)) > _SOCKET_PATH_LIMIT_BYTES for path in paths.values()):
            return []
        return [f"-{door}.localSocket={path}" for door, path in paths.items()]

    def _answers(self) -> bool:
        """Whether our volume server has joined our master, and the S3 door knows our key: nobody else's does."""
        status = _fetch(f"http://{LOOPBACK}:{self.ports['master']}/dir/status")
        if status is None or f"{LOOPBACK}:{self.ports['volume']}".encode() not in status:
            return False
        if _fetch(f"http://{LOOPBACK}:{self.ports['filer']}/healthz") is None or self._fetch_s3() is None:
            return False
        try:
            self.client(retries={"total_max_attempts": 1}).list_buckets()
        except (ClientError, BotoCoreError):
            return False
        return True

    def _fetch_s3(self) -> bytes | None:
        trusted = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None
        return _fetch(self.endpoint, trusted)

    def _did_not_start(self, found: str) -> EngineError:
        return EngineError(
            "engine.did_not_start", f"{found}; its log ends:\n{self.log_tail()}", f"the whole log is {self.log_path}"
        )


class FilerSync:
    """Copies region `source` into region `target` as long as it runs; goes on where it was after a restart."""

    def __init__(self, source: SeaweedRegion, target: SeaweedRegion) -> None:
        self.source = source
        self.target = target
        self.log_path = source.run_dir / f"sync-to-{target.name}.log"
        self.child: Child | None = None

    def start(self) -> None:
        """Start copying; both regions should be up. Copying lags: prove it object by object."""
        self.child = start_child(
            [
                *(self.source.programs.path("weed"), "-logtostderr", "filer.sync"),
                *(f"-a={self.source.filer}", f"-b={self.target.filer}", "-isActivePassive"),
                *("-a.path=/buckets", "-b.path=/buckets", f"-metricsIp={LOOPBACK}"),
            ],
            cwd=self.source.run_dir,
            env=_environment(self.source.run_dir),
            log_path=self.log_path,
            user=self.source.user,
        )

    def stop(self) -> None:
        """Stop copying."""
        if self.child is not None:
            self.child.stop(grace_s=5.0)
            self.child = None

    def kill(self) -> None:
        """Crash it."""
        if self.child is not None:
            self.child.kill()
            self.child = None

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self.child is not None and self.child.alive

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of its log."""
        return tail(self.log_path, lines)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _environment(run_dir: Path) -> dict[str, str]:
    """Nothing of ours: environments hold secrets. It looks for its settings below HOME."""
    return {"PATH": os.defpath, "HOME": str(run_dir)}


def _fetch(url: str, trusted: ssl.SSLContext | None = None) -> bytes | None:
    """The body of a loopback answer, be it a refusal, or None while there is none."""
    # Generous, for a machine that is short of time; and whoever took our port meanwhile may speak anything.
    try:
        try:
            with urllib.request.urlopen(url, timeout=10, context=trusted) as answer:  # noqa: S310 - always http(s) on loopback
                return bytes(answer.read())
        except urllib.error.HTTPError as refusal:
            return refusal.read()
    except (OSError, http.client.HTTPException):
        return None
