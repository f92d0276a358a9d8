"""Verbs whose modules are imported when they are asked for: what the others rest on costs them nothing.

What belongs here: the way from a name in the tree to the command behind it. What stays out: the names (cli/app.py).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import typer
from typer.core import TyperCommand
from typer.main import get_group


@dataclass(frozen=True, slots=True)
class Verb:
    """One name in the tree: `target` is `module:attribute`, a function or a `typer.Typer`.

    `help` is the first sentence of what the target says of itself, told here so that a listing imports nothing.
    """

    name: str
    target: str
    help: str


def add_verbs(app: typer.Typer, verbs: Iterable[Verb]) -> None:
    """Put the names into `app`, in this order; a name's module is imported when its command or its help is run."""
    for verb in verbs:
        app.command(verb.name, help=verb.help, cls=_deferred(verb))(_never_called)


def load(verb: Verb) -> TyperCommand:
    """The command itself, as the tree would hold it if nothing were deferred."""
    module, attribute = verb.target.split(":")
    found: object = getattr(import_module(module), attribute)
    tree = _tree()
    if isinstance(found, typer.Typer):
        tree.add_typer(found, name=verb.name)
    else:
        tree.command(verb.name)(cast("Callable[..., object]", found))
    return cast("TyperCommand", get_group(tree).commands[verb.name])


def _tree() -> typer.Typer:
    # A command takes its looks from the tree it hangs in: the same as cli/app.py's.
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _deferred(verb: Verb) -> type[TyperCommand]:
    class Deferred(TyperCommand):
        """Stands in listings; parsing an argument list is the moment at which the command itself is needed."""

        def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
            return load(verb).make_context(info_name, args, parent=parent, **extra)

    return Deferred


def _never_called() -> None:
    """Typer wants a function behind each name."""
