"""Which throwaway broker there is on this host, and why it is that one.

What belongs here: the choice. What stays out: starting it, and installing anything but the jars (by Maven, see jars).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from dr_assets.engines.errors import EngineError
from dr_assets.engines.kafka.jars import KafkaJars, find_jars
from dr_assets.engines.kafka.noida import NoidaProgram, NoidaServer, find_noida
from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.estate.errors import PolicyError

Kind = Literal["apache", "noida"]
KINDS: Final[tuple[Kind, ...]] = ("apache", "noida")


@dataclass(frozen=True)
class FoundBroker:
    """A broker that can be started here; `why` says, in one line for people, why it is this one."""

    kind: Kind
    programs: KafkaJars | NoidaProgram
    why: str

    def server(self, data_dir: Path, **options: Any) -> KafkaServer | NoidaServer:
        """A server of that kind, not started; `options` as its class has them."""
        if isinstance(self.programs, KafkaJars):
            return KafkaServer(data_dir, self.programs, **options)
        return NoidaServer(data_dir, self.programs, **options)


def find_broker(prefer: Kind = "apache", env: Mapping[str, str] | None = None, *, resolve: bool = True) -> FoundBroker:
    """The preferred broker, else the other one; `resolve` lets Maven get Apache Kafka's jars now if need be.

    Raises PolicyError `engine.no_broker` with both reasons if there is neither.
    """
    env = os.environ if env is None else env
    reasons: list[str] = []
    for kind in (prefer, *(one for one in KINDS if one != prefer)):
        try:
            programs = find_jars(env, resolve=resolve) if kind == "apache" else find_noida(env)
        except (PolicyError, EngineError) as error:
            reasons.append(error.found)
        else:
            instead = f" (instead of {prefer}: {reasons[0]})" if reasons else ""
            return FoundBroker(kind, programs, f"{programs.describe()}{instead}")
    raise PolicyError(
        "engine.no_broker",
        f"no Kafka broker can be started here: {'; '.join(reasons)}",
        "apt-get install openjdk-17-jre-headless maven, or pip install 'dr_assets[engines]'",
    )
