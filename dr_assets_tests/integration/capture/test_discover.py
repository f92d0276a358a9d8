from dataclasses import replace
from types import ModuleType
from typing import Any

import psycopg
import pytest

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.estate.model import Alerts, Estate, Licence
from dr_assets.stores.postgres.discover import undeclared_databases

pytestmark = pytest.mark.integration


def _estate(*datasets: Any) -> Estate:
    return Estate(
        name="casino",
        licence=Licence("MGA", ("MT",)),
        vaults={},
        datasets={dataset.name: dataset for dataset in datasets},
        alerts=Alerts(),
        keys_dir_env="K",
        trust_file_env="T",
        signing_key_env="S",
        owners=("team:platform",),
    )


def _make(server: Any, *names: str) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for name in names:
            connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy")


def test_databases_that_nobody_declared_are_found_once(rig: ModuleType, postgres_server: Any) -> None:
    """Two datasets on one server under two names of it: the third database is reported once, the declared never."""
    server = postgres_server(settings={"fsync": False})
    _make(server, "ledger", "games", "forgotten")
    ledger, games = rig.make_dataset("ledger"), replace(rig.make_dataset("games"), dsn_env="GAMES_DSN")
    env = {
        "LEDGER_DSN": server.dsn("ledger"),
        "GAMES_DSN": server.dsn("games").replace("127.0.0.1", "localhost"),
    }
    found = undeclared_databases(_estate(ledger, games), env)
    assert [(database.database, database.owner) for database in found] == [("forgotten", "postgres")]
    assert found[0].size_bytes > 0


def test_the_maintenance_database_counts_once_somebody_keeps_tables_in_it(
    rig: ModuleType, postgres_server: Any
) -> None:
    """An empty `postgres` is nobody's; with a table it is somebody's data that nobody declared."""
    server = postgres_server(settings={"fsync": False})
    _make(server, "ledger")
    estate, env = _estate(rig.make_dataset()), {"LEDGER_DSN": server.dsn("ledger")}
    assert undeclared_databases(estate, env) == []
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE bonus (id int)")
    assert [database.database for database in undeclared_databases(estate, env)] == ["postgres"]


def test_what_cannot_be_looked_at_is_an_error_not_an_empty_answer(rig: ModuleType) -> None:
    """A DSN that isn't set, or a server that is away, is no proof of coverage."""
    estate = _estate(rig.make_dataset())
    with pytest.raises(PolicyError, match=r"source\.dsn_unset"):
        undeclared_databases(estate, {})
    with pytest.raises(SourceError, match=r"source\.unreachable"):
        undeclared_databases(estate, {"LEDGER_DSN": "postgresql://u:p@127.0.0.1:1/x"})
