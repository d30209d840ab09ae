"""Datasets of X-Rays on disk: the layout, and how items are added and completed.

Layout of a dataset's folder::

    xrays/<uid>/NNN.npz           one X-Ray per view
    images/<uid>/NNN.png          its reference image, RGBA
    images/<uid>/transforms.json  its cameras
    ids/<uid>/NNN.npz             object, material, face (N,) int32 of each hit, if requested
    omages/<uid>/RRR.npz          the object as an omage of R x R pixels, if requested
    00_img_input/ ... 03_splits/  Slice3D's training data, if requested: see `slices.layout`
    metadata/<uid>.json           the item's row; written last, so it marks a complete item
    refused/<uid>.json            why an item is missing: rejected by a gate, or failed
    logs/<uid>.json               duration and messages of the last attempt
    settings.json                 the `Recipe` of all items, and the compression library
    metadata.jsonl                a line per view, for Hugging Face `datasets` (imagefolder)
    report.json, report.md        which items exist, and why others do not

Only logs/ contains times, so a run that was killed and resumed gives the same bytes as an
uninterrupted one. An item is made in a private folder in `.work/`, which is removed with its run,
and moved into place when complete, its row last. A uid contains no dot.

All items are made with the settings of the first run (see `claim`) and compressed with the library
of the first worker (see `writer`).

Worker protocol (``blender -c xray dataset-worker OUT [settings]``): each line on standard input is
an `Item` as JSON, each line on standard output is its `ItemResult`, in the same order, or with
--progress a `message` before it. The worker exits at the end of its input. Everything else that
Blender prints goes to standard error. A worker does not write metadata.jsonl and the report: the
process that runs workers calls `finish` at the end, and `refuse` for an item that crashed its
worker.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import XRayError, error_code
from ..files.deflate import Deflater, fastest, named
from ..files.json_files import read_json
from ..files.locks import lock
from ..files.names import is_clean_name
from ..files.opening import read_at_most
from ..settings.dataset import DatasetSettings
from ..slices.layout import IMAGES, SDFS, SLICES, SPLITS, split_lists, split_of
from .companions import companion_hashes, companion_paths
from .gates import GATES, JUDGED, ViewStatistics, judge, see_through
from .in_flight import MOST_ENDS, crashed, left_in_flight
from .manifest import Item
from .recipe import Recipe, file_hash, other_settings
from .report import Report, view_line
from .result import EXISTS, REJECTED, ItemResult
from .rows import LOG, REFUSED_ROW, read_row, read_rows
from .rows import SETTINGS as RECIPE

# The folders that contain a folder per item, in the order in which they are written.
KINDS = ("ids", IMAGES, SLICES, "images", "omages", "xrays")
# The folders that contain one file per item, and its suffix.
SINGLES = {SDFS: ".npy"}
SETTINGS, WRITER = "settings.json", "writer"
PUBLISH_LOCK = "publish.lock"
ATTEMPTS = 1000
# What runs write into, replace and delete; none of it may be a link.
_OWN = (".work", *SINGLES, *KINDS, SPLITS, "metadata", "refused", "logs", "logs/worker.log")

logger = logging.getLogger(__name__)


def claim(folder: str | PathLike[str], settings: DatasetSettings, replace: bool = False) -> str:
    """Prepare the dataset in `folder` for items with `settings`; returns their `Recipe.digest`.

    If only the gates changed, existing items are re-checked from their rows. Items that no longer
    pass are removed; rejected items that pass now will be made. If other settings changed,
    `replace` removes all items that were made with different settings.

    Raises XRayError `other_settings` without `replace`, leaving the dataset unchanged;
    `cannot_write`, and those of `Recipe.of`.
    """
    folder, recipe = Path(folder), Recipe.of(settings)
    if recorded(folder) == recipe:
        return recipe.digest
    with _exclusive(folder) as place:
        others = list(_others(folder, recipe))
        if others and not replace:
            raise _conflict(folder, recipe)
        known = {} if others else _settings(folder)
        kept = {key: known[key] for key in known if key == WRITER}
        # Recorded without gates until all items are checked: if this run is killed, the next one
        # checks them again.
        place(SETTINGS, _json({**Recipe(recipe.items, {}).to_dict(), **kept}))
        for uid in others:
            _withdraw(folder, uid, None)
        _judge_again(folder, settings, recipe.digest, place)
        place(SETTINGS, _json({**recipe.to_dict(), **kept}))
    return recipe.digest


def writer(folder: Path) -> Deflater:
    """The deflater of the claimed dataset in `folder`: the fastest that its first worker had.

    Later workers must use the same one, because other libraries give different bytes. Raises
    XRayError `no_deflater` if it is not installed, `cannot_write`.
    """
    known = _settings(folder)
    if WRITER not in known:
        with _exclusive(folder) as place:
            known = _settings(folder)  # another worker may have written it meanwhile
            known.setdefault(WRITER, fastest().name)
            place(SETTINGS, _json(known))
    return named(known[WRITER])


def conflict(folder: str | PathLike[str], settings: DatasetSettings) -> XRayError | None:
    """The error that `claim` raises without `replace` if items have different settings, or None."""
    folder, recipe = Path(folder), Recipe.of(settings)
    if recorded(folder) == recipe or next(_others(folder, recipe), None) is None:
        return None
    return _conflict(folder, recipe)


def recorded(folder: Path) -> Recipe | None:
    """The recipe that the dataset in `folder` is claimed for; None if it is unknown."""
    try:
        return Recipe.from_dict(_settings(folder))
    except ValueError:
        return None


def find(folder: Path, item: Item, digest: str, refused: bool = True) -> ItemResult | None:
    """The result of `item` for the settings hash `digest`: "exists", "rejected", or None.

    refused : whether to look for "rejected" too.

    An item exists if it has a row, its source is unchanged, and every file in the row exists with
    the recorded size.
    """
    row = item_row(folder, item.uid)
    if row and _fits(folder, row, item, digest) and _is_whole(folder, row):
        views = row["views"]
        return ItemResult(
            item.uid,
            EXISTS,
            views=len(views),
            hits=sum(sum(view["hits"]) for view in views),
            dropped=sum(view["dropped"] for view in views),
        )
    row = read_row(folder / "refused" / f"{item.uid}.json", REFUSED_ROW)
    if refused and row and row["status"] == REJECTED and _fits(folder, row, item, digest):
        return ItemResult(item.uid, REJECTED, row["code"], row["reason"])
    return None


@contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """A private folder on the same disk as the dataset in `folder`; it is removed at the end.

    Leftovers of killed runs are removed too; the folders of live runs are not touched.
    Raises XRayError `cannot_write`.
    """
    work = folder / ".work"
    sweep(folder)
    with ExitStack() as stack:
        stack.callback(_remove_empty, work)
        with writing(folder):
            own = stack.enter_context(_made(work, secrets.token_hex(8)))
        yield own


def sweep(folder: Path) -> None:
    """Remove the leftovers of killed runs, and refuse the items that crashed them.

    Raises XRayError `cannot_write`.
    """
    with _exclusive(folder) as place:
        for leftover in (folder / ".work").glob("*.lock"):
            if leftover.name != PUBLISH_LOCK:
                _remove_dead(folder, leftover, place)


def publish(folder: Path, item: Item, made: Path, row: dict[str, Any]) -> None:
    """Move the files of `item` into the dataset in `folder`, and write its row last.

    made : folder in the dataset's `work_folder` with xrays/, and images/ and ids/ if there are any.
    row : see `finish`; it needs "settings", the `Recipe.digest`, and "source_bytes". If another run
    has finished the item with the same settings, that run's files are kept.

    Raises XRayError `cannot_write`, `other_settings` if another run has claimed the folder.
    """
    row = {**row, "files": _sizes(made, item.uid)}
    text = _json(row)
    with _exclusive(folder) as place:
        _check_claimed(folder, row["settings"])
        if find(folder, item, row["settings"], refused=False) is None:
            _replace(folder, item.uid, made)
            place(f"metadata/{item.uid}.json", text)
        (folder / "refused" / f"{item.uid}.json").unlink(missing_ok=True)


def described(item: Item, digest: str) -> dict[str, Any]:
    """The first fields of a row."""
    source = Path(item.source)
    return {
        "uid": item.uid,
        "source": item.name or source.name,
        "source_bytes": source.stat().st_size if source.is_file() else 0,
        "license": item.license,
        "settings": digest,
    }


def read_state(item: Item, companions: Iterable[str] = ()) -> list[str | int]:
    """File properties that show, without reading, that an item's files are unchanged; for its log.

    companions : names of the files that the source references, see `companion_hashes`. For each
    file: path, size, mtime and ctime. The ctime cannot be set, so it distinguishes a copy with the
    same size and mtime.
    """
    source = Path(item.source)
    if not source.is_file():
        return []
    state: list[str | int] = []
    for path in (source, *companion_paths(source, companions)):
        state.append(str(path.absolute()))
        with suppress(OSError):
            about = path.stat()
            state += [about.st_size, about.st_mtime_ns, about.st_ctime_ns]
    return state


def check_plain(folder: Path, *uids: str) -> None:
    """Check that `folder` holds no dataset and none of the items `uids`.

    Raises XRayError `other_settings`.
    """
    names = [SETTINGS, *(f"metadata/{uid}.json" for uid in uids)]
    if any(os.path.lexists(folder / name) for name in names):
        raise XRayError(
            "other_settings",
            f"{folder} holds a dataset, and a capture without one would replace its items.",
            "Choose another folder.",
        )


def put_files(folder: Path, uid: str, made: Path) -> None:
    """As `publish`, without a row: the files follow the layout but are not a dataset item.

    Raises XRayError `cannot_write`, `other_settings` if `folder` holds a dataset.
    """
    with _exclusive(folder):
        check_plain(folder, uid)
        _replace(folder, uid, made)


def refuse(
    folder: Path,
    item: Item,
    digest: str,
    status: str,
    error: XRayError,
    row: dict[str, Any] | None = None,
) -> None:
    """Record why `item` is not in the dataset for the settings hash `digest`.

    status : "rejected" or "failed". row : other known fields, as for `publish`. The item's files
    from different settings are removed; if another run has made it with these settings, it stays.
    A failure keeps what these settings made of an object of an open file, rejecting it does not.

    Raises XRayError `cannot_write`.
    """
    values = {
        **described(item, digest),
        "status": status,
        "code": error.code,
        "reason": str(error),
        **(row or {}),
    }
    with _exclusive(folder) as place:
        if not _stays(folder, item, digest, status):
            place(f"refused/{item.uid}.json", _json(values))
            _withdraw(folder, item.uid, None)


def write_log(folder: Path, result: ItemResult, details: dict[str, Any]) -> Path:
    """Write `logs/<uid>.json`, the only file with times; returns its path.

    details : additional fields. "read", the `read_state` before the source was read, saves the next
    run from hashing it.

    Raises XRayError `cannot_write`.
    """
    name = f"logs/{result.uid}.json"
    with _exclusive(folder) as place:
        place(name, _json({**result.to_dict(), **details}))
        (folder / name).with_suffix(".ends").unlink(missing_ok=True)
    return folder / name


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Convert the body's OSErrors in writing below `folder` to XRayError `cannot_write`."""
    try:
        yield
    except OSError as error:
        raise XRayError(
            "cannot_write",
            f"{folder} cannot be written to ({error.strerror or error}).",
            "Choose a folder that exists or can be made, with space left.",
        ) from error


