"""Subjects of a schema registry: what the records' bytes mean, asked for over its REST.

What belongs here: the calls. What stays out: when, and keeping it (survey.py).
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Final

from dr_assets.estate.errors import SourceError
from dr_assets.vault.format.canonical import Json

_TIMEOUT_S: Final = 10.0
_LIMIT_BYTES: Final = 16 << 20
_NOT_FOUND: Final = 404


class Registry:
    """One registry by its base URL. What was read of a version is remembered: versions don't change."""

    def __init__(self, url: str) -> None:
        if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
            raise SourceError("kafka.registry", "the schema registry's address is no http URL", "set it to http(s)://…")
        self._url = url.rstrip("/")
        self._known: dict[tuple[str, int], dict[str, Json]] = {}

    def subjects(self) -> list[dict[str, Json]]:
        """Every version of every subject: `subject`, `version`, `id`, `schemaType`, `schema`, `references`.

        Raises SourceError `kafka.registry`.
        """
        found: list[dict[str, Json]] = []
        names = self._get("/subjects")
        for name in sorted(str(each) for each in names) if isinstance(names, list) else []:
            path = f"/subjects/{urllib.parse.quote(name, safe='')}/versions"
            versions = self._get(path)
            numbers = [each for each in versions if isinstance(each, int)] if isinstance(versions, list) else []
            found += [self._version(path, name, number) for number in numbers]
        return found

    def compatibility(self) -> str | None:
        """The registry's own rule for new versions; None where it has none."""
        told = self._get("/config")
        level = told.get("compatibilityLevel") if isinstance(told, Mapping) else None
        return level if isinstance(level, str) else None

    def _version(self, path: str, name: str, version: int) -> dict[str, Json]:
        known = self._known.get((name, version))
        if known is not None:
            return known
        raw = self._get(f"{path}/{version}")
        if not isinstance(raw, dict) or not isinstance(raw.get("schema"), str):
            raise _bad(f"{path}/{version} is no schema")
        kept: dict[str, Json] = {
            "subject": name, "version": version, "id": raw.get("id"), "schemaType": raw.get("schemaType", "AVRO"),
            "schema": raw["schema"], "references": raw.get("references", []),
        }  # fmt: skip
        self._known[(name, version)] = kept
        return kept

    def _get(self, path: str) -> Json:
        request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
            f"{self._url}{path}", headers={"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - as above
                body = answer.read(_LIMIT_BYTES + 1)
        except urllib.error.HTTPError as error:
            if error.code == _NOT_FOUND:
                return None
            raise _bad(f"{path} answers {error.code}") from None
        except (OSError, ValueError) as error:
            raise _bad(f"{path}: {getattr(error, 'reason', None) or type(error).__name__}") from None
        if len(body) > _LIMIT_BYTES:
            raise _bad(f"{path} answers with more than {_LIMIT_BYTES} bytes")
        try:
            told: Json = json.loads(body)
        except ValueError:
            raise _bad(f"{path} answers with no JSON") from None
        return told


def _bad(what: str) -> SourceError:
    return SourceError("kafka.registry", f"the schema registry: {what}", "check that it runs, and its URL")
