"""A restored cluster that is kept: nothing that looks ready is there before it is on disk."""

import os
from pathlib import Path

import pytest

from dr_assets.engines.placement import engine_user
from dr_assets.stores.postgres.site import MARK, Site, keep


def test_a_kept_cluster_is_on_disk_before_it_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replay ran without fsync: first everything else, then the configuration, and only then the mark goes."""
    site = Site(tmp_path, tmp_path, "", made=False)
    site.data_dir.mkdir()
    site.run_dir.mkdir()
    mark, conf = tmp_path / MARK, site.data_dir / "postgresql.conf"
    mark.touch()
    seen: list[tuple[str, bool, bool]] = []
    monkeypatch.setattr(os, "sync", lambda: seen.append(("all", conf.exists(), mark.exists())))

    def flushed(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        seen.append((name, conf.exists(), mark.exists()))

    monkeypatch.setattr(os, "fsync", flushed)
    assert keep(site, {}, {}, engine_user()) == site.data_dir
    assert seen == [
        ("all", False, True),
        ("postgresql.conf", True, True),
        ("data", True, True),
        (tmp_path.name, True, False),
    ]
