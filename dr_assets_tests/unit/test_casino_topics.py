import re
from importlib.resources import files

from dr_assets.casino.events import TOPICS


def test_whatever_the_ledger_can_post_has_its_topic() -> None:
    """The outbox names a topic for each kind of transfer; one that was never made would stop everything behind it."""
    text = (files("dr_assets.casino") / "sql" / "020_ledger.sql").read_text(encoding="utf-8")
    allowed = re.search(r"CHECK \(kind IN \(([^)]*)\)", text)
    assert allowed is not None
    assert set(TOPICS) == {f"ledger.{kind}" for kind in re.findall(r"'(\w+)'", allowed[1])}
