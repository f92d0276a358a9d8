"""Laying a base backup that consists of layers: the full and its incrementals side by side, then put together.

What belongs here: where the layers lie, `pg_combinebackup`, the room that takes. What stays out: which layers
(layers.py), how one is laid (lay.py), what is checked afterwards (checks.py).

The layers lie beside the data directory while they are put together, and are removed as soon as they are: at that
moment the disk holds the full, the incrementals and the result. Every layer is compared with its own `backup_manifest`
before; the result has one that pg_combinebackup wrote, and is compared with it like any other base backup.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dr_assets.engines.placement import RunAs
from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.base_manifest import BaseManifest
from dr_assets.stores.postgres.checks import verify_files
from dr_assets.stores.postgres.lay import (
    BACKUP_MANIFEST_FILE,
    LAST,
    LaidBase,
    finish_base,
    lay_base,
)
from dr_assets.stores.postgres.layers import BaseLayer
from dr_assets.stores.postgres.site import LAYERS, Site
from dr_assets.vault.format.segment import Opened

# Links instead of copies since 18: the layers go away, so nobody minds that they share the result's files.
_LINK_MAJOR: Final = 18
_SAID_MAX: Final = 1500
_TOOL_TIMEOUT_S: Final = 86400.0


@dataclass(frozen=True, slots=True)
class _LayerPlace:
    """One layer's own folder, laid out as a cluster's."""

    home: Path

    @property
    def data_dir(self) -> Path:
        return self.home / "data"

    def tablespace(self, oid: int) -> Path:
        return self.home / "tablespaces" / str(oid)


def needed_bytes(layers: Sequence[BaseLayer]) -> int:
    """Room for the base backup's own files at the worst moment: of several layers, those and a result as large.

    A result is never larger than all layers together; on PostgreSQL 18 and newer it shares the full's unchanged files.
    """
    size_bytes = sum(layer.manifest.size_bytes for layer in layers)
    return size_bytes if len(layers) == 1 else 2 * size_bytes


def lay_layers(
    layers: Sequence[BaseLayer], site: Site, parts: Iterator[Opened], user: RunAs, server: PostgresServer
) -> LaidBase:
    """Lay the base backup out in `site.data_dir`; `parts` are those of all layers, one layer after the other.

    `PG_VERSION` and `global/pg_control` are held back, as `lay_base` does. Raises VaultError as that does,
    `backup.damaged` when a layer isn't what its `backup_manifest` says, `backup.not_combined` when PostgreSQL refuses
    to put them together.
    """
    if len(layers) == 1:
        return lay_base(layers[0].manifest, site, parts, user)
    folder = site.home / LAYERS
    places = [_LayerPlace(folder / str(number)) for number in range(len(layers))]
    _make_folders([folder, *(place.home for place in places)], user)
    laid = [_lay_one(layer.manifest, place, parts, user, server) for layer, place in zip(layers, places, strict=True)]
    # The program may write into these folders of its user's, and not beside them.
    spaces = [site.tablespace(archive.oid) for archive in layers[-1].manifest.archives if archive.oid is not None]
    _make_folders([site.data_dir, *dict.fromkeys(space.parent for space in spaces), *spaces], user)
    _combine(layers[-1].manifest, places, site, server)
    shutil.rmtree(folder)
    return _hold_back(laid, site)


def _lay_one(
    manifest: BaseManifest, place: _LayerPlace, parts: Iterator[Opened], user: RunAs, server: PostgresServer
) -> LaidBase:
    laid = lay_base(manifest, place, parts, user)
    finish_base(laid, place, user)
    verify_files(server, place.data_dir)
    return laid


def _combine(newest: BaseManifest, places: Sequence[_LayerPlace], site: Site, server: PostgresServer) -> None:
    moved = [
        f"--tablespace-mapping={_escaped(places[-1].tablespace(archive.oid))}={_escaped(site.tablespace(archive.oid))}"
        for archive in newest.archives
        if archive.oid is not None
    ]
    args: list[str | Path] = [
        # The files come from memory that authenticated them, and a restore that is kept is flushed as a whole.
        *(f"--output={site.data_dir}", "--no-sync", "--manifest-checksums=CRC32C"),
        *moved,
        *(["--link"] if server.programs.major >= _LINK_MAJOR else []),
        *(place.data_dir for place in places),
    ]
    done = server.run_tool("pg_combinebackup", args, check=False, timeout_s=_TOOL_TIMEOUT_S)
    if done.returncode != 0:
        raise VaultError(
            "backup.not_combined",
            f"pg_combinebackup: {' '.join((done.stdout + done.stderr).split())[:_SAID_MAX]}",
            "nothing is kept of this restore; restore from an older base backup (--as-of), or from another vault",
        )


def _hold_back(laid: Sequence[LaidBase], site: Site) -> LaidBase:
    """What was combined, without what lets a server start, as after laying a full."""
    for name in reversed(LAST):
        (site.data_dir / name).unlink()
    return LaidBase(
        size_bytes=sum(layer.size_bytes for layer in laid),
        held=laid[-1].held,
        backup_manifest=(site.data_dir / BACKUP_MANIFEST_FILE).read_bytes(),
    )


def _escaped(path: Path) -> str:
    """The mapping's own syntax knows one special character."""
    return str(path).replace("=", "\\=")


def _make_folders(paths: Iterable[Path], user: RunAs) -> None:
    for path in paths:
        path.mkdir(mode=0o700)
        if user.uid != os.geteuid():
            os.chown(path, user.uid, user.gid)
