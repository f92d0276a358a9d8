"""The EVM libraries, with what importing them breaks mended.

What belongs here: their names, for anchor.py. What stays out: everything else.

One of them raises Python's recursion limit for the whole process; from then on a hostile nested JSON would not end in
a RecursionError but kill the process.
"""

import sys

_LIMIT = sys.getrecursionlimit()

from eth_account import Account  # noqa: E402 - the limit has to be read before these change it
from eth_account.typed_transactions.typed_transaction import TypedTransaction  # noqa: E402 - see above
from eth_keys.exceptions import BadSignature  # noqa: E402 - see above
from eth_utils.exceptions import ValidationError  # noqa: E402 - see above
from hexbytes import HexBytes  # noqa: E402 - see above
from rlp.exceptions import RLPException  # type: ignore[import-untyped]  # noqa: E402 - see above
from web3 import HTTPProvider, Web3  # noqa: E402 - see above
from web3.exceptions import BlockNotFound, TransactionNotFound, Web3Exception  # noqa: E402 - see above

sys.setrecursionlimit(_LIMIT)

__all__ = [
    "Account",
    "BadSignature",
    "BlockNotFound",
    "HTTPProvider",
    "HexBytes",
    "RLPException",
    "TransactionNotFound",
    "TypedTransaction",
    "ValidationError",
    "Web3",
    "Web3Exception",
]
