"""The errors people see, typed by who must act (DESIGN §8), each with a stable code and a hint.

What belongs here: the base class, the three kinds, their exit codes. What stays out: raising them (every room
raises its own) and our own bugs, which stay ordinary exceptions and crash with a traceback.
"""


class DrError(Exception):
    """Something a person has to act on.

    `code` is stable and greppable (`vault.tampered`), `found` says what was found and what was expected,
    `hint` what to do next. None of the three may hold a secret: they end up in logs and in evidence.
    """

    exit_code = 1

    def __init__(self, code: str, found: str, hint: str) -> None:
        super().__init__(code, found, hint)
        self.code = code
        self.found = found
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.code}: {self.found}\nHINT: {self.hint}"


class PolicyError(DrError):
    """The operator's: a declaration, a command line or a setting asks for what cannot or must not be."""

    exit_code = 2


class SourceError(DrError):
    """The source's: the protected system is unreachable, refuses us or has lost what we need."""

    exit_code = 3


class VaultError(DrError):
    """The vault's: something is tampered with, missing, locked, unlocked or cannot be opened."""

    exit_code = 4
