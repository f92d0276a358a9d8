"""A server marked as a sandbox for this folder's tests, and one casino that has lived on it."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import Programs
from dr_assets_tests.reconciliation.books import Books, open_books
from dr_assets_tests.reconciliation.lived import SOON, live

_TRANSFERS, _LONG_AGO = 1500, 750


@pytest.fixture(scope="session")
def sandbox_database(
    engines_dir: Path, postgres_programs: Callable[[int], Programs], init_cluster: Callable[[PostgresServer], None]
) -> Iterator[Callable[[], str]]:
    """`sandbox_database()`: the DSN of a new, empty database."""
    name = "dr_assets-sandbox-reconciliation"
    with PostgresServer(
        engines_dir / "reconciliation", postgres_programs(17), settings={"fsync": False}, name=name
    ) as server:
        init_cluster(server)
        server.start()

        def make() -> str:
            database = f"casino_{secrets.token_hex(4)}"
            with psycopg.connect(server.dsn(), autocommit=True) as admin:
                admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
            return server.dsn(database)

        yield make


@pytest.fixture(scope="session")
def books(sandbox_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    """Books of every kind of thing that happens, most of it long enough ago to have to be explained."""
    acks = tmp_path_factory.mktemp("acks")

    looks: list[tuple[float, int]] = []

    def old_enough(lived_s: float, acknowledged: int) -> bool:
        looks.append((lived_s, acknowledged))
        long_ago = max((count for at_s, count in looks if at_s < lived_s - SOON.total_seconds()), default=0)
        return lived_s > SOON.total_seconds() * 1.75 and acknowledged > _TRANSFERS and long_ago > _LONG_AGO

    lived = live(sandbox_database(), acks, 1, "stripe", rate_per_s=150, until=old_enough)
    with open_books(lived) as opened:
        yield opened
