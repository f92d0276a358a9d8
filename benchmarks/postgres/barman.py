"""barman-cloud over S3: lz4 for base backups and WAL, two jobs. It encrypts nothing itself.

What belongs here: its commands. What stays out: clocks beyond its own commands.
"""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.postgres.rig import Came, Rig, answered, base_environment, remove
from benchmarks.postgres.running import Ran, run

BUCKET: Final = "barman"
SERVER: Final = "main"


class BarmanCloud:
    """The tool with one server name for the backups, and others made by `archive_command(place)`."""

    name = "barman-cloud"

    def __init__(self, rig: Rig, programs: Path) -> None:
        self._rig = rig
        self._programs = programs / "bin"
        self._newest = ""
        said = run([self._programs / "barman-cloud-backup", "--version"], env=base_environment()).output
        self.versions: Mapping[str, str] = {"barman-cloud": said.split()[-1]}

    def prepare(self) -> None:
        """Its bucket."""
        self._rig.region.create_bucket(BUCKET, object_lock=False)

    def backup(self, *, watch_memory: bool = False) -> Ran:
        """A full backup."""
        server = self._rig.primary.server
        self._newest = f"run-{secrets.token_hex(3)}"
        options = ["--lz4", "--jobs=2", "--immediate-checkpoint", "--name", self._newest]
        address = ["--host=127.0.0.1", f"--port={server.port}", "--user=postgres", "--dbname=postgres"]
        return self._run("backup", *options, *address, f"s3://{BUCKET}", SERVER, watch_memory=watch_memory)

    def restore(self, target_lsn: int | None, *, watch_memory: bool = False) -> Came:
        """Restore and start; recovery fetches WAL through barman-cloud-wal-restore."""
        place = self._rig.fresh("back")
        data_dir = place / "data"
        begin_s = time.monotonic()
        try:
            ran = self._run("restore", f"s3://{BUCKET}", SERVER, self._newest, str(data_dir), watch_memory=watch_memory)
            (data_dir / "recovery.signal").touch()
            program = self._command("wal-restore")
            settings: dict[str, str | int | float | bool] = {
                "restore_command": f"{self._script()} {program} s3://{BUCKET} {SERVER} %f %p"
            }
            if target_lsn is not None:
                position = f"{target_lsn >> 32:X}/{target_lsn & 0xFFFFFFFF:X}"
                settings |= {"recovery_target_lsn": position, "recovery_target_action": "promote"}
            answers_s, found = answered(data_dir, begin_s, settings)
        finally:
            remove(place)
        return Came(ran.duration_s, answers_s, peak_bytes=ran.peak_bytes, cpu_s=ran.cpu_s, contents=found)

    def archive_command(self, place: str | None = None) -> str:
        """Its wal-archive under the backups' server name or another one."""
        return f"{self._script()} {self._command('wal-archive')} --lz4 s3://{BUCKET} {place or SERVER} %p"

    def _command(self, verb: str) -> str:
        return f"{self._programs}/barman-cloud-{verb} --endpoint-url {self._rig.region.endpoint}"

    def _run(self, verb: str, *args: str, watch_memory: bool = False) -> Ran:
        return run(
            [self._programs / f"barman-cloud-{verb}", "--endpoint-url", self._rig.region.endpoint, *args],
            env={**base_environment(), **self._credentials()},
            user=self._rig.user,
            watch_memory=watch_memory,
        )

    def _script(self) -> Path:
        """Runs a command with the credentials, for the server."""
        script = self._rig.mine / "with-credentials"
        return script if script.exists() else self._rig.script(script.name, self._credentials(), '"$@"')

    def _credentials(self) -> dict[str, str]:
        region = self._rig.region
        return {
            "AWS_ACCESS_KEY_ID": region.access_key,
            "AWS_SECRET_ACCESS_KEY": region.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CA_BUNDLE": str(region.ca_file),
            "PGPASSWORD": self._rig.primary.server.password or "",
        }
