"""Feed the format's parsers with hostile bytes for a while.

    python scripts/fuzz_parser.py --seconds 60

Prints how many attacks were tried; a failing one is shown by hypothesis, shrunk, and the exit code is 1. It belongs
into dr_assets_tests/broken/vault then.
"""

import argparse
import random
import sys
import time

from hypothesis import HealthCheck, given, seed, settings
from hypothesis.database import InMemoryExampleDatabase

from dr_assets_tests.faults.vault.hostile import attack, attacks

ROUND = 500


def main() -> int:
    """Rounds with fresh seeds until the time is over."""
    parser = argparse.ArgumentParser(description="hostile bytes for the format's parsers")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="repeat one run; drawn and printed otherwise")
    arguments = parser.parse_args()
    first = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {first}", flush=True)
    until_s, tried = time.monotonic() + arguments.seconds, 0
    while time.monotonic() < until_s:
        fuzz(first + tried)
        tried += ROUND
    print(f"{tried} attacks: every one refused or read, in bounded memory")
    return 0


def fuzz(number: int) -> None:
    """One round."""

    @seed(number)
    @settings(
        max_examples=ROUND,
        deadline=None,
        database=InMemoryExampleDatabase(),
        suppress_health_check=list(HealthCheck),
    )
    @given(attacks())
    def target(data: bytes) -> None:
        attack(data)

    target()


if __name__ == "__main__":
    sys.exit(main())
