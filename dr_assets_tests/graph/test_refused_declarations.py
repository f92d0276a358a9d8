from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

from dr_assets.estate.declarations import default_defs_dir


@pytest.fixture
def sandbox() -> Iterator[DefsFolderSandbox]:
    """A project of its own whose defs/ holds copies of the packaged declarations."""
    with create_defs_folder_sandbox() as made:
        for name in ("estate", "ledger"):
            write(made, name, yaml.safe_load((default_defs_dir() / name / "defs.yaml").read_text()))
        yield made


def write(sandbox: DefsFolderSandbox, name: str, declaration: dict[str, Any]) -> None:
    """Put a declaration into the sandbox."""
    folder = Path(sandbox.defs_folder_path) / name
    folder.mkdir(exist_ok=True)
    (folder / "defs.yaml").write_text(yaml.safe_dump(declaration))


def loaded(sandbox: DefsFolderSandbox) -> dg.Definitions:
    """What Dagster makes of the sandbox."""
    with sandbox.build_all_defs() as definitions:
        dg.Definitions.validate_loadable(definitions)
        return definitions


def ledger() -> dict[str, Any]:
    """The packaged ledger's declaration."""
    declaration: dict[str, Any] = yaml.safe_load((default_defs_dir() / "ledger" / "defs.yaml").read_text())
    return declaration


def test_a_second_dataset_is_one_more_stanza(sandbox: DefsFolderSandbox) -> None:
    """Another database in another folder brings its whole chain, its own sensors and jobs, and clashes with nothing."""
    other = ledger()
    other["attributes"] |= {"dataset": "sportsbook", "dsn_env": "SPORTSBOOK_DSN"}
    write(sandbox, "sportsbook", other)
    repository = loaded(sandbox).get_repository_def()
    assert {key.path[0] for key in repository.asset_graph.get_all_asset_keys()} == {
        "estate",
        "ledger",
        "sportsbook",
        "vault",
    }
    assert {"sportsbook_rpo", "sportsbook_restore_when_stale"} <= {sensor.name for sensor in repository.sensor_defs}
    assert {"sportsbook_snapshot", "sportsbook_restore_test"} <= set(repository.job_names)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rpoo": "30s"}, "rpoo"),
        ({"rpo": 30}, "rpo"),
        ({"rpo": "30"}, "rpo"),
        ({"rpo": "1h"}, "over the 30s of tier player_ledger"),
        ({"replicas": ["primary"]}, "policy.vault_twice"),
        ({"location": {"provider": "hetzner", "region": "fsn1", "jurisdiction": "DE"}}, "policy.failure_domain"),
        ({"drill": {"cron": "0 4 1 1 *", "overdue_after": "400d"}}, "policy.drill_cadence"),
        ({"owners": []}, "owners"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_declaration_does_not_load(sandbox: DefsFolderSandbox, change: dict[str, Any], said: str) -> None:
    """Dagster refuses what the estate's rules refuse, and its error names the offence."""
    declaration = ledger()
    declaration["attributes"] |= change
    write(sandbox, "ledger", declaration)
    with pytest.raises(Exception) as refused:  # noqa: PT011  # Dagster wraps it differently by kind of offence
        loaded(sandbox)
    told, error = "", refused.value
    while error is not None:
        told, error = f"{told}\n{error}", error.__cause__  # type: ignore[assignment]
    assert said in told
