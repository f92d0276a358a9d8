"""What others wrote (names in a bucket, reasons), as people may see it.

What belongs here: the one way into a table. What stays out: which table.
"""

from rich.text import Text

from dr_assets.vault.approvals.papers import plain


def shown(text: str) -> Text:
    """A cell that holds `text` and nothing more: no markup of rich's, nothing that moves a terminal's cursor.

    Whoever may put into a bucket names objects as they like: that must neither end a command nor hide a line of it.
    """
    return Text(plain(text))
