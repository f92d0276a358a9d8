"""What the probes look at: one dataset of an estate, its environment, its vaults opened once.

What belongs here: the shared look-ups. What stays out: judging.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dr_assets.estate.errors import DrError, PolicyError
from dr_assets.estate.model import Dataset, Estate, PostgresDataset
from dr_assets.stores.postgres.dsn import parse_dsn
from dr_assets.stores.postgres.patroni import parse_urls
from dr_assets.vault.connect import credentials_of, open_vault
from dr_assets.vault.vault import Vault

_MASK: Final = "********"
_SHORTEST_SECRET: Final = 4  # masking a shorter one would black out half of every line


@dataclass(slots=True)
class Patient:
    """An estate, one of its datasets and the environment; threads may share it."""

    estate: Estate
    dataset: Dataset
    env: Mapping[str, str]
    _vaults: dict[str, Vault] = field(default_factory=dict)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    @property
    def database(self) -> PostgresDataset:
        """The dataset, for probes that only databases get."""
        if not isinstance(self.dataset, PostgresDataset):
            raise TypeError(self.dataset.kind)
        return self.dataset

    @property
    def dsn(self) -> str:
        """The source's connection string. Raises PolicyError `cli.dsn_missing`."""
        dsn = self.env.get(self.database.dsn_env)
        if not dsn:
            name = self.database.dsn_env
            raise PolicyError("cli.dsn_missing", f"{name} is not set", f"export {name}='host=… dbname=… user=…'")
        return dsn

    def patroni(self) -> tuple[str, ...]:
        """Patroni's endpoints, none where the dataset names none. Raises PolicyError."""
        variable = self.database.patroni_env
        return parse_urls(self.env.get(variable, "")) if variable else ()

    def path(self, variable: str) -> Path:
        """The path that a variable holds. Raises PolicyError `vault.setting_missing`."""
        value = self.env.get(variable)
        if not value:
            raise PolicyError("vault.setting_missing", f"{variable} is not set", f"export {variable}=…")
        return Path(value).expanduser()

    def vault(self, name: str | None = None) -> Vault:
        """The dataset's own vault, or the named one, for reading. Raises PolicyError and VaultError."""
        name = name or self.dataset.vault
        with self._mutex:
            if name not in self._vaults:
                self._vaults[name] = open_vault(self.estate, name, self.env, signing=False, role="reader")
            return self._vaults[name]

    def vault_envs(self, name: str) -> tuple[str, ...]:
        """The variables that a vault needs."""
        place = self.estate.vaults[name]
        pair = credentials_of(place, self.env, "reader")
        return place.endpoint_env, pair.access_key_env, pair.secret_key_env


def secrets_of(estate: Estate, env: Mapping[str, str]) -> list[str]:
    """Every value that no output may hold: credentials, passwords, webhooks."""
    pairs = [pair for place in estate.vaults.values() for pair in place.credentials()]
    names = [name for pair in pairs for name in (pair.access_key_env, pair.secret_key_env)]
    names += [name for name in (estate.alerts.slack_webhook_env, estate.alerts.webhook_env) if name]
    names += estate.secret_key_envs()
    names += [name for topics in estate.topics().values() if (name := topics.security.password_env)]
    names += [name for bucket in estate.buckets().values() for name in (bucket.access_key_env, bucket.secret_key_env)]
    found = [env.get(name, "") for name in names]
    for dataset in estate.postgres().values():
        found += _dsn_secrets(env.get(dataset.dsn_env, ""))
    return sorted({secret for secret in found if len(secret) >= _SHORTEST_SECRET}, key=len, reverse=True)


def without_secrets(text: str, secrets: list[str]) -> str:
    """`text` with each of them blacked out: the second lock, since no message should hold one in the first place."""
    for secret in secrets:
        text = text.replace(secret, _MASK)
    return text


def _dsn_secrets(dsn: str) -> list[str]:
    if not dsn:
        return []
    try:
        settings = parse_dsn(dsn)
    except DrError:
        return [dsn]
    return [dsn, *(settings.get(key, "") for key in ("password", "sslpassword"))]
