"""`dr-assets demo` and `dr-assets up`: the embedded estate, once through its story or kept running."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

BROKEN = 1

HomeOption = Annotated[Path, typer.Option("--home", help="folder for everything the run makes")]
RateOption = Annotated[float, typer.Option("--rate", min=1, help="money transactions offered per second")]


def demo(
    home: HomeOption = Path(".demo"),
    rate: RateOption = 400,
    load_s: Annotated[
        float, typer.Option("--load-s", min=1, help="seconds of load before and after the snapshot")
    ] = 12,
) -> None:
    """Capture a ledger under load, kill it, bring it back from the vault alone, and prove that the money adds up."""
    from dr_assets.demo.story import Pace, tell  # noqa: PLC0415 - a quarter of every other verb's start

    report = tell(home.absolute(), Console(), Pace(rate_per_s=rate, load_s=load_s))
    if not report.ok:
        raise typer.Exit(BROKEN)


def up(
    home: HomeOption = Path(".demo"),
    rate: RateOption = 100,
    port: Annotated[int, typer.Option("--port", help="of the Dagster UI; 0 picks a free one")] = 3000,
) -> None:
    """Keep the embedded estate, its workload, the capture and the Dagster UI running until Ctrl-C."""
    from dr_assets.demo.running import keep_running  # noqa: PLC0415 - see above

    keep_running(home.absolute(), Console(), rate_per_s=rate, port=port)
