"""pgBackRest over S3, zstd level 3, its repository encrypted, two processes, archiving in the background or singly.

What belongs here: its settings and its commands. What stays out: clocks beyond its own commands.
"""

import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping
from typing import Final

from benchmarks.postgres.rig import Came, Rig, answered, base_environment, remove
from benchmarks.postgres.running import Ran, run
from dr_assets.engines.placement import give
from dr_assets.stores.postgres.lsn import format_lsn

STANZA: Final = "main"
BUCKET: Final = "pgbackrest"
MAIN: Final = "/main"


class PgBackRest:
    """The tool with one repository for the backups, and others made by `archive_command(place)`."""

    name = "pgBackRest"

    def __init__(self, rig: Rig, *, asynchronous: bool = True) -> None:
        self._rig = rig
        self._asynchronous = asynchronous
        self._folder = rig.fresh("pgbackrest")
        self._passphrase = secrets.token_urlsafe(32)
        said = subprocess.run(["pgbackrest", "version"], capture_output=True, text=True, check=True)  # noqa: S607 - PATH
        self.versions: Mapping[str, str] = {"pgBackRest": said.stdout.split()[-1]}

    def prepare(self) -> None:
        """Bucket, configuration, stanza."""
        if BUCKET not in {each["Name"] for each in self._rig.region.client().list_buckets()["Buckets"]}:
            self._rig.region.create_bucket(BUCKET, object_lock=False)  # it writes its info files over and over
        self._make(MAIN)

    def backup(self, *, watch_memory: bool = False) -> Ran:
        """A full backup; the archiver has to be its own for it to end."""
        return self._run(MAIN, "--type=full", "backup", watch_memory=watch_memory)

    def restore(self, target_lsn: int | None, *, watch_memory: bool = False) -> Came:
        """Restore and start; recovery fetches WAL through its archive-get."""
        place = self._rig.fresh("back")
        data_dir = place / "data"
        data_dir.mkdir(mode=0o700)
        give(data_dir, self._rig.user)
        begin_s = time.monotonic()
        try:
            ran = self._run(MAIN, f"--pg1-path={data_dir}", "--archive-mode=off", "restore", watch_memory=watch_memory)
            settings: dict[str, str | int | float | bool] = {
                "restore_command": f'{self._script(MAIN)} --pg1-path={data_dir} archive-get %f "%p"'
            }
            if target_lsn is not None:
                settings |= {"recovery_target_lsn": format_lsn(target_lsn), "recovery_target_action": "promote"}
            answers_s, found = answered(data_dir, begin_s, settings)
        finally:
            remove(place)
        return Came(ran.duration_s, answers_s, peak_bytes=ran.peak_bytes, cpu_s=ran.cpu_s, contents=found)

    def archive_command(self, place: str | None = None) -> str:
        """Its archive-push into the repository of the backups, or into a new one."""
        if place is not None:
            self._make(f"/{place}")
        return f"{self._script(f'/{place}' if place else MAIN)} archive-push %p"

    def _make(self, path: str) -> None:
        self._script(path)
        self._run(path, "stanza-create")

    def _run(self, path: str, *args: str, watch_memory: bool = False) -> Ran:
        script = self._script(path)
        return run([script, *args], env=base_environment(), user=self._rig.user, watch_memory=watch_memory)

    def _script(self, path: str) -> str:
        """The program with its configuration and the server's address, for us and for the server to run."""
        tag = f"pgbackrest{path.replace('/', '-')}{'-async' if self._asynchronous else ''}"
        script = self._rig.mine / tag
        if not script.exists():
            server = self._rig.primary.server
            configuration = self._folder / f"{tag}.conf"
            configuration.write_text(self._configuration(path, tag))
            configuration.chmod(0o600)
            give(configuration, self._rig.user)
            env = {"PGHOST": "127.0.0.1", "PGPASSWORD": server.password or ""}
            program = shutil.which("pgbackrest")
            self._rig.script(tag, env, f'{program} --config={configuration} --stanza={STANZA} "$@"')
        return str(script)

    def _configuration(self, path: str, tag: str) -> str:
        region, server = self._rig.region, self._rig.primary.server
        for name in ("lock", "log", "spool"):
            folder = self._folder / f"{name}-{tag}"
            folder.mkdir(mode=0o700, exist_ok=True)
            give(folder, self._rig.user)
        settings = {
            "repo1-type": "s3",
            "repo1-path": path,
            "repo1-s3-bucket": BUCKET,
            "repo1-s3-endpoint": "localhost",  # it compares names only, not addresses
            "repo1-storage-port": region.ports["s3"],
            "repo1-storage-ca-file": region.ca_file,
            "repo1-s3-uri-style": "path",
            "repo1-s3-region": "us-east-1",
            "repo1-s3-key": region.access_key,
            "repo1-s3-key-secret": region.secret_key,
            "repo1-cipher-type": "aes-256-cbc",
            "repo1-cipher-pass": self._passphrase,
            "repo1-retention-full": 99,
            "compress-type": "zst",
            "compress-level": 3,
            "process-max": 2,
            "start-fast": "y",
            "archive-async": "y" if self._asynchronous else "n",
            "log-level-file": "off",
            "log-level-console": "warn",
            "lock-path": self._folder / f"lock-{tag}",
            "log-path": self._folder / f"log-{tag}",
            "spool-path": self._folder / f"spool-{tag}",
        }
        lines = [f"{key}={value}" for key, value in settings.items()]
        stanza = [f"pg1-path={server.data_dir}", f"pg1-port={server.port}", "pg1-user=postgres"]
        return "\n".join(["[global]", *lines, f"[{STANZA}]", *stanza, ""])
