"""Trials of damage before a real S3 store: lies by the proxy, versions and delete markers by the store itself.

What belongs here: one trial, used by the test and by scripts/damage_trials.py. What stays out: starting a store.
"""

import random
from typing import Any

from dr_assets.vault.connect import utc_now
from dr_assets.vault.storage.s3 import S3Store
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets_tests.faults.vault.damage import KINDS, Plan, judge
from dr_assets_tests.faults.vault.s3_proxy import LyingProxy
from dr_assets_tests.faults.vault.sample import Sample, build_sample

SAMPLES = 4


class S3Trials:
    """Trials in one bucket: `client` speaks to the store, `through` to the proxy before it."""

    def __init__(self, client: Any, through: Any, proxy: LyingProxy, bucket: str) -> None:
        self.client = client
        self.proxy = proxy
        self.bucket = bucket
        self.true_store = S3Store(client, bucket)
        self.lying_store = S3Store(through, bucket)
        self._samples: dict[int, Sample] = {}
        self._built = 0

    def run(self, kind: str, seed: int) -> str:
        """Why the trial failed; nothing if it did not."""
        sample = self._sample(seed % SAMPLES)
        plan = KINDS[kind](sample, random.Random(f"{kind} {seed}"))
        added = self._put_on_top(plan)
        self.proxy.lies = plan.beneath
        try:
            whole = sample.vault
            return judge(
                plan,
                sample,
                throwaway_vault(
                    store=self.lying_store,
                    estate=whole.estate,
                    signer=whole.signer,
                    provider=whole.keys.provider,
                    clock=utc_now,
                ),
            )
        finally:
            self.proxy.lies = {}
            for name, version_id in added:  # what was added has no lock, so the sample can be used again
                self.client.delete_object(Bucket=self.bucket, Key=name, VersionId=version_id)

    def build(self, seed: int) -> Sample:
        """A new sample, of an estate of its own."""
        self._built += 1
        return build_sample(seed, store=self.true_store, estate=f"casino{self._built}", clock=utc_now)

    def _sample(self, seed: int) -> Sample:
        if seed not in self._samples:
            self._samples[seed] = self.build(seed)
        return self._samples[seed]

    def _put_on_top(self, plan: Plan) -> list[tuple[str, str]]:
        added = []
        for name, data in plan.on_top:
            if data is None:
                answer = self.client.delete_object(Bucket=self.bucket, Key=name)
            else:
                answer = self.client.put_object(Bucket=self.bucket, Key=name, Body=data)
            added.append((name, answer["VersionId"]))
        return added
