"""ISO 4217: how many digits the minor unit of each currency has.

What belongs here: the table, looking up. What stays out: amounts (amounts.py). Settlement files know no funds codes,
metals or test codes, so those are left out, and a code that is not here is refused rather than guessed at.
"""

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from dr_assets.reconciliation.providers.lines import Place

_BY_EXPONENT: Final[dict[int, str]] = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
    2: (
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF"
        " CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG"
        " HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU"
        " MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR"
        " SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED"
        " VES WST XCD XCG YER ZAR ZMW ZWG"
    ),
}
EXPONENTS: Final[dict[str, int]] = {code: digits for digits, codes in _BY_EXPONENT.items() for code in codes.split()}
_CODES: Final = pa.array(list(EXPONENTS))
_DIGITS: Final = pa.array(list(EXPONENTS.values()), pa.int8())


def exponents_of(currency: pa.Array, place: Place) -> pa.Array:
    """Digits of the minor unit, row by row. Raises SourceError (`reconciliation.file`) for a code that is none."""
    found = pc.index_in(currency, value_set=_CODES)
    if found.null_count:
        row = pc.index(pc.is_null(found), True).as_py()
        raise place.refused(row, currency[row], "is no currency of ISO 4217")
    return _DIGITS.take(found)