def item_row(folder: Path, uid: str) -> dict[str, Any] | None:
    """The metadata row of an item, see `finish`; None if it is not complete."""
    return read_row(folder / "metadata" / f"{uid}.json") if is_clean_name(uid) else None


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The metadata row of every item in the dataset, by uid."""
    yield from read_rows(folder / "metadata")


def finish(folder: str | PathLike[str]) -> Report:
    """Write metadata.jsonl and the report of the dataset in `folder`; returns the report.

    Each row has uid, source, source_sha256, source_bytes, license, settings, triangles, gates
    (those triggered), images (whether there are any) and `views`, a list of `ViewStatistics`. If
    applicable, it also has objects and materials (names for the ids), missing_textures (image file
    names) and omage (resolutions, patches, dropped_area, unwrapped: see
    `omage.encoding.EncodingReport`).

    Raises XRayError `cannot_write`.
    """
    folder = Path(folder)
    report = Report(0, 0, 0, 0, 0, [], 0, 0, {}, [], {})
    counted: Counter[str] = Counter()
    stopped: Counter[str] = Counter()
    with _exclusive(folder) as place:
        sliced: dict[str, list[str]] = {}

        def lines() -> Iterator[str]:
            """The lines of metadata.jsonl, one by one: together they may exceed the memory."""
            for row in rows(folder):
                report.add(row)
                if any(name.startswith(f"{SDFS}/") for name in row.get("files", ())):
                    sliced.setdefault(split_of(row["uid"]), []).append(row["uid"])
                counted.update(row["gates"])
                if row["images"]:
                    yield from (view_line(row, i) for i in range(len(row["views"])))

        place("metadata.jsonl", lines())
        for row in read_rows(folder / "refused", REFUSED_ROW):
            report.add_refused(row)
            gate = error_code(row["code"]).gate or row["code"]
            counted.update({gate, *row.get("gates", ())})
            stopped[gate] += 1
        names = [*GATES, *sorted(set(stopped) - set(GATES))]
        report.gates = {
            name: {"counted": counted[name], "refused": stopped[name]} for name in names
        }
        if sliced:
            for name, text in split_lists(sliced).items():
                place(name, text)
        place("report.json", _json(report.to_dict()))
        place("report.md", report.to_markdown())
    return report


Place = Callable[[str, str | Iterable[str]], None]


@contextmanager
def _exclusive(folder: Path) -> Iterator[Place]:
    """Lock the dataset. Yields a function that writes a text, or its parts, to a file in it,
    atomically.

    Raises XRayError `cannot_write`.
    """
    work = folder / ".work"
    _check_links(folder)
    with ExitStack() as stack:
        stack.callback(_remove_empty, work)
        stack.enter_context(writing(folder))
        stack.enter_context(_locked(work, PUBLISH_LOCK, partial(_tell_waiting, folder)))
        for part in work.glob("*.part"):
            part.unlink()  # left by a killed run; no other process writes here now

        def place(name: str, text: str | Iterable[str]) -> None:
            part, target = work / f"{secrets.token_hex(8)}.part", folder / name
            try:
                # Names that are not UTF-8 contain surrogates, which must not stop the run.
                if isinstance(text, str):
                    part.write_text(text, encoding="utf-8", errors="replace", newline="\n")
                else:
                    with part.open("w", encoding="utf-8", errors="replace", newline="\n") as stream:
                        stream.writelines(text)
                target.parent.mkdir(exist_ok=True)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)

        yield place


def _check_links(folder: Path) -> None:
    """Raise XRayError `unsafe_dataset` if a link would redirect what is written."""
    for name in _OWN:
        path = folder / name
        if path.is_symlink() or getattr(os.path, "isjunction", os.path.islink)(path):
            raise XRayError(
                "unsafe_dataset",
                f"{path} is a link, which no dataset of X-Ray holds.",
                "Look where it leads. Remove it, or write to another folder.",
            )


def _tell_waiting(folder: Path) -> None:
    logger.warning("waiting for another run that writes to %s", folder)


@contextmanager
def _locked(work: Path, name: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock `name` in `work`, a folder that other runs remove while it is empty."""
    with ExitStack() as stack:
        for _ in range(ATTEMPTS):
            work.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(lock(work / name, on_wait=on_wait))
                break
            except FileNotFoundError:
                continue
        else:
            raise FileNotFoundError(errno.ENOENT, "the folder keeps vanishing", str(work))
        yield


