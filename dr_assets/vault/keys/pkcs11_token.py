"""One PKCS#11 token, logged in to once a process: what the key provider and the signer over it share.

What belongs here: the library, sessions, time-outs, telling a token that is away from one that refuses. What stays
out: which keys are used for what. `pip install 'dr_assets[hsm]'` brings the library.
"""

import os
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.vault.keys.deadline import within
from dr_assets.vault.keys.refusals import extra_missing, refused, unreachable

if TYPE_CHECKING:
    import pkcs11

ANSWER_TIMEOUT_S: Final = 5.0
_LIVES_BYTES: Final = 8
Result = TypeVar("Result")


def pkcs11_exceptions() -> Any:
    """The library's exceptions; raises PolicyError `keys.extra_missing`."""
    try:
        from pkcs11 import exceptions  # noqa: PLC0415 - an extra
    except ImportError:
        raise extra_missing("pkcs11", "python-pkcs11", "hsm") from None
    return exceptions


class Token:
    """A token with a user's PIN; threads may share it, one works at a time. Neither repr nor message shows the PIN."""

    def __init__(self, module: Path, label: str, pin: str, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._module = module
        self.label = label
        self._pin = pin
        self._timeout_s = timeout_s
        self._mutex = threading.Lock()
        self._session: pkcs11.Session | None = None

    def __repr__(self) -> str:
        return f"Token({self.label})"

    def run(self, who: str, work: "Callable[[pkcs11.Session], Result]") -> Result:
        """What `work` makes of a session that is logged in, opened anew once if the old one has gone.

        Raises VaultError `keys.unreachable` when the token is away or hangs, PolicyError `keys.refused` for a wrong PIN
        or a missing right, `keys.extra_missing`, `keys.no_module`; PKCS11Error of other kinds as `work` does.
        """
        try:
            # The library's own start is a call like any other: a vendor's may ask its device over the network.
            return within(self._timeout_s, lambda: self._locked(who, work, _library(who, self._module)))
        except TimeoutError:
            raise unreachable(who, f"no answer of token {self.label} within {self._timeout_s:g} s") from None

    def _locked(self, who: str, work: "Callable[[pkcs11.Session], Result]", library: Any) -> Result:
        from pkcs11 import exceptions  # noqa: PLC0415 - an extra

        if not self._mutex.acquire(timeout=self._timeout_s):  # somebody's call hangs: don't gather threads behind it
            raise TimeoutError
        try:
            for attempt in (1, 2):
                session = self._session or self._opened(who, library)
                try:
                    return work(session)
                except (exceptions.SessionHandleInvalid, exceptions.SessionClosed, exceptions.UserNotLoggedIn) as gone:
                    self._session = None
                    if attempt == 2:  # noqa: PLR2004 - the second of two
                        raise unreachable(who, f"token {self.label}: {type(gone).__name__}") from None
                except (exceptions.DeviceError, exceptions.DeviceRemoved, exceptions.TokenNotPresent) as gone:
                    self._session = None
                    raise unreachable(who, f"token {self.label}: {type(gone).__name__}") from None
        finally:
            self._mutex.release()
        raise AssertionError

    def _opened(self, who: str, library: Any) -> "pkcs11.Session":
        from pkcs11 import exceptions  # noqa: PLC0415 - an extra

        try:
            token = library.get_token(token_label=self.label)
            session: pkcs11.Session = self._logged_in(token)
        except (exceptions.PinIncorrect, exceptions.PinInvalid, exceptions.PinLenRange, exceptions.PinLocked) as error:
            raise refused(who, f"the PIN of token {self.label} ({type(error).__name__})") from None
        except exceptions.PKCS11Error as error:
            raise unreachable(who, f"token {self.label}: {type(error).__name__}") from None
        self._session = session
        return session

    def _logged_in(self, token: Any) -> Any:
        """A login counts for the whole process: where somebody in it has entered, a plain session is enough."""
        from pkcs11 import exceptions  # noqa: PLC0415 - an extra

        try:
            return token.open(rw=True, user_pin=self._pin)
        except exceptions.UserAlreadyLoggedIn:
            return token.open(rw=True)

    def lives(self, who: str) -> bool:
        """Whether the token answers at all: tells a refused wrapping from a broken device."""
        from pkcs11 import exceptions  # noqa: PLC0415 - an extra

        try:
            return self.run(who, lambda session: len(session.generate_random(8 * _LIVES_BYTES)) == _LIVES_BYTES)
        except (exceptions.PKCS11Error, DrError):
            return False


@lru_cache
def _opened_once(_pid: int, module: Path, label: str, pin: str) -> Token:
    return Token(module, label, pin)


def token_at(module: Path, label: str, pin: str) -> Token:
    """The process's token of this label: a second login from one process would be refused."""
    return _opened_once(os.getpid(), module, label, pin)


def _library(who: str, module: Path) -> Any:
    try:
        import pkcs11  # noqa: PLC0415 - an extra
    except ImportError:
        raise extra_missing("pkcs11", "python-pkcs11", "hsm") from None
    if not module.is_file():
        raise PolicyError("keys.no_module", f"{who}: {module} is no file", "name the vendor's PKCS#11 library")
    try:
        return pkcs11.lib(str(module))
    except (pkcs11.exceptions.PKCS11Error, RuntimeError) as error:
        raise VaultError(
            "keys.unreachable",
            f"key provider {who}: {module.name} does not start ({type(error).__name__})",
            "run the vendor's own test; SoftHSM wants SOFTHSM2_CONF",
        ) from None
