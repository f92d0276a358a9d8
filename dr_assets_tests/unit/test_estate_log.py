from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from dr_assets.estate.declarations import check_estate, default_defs_dir, load_estate
from dr_assets.estate.log_policy import LogPolicy

KEY = "witness.example/w1+18b9780b+BBpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
ESTATE = (default_defs_dir() / "estate" / "defs.yaml").read_text(encoding="utf-8")


def _declare(folder: Path, log: object) -> Path:
    document = yaml.safe_load(ESTATE)
    document["attributes"]["log"] = log
    (folder / "estate").mkdir()
    (folder / "estate" / "defs.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return folder


def test_without_a_declaration_nobody_vouches(tmp_path: Path) -> None:
    """An estate may have no outsiders: no witness, quorum 0, no variable asked for."""
    assert load_estate(_declare(tmp_path, None)).log == LogPolicy()


def test_outsiders_are_declared_with_their_defaults(tmp_path: Path) -> None:
    """One witness makes a quorum of one; stamps hourly, anchors daily; the variables are the estate's."""
    witness = {"name": "w1", "url_env": "W1_URL", "key": KEY}
    stamps = {"url_env": "TSA_URL", "roots_env": "TSA_ROOTS"}
    anchor = {"url_env": "CHAIN_URL", "key_env": "CHAIN_KEY", "chain_id": 8453}
    estate = load_estate(_declare(tmp_path, {"witnesses": [witness], "timestamp": stamps, "anchor": anchor}))
    assert (estate.log.quorum, estate.log.witnesses[0].key) == (1, KEY)
    assert estate.log.timestamp
    assert estate.log.anchor
    assert (estate.log.timestamp.every, estate.log.anchor.every) == (timedelta(hours=1), timedelta(days=1))
    assert estate.log.anchor.confirmations == 12
    assert {"W1_URL", "TSA_URL", "TSA_ROOTS", "CHAIN_URL", "CHAIN_KEY"} <= set(estate.env_names())


@pytest.mark.parametrize(
    ("code", "log"),
    [
        ("policy.quorum", {"witnesses": [{"name": "w1", "url_env": "A", "key": KEY}], "quorum": 2}),
        ("policy.quorum", {"quorum": 1}),
        (
            "policy.witness_twice",
            {"witnesses": [{"name": "w1", "url_env": "A", "key": KEY}, {"name": "w2", "url_env": "B", "key": KEY}]},
        ),
        (
            "policy.witness_twice",
            {
                "witnesses": [
                    {"name": "w1", "url_env": "A", "key": KEY},
                    {"name": "w1", "url_env": "B", "key": KEY.replace("w1", "w2")},
                ]
            },
        ),
        ("policy.value", {"witnesses": [{"name": "w1", "url_env": "A", "key": "secret"}]}),
        ("policy.value", {"anchor": {"url_env": "A", "key_env": "B", "chain_id": 1, "confirmations": 0}}),
    ],
)
def test_what_can_not_be_is_refused(tmp_path: Path, code: str, log: object) -> None:
    """A quorum beyond the witnesses, one witness counted twice, keys that are none: each is a finding."""
    assert [finding.code for finding in check_estate(_declare(tmp_path, log))] == [code]
