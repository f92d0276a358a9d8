"""A vault seen through something: one that lists other objects than it holds, and is the same in all else.

What belongs here: handing listings on. What stays out: what is to be seen (whoever needs a view says it in a function).
"""

from collections.abc import Callable, Iterator
from datetime import datetime

from dr_assets.vault.vault import StoredObject, Vault

Listing = Callable[[datetime | None], Iterator[StoredObject]]
"""The listing that was asked for, as of a moment of the store's clock."""

Select = Callable[[Listing, str | None, datetime | None], Iterator[StoredObject]]
"""What to show of it, given the stream that was asked for (None: all of them) and the moment."""


class View(Vault):
    """`vault`, of which `objects` shows what `select` makes of each listing."""

    def __init__(self, vault: Vault, select: Select) -> None:
        super().__init__(
            store=vault.store, estate=vault.estate, name=vault.name, keys=vault.keys, trust=vault.trust,
            signer=vault.signer, locks=vault.locks, clock=vault.clock,
        )  # fmt: skip
        self._select = select

    def objects(
        self,
        dataset: str | None = None,
        stream: str | None = None,
        *,
        system_id: str | None = None,
        timeline: int | None = None,
        start_after_position: int | None = None,
        as_of: datetime | None = None,
    ) -> Iterator[StoredObject]:
        """As the vault's, through `select`."""

        def listed(moment: datetime | None) -> Iterator[StoredObject]:
            return super(View, self).objects(
                dataset, stream, system_id=system_id, timeline=timeline, start_after_position=start_after_position,
                as_of=moment,
            )  # fmt: skip

        return self._select(listed, stream, as_of)
