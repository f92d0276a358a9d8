"""`dr-assets …`: the verbs for people, cron and systemd.

What belongs here: arguments, output, exit codes, and handing callables to resident processes. What stays out: every
rule. A verb here is a few lines around a function that Dagster calls as well.
"""

from dr_assets.cli.app import main

__all__ = ["main"]
