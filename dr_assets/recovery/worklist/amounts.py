"""Minor units as people read them. Written by moving a comma through text: no float is ever near money.

What belongs here: the currencies whose minor unit is not a hundredth (ISO 4217), and the writing. What stays out: sums.
"""

from typing import Final

_DIGITS: Final = {
    **dict.fromkeys(
        ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"), 0
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
_USUAL: Final = 2


def digits_of(currency: str) -> int:
    """How many digits a currency has behind the point."""
    return _DIGITS.get(currency, _USUAL)


def written(amount_minor: int, currency: str) -> str:
    """`123456` EUR as `1,234.56`."""
    digits = digits_of(currency)
    sign, text = "-" if amount_minor < 0 else "", f"{abs(amount_minor):0{digits + 1}d}"
    whole, rest = (text[:-digits], text[-digits:]) if digits else (text, "")
    grouped = f"{int(whole):,}"
    return f"{sign}{grouped}.{rest}" if rest else f"{sign}{grouped}"
