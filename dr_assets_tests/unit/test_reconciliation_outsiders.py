"""A dataset's `reconcile:` opened: each declared source is one relation, and what can't be found is said."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.estate.reconcile import ProviderFeed, Reconcile
from dr_assets.reconciliation.engine.duckdb import duckdb_engine
from dr_assets.reconciliation.externals import compare_externals
from dr_assets.reconciliation.outsiders import outsiders

_SAMPLES = Path(__file__).parent / "provider_samples"


def _feed(tmp_path: Path, kind: str, sample: str) -> ProviderFeed:
    folder = tmp_path / kind
    folder.mkdir()
    shutil.copy(_SAMPLES / sample, folder)
    return ProviderFeed(kind, kind, kind.upper())  # type: ignore[arg-type]


def test_every_declared_source_becomes_the_relation_that_checks_read(tmp_path: Path) -> None:
    """Providers' lines, banks' entries and contacts fit the relations; topics are left out where no vault is given."""
    feeds = (_feed(tmp_path, "stripe", "stripe.csv"), _feed(tmp_path, "camt053", "statement-02.xml"))
    contacts = tmp_path / "contacts.csv"
    contacts.write_text("player_id,email_consent,sms_consent,synced_at\n7,true,false,2026-01-31T10:00:00Z\n")
    asked = Reconcile(feeds, topics="game_events", contacts_env="CRM")
    env = {"STRIPE": str(tmp_path / "stripe"), "CAMT053": str(tmp_path / "camt053"), "CRM": str(contacts)}
    with outsiders(asked, env, tmp_path) as found:
        assert set(found) == {"provider_lines", "bank_lines", "contacts"}
        compare_externals(found)
        assert all(isinstance(one, pa.RecordBatchReader) and one.read_all().num_rows > 0 for one in found.values())


def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    """Nothing is left out silently because somebody forgot to export it."""
    with (
        pytest.raises(PolicyError, match="CARDS_DIR") as caught,
        outsiders(Reconcile((ProviderFeed("cards", "stripe", "CARDS_DIR"),)), {}, tmp_path),
    ):
        pass
    assert caught.value.code == "policy.env_unset"


def test_nobody_is_asked_where_nobody_is_declared(tmp_path: Path) -> None:
    """No declaration, no relations."""
    with outsiders(None, {}, tmp_path) as found:
        assert found == {}


def test_a_broken_file_is_named_whatever_reads_it(tmp_path: Path) -> None:
    """An engine that meets a broken file of contacts fails with our words, not with its own."""
    contacts = tmp_path / "contacts.csv"
    contacts.write_text("player_id,email_consent,sms_consent,synced_at\n7,true,,2026-01-31T10:00:00Z\n")
    with (
        pytest.raises(SourceError, match="without sms_consent") as caught,
        outsiders(Reconcile(contacts_env="CRM"), {"CRM": str(contacts)}, tmp_path) as found,
        duckdb_engine(tmp_path, "64MB", 1) as engine,
    ):
        engine.load("contacts", found["contacts"])
    assert caught.value.code == "crm.file"


def test_what_an_engine_cannot_compute_is_an_error_of_ours(tmp_path: Path) -> None:
    """No traceback of the engine's own, and no text of a row in the message."""
    with pytest.raises(SourceError) as caught, duckdb_engine(tmp_path, "64MB", 1) as engine:
        engine.rows("SELECT CAST('Jane Doe' AS BIGINT)")
    assert caught.value.code == "reconciliation.engine"
    assert "Jane" not in str(caught.value)
    assert "ConversionException" in str(caught.value)
