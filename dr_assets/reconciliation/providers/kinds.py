"""What a provider calls a line, as one of our kinds.

What belongs here: the look-up. What stays out: any provider's own names.
"""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from dr_assets.reconciliation.providers.lines import Place


def kinds_of(text: pa.Array, kinds: Mapping[str, str], place: Place) -> pa.Array:
    """The kind of every row. Raises SourceError (`reconciliation.file`) for a name that nobody declared."""
    found = pc.index_in(text, value_set=pa.array(list(kinds)))
    if found.null_count:
        row = pc.index(pc.is_null(found), True).as_py()
        raise place.refused(row, text[row], f"is no kind of line that is known ({', '.join(sorted(kinds))[:300]})")
    return pa.array(list(kinds.values())).take(found)
