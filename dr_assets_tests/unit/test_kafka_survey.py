"""What a survey says of topics that it is not shown."""

from typing import Any

from dr_assets.stores.kafka.survey import Survey
from dr_assets.stores.kafka.wire import Topic
from dr_assets_tests.integration.kafka.capture_rig import make_dataset


class Estate:
    """What of a vault its name for the owner's group needs."""

    estate = "casino"


def test_topics_that_are_declared_by_name_and_not_there_are_told() -> None:
    """A name with a slip in it, or a right that lacks: the others are captured, this one is a warning each time."""
    there = {"bets": Topic("bets", "ab" * 16, is_internal=False, partitions=())}
    nothing: Any = None
    vault: Any = Estate()
    declared = make_dataset(["bets", "bet", "casino.*", "left"], exclude=("left",))
    survey = Survey(nothing, vault, declared, topics=lambda: there, registry=None, every_s=5.0)
    assert not survey.warnings  # nobody has looked yet
    survey.rounds = 1
    (warning,) = list(survey.warnings)
    assert "topic bet " in warning
    there["bet"] = there["bets"]
    assert not list(survey.warnings)
