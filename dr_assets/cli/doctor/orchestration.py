"""Probe of Dagster: its storage answers and its daemon lives, since a daemon that is down alerts nobody.

What belongs here: the line. What stays out: asking Dagster (components/instance_health.py; only that room imports it).
"""

from collections.abc import Iterator, Mapping

from dr_assets.cli.doctor.line import Line


def dagster(env: Mapping[str, str]) -> Iterator[Line]:
    """Nothing where DAGSTER_HOME is not set: then this host does not run it."""
    if not env.get("DAGSTER_HOME"):
        return
    # Dagster takes seconds to import, and only hosts that run it need it.
    from dr_assets.components.instance_health import daemon_health  # noqa: PLC0415 - see above

    unhealthy = daemon_health()
    if unhealthy:
        hint = "start dagster-daemon: without it no check is judged, no backup is scheduled and no alert goes out"
        yield Line("dagster", "bad", f"no heartbeat of {', '.join(unhealthy)}", hint)
    else:
        yield Line("dagster", "ok", "its storage answers and its daemon is alive")
