"""A bucket's listing: every version and delete marker, page by page, newest first within a name.

What belongs here: asking for pages in whichever way the store can be trusted with. What stays out: what is done with
the rows; nothing here holds more than a few pages.

A listing is flat where the store lists in the order of texts, as S3 does. A store that keeps objects in folders and
pages in their order loses names of a flat listing (docs/decisions/0010): such a one is gone through folder by folder.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

from dr_assets.estate.errors import SourceError
from dr_assets.stores.bucket.source import NULL, Place
from dr_assets.vault.storage.s3_errors import StoreAnswer

PAGE_KEYS: Final = 1000
_BY_FOLDER: Final = ("seaweedfs",)
_WORKERS: Final = 8
_FOLDERS_AHEAD: Final = 64
_ROW: Final = re.compile(rb"<(?:\w+:)?(Version|DeleteMarker)[\s>]")
_ORDER: Final = "RowOrder"


@dataclass(frozen=True, slots=True)
class Listed:
    """One version or delete marker as a listing tells it. `version_id` is "null" where none is kept."""

    name: str
    version_id: str
    etag: str
    modified_at: datetime
    size_bytes: int
    is_marker: bool


def listing(place: Place, *, by_folder: bool | None = None) -> Iterator[list[Listed]]:
    """Everything below the prefix, a page or folder at a time; a name's rows never lie in two that are apart.

    `by_folder` is found out by default. Raises SourceError.
    """
    if by_folder is None:
        server = place.server().lower()
        by_folder = any(known in server for known in _BY_FOLDER)
    watch_order(place)
    yield from _by_folder(place) if by_folder else _whole_names(_flat(place, place.prefix))


def of_name(place: Place, name: str) -> list[Listed]:
    """Every version and marker of exactly this name, newest first. Raises SourceError."""
    watch_order(place)
    found: list[Listed] = []
    for rows in _flat(place, name):
        found += [row for row in rows if row.name == name]
        if rows and rows[-1].name > name:
            break
    return found


def watch_order(place: Place) -> None:
    """See that pages say in which order versions and markers came: the SDK hands them out in two lists."""
    events = place.client.meta.events
    events.register("before-parse.s3.ListObjectVersions", _note_order, unique_id="dr_assets row order")


def _note_order(response_dict: Mapping[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    body = response_dict.get("body") or b""
    customized_response_dict[_ORDER] = [found == b"DeleteMarker" for found in _ROW.findall(body)]


def _whole_names(pages: Iterator[list[Listed]]) -> Iterator[list[Listed]]:
    """Pages cut between names: the rows of one name may fill many pages, and their order counts."""
    held: list[Listed] = []
    for page in pages:
        rows = held + page
        if not rows:
            continue
        cut = len(rows)
        while cut and rows[cut - 1].name == rows[-1].name:
            cut -= 1
        held = rows[cut:]
        if cut:
            yield rows[:cut]
    if held:
        yield held


def _flat(place: Place, prefix: str) -> Iterator[list[Listed]]:
    for page in _pages(place, prefix, {}):
        yield _rows(page)


def _by_folder(place: Place) -> Iterator[list[Listed]]:
    """Folder after folder, several at a time. A prefix that ends within a name is cut to its folder and filtered."""
    top = place.prefix[: place.prefix.rfind("/") + 1]
    todo: deque[str] = deque([top])
    asked: set[str] = {top}
    running: set[Future[tuple[list[str], list[Listed]]]] = set()
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="listing") as pool:
        while todo or running:
            while todo and len(running) < _FOLDERS_AHEAD:
                running.add(pool.submit(_folder, place, todo.popleft()))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                folders, rows = future.result()
                fresh = [folder for folder in folders if folder not in asked and _touches(folder, place.prefix)]
                asked.update(fresh)
                todo.extend(fresh)
                rows = [row for row in rows if row.name.startswith(place.prefix)]
                if rows:
                    yield rows


def _touches(folder: str, prefix: str) -> bool:
    return folder.startswith(prefix) or prefix.startswith(folder)


def _folder(place: Place, folder: str) -> tuple[list[str], list[Listed]]:
    """The folders in a folder, and all rows directly in it. Where folders fill pages the plain listing is asked too."""
    folders: set[str] = set()
    rows: list[Listed] = []
    pages = 0
    for page in _pages(place, folder, {"Delimiter": "/"}):
        pages += 1
        folders |= {found["Prefix"] for found in page.get("CommonPrefixes", [])}
        rows += _rows(page)
    if pages > 1:
        folders |= _plain_folders(place, folder)
    return sorted(folders), rows


def _plain_folders(place: Place, folder: str) -> set[str]:
    folders: set[str] = set()
    more: dict[str, Any] = {}
    while True:
        try:
            with place.answers():
                page = place.client.list_objects_v2(Bucket=place.bucket, Prefix=folder, Delimiter="/", **more)
        except StoreAnswer as said:
            raise place.refusal(said, "to list") from None
        folders |= {found["Prefix"] for found in page.get("CommonPrefixes", [])}
        at = page.get("NextContinuationToken", "")
        if not page.get("IsTruncated"):
            return folders
        if not at or at == more.get("ContinuationToken"):
            raise _endless(place)
        more = {"ContinuationToken": at}


def _pages(place: Place, prefix: str, more: dict[str, str]) -> Iterator[Mapping[str, Any]]:
    marker: dict[str, str] = {}
    while True:
        arguments = cast("Any", more | marker)
        try:
            with place.answers():
                answer = place.client.list_object_versions(
                    Bucket=place.bucket, Prefix=prefix, MaxKeys=PAGE_KEYS, **arguments
                )
        except StoreAnswer as said:
            raise place.refusal(said, "to list its versions") from None
        page = cast("Mapping[str, Any]", answer)
        yield page
        if not page.get("IsTruncated"):
            return
        following = {"KeyMarker": page.get("NextKeyMarker", "")}
        following["VersionIdMarker"] = page.get("NextVersionIdMarker", "")
        if not following["KeyMarker"] or following == marker:
            raise _endless(place)
        marker = following


def _rows(page: Mapping[str, Any]) -> list[Listed]:
    """The rows in the order in which the store told them, if it can be known; else by name, then newest first."""
    versions = [_row(raw, is_marker=False) for raw in page.get("Versions", [])]
    markers = [_row(raw, is_marker=True) for raw in page.get("DeleteMarkers", [])]
    order: list[bool] = page.get(_ORDER, [])
    if order.count(True) == len(markers) and order.count(False) == len(versions):
        queues = {False: iter(versions), True: iter(markers)}
        rows = [next(queues[is_marker]) for is_marker in order]
    else:
        rows = sorted([*markers, *versions], key=lambda row: row.modified_at, reverse=True)
    return sorted(rows, key=lambda row: row.name)


def _row(raw: Mapping[str, Any], *, is_marker: bool) -> Listed:
    return Listed(
        raw["Key"],
        raw.get("VersionId") or NULL,
        str(raw.get("ETag", "")).strip('"'),
        raw["LastModified"].astimezone(UTC),
        int(raw.get("Size", 0)),
        is_marker,
    )


def _endless(place: Place) -> SourceError:
    return SourceError(
        "bucket.endless_listing",
        f"{place.endpoint} gives no new marker for the next page of {place.bucket}'s listing",
        "a listing that doesn't end is none: look into the store, or name its part by `prefix`",
    )
