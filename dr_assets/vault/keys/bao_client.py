"""Talking to an OpenBao (or Vault) server's transit engine: entering, time-outs, and what its answers mean.

What belongs here: the session that the key provider and the signer over it share. What stays out: what is wrapped or
signed. `pip install 'dr_assets[openbao]'` brings the library.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.keys.refusals import extra_missing, refused, unreachable

if TYPE_CHECKING:
    import hvac

ANSWER_TIMEOUT_S: Final = 5.0
Result = TypeVar("Result")


def hvac_exceptions() -> Any:
    """The library's exceptions; raises PolicyError `keys.extra_missing`."""
    try:
        from hvac import exceptions  # noqa: PLC0415 - an extra
    except ImportError:
        raise extra_missing("openbao", "hvac", "openbao") from None
    return exceptions


@dataclass(frozen=True, slots=True)
class Entry:
    """How to enter: a token, or AppRole's pair. Secrets that no repr shows."""

    token: str | None = field(default=None, repr=False)
    role_id: str | None = field(default=None, repr=False)
    secret_id: str | None = field(default=None, repr=False)


class BaoSession:
    """A server's transit engine at `mount`; threads may share it. AppRole is entered again when its token is over."""

    def __init__(
        self, address: str, entry: Entry, *, mount: str = "transit", ca: str | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:  # fmt: skip
        self.mount = mount
        self._address = address
        self._entry = entry
        self._ca = ca
        self._timeout_s = timeout_s
        self._mutex = threading.Lock()
        self._client: hvac.Client | None = None

    def __repr__(self) -> str:
        return f"BaoSession({self._address}, {self.mount})"

    def run(self, who: str, work: "Callable[[Any], Result]") -> Result:
        """What `work` makes of the transit API.

        Raises VaultError `keys.unreachable`, PolicyError `keys.refused`, `keys.extra_missing`; hvac's InvalidRequest
        passes, since what a server calls a bad request depends on what was asked.
        """
        exceptions = hvac_exceptions()
        from requests import RequestException  # noqa: PLC0415 - comes with that extra

        try:
            try:
                return work(self._entered(who).secrets.transit)
            except exceptions.Forbidden:
                if self._entry.token is not None:
                    raise
            return work(self._entered(who, anew=True).secrets.transit)
        except (exceptions.Forbidden, exceptions.Unauthorized, exceptions.InvalidPath) as error:
            raise refused(who, f"the server answers {type(error).__name__}") from None
        except exceptions.InvalidRequest:
            raise
        except (exceptions.VaultError, RequestException) as error:
            raise unreachable(who, type(error).__name__) from None

    def _entered(self, who: str, *, anew: bool = False) -> "hvac.Client":
        import hvac  # noqa: PLC0415 - an extra

        with self._mutex:
            if self._client is None or anew:
                client = hvac.Client(self._address, timeout=self._timeout_s, verify=self._ca or True)
                if self._entry.token is not None:
                    client.token = self._entry.token
                else:
                    self._by_role(who, client)
                self._client = client
            return self._client

    def _by_role(self, who: str, client: "hvac.Client") -> None:
        from hvac import exceptions  # noqa: PLC0415 - an extra

        if self._entry.role_id is None or self._entry.secret_id is None:
            raise PolicyError("keys.no_entry", f"{who}: neither a token nor AppRole's pair", "set the variables")
        try:
            client.auth.approle.login(self._entry.role_id, self._entry.secret_id)
        except exceptions.InvalidRequest:
            raise refused(who, "AppRole's pair") from None
