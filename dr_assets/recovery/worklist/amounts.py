"""Minor units as people read them. Written by moving a point through text: no float is ever near money.

What belongs here: the writing. What stays out: sums, and how many digits a currency has (reconciliation/providers).
"""

from typing import Final

from dr_assets.reconciliation.providers.currencies import EXPONENTS

_USUAL: Final = 2


def written(amount_minor: int, currency: str) -> str:
    """`123456` EUR as `1,234.56`."""
    digits = EXPONENTS.get(currency, _USUAL)
    sign, text = "-" if amount_minor < 0 else "", f"{abs(amount_minor):0{digits + 1}d}"
    whole, rest = (text[:-digits], text[-digits:]) if digits else (text, "")
    grouped = f"{int(whole):,}"
    return f"{sign}{grouped}.{rest}" if rest else f"{sign}{grouped}"
