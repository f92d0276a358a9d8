"""YAML with its line numbers kept, so that every refusal can point at the line to change.

What belongs here: text to plain values plus a map from each value's path to its line. What stays out: what the
values mean (declarations.py, rules.py).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from dr_assets.estate.findings import Finding

Place = tuple[str | int, ...]
"""Where a value sits in its document: `("attributes", "retention", "days")`, list items by index."""

DEEPEST: Final = 12
# Keys that Dagster's component loader understands beside ours; it checks their contents itself.
LOADER_KEYS: Final = frozenset({"type", "attributes", "requirements", "post_processing"})
OUR_PACKAGE: Final = "dr_assets."


@dataclass(frozen=True, slots=True)
class Document:
    """One component declaration: its type, its attributes, and the line (from 1) of each value."""

    path: Path
    type: str
    attributes: dict[str, Any]
    lines: dict[Place, int]

    def line(self, *place: str | int) -> int:
        """Line of an attribute, or of the nearest thing around it that exists."""
        full: Place = ("attributes", *place)
        while full and full not in self.lines:
            full = full[:-1]
        return self.lines.get(full, 1)

    def finding(self, code: str, reason: str, *place: str | int) -> Finding:
        """A finding at an attribute's line."""
        return Finding(self.path, self.line(*place), code, reason)


@dataclass(slots=True)
class _Reader:
    path: Path
    findings: list[Finding] = field(default_factory=list)
    lines: dict[Place, int] = field(default_factory=dict)

    def value(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(place, line)
        if len(place) > DEEPEST:
            self.findings.append(Finding(self.path, line, "policy.yaml", "nested too deep, or an alias of itself"))
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
        try:
            return _scalar(node)
        except (yaml.YAMLError, ValueError):
            self.findings.append(Finding(self.path, line, "policy.yaml", "not a plain value"))
            return None

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in values:
                self.findings.append(Finding(self.path, line, "policy.yaml", f"`{key}` is given twice"))
            self.lines[*place, key] = line
            values[key] = self.value(value_node, (*place, key))
        return values


def read_documents(path: Path, text: str, ours: frozenset[str]) -> tuple[list[Document], list[Finding]]:
    """Read a defs.yaml. Documents whose type isn't among `ours` are somebody else's components and left alone.

    What has no type, or one that only looks like ours, is refused: it would leave its dataset without protection.
    """
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        return [], [_syntax_finding(path, error)]
    documents, findings, kinds = [], [], []
    for node in nodes:
        reader = _Reader(path)
        content = reader.value(node, ())
        kind = content.get("type") if isinstance(content, dict) else None
        kinds.append(kind)
        if not isinstance(kind, str) or kind not in ours:
            if isinstance(kind, str) and kind.startswith(OUR_PACKAGE):
                told = f"no component is called `{kind}`; there are {', '.join(sorted(ours))}"
                findings.append(Finding(path, reader.lines["type",], "policy.type", told))
            continue
        document = Document(path, kind, _attributes(content), reader.lines)
        documents.append(document)
        findings += reader.findings + _unknown_loader_keys(document, content) + _templates(document)
    if not any(kinds):
        findings.append(Finding(path, 1, "policy.type", "declares nothing: a component has a `type`"))
    return documents, findings


def _scalar(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)
    finally:
        loader.dispose()


def _attributes(content: dict[str, Any]) -> dict[str, Any]:
    attributes = content.get("attributes")
    return attributes if isinstance(attributes, dict) else {}


def _syntax_finding(path: Path, error: yaml.YAMLError) -> Finding:
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark is not None else 1
    return Finding(path, line, "policy.yaml", f"not YAML: {getattr(error, 'problem', None) or 'unreadable'}")


def _unknown_loader_keys(document: Document, content: dict[str, Any]) -> list[Finding]:
    return [
        Finding(document.path, document.lines[key,], "policy.unknown_key", f"`{key}` is not a key of a component")
        for key in content
        if key not in LOADER_KEYS
    ]


def _templates(document: Document) -> list[Finding]:
    """A template is filled by the loader alone: the command line and the capture would read another policy."""
    reason = "`{{ … }}` is not resolved outside Dagster; write the value, or the name of an environment variable"
    return [
        document.finding("policy.template", reason, *place)
        for place, value in strings(document.attributes, ())
        if "{{" in value
    ]


def strings(value: Any, place: Place) -> list[tuple[Place, str]]:
    """Every text in a nest of values, with its place."""
    if isinstance(value, str):
        return [(place, value)]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in strings(item, (*place, key))]
