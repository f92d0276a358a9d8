"""The ground a restore is built on: an empty folder, marked as unfinished until everything is proven.

What belongs here: refusing what isn't empty, the mark, where the pieces of a restored cluster lie, clearing away what
failed, handing over what is kept. What stays out: what is in the files.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dr_assets.engines.placement import RunAs, engine_home
from dr_assets.estate.errors import PolicyError
from dr_assets.stores.postgres.lay import LAST, TABLESPACES

MARK: Final = ".incomplete"
_ROOM_BYTES: Final = 256 << 20
_DATA: Final = "data"
_TABLESPACES: Final = "tablespaces"
_SOURCE_SETTINGS: Final = "source_settings"
# Where a base backup's layers lie while they are put together.
LAYERS: Final = "layers"
_OURS: Final = (_DATA, f"{_DATA}.run", _TABLESPACES, _SOURCE_SETTINGS, LAYERS)
_MARK_TEXT: Final = """\
An unfinished restore of dr_assets. Nothing here is proven, nothing here may serve anybody.
Remove this folder and restore again.
"""
_KEPT_CONF: Final = """\
# Written by `dr-assets restore`: enough to start the recovered cluster on loopback. Its source's own settings are in
# ../source_settings; none of them was executed. Look through them before you take them over: they may name archive
# commands, standbys and libraries of the old host.
listen_addresses = 'localhost'
"""
_KEPT_HBA: Final = """\
local all all peer
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
"""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a restore is built.

    `into` is the folder that was asked for; `home` is where the files lie, which differs when the engine's user cannot
    get into `into`. `note` tells why then, and is empty otherwise. `made` tells that `into` did not exist before.
    """

    into: Path
    home: Path
    note: str
    made: bool

    @property
    def data_dir(self) -> Path:
        """The data directory."""
        return self.home / _DATA

    @property
    def run_dir(self) -> Path:
        """Where the sandbox server's configuration and log lie."""
        return self.home / f"{_DATA}.run"

    @property
    def pg_wal(self) -> Path:
        """Where WAL is laid."""
        return self.data_dir / "pg_wal"

    def tablespace(self, oid: int) -> Path:
        """The folder of a tablespace."""
        return self.home / _TABLESPACES / str(oid)

    def tablespaces(self) -> list[Path]:
        """The folders of all tablespaces that were laid."""
        folder = self.home / _TABLESPACES
        return sorted(folder.iterdir()) if folder.is_dir() else []


def prepare_site(into: Path, needed_bytes: int) -> Site:
    """Take an empty (or absent) folder and mark it.

    Raises PolicyError with nothing touched: `restore.not_empty`, `restore.unfinished`, and `restore.no_room` unless
    `needed_bytes` and a little more are free there.
    """
    into = into.absolute()
    made = not into.exists()
    if not made:
        _require_empty(into, "")
    place = engine_home(into)
    if place.moved:
        _require_empty(place.path, f" (where the files of {into} have to lie: {place.why})", but="preferred")
        into.mkdir(parents=True, exist_ok=True)
    site = Site(into, place.path, place.why, made)
    _require_room(site, needed_bytes)
    for folder in {site.into, site.home}:
        (folder / MARK).write_text(_MARK_TEXT)
    return site


def abandon(site: Site) -> None:
    """Remove everything that was laid, the control file first and the mark last, so that no moment leaves a good face.

    What cannot be removed is left marked; the error is raised.
    """
    for name in reversed(LAST):
        (site.data_dir / name).unlink(missing_ok=True)
    for folder in {site.home, site.into}:
        for name in _OURS:
            if (folder / name).exists():
                shutil.rmtree(folder / name)
    for folder in {site.home, site.into}:
        (folder / MARK).unlink(missing_ok=True)
    if site.home != site.into:
        shutil.rmtree(site.home)
    if site.made:
        site.into.rmdir()


def keep(site: Site, held: Mapping[str, bytes], limits: Mapping[str, str], user: RunAs) -> Path:
    """Turn a cleanly stopped, promoted cluster into one that people can start; returns its data directory.

    `held` are the source's settings files, `limits` what prepared transactions and standbys of it must not have less
    of. The replay ran without fsync, so the configuration that makes the cluster startable comes when all else is on
    disk, and the mark goes when that is, too.
    """
    settings = site.home / _SOURCE_SETTINGS
    settings.mkdir(mode=0o700)
    for name, data in held.items():
        if name not in LAST:
            _replace(settings / name, data, user)
    conf = _KEPT_CONF + "".join(f"{name} = {value}\n" for name, value in sorted(limits.items()))
    _replace(site.data_dir / "pg_hba.conf", _KEPT_HBA.encode(), user)
    _replace(site.data_dir / "pg_ident.conf", b"", user)
    shutil.rmtree(site.run_dir)
    if site.home != site.into:
        _move(site)
    data_dir = site.into / _DATA
    os.sync()
    _replace(data_dir / "postgresql.conf", conf.encode(), user)
    _flush(data_dir / "postgresql.conf", data_dir)
    (site.into / MARK).unlink()
    _flush(site.into)
    return data_dir


def _require_empty(folder: Path, why_there: str, *, but: str = "") -> None:
    found = [] if not folder.is_dir() else sorted({path.name for path in folder.iterdir()} - {but})
    if folder.is_dir() and not found:
        return
    if MARK in found:
        raise PolicyError(
            "restore.unfinished",
            f"{folder}{why_there} holds an unfinished restore",
            "remove the folder, or restore into another one; an unfinished restore is never continued",
        )
    raise PolicyError(
        "restore.not_empty",
        f"{folder}{why_there} is {f'not empty: {found[0]} lies in it' if found else 'no folder'}",
        "restore into a new or an empty folder; nothing is ever written over",
    )


def _require_room(site: Site, needed_bytes: int) -> None:
    """Better refused at once than after an hour: what replay adds is unknown, so a tenth more and 256 MiB are asked."""
    needed_bytes += needed_bytes // 10 + _ROOM_BYTES
    free_bytes = shutil.disk_usage(site.home).free
    if free_bytes >= needed_bytes:
        return
    if site.made:
        site.into.rmdir()
    raise PolicyError(
        "restore.no_room",
        f"the restore needs about {needed_bytes >> 20} MiB, {free_bytes >> 20} MiB are free at {site.home}",
        "restore into a folder on a larger disk",
    )


def _move(site: Site) -> None:
    """Bring the files to the folder that was asked for, and lead the tablespaces' links there."""
    for name in _OURS:
        if (site.home / name).exists():
            shutil.move(site.home / name, site.into / name)
    links = site.into / _DATA / TABLESPACES
    for link in sorted(links.iterdir()):
        if link.is_symlink():
            link.unlink()
            link.symlink_to(site.into / _TABLESPACES / link.name)
    shutil.rmtree(site.home)


def _flush(*paths: Path) -> None:
    """Files or folders onto the disk, in this order."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(path: Path, data: bytes, user: RunAs) -> None:
    draft = path.with_name(f"{path.name}.draft")
    draft.write_bytes(data)
    draft.chmod(0o600)
    if user.uid != os.geteuid():
        os.chown(draft, user.uid, user.gid)
    draft.replace(path)
