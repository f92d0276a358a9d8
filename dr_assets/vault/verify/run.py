"""A whole verification: list, examine in parallel with bounded memory, then relate.

What belongs here: the order of the steps. What stays out: the judgements.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.expiry_list import EXPIRY, EXPIRY_LIST
from dr_assets.vault.format.keys import KEYS, fact_stream, prefix_of
from dr_assets.vault.full_segment import FULL
from dr_assets.vault.storage.versions import Name, look, scan
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify.examine import Examined, examine
from dr_assets.vault.verify.report import VerifyReport
from dr_assets.vault.verify.said import WAL
from dr_assets.vault.verify.tally import Tally
from dr_assets.vault.witness import Witness

# What accounts, later, for what is not there any more: fulls in place of micros, and what was removed on record.
_ACCOUNTS: Final = (FULL, EXPIRY_LIST, fact_stream(EXPIRY))
WORKERS: Final = 4  # each holds one object; two cores are busy with four since half of the time is waiting
Progress = Callable[[int, int], None]


def verify(
    vault: Vault,
    dataset: str | None = None,
    *,
    as_of: datetime | None = None,
    witness: Witness | None = None,
    progress: Progress | None = None,
    workers: int = WORKERS,
) -> VerifyReport:
    """Re-read every object of the estate (or of one dataset) and everything that objects say of each other.

    `as_of` judges the vault as it was then by the store's clock, by what of then is still there; what has expired since
    is not missed where a later full segment holds it or an expiry list names it. What `witness` knows must be there.
    `progress` is called with the number of names examined and with their total, for which they are listed twice. Raises
    VaultError when the store can't be read, and `vault.wrong_key` when no key at all can be unwrapped: then nothing can
    be said about anything.
    """
    begin_s = time.monotonic()
    vault = vault.anew()
    now = as_of or vault.clock()
    tally = Tally(vault.locks, now)
    direct, folders = _folders(vault, dataset, as_of)
    _require_keys(vault, folders, as_of)
    if as_of is not None:
        for item in _examined(vault, _later(vault, dataset, as_of), vault.clock(), workers):
            tally.account_for(item)
    total = sum(1 for _ in _names(vault, direct, folders, as_of)) if progress else 0
    for done, item in enumerate(_examined(vault, _names(vault, direct, folders, as_of), now, workers), start=1):
        tally.add(item)
        if progress is not None:
            progress(done, max(done, total))
    findings = tally.judge(witness, vault.estate, dataset)
    return VerifyReport(
        findings=tuple(sorted(set(findings), key=lambda finding: (finding.severity, finding))),
        objects_total=tally.objects_total,
        objects_locked=tally.objects_locked,
        size_bytes=tally.size_bytes,
        duration_s=time.monotonic() - begin_s,
        witness=Witness.of(tally.newest.values()),
    )


def _folders(vault: Vault, dataset: str | None, as_of: datetime | None) -> tuple[list[Name], list[str]]:
    """Names that lie above the streams, and the streams' folders: WAL last, for it is held to what others say."""
    direct: list[Name] = []
    datasets = [prefix_of(vault.estate, dataset)]
    if dataset is None:
        names, found = look(vault.store, prefix_of(vault.estate), as_of=as_of)
        direct, datasets = names, list(found)
    folders: list[str] = []
    for place in datasets:
        names, found = look(vault.store, place, as_of=as_of)
        direct += names
        folders += found
    return direct, sorted(folders, key=lambda folder: (folder.endswith(f"/{WAL}/"), folder))


def _names(vault: Vault, direct: list[Name], folders: list[str], as_of: datetime | None) -> Iterator[Name]:
    yield from direct
    for folder in folders:
        yield from scan(vault.store, folder, as_of=as_of)


def _later(vault: Vault, dataset: str | None, as_of: datetime) -> Iterator[Name]:
    """What accounts for expired objects and was put after `as_of`."""
    _, folders = _folders(vault, dataset, None)
    for folder in folders:
        if folder.rstrip("/").rpartition("/")[2] in _ACCOUNTS:
            for name in scan(vault.store, folder):
                if name.versions and min(version.modified_at for version in name.versions) > as_of:
                    yield name


def _require_keys(vault: Vault, folders: Iterable[str], as_of: datetime | None) -> None:
    """Tell a wrong keys folder once, not object by object."""
    refusal: VaultError | None = None
    for folder in folders:
        if not folder.endswith(f"/{KEYS}/"):
            continue
        for name in scan(vault.store, folder, as_of=as_of):
            if name.key is None or not name.versions:
                continue
            try:
                vault.keys.by_id(name.key.dataset, name.key.system_id)
            except VaultError as error:
                if error.code != "vault.wrong_key":
                    continue
                refusal = error
            else:
                return
    if refusal is not None:
        raise refusal


def _examined(vault: Vault, names: Iterator[Name], now: datetime, workers: int) -> Iterator[Examined]:
    """In order; only a few names ahead are in memory."""
    with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
        ahead: deque[Future[Examined]] = deque()
        for name in names:
            ahead.append(pool.submit(examine, vault, name, now))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
