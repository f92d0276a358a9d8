"""Reading a folder of declarations: the one way from `defs.yaml` to the policy, for components, CLI and capture.

What belongs here: finding and reading the files, and handing back either the policy or every refusal at once. What
stays out: the schema (schema.py, re-exported here) and the rules (rules.py).
"""

from pathlib import Path

from dr_assets.estate.documents import Document, read_documents
from dr_assets.estate.findings import Finding, refuse
from dr_assets.estate.model import Estate
from dr_assets.estate.rules import DATASET_TYPES, judge
from dr_assets.estate.schema import ESTATE_TYPE, EstateDeclaration, PostgresDeclaration
from dr_assets.estate.schema_bucket import BucketDeclaration
from dr_assets.estate.schema_topics import TopicsDeclaration

__all__ = [
    "BucketDeclaration",
    "EstateDeclaration",
    "Finding",
    "PostgresDeclaration",
    "TopicsDeclaration",
    "check_estate",
    "default_defs_dir",
    "load_estate",
]


def default_defs_dir() -> Path:
    """The declarations that ship with the package: the embedded estate's."""
    return Path(__file__).resolve().parent.parent / "defs"


def load_estate(defs_dir: Path) -> Estate:
    """Read `defs_dir/*/defs.yaml` into the policy. Raises `PolicyError` listing every finding as file:line: reason."""
    estate, findings = _judge_folder(defs_dir)
    refuse(findings)
    if estate is None:
        message = "rules.judge returned neither an estate nor a finding"
        raise AssertionError(message)
    return estate


def check_estate(defs_dir: Path) -> list[Finding]:
    """Everything wrong with the declarations of a folder, sorted by file and line; empty when they are accepted."""
    return _judge_folder(defs_dir)[1]


def _judge_folder(defs_dir: Path) -> tuple[Estate | None, list[Finding]]:
    documents: list[Document] = []
    findings: list[Finding] = []
    for path in sorted(defs_dir.glob("*/defs.yaml")):
        text = path.read_bytes().decode("utf-8", errors="replace")
        read, unreadable = read_documents(path, text, frozenset({ESTATE_TYPE, *DATASET_TYPES}))
        documents += read
        findings += unreadable
    estate, refused = judge(defs_dir, documents)
    findings = sorted({*findings, *refused})
    return (None if findings else estate), findings