@contextmanager
def _made(work: Path, name: str) -> Iterator[Path]:
    own = work / f"{name}.tmp"
    with _locked(work, f"{name}.lock", partial(_tell_waiting, work.parent)):
        own.mkdir()
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)


def _remove_dead(folder: Path, leftover: Path, place: Place) -> None:
    """Remove the work folder that belongs to the lock `leftover`, if its run is dead.

    If the item that the run was making caused its death, the item is refused.
    """
    with lock(leftover, wait=False) as dead:
        if not dead:
            return
        own = leftover.with_suffix(".tmp")
        left = left_in_flight(own)
        if left is not None:
            _blame(folder, *left, place)
        shutil.rmtree(own, ignore_errors=True)


def _blame(folder: Path, row: dict[str, Any], has_crashed: bool, place: Place) -> None:
    uid = row["uid"]
    there = item_row(folder, uid)
    known = recorded(folder)
    same = there and all(there[key] == row.get(key) for key in ("settings", "source_sha256"))
    if there and same and _is_whole(folder, there):
        return  # the run died after the item was complete
    if known is not None and known.digest != row["settings"]:
        return
    counted = f"logs/{uid}.ends"
    ends = 0 if has_crashed else _ends(folder / counted) + 1
    if not has_crashed and ends < MOST_ENDS:
        place(counted, f"{ends}\n")
        return
    error = crashed(row, ends)
    place(f"refused/{uid}.json", _json({**row, "reason": str(error)}))
    place(f"logs/{uid}.json", _json(ItemResult.refused(uid, error, REJECTED).to_dict()))
    _withdraw(folder, uid, None)
    logger.warning("%s", error)


