"""What a declaration may say of the life of keys: rotation, and the ring of people's keys."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dr_assets.estate.declarations import check_estate, default_defs_dir, load_estate
from dr_assets.estate.model import Subjects

SUBJECTS = "  subjects: {vaults: [primary, standby], bucket: people-keys, id_key_env: ID_KEY, erasure_grace: 14d}\n"


@pytest.fixture
def defs(tmp_path: Path) -> Any:
    """`defs(keys="rotate_every: 30d", subjects="…")`: the packaged estate with that added."""

    def make(*, keys: str = "", subjects: str = "") -> Path:
        for path in default_defs_dir().glob("*/defs.yaml"):
            text = path.read_text()
            if "ProtectedEstate" in text:
                text = re.sub(r"(?ms)^  subjects:.*?(?=^  \w)", "", text)
                text = text.replace("  keys:\n", f"  keys:\n    {keys}\n" if keys else "  keys:\n") + subjects
            if "ProtectedBucket" in text:
                continue  # it needs the ring that is changed here
            (tmp_path / path.parent.name).mkdir(exist_ok=True)
            (tmp_path / path.parent.name / "defs.yaml").write_text(text)
        return tmp_path

    return make


def test_keys_are_rotated_every_90_days_unless_declared_otherwise(defs: Any) -> None:
    """The default, another cadence, and the ring of people's keys with its grace."""
    assert load_estate(defs()).rotate_every == timedelta(days=90)
    assert load_estate(defs()).subjects is None
    estate = load_estate(defs(keys="rotate_every: 30d", subjects=SUBJECTS))
    assert estate.rotate_every == timedelta(days=30)
    assert estate.subjects == Subjects(("primary", "standby"), "people-keys", "ID_KEY", timedelta(days=14))
    assert "ID_KEY" in estate.env_names()


@pytest.mark.parametrize(
    ("keys", "old", "new", "code"),
    [
        ("rotate_every: 400d", "", "", "policy.rotation"),
        ("rotate_every: 1h", "", "", "policy.rotation"),
        ("", "14d", "31d", "policy.erasure_grace"),
        ("", "14d", "1h", "policy.erasure_grace"),
        ("", "[primary, standby]", "[primary]", "policy.subjects_regions"),
        ("", "[primary, standby]", "[primary, primary]", "policy.subjects_regions"),
        ("", "[primary, standby]", "[primary, standby, third]", "policy.vault"),
        ("", "people-keys", "dr-assets-vault", "policy.subjects_bucket"),
    ],
)
def test_what_would_break_the_promise_is_refused(defs: Any, keys: str, old: str, new: str, code: str) -> None:
    """Each with its own code: rotation too rare, grace over 30 days, one region, the vault's own locked bucket."""
    assert code in {finding.code for finding in check_estate(defs(keys=keys, subjects=SUBJECTS.replace(old, new)))}
