"""A sandbox's clone, promoted: for whatever a server that recovers refuses.

What belongs here: copying, recovering to the end that was copied, promoting, erasing, its end. What stays out: what is
done with it (books.py).

A clone is a copy of people's data that somebody can read: the same rules as for any restore hold (erasures first, a
reader that may change nothing, gone at the end).
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import VaultError
from dr_assets.proving.prover.image import size_of, take_image
from dr_assets.proving.prover.points import Point
from dr_assets.proving.prover.sandbox import Room, Sandbox
from dr_assets.stores.postgres.checks import check_data
from dr_assets.stores.postgres.erase import Erasures, replay_erasures
from dr_assets.stores.postgres.guarded import create_reader, new_eraser_name, new_reader_name
from dr_assets.stores.postgres.heartbeat import read_heartbeat, verify_heartbeat
from dr_assets.stores.postgres.recovery import Replay, Replayed, promote, standby_settings
from dr_assets.stores.postgres.restore import SANDBOX_NAME
from dr_assets.stores.postgres.site import abandon, prepare_site
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.vault import Vault


@dataclass(slots=True)
class Clone:
    """A promoted clone that runs. `point` is what its data reaches."""

    server: PostgresServer
    point: Point
    reader: str
    dbname: str
    has_checksums: bool

    def reader_dsn(self) -> str:
        """For reading its data: a role that may read everything and nothing else."""
        return self.server.dsn(self.dbname, user=self.reader)

    def look_deep(self) -> tuple[str, ...]:
        """Every page and every index entry; the names of the programs that looked. Raises VaultError."""
        return check_data(self.server, "deep", has_checksums=self.has_checksums)


@contextmanager
def clone_of(sandbox: Sandbox, vault: Vault, into: Path, room: Room, erasures: Erasures | None) -> Iterator[Clone]:
    """Copy the sandbox, which goes on meanwhile, and hand out the clone; leaving the block destroys it.

    Raises PolicyError `prover.no_room`, and what replaying, promoting and erasing raise.
    """
    size_bytes = size_of(sandbox.site.data_dir, *sandbox.site.tablespaces())
    room.require(size_bytes, "a clone")
    site = prepare_site(into, size_bytes)
    base, server = sandbox.plan.base, None
    try:
        end = take_image(sandbox, site)
        server = PostgresServer(
            site.data_dir, sandbox.server.programs, name=f"{SANDBOX_NAME}-{sandbox.plan.dataset}-{secrets.token_hex(4)}"
        )
        reader, eraser = new_reader_name(), new_eraser_name()
        server.settings.update(sandbox.settings())
        server.adopt(base.superuser, site.tablespaces(), roles=[reader, eraser])
        timeline = sandbox.wal.timeline
        server.settings.update(standby_settings(Target("latest"), timeline, base.major))
        replayed = Replay(server, Target("latest"), end).run()
        promote(server)
        if erasures is not None:
            replay_erasures(server, eraser, base.dbname, erasures)
        create_reader(server, reader, base.dbname)
        point = _point(server, vault, sandbox, reader, timeline, replayed)
        yield Clone(server, point, reader, base.dbname, base.data_checksums)
    finally:
        if server is not None:
            server.stop("immediate")
        abandon(site)


def _point(
    server: PostgresServer, vault: Vault, sandbox: Sandbox, reader: str, timeline: int, replayed: Replayed
) -> Point:
    """What it reaches, dated by the heartbeat in its own data; one that can't be believed dates nothing."""
    base, at = sandbox.plan.base, None
    try:
        with psycopg.connect(server.dsn(base.dbname, user=reader), autocommit=True) as session:
            row = read_heartbeat(session, sandbox.plan.dataset)
        if row is not None:
            verify_heartbeat(row, vault.trust)
            at = row.at
    except (psycopg.Error, VaultError):
        at = None
    return Point(replayed.lsn, timeline, at, replayed.last_commit_at)
