"""The shape of one declaration: validating it against the schema, and saying in plain words what does not fit.

What belongs here: turning pydantic's errors into findings with lines, and refusing literal URLs that would travel in
the open. What stays out: rules that need two fields or two declarations (rules.py).
"""

from collections.abc import Iterator
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from dr_assets.estate.documents import Document, Place, strings
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.findings import Finding
from dr_assets.estate.schema import EITHER_OR_REASONS, PATTERN_REASONS
from dr_assets.estate.transport import require_tls

Declaration = TypeVar("Declaration", bound=BaseModel)
# How pydantic names the branches of an either-or: by the literal, and by the class.
_LITERAL: Final = "literal["
_MODEL: Final = "Declaration"


def validate(kind: type[Declaration], document: Document, findings: list[Finding]) -> Declaration | None:
    """Check the shape. Keys that do not exist are noted and then left out, so that one typo hides nothing else."""
    try:
        return kind.model_validate(document.attributes)
    except ValidationError as error:
        problems = error.errors()
    findings += _told(document, problems)
    if any(problem["type"] != "extra_forbidden" for problem in problems):
        return None
    return kind.model_validate(_without(document.attributes, [problem["loc"] for problem in problems]))


def _told(document: Document, problems: list[Any]) -> list[Finding]:
    """One finding a problem, and one alone for a value that fits no branch of an either-or."""
    findings: list[Finding] = []
    for problem in problems:
        place: Place = tuple(part for part in problem["loc"] if not _is_branch(part))
        if len(place) == len(problem["loc"]):
            findings.append(_shape_finding(document, problem, place))
        elif not isinstance(_value_at(document.attributes, _either_or(problem["loc"])), dict):
            findings.append(_fits_nothing(document, _either_or(problem["loc"])))
        elif not str(problem["loc"][-1]).startswith(_LITERAL):  # a mapping was meant, so say what is wrong with it
            findings.append(_shape_finding(document, problem, place))
    return list(dict.fromkeys(findings))


def _is_branch(part: str | int) -> bool:
    """Whether pydantic put this into a place to name the branch of an either-or: nobody wrote it."""
    return isinstance(part, str) and (part.startswith(_LITERAL) or part.endswith(_MODEL))


def _either_or(place: Place) -> Place:
    """The either-or's own place: what is before the first branch in it."""
    return place[: next(index for index, part in enumerate(place) if _is_branch(part))]


def _value_at(attributes: Any, place: Place) -> Any:
    for part in place:
        attributes = attributes[part]
    return attributes


def _fits_nothing(document: Document, place: Place) -> Finding:
    name = str(place[-1])
    value = _value_at(document.attributes, place)
    return document.finding("policy.value", f"`{name}`: `{value}` is neither {EITHER_OR_REASONS[name]}", *place)


def _shape_finding(document: Document, problem: Any, place: Place) -> Finding:
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
            "must be text; a duration or a size needs its unit (30s, 20GiB), and YAML takes a bare NO or ON for a truth"
            " value"
        )
        return document.finding("policy.value", f"`{name}` {reason}", *place)
    return document.finding("policy.value", f"`{name}`: {_in_words(problem)}", *place)


def _in_words(problem: Any) -> str:
    """Pydantic's kinds of error in words about YAML, where its own speak of Python."""
    kind, context = str(problem["type"]), problem.get("ctx", {})
    words = {
        "literal_error": f"`{problem['input']}` is not one of {str(context.get('expected')).replace(chr(39), '`')}",
        "list_type": "must be a list: [one, another]",
        "model_type": "must be a mapping: {key: value}",
        "dict_type": "must be a mapping: {key: value}",
        "int_type": "must be a whole number",
        "greater_than_equal": f"must be at least {context.get('ge')}",
        "less_than_equal": f"must be at most {context.get('le')}",
    }
    return words.get(kind, str(problem["msg"]))


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
