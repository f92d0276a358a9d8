"""Probes of what is on this host before anything is connected: variables, programs, disks, the spool.

What belongs here: reading the environment by name and files by mode. What stays out: keys (keys.py), the
source and the vault.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dr_assets.cli.doctor.line import Line
from dr_assets.cli.doctor.patient import Patient
from dr_assets.engines.programs import find_programs
from dr_assets.estate.model import Spool
from dr_assets.estate.sizes import format_size
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.vault.keys.secret_file import OTHERS

# What a restore calls (engines.postgres and stores.postgres.restore); pg_amcheck only at level `deep`.
_TOOLS: Final = ("postgres", "initdb", "pg_verifybackup", "pg_waldump", "pg_checksums", "pg_amcheck", "pg_controldata")
_COMBINE_SINCE: Final = 17


def environment(patient: Patient) -> Iterator[Line]:
    """Each variable that the declarations name is set; values are never shown."""
    estate, dataset = patient.estate, patient.dataset
    needed = dataset.env_names() | estate.key_envs() | {*patient.vault_envs(dataset.vault)}
    unset = sorted(name for name in needed if not patient.env.get(name))
    if unset:
        hint = "set them where this runs and where the capture and Dagster's runs are started"
        yield Line("environment", "bad", f"not set: {', '.join(unset)}", hint)
    else:
        yield Line("environment", "ok", f"all {len(needed)} variables are set")
    for replica in dataset.replicas:
        away = sorted(name for name in patient.vault_envs(replica) if not patient.env.get(name))
        if away:
            hint = "without them nobody here can read that copy, also not when the first vault is gone"
            yield Line("environment", "warn", f"for replica {replica} not set: {', '.join(away)}", hint)
    channels = [name for name in (estate.alerts.slack_webhook_env, estate.alerts.webhook_env) if name]
    if not any(patient.env.get(name) for name in channels):
        named = ", ".join(channels) or "none is declared under `alerts`"
        yield Line("alerts", "warn", f"no channel has an address ({named})", "set one: what is red tells nobody")


def programs_for(patient: Patient, major: int, whose: str) -> Line:
    """Server programs of `major`, with every tool that a restore calls. Raises PolicyError `engine.no_programs`."""
    found = find_programs("postgres", major, patient.env)
    tools = (*_TOOLS, "pg_combinebackup") if major >= _COMBINE_SINCE else _TOOLS
    lacking = [tool for tool in tools if not found.path(tool).is_file()]
    if lacking:
        hint = f"install the whole of postgresql-{major}, server and client programs"
        return Line("programs", "bad", f"{found.describe()} lacks {', '.join(lacking)}", hint)
    return Line("programs", "ok", f"{found.describe()}, for {whose}")


def room_for(patient: Patient, needed_bytes: int) -> Line:
    """Whether the folder that restore tests work in can take `needed_bytes` and what a replay adds."""
    folder = Path(patient.env.get(WORK_DIR_ENV) or tempfile.gettempdir())
    asked = needed_bytes + needed_bytes // 10 + (256 << 20)  # what a restore asks for (stores/postgres/site.py)
    free = shutil.disk_usage(folder).free if folder.is_dir() else 0
    found = f"{free >> 20} MiB free in {folder}, a restore of the newest base backup needs {asked >> 20} MiB"
    if free >= asked:
        return Line("room", "ok", found)
    return Line("room", "bad", found, f"point {WORK_DIR_ENV} to a larger disk, and give a restore `--into` there")


def spool(patient: Patient) -> Iterator[Line]:
    """The spool's folder is there, ours alone, writable and large enough."""
    declared = patient.database.spool
    if declared is None:
        return
    folder = patient.path(declared.dir_env)
    if not folder.is_dir():
        yield Line("spool", "bad", f"{declared.dir_env} names no folder", "create it, mode 700, owned by the capture")
        return
    yield from _spool_of(declared, folder)


def _spool_of(declared: Spool, folder: Path) -> Iterator[Line]:
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & OTHERS:
        yield Line("spool", "bad", f"{folder} has mode {mode:o}: others get at it", f"chmod 700 {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Line(
            "spool", "bad", f"{folder} can't be written by this user", "run this as the capture's user, or chown"
        )
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    found = f"{used >> 20} MiB of {format_size(declared.max_bytes)} used in {folder}, {free >> 20} MiB free on its disk"
    if used + free < declared.max_bytes:
        yield Line("spool", "warn", found, "the disk is full before the spool is: enlarge it, or lower `spool.max`")
    elif used:
        yield Line("spool", "warn", found, "the vault did not take everything yet: see `vault`, and the capture's log")
    else:
        yield Line("spool", "ok", found)
