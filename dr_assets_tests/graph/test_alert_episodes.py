import json
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dr_assets.components.episodes import Condition, Episodes, fold

T0 = datetime(2026, 3, 1, tzinfo=UTC)
CHANNELS = ("slack", "webhook")


def condition(*, red: bool, minute: int = 0, subject: str = "check ledger/wal_chain:rpo") -> Condition:
    """One look at one subject."""
    return Condition(subject, "check", red, T0 + timedelta(minutes=minute), "because")


def told(episodes: Episodes, channel: str = "slack") -> list[tuple[str, str]]:
    """What one channel is still to be told."""
    return [(each.notice.status, each.notice.episode) for each in episodes.pending if each.channel == channel]


def test_an_episode_is_told_once_at_its_beginning_and_once_at_its_end() -> None:
    """Red looked at a hundred times is one alert, and green after it is one recovery under the same episode."""
    episodes = fold(Episodes(), [condition(red=True, minute=minute) for minute in range(100)], CHANNELS)
    assert [status for status, _ in told(episodes)] == ["firing"]
    episodes = fold(episodes, [condition(red=False, minute=200)] * 3, CHANNELS)
    (firing, begun), (resolved, ended) = told(episodes)
    assert (firing, resolved, begun) == ("firing", "resolved", ended)
    assert told(episodes, "webhook") == told(episodes, "slack")
    assert episodes.open == {}


def test_two_episodes_of_one_subject_differ() -> None:
    """A second outage of the same subject is news again."""
    looks = [condition(red=True), condition(red=False, minute=1), condition(red=True, minute=2)]
    episodes = fold(Episodes(), looks, CHANNELS)
    assert [status for status, _ in told(episodes)] == ["firing", "resolved", "firing"]
    assert len({episode for _, episode in told(episodes)}) == 2


def test_what_was_always_green_is_never_told() -> None:
    """Nobody hears of a subject that is fine."""
    assert fold(Episodes(), [condition(red=False)], CHANNELS) == Episodes()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=30))
def test_the_cursor_holds_everything(looks: list[tuple[str, bool]]) -> None:
    """Folding with the state written out and read back after every look equals folding in memory."""
    conditions = [condition(red=red, minute=at, subject=subject) for at, (subject, red) in enumerate(looks)]
    stored = Episodes()
    for each in conditions:
        stored = Episodes.from_cursor(fold(stored, [each], CHANNELS).to_cursor())
    assert stored == fold(Episodes(), conditions, CHANNELS)
    json.loads(stored.to_cursor())
