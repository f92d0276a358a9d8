"""The shape of one declaration: validating it against the schema, and saying in plain words what does not fit.

What belongs here: turning pydantic's errors into findings with lines, and refusing literal URLs that would travel in
the open. What stays out: rules that need two fields or two declarations (rules.py).
"""

from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dr_assets.estate.documents import Document, Place, strings
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.findings import Finding
from dr_assets.estate.schema import PATTERN_REASONS
from dr_assets.estate.transport import require_tls

Declaration = TypeVar("Declaration", bound=BaseModel)


def validate(kind: type[Declaration], document: Document, findings: list[Finding]) -> Declaration | None:
    """Check the shape. Keys that do not exist are noted and then left out, so that one typo hides nothing else."""
    try:
        return kind.model_validate(document.attributes)
    except ValidationError as error:
        problems = error.errors()
    findings += [_shape_finding(document, problem) for problem in problems]
    if any(problem["type"] != "extra_forbidden" for problem in problems):
        return None
    return kind.model_validate(_without(document.attributes, [problem["loc"] for problem in problems]))


def _shape_finding(document: Document, problem: Any) -> Finding:
    place: Place = problem["loc"]
    name = ".".join(str(part) for part in place)
    kind: str = problem["type"]
    if kind == "extra_forbidden":
        return document.finding("policy.unknown_key", f"`{name}` is not a key of {document.type}", *place)
    if kind == "missing":
        return document.finding("policy.missing", f"`{name}` is missing", *place)
    if place[-1] == "owners":
        return document.finding("policy.owners", "`owners` names nobody: give a team or an e-mail address", *place)
    if kind == "string_pattern_mismatch":
        return document.finding("policy.value", f"`{name}`: {PATTERN_REASONS[problem['ctx']['pattern']]}", *place)
    if kind == "string_type":
        reason = (
            "must be text; a duration needs its unit (30s, not 30), and YAML takes a bare NO or ON for a truth value"
        )
        return document.finding("policy.value", f"`{name}` {reason}", *place)
    return document.finding("policy.value", f"`{name}`: {problem['msg']}", *place)


def _without(attributes: Any, places: list[Place], at: Place = ()) -> Any:
    if isinstance(attributes, dict):
        kept = {key: value for key, value in attributes.items() if (*at, key) not in places}
        return {key: _without(value, places, (*at, key)) for key, value in kept.items()}
    return attributes


def literal_transport(document: Document) -> Iterator[Finding]:
    """A URL where a variable's name belongs is refused anyway; say so when it would also travel in the open."""
    for place, value in strings(document.attributes, ()):
        if "://" not in value:
            continue
        try:
            require_tls(value, f"`{'.'.join(map(str, place))}`")
        except PolicyError as error:
            yield document.finding(error.code, error.found, *place)
