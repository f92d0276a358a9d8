"""Books that add up are never red: ten casinos, looked at under load, at any moment."""

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from dr_assets.reconciliation.providers.open import FeedFormat
from dr_assets_tests.reconciliation.books import open_books
from dr_assets_tests.reconciliation.lived import SOON, live

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("seeds")]

_SEEDS: Final = range(10)
_FORMATS: Final[tuple[FeedFormat, ...]] = ("stripe", "adyen", "csv")
_RATE_PER_S = 40


def test_ten_seeds_give_no_break_at_any_moment(sandbox_database: Callable[[], str], tmp_path: Path) -> None:
    """Payments on their way, withdrawals that wait, events unpublished, consents unsynced: counted, and no break."""

    def judged(seed: int) -> tuple[dict[str, dict[str, int]], Counter[str]]:
        moment_s = SOON.total_seconds() + random.Random(seed).uniform(1, 6)
        lived = live(
            sandbox_database(), tmp_path / str(seed), seed, _FORMATS[seed % len(_FORMATS)],
            rate_per_s=_RATE_PER_S, topics_first=seed % 2 == 1,
            until=lambda lived_s, acknowledged: lived_s > moment_s and acknowledged > 5 * _RATE_PER_S,
        )  # fmt: skip
        with open_books(lived) as books:
            results = books.judged()
        counts: Counter[str] = Counter()
        for one in results:
            for matched in one.matched:
                counts[f"{one.name} {matched.outcome}"] += matched.count
        return {one.name: one.breaks_by_reason for one in results if one.breaks_total}, counts

    with ThreadPoolExecutor(len(_SEEDS)) as pool:
        found = list(pool.map(judged, _SEEDS))
    assert [breaks for breaks, _ in found] == [{}] * len(_SEEDS)
    total = sum((counts for _, counts in found), Counter[str]())
    for outcome in ("matched", "in_flight"):
        assert total[f"payments/settled_agree {outcome}"] > 0
        assert total[f"outbox/published {outcome}"] > 0
    assert total["withdrawals/payouts_agree open"] > 0