def _ends(path: Path) -> int:
    """How many runs have ended at an item without a crash trace."""
    try:
        return int(read_at_most(path, 10))
    except (OSError, ValueError):
        return 0


def _remove_empty(work: Path) -> None:
    with suppress(OSError):  # another run is using it
        work.rmdir()


def _replace(folder: Path, uid: str, made: Path) -> None:
    _withdraw(folder, uid, made)
    for kind in (*SINGLES, *KINDS):
        source = made / kind
        if kind in SINGLES:
            source /= f"{uid}{SINGLES[kind]}"
        if source.exists():
            (folder / kind).mkdir(exist_ok=True)
            source.rename(_place(folder, kind, uid))


def _withdraw(folder: Path, uid: str, grave: Path | None) -> None:
    """Remove an item from the dataset, its row first; move its files to `grave` or delete them."""
    (folder / "metadata" / f"{uid}.json").unlink(missing_ok=True)
    for kind in (*SINGLES, *KINDS):
        target = _place(folder, kind, uid)
        if not os.path.lexists(target):
            continue
        if target.is_symlink():
            target.unlink()
        elif grave is not None:
            target.rename(grave / f"old-{kind}")
        elif target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()


def _place(folder: Path, kind: str, uid: str) -> Path:
    """The folder or file of an item in the folder `kind`."""
    return folder / kind / f"{uid}{SINGLES.get(kind, '')}"


