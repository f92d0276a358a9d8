"""Options that several verbs take in the same words.

What belongs here: their types, as typer reads them. What stays out: what every verb takes (context.py), and what one
verb alone does (beside it).
"""

from pathlib import Path
from typing import Annotated

import typer

VaultOption = Annotated[str | None, typer.Option("--vault", help="which vault; the dataset's own by default")]
AsOfOption = Annotated[str | None, typer.Option("--as-of", help="use the vault as it was at this time")]
ErasuresOption = Annotated[
    Path | None, typer.Option("--erasures", help="a list that `erasure list --out` saved: for where no region answers")
]
OfTheCopyOption = Annotated[
    bool, typer.Option("--erasures-of-the-copy", help="no region answers: whoever was erased since the copy comes back")
]
AccessKeyOption = Annotated[str | None, typer.Option("--access-key-env", help="variable with its access key")]
SecretKeyOption = Annotated[str | None, typer.Option("--secret-key-env", help="variable with its secret key")]
