"""`python -m dr_assets.casino`: the workload as a process of its own, one JSON line of stats a second.

`python -m dr_assets.casino provider-files --acks DIR --out DIR --format FORMAT` writes what outsiders know of it, and
prints the files' paths.

What belongs here: arguments, signals, printing. What stays out: the workload itself. The connection string is read
from an environment variable, so that it shows up in no process list. Ends on SIGTERM and SIGINT, when the server is
gone (without --reconnect), after --seconds, and when nobody reads its output any more. Exit 0, or a typed error's.
"""

import argparse
import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from dr_assets.casino.provider_files import FORMATS, write_provider_files
from dr_assets.casino.workload import Stats, Workload
from dr_assets.estate.errors import DrError, PolicyError


def main(arguments: list[str] | None = None) -> int:
    """Run until told to stop, or write the files; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["provider-files"]:
        return _provider_files(given[1:])
    options = _parse(given)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    try:
        _run(options, done)
    except DrError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _run(options: argparse.Namespace, done: threading.Event) -> None:
    dsn = os.environ.get(options.dsn_env)
    if not dsn:
        raise PolicyError(
            "casino.dsn_env", f"the environment variable {options.dsn_env} is not set", "set it to the casino's DSN"
        )
    workload = Workload(
        dsn, options.ack_dir, options.rate, options.workers, options.seed,
        reconnect=options.reconnect, brokers=options.brokers,
    )  # fmt: skip
    workload.start()
    printing = True
    seconds = 0
    while printing and workload.running and seconds != options.seconds and not done.wait(1):
        printing = _print(workload.stats())
        seconds += 1
    last = workload.stop()
    if printing:
        _print(last)


def _print(stats: Stats) -> bool:
    """False when the reader is gone: then nobody is left to stop this process either."""
    try:
        sys.stdout.write(json.dumps(asdict(stats)) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter's own flush fails at exit
        return False
    return True


def _provider_files(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dr_assets.casino provider-files", description="What outsiders know, from their own record."
    )
    parser.add_argument("--acks", required=True, type=Path, help="folder of the workload's records")
    parser.add_argument("--out", required=True, type=Path, help="folder for the files")
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("--until", type=datetime.fromisoformat, help="with an offset; what came later is not in them")
    options = parser.parse_args(arguments)
    until = options.until or datetime.now(UTC)
    try:
        if until.tzinfo is None:
            raise PolicyError("casino.until", f"{until} has no offset from UTC", "write 2026-01-31T12:00:00+00:00")
        for path in write_provider_files(options.acks, options.out, options.format, until=until):
            sys.stdout.write(f"{path}\n")
    except DrError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dr_assets.casino", description="Traffic on the reference casino.")
    parser.add_argument("--dsn-env", required=True, help="name of the environment variable with the connection string")
    parser.add_argument("--ack-dir", required=True, type=Path, help="folder for the record of acknowledged commits")
    parser.add_argument("--rate", type=float, default=400, help="offered transactions per second (default 400)")
    parser.add_argument("--workers", type=int, default=8, help="concurrent connections (default 8)")
    parser.add_argument("--seed", type=int, default=1, help="of the choices and amounts")
    parser.add_argument("--seconds", type=int, default=-1, help="stop by itself after this long")
    parser.add_argument("--reconnect", action="store_true", help="come back when the server does")
    parser.add_argument("--brokers", help="Kafka's bootstrap addresses: publish the outbox there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
