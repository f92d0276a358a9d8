"""A key-encryption key that may have been stolen: nothing is written under it any more, what lies under it is known.

What belongs here: marking it, after new data keys took the place of those it opens. What stays out: taking back what a
thief can read already, which nobody can (docs/keys.md, A stolen key-encryption key).
"""

from dataclasses import dataclass

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.keys.life.choice import ESTATE, RETIRED, FactChoice
from dr_assets.vault.keys.life.listing import KeyRow, datasets_with_keys, list_keys, writing_key
from dr_assets.vault.keys.life.rotation import Rotation, rotate
from dr_assets.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class Retirement:
    """What was done: the rotations it took, and every data key that the retired one opens."""

    kek_id: str
    rotations: tuple[Rotation, ...]
    exposed: tuple[KeyRow, ...]
    was_retired: bool


def retire(vault: Vault, kek_id: str, reason: str) -> Retirement:
    """Give every dataset that writes under `kek_id` a new data key, then mark it. Killed anywhere, run it again.

    The mark comes last: once it is there, no writer that opens the vault may use a key under it, and a dataset without
    another one would stand still. Writers at work take the new key up within `TAKE_UP_S`.

    Raises PolicyError `keys.kek_current` while a provider still wraps with it, `keys.kek_unknown` if nothing in this
    vault is wrapped by it; and what `rotate` raises.
    """
    _require_replaced(vault, kek_id)
    rows = [row for dataset in datasets_with_keys(vault) for row in list_keys(vault, dataset)]
    exposed = [row for row in rows if row.under(kek_id)]
    if not exposed:
        raise PolicyError(
            "keys.kek_unknown",
            f"no data key in vault {vault.name} is wrapped by {kek_id}",
            "`dr-assets keys list` shows the ids of all that are",
        )
    rotations: list[Rotation] = []
    for dataset in dict.fromkeys(row.dataset for row in exposed):
        # Twice where a rotation that somebody began under the stolen key had to be completed first.
        while (row := writing_key(vault, dataset)) is not None and row.under(kek_id):
            rotations.append(rotate(vault, dataset, f"{kek_id} is retired: {reason}"))
    was_retired = kek_id in FactChoice(vault).retired_keks()
    if not was_retired:
        record_fact(vault, ESTATE, RETIRED, _body(kek_id, reason, exposed))
    return Retirement(kek_id, tuple(rotations), tuple(exposed), was_retired)


def under(vault: Vault, kek_id: str) -> list[KeyRow]:
    """Every data key that this key-encryption key opens."""
    rows = [row for dataset in datasets_with_keys(vault) for row in list_keys(vault, dataset)]
    return [row for row in rows if row.under(kek_id)]


def _require_replaced(vault: Vault, kek_id: str) -> None:
    for provider in vault.keys.providers.every:
        try:
            current = provider.kek_id
        except VaultError as error:
            if error.code != "keys.unreachable":
                raise
            continue  # rotating will ask it again, and say so
        if current == kek_id:
            raise PolicyError(
                "keys.kek_current",
                f"provider {provider.name} still wraps with {kek_id}",
                "give it a new key-encryption key first (docs/keys.md, A stolen key-encryption key)",
            )


def _body(kek_id: str, reason: str, exposed: list[KeyRow]) -> dict[str, Json]:
    keys: dict[str, Json] = {}
    for row in exposed:
        listed = keys.setdefault(row.dataset, [])
        if isinstance(listed, list):
            listed.append(row.key_id)
    return {"kek_id": kek_id, "keys": keys, "reason": reason}
