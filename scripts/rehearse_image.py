"""Carries out the COPY and RUN steps of infra/image/Containerfile in an empty folder, then runs what it would run.

For hosts without a container engine. It moves absolute paths below the folder, skips `useradd` and the like (they would
change this host), and runs the entry point and the health check as an ordinary user. It is no proof of the base image.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONTAINERFILE = ROOT / "infra" / "image" / "Containerfile"
ORDINARY = 65534


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Each instruction with its argument, line continuations joined, comments left out."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            instruction, _, argument = line.strip().partition(" ")
            yield instruction, argument.strip()


def moved(text: str, root: Path) -> str:
    """Absolute paths of the image, below `root`."""
    return text.replace("/opt/dr-assets", f"{root}/opt/dr-assets").replace("/build/", f"{root}/build/")


def copy(argument: str, root: Path) -> None:
    """COPY from the repository; from another stage there is nothing to do, since all stages share the folder."""
    if argument.startswith("--from="):
        return
    *sources, target = shlex.split(argument)
    into = Path(moved(target, root))
    for source in sources:
        path = ROOT / source
        if path.is_dir():
            shutil.copytree(path, into, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place = into / path.name if target.endswith("/") else into
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)


def run(argument: str, root: Path, python: str) -> None:
    """RUN with the given Python in the base image's place."""
    if argument.startswith(("groupadd", "useradd")):
        print(f"skipped, it would change this host: {argument}")
        return
    command = moved(argument, root)
    command = python + command.removeprefix("python") if command.startswith("python ") else command
    print(f"RUN {command}", flush=True)
    subprocess.run(["/bin/sh", "-ec", command], check=True, cwd=root, stdout=subprocess.DEVNULL)


def as_ordinary_user(args: list[str], root: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The image's own command line, without rights (when we have any to give up)."""
    user = {"user": ORDINARY, "group": ORDINARY, "extra_groups": []} if os.geteuid() == 0 else {}
    return subprocess.run(
        [moved(arg, root) for arg in args], env=env, cwd=root, capture_output=True, text=True, check=False, **user
    )


def rehearse(root: Path, python: str) -> int:
    """All steps, then entry point and health check; returns an exit code."""
    env: dict[str, str] = {"PATH": "/usr/bin:/bin"}
    last: dict[str, str] = {}
    for instruction, argument in steps(CONTAINERFILE.read_text()):
        last[instruction] = argument
        if instruction == "COPY":
            copy(argument, root)
        elif instruction == "RUN":
            run(argument, root, python)
        elif instruction == "ENV":
            env |= dict(pair.split("=", 1) for pair in shlex.split(moved(argument, root)))
    entry = json.loads(last["ENTRYPOINT"])
    helped = as_ordinary_user([*entry, *json.loads(last["CMD"])], root, env)
    checked = as_ordinary_user([*entry, "estate", "check"], root, env)
    health = as_ordinary_user(json.loads(last["HEALTHCHECK"].partition(" CMD ")[2]), root, env)
    print(f"--help: {helped.returncode}; estate check: {checked.returncode}; health check without a capture: "
          f"{health.returncode} ({health.stdout.strip()})")  # fmt: skip
    print(checked.stdout + checked.stderr + helped.stderr)
    return 0 if (helped.returncode, checked.returncode, health.returncode) == (0, 0, 1) else 1


def main() -> int:
    """Rehearse in a folder that is gone afterwards."""
    parser = argparse.ArgumentParser(description=__doc__)
    # The ordinary user must be able to run it: one below somebody's home is closed to it.
    parser.add_argument("--python", default="/usr/bin/python3.11", help="stands in for the base image's Python")
    with tempfile.TemporaryDirectory(prefix="dr-assets-image-") as folder:
        Path(folder).chmod(0o755)
        return rehearse(Path(folder), parser.parse_args().python)


if __name__ == "__main__":
    sys.exit(main())
