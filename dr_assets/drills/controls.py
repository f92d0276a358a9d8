"""Negative controls: damage planted into a sandbox that had passed, which reconciliation must catch.

What belongs here: planting one kind after the other and counting what was noticed. What stays out: the forgeries
(casino/damage.py); a contract for which we know none gets no controls, and says so by `planted` being 0.
"""

from typing import Final

from dr_assets.casino.incident import DAMAGES, plant_damage
from dr_assets.drills.planted import Controls
from dr_assets.reconciliation.run import reconcile
from dr_assets.stores.postgres.restore import Restored

# Forgeries are written against a schema; this is the contract of the one we ship.
_FORGEABLE: Final = "casino_ledger"


def plant_and_catch(restored: Restored, contract: str, *, seed: int = 1) -> Controls:
    """Plants every kind of damage in turn on the sandbox, as its superuser; caught is what makes a break be told anew.

    Breaks are compared row by row and not counted: a posting that is altered and then deleted breaks other rules than
    before, and no more of them. The sandbox is ruined afterwards. Raises PolicyError `casino.not_a_sandbox` on any
    other server.
    """
    if contract != _FORGEABLE:
        return Controls(0, 0, ())
    known = _told(restored, contract)
    missed = []
    for kind in DAMAGES:
        plant_damage(restored.dsn(), kind, seed)
        found = _told(restored, contract)
        if found <= known:
            missed.append(kind)
        known = found
    return Controls(len(DAMAGES), len(DAMAGES) - len(missed), tuple(missed))


def _told(restored: Restored, contract: str) -> frozenset[tuple[object, ...]]:
    """Every break there is now: which rule, where, how much. What hangs on the moment of judging is left out."""
    breaks = reconcile(restored.reader_dsn(), contract).breaks.drop_columns(["aged", "detail"])
    return frozenset(zip(*breaks.to_pydict().values(), strict=True))