def _settings(folder: Path) -> dict[str, Any]:
    """The contents of settings.json: a `Recipe` and the writer's name; empty if unreadable."""
    try:
        held: dict[str, Any] = read_json(folder / SETTINGS, RECIPE)
    except (OSError, ValueError):
        return {}
    return held


def _others(folder: Path, recipe: Recipe) -> Iterator[str]:
    """The uids of items that were made with different settings."""
    return (row["uid"] for row in rows(folder) if row.get("settings") != recipe.digest)


def _conflict(folder: Path, recipe: Recipe) -> XRayError:
    known = recorded(folder)
    differences = recipe.differences(known) if known else ""
    return other_settings(folder, differences or "which ones is not known")


def _check_claimed(folder: Path, digest: str) -> None:
    known = recorded(folder)
    if known is not None and known.digest != digest:
        raise other_settings(folder, "another run has replaced it meanwhile")


def _judge_again(folder: Path, settings: DatasetSettings, digest: str, place: Place) -> None:
    """Re-check all items with the gates of `settings`; delete refusals of different settings."""
    for row in rows(folder):
        gates, error = _judged(row, settings)
        if error is not None:
            row.pop("files", None)
            _refuse_again(row, gates, error, place)
            _withdraw(folder, row["uid"], None)
    for row in read_rows(folder / "refused", REFUSED_ROW):
        path = folder / "refused" / f"{row['uid']}.json"
        if row.get("settings") != digest:
            path.unlink()
        elif row["code"] in JUDGED and row["status"] == REJECTED and row.get("views"):
            gates, error = _judged(row, settings)
            if error is None:
                path.unlink()
            else:
                _refuse_again(row, gates, error, place)


