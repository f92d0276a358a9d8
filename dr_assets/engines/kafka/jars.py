"""Apache Kafka's jars: resolved once by Maven from the pom beside this file, and the Java that runs them.

What belongs here: finding Java and Maven, the folder of jars in the user's cache. What stays out: running a broker.

The folder's name is the pom's digest; it appears by one rename when it is complete, and a lock keeps two processes
from resolving at once. Maven asks whatever its own settings name; no repository is named here.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from dr_assets.engines.errors import EngineError
from dr_assets.engines.placement import RunAs, barred_by, engine_user, reachable_trees
from dr_assets.engines.supervise import run_child
from dr_assets.estate.errors import PolicyError

SETTING: Final = "DR_ASSETS_KAFKA_LIBS"
POM: Final = Path(__file__).with_name("pom.xml")
OLDEST_JAVA: Final = 17
_BROKER_JAR: Final = "kafka_2.13-*.jar"
_RESOLVE_TIMEOUT_S: Final = 900.0
# What Maven needs of our environment; the rest may hold secrets.
_MAVEN_ENVIRONMENT: Final = re.compile(
    r"(PATH|HOME|LANG|JAVA_HOME|MAVEN_.*|M2_HOME|https?_proxy|no_proxy)", re.IGNORECASE
)


@dataclass(frozen=True)
class KafkaJars:
    """A folder of jars, the Kafka in it and the Java that runs it; `note` says where they had to be copied, and why."""

    libs: Path
    version: str
    java: Path
    java_major: int
    origin: Literal["setting", "maven"]
    note: str = ""

    def describe(self) -> str:
        """One line for people: product, version, origin and folder."""
        return f"Apache Kafka {self.version} on Java {self.java_major} from {self.origin} ({self.libs})"

    def reachable(self, user: RunAs | None = None) -> "KafkaJars":
        """The same jars where the engine's user can read them; a copy if need be.

        Raises PolicyError `engine.java_barred` where that user can't run this Java: a JDK is not copied.
        """
        user = user or engine_user()
        if (barred := barred_by(user, self.java)) is not None:
            raise PolicyError(
                "engine.java_barred",
                f"{user.name}, under whom engines run, cannot enter {barred}, where {self.java} lies",
                "install a JDK for all users (apt-get install openjdk-17-jre-headless), or set JAVA_HOME to one",
            )
        base, place = reachable_trees([self.libs], user)
        if not place.moved:
            return self
        return replace(self, libs=place.path / self.libs.resolve().relative_to(base), note=place.why)


def find_jars(env: Mapping[str, str] | None = None, *, resolve: bool = True) -> KafkaJars:
    """The jars named by the setting, else those resolved from the pom: now, if they aren't there yet and `resolve`.

    Raises PolicyError `engine.no_java`, `engine.no_jars` or `engine.bad_setting`, EngineError `engine.no_resolution`
    with Maven's own words.
    """
    env = os.environ if env is None else env
    java, major = find_java(env)
    if value := env.get(SETTING):
        libs = Path(value)
        version = _version(libs)
        if version is None:
            raise PolicyError(
                "engine.bad_setting",
                f"{SETTING} is {libs}, which holds no {_BROKER_JAR}",
                f"set {SETTING} to the folder `libs` of an Apache Kafka, or unset it",
            )
        return KafkaJars(libs, version, java, major, "setting")
    libs = jars_folder(env)
    if not libs.is_dir():
        if not resolve:
            raise PolicyError(
                "engine.no_jars",
                f"Apache Kafka's jars are not in {libs} yet",
                "python -m dr_assets.engines.kafka.jars (it runs Maven once, and wants its network)",
            )
        _resolve(libs, env)
    version = _version(libs)
    assert version is not None, f"{libs} holds no broker"  # noqa: S101 - _resolve looked before it renamed
    return KafkaJars(libs, version, java, major, "maven")


def find_java(env: Mapping[str, str] | None = None) -> tuple[Path, int]:
    """A Java of at least 17, by JAVA_HOME or on PATH, and its major version; else PolicyError `engine.no_java`."""
    env = os.environ if env is None else env
    home = env.get("JAVA_HOME")
    on_path = shutil.which("java", path=env.get("PATH"))
    candidates = [*([Path(home, "bin", "java")] if home else []), *([Path(on_path)] if on_path else [])]
    seen: list[str] = []
    for candidate in candidates:
        if not candidate.is_file():
            continue
        java = candidate.resolve()
        major = _java_major(java)
        if major is not None and major >= OLDEST_JAVA:
            return java, major
        seen.append(f"{java} (version {major or 'unknown'})")
    raise PolicyError(
        "engine.no_java",
        f"no Java {OLDEST_JAVA} or newer found{'; found ' + ', '.join(seen) if seen else ''}",
        "apt-get install openjdk-17-jre-headless maven, or set JAVA_HOME",
    )


def jars_folder(env: Mapping[str, str] | None = None) -> Path:
    """Where the jars of this pom lie, or will: a folder of the user's cache, named by the pom's digest."""
    env = os.environ if env is None else env
    cache = Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "dr-assets" / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:16]}"


def _resolve(libs: Path, env: Mapping[str, str]) -> None:
    """Let Maven copy the jars, checksums enforced, into `libs`; whoever comes second waits and finds them."""
    maven = shutil.which("mvn", path=env.get("PATH"))
    if maven is None:
        raise PolicyError(
            "engine.no_jars",
            f"Apache Kafka's jars are not in {libs}, and the program mvn is not on PATH to get them",
            f"apt-get install maven, or set {SETTING} to the folder `libs` of an Apache Kafka",
        )
    libs.parent.mkdir(parents=True, exist_ok=True)
    with _locked(libs.with_suffix(".lock")):
        if libs.is_dir():
            return
        draft = Path(tempfile.mkdtemp(prefix=f"{libs.name}.", dir=libs.parent))
        try:
            _run_maven(maven, draft, env)
            draft.joinpath("jars").rename(libs)
        finally:
            shutil.rmtree(draft)


def _run_maven(maven: str, draft: Path, env: Mapping[str, str]) -> None:
    """Fill `draft`/jars. Maven gets a copy of the pom: it may write beside it, and an installed package is not ours."""
    shutil.copyfile(POM, draft / "pom.xml")
    result = run_child(
        [
            *(maven, "--batch-mode", "--quiet", "--strict-checksums", f"--file={draft / 'pom.xml'}"),
            *("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={draft / 'jars'}"),
        ],
        cwd=draft,
        env={name: value for name, value in env.items() if _MAVEN_ENVIRONMENT.fullmatch(name)},
        timeout_s=_RESOLVE_TIMEOUT_S,
    )
    if result.returncode != 0 or _version(draft / "jars") is None:
        raise EngineError(
            "engine.no_resolution",
            f"Maven returned {result.returncode}: {(result.stdout + result.stderr).strip()[-2000:]}",
            f"let this machine's Maven reach a repository, or set {SETTING} to the folder `libs` of an Apache Kafka",
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock that ends with the process; the empty file stays, or two could hold different ones."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _version(libs: Path) -> str | None:
    """The broker's version by its jar's name, or None."""
    found = sorted(libs.glob(_BROKER_JAR))
    return found[-1].stem.partition("-")[2] if found else None


def _java_major(java: Path) -> int | None:
    result = subprocess.run(
        [java, "-version"], capture_output=True, text=True, check=False, timeout=60, env={"LC_ALL": "C"}
    )
    match = re.search(r'version "(?:1\.)?(\d+)', result.stderr + result.stdout)
    return int(match[1]) if match else None


if __name__ == "__main__":
    print(find_jars().describe())  # noqa: T201 - what this module's command is for