def _judged(row: dict[str, Any], settings: DatasetSettings) -> tuple[list[str], XRayError | None]:
    views = [ViewStatistics.from_dict(view) for view in row["views"]]
    return judge(views, settings, *see_through(row))


def _refuse_again(row: dict[str, Any], gates: list[str], error: XRayError, place: Place) -> None:
    others = [name for name in row.get("gates", ()) if name not in JUDGED]
    row = _refused_row({**row, "gates": gates + others}, REJECTED, error)
    place(f"refused/{row['uid']}.json", _json(row))


def _refused_row(row: dict[str, Any], status: str, error: XRayError) -> dict[str, Any]:
    """`row` with the reason for the refusal inserted after the first fields."""
    refusal = {"status": status, "code": error.code, "reason": str(error)}
    first = {key: row[key] for key in ("uid", "source", "source_bytes", "license", "settings")}
    return {**first, **refusal, **{key: row[key] for key in row if key not in {*first, *refusal}}}


def _fits(folder: Path, row: dict[str, Any], item: Item, digest: str) -> bool:
    if row.get("settings") != digest or not item.source:
        return False  # objects of an open file may have changed
    try:
        source = os.stat(item.source)
    except OSError:
        return True  # the item stays valid if the source is gone
    if row.get("source_bytes") != source.st_size:
        return False
    log = read_row(folder / "logs" / f"{item.uid}.json", LOG) or {}
    companions = row.get("companions", {})
    if log.get("read") == read_state(item, companions):
        return True  # unchanged; no need to read it
    try:
        if row.get("source_sha256") != file_hash(item.source):
            return False
        paths = companion_paths(Path(item.source), companions)
        return companion_hashes(Path(item.source), paths) == companions
    except XRayError:  # one of the files can no longer be read; reading the item says which
        return False


def _stays(folder: Path, item: Item, digest: str, status: str) -> bool:
    """Whether the complete item stays if a new attempt at it ends with `status`."""
    if item.source or status == REJECTED:
        return find(folder, item, digest, refused=False) is not None
    row = item_row(folder, item.uid)
    return row is not None and row["settings"] == digest and _is_whole(folder, row)


def _is_whole(folder: Path, row: dict[str, Any]) -> bool:
    try:
        # A dataset has millions of files, and joining paths is as slow as `stat`.
        return all(
            os.stat(f"{folder}/{name}").st_size == size for name, size in row["files"].items()
        )
    except (OSError, KeyError, AttributeError):  # a file is missing, or the row is not ours
        return False


def _sizes(made: Path, uid: str) -> dict[str, int]:
    files = sorted(file for file in made.rglob("*") if file.is_file())
    sizes = {}
    for file in files:
        kind, *rest = file.relative_to(made).parts
        inside = rest if kind in SINGLES else [uid, *rest]
        sizes["/".join([kind, *inside])] = file.stat().st_size
    return sizes


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"
