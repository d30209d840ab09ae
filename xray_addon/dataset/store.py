"""Datasets of X-Rays on disk: what goes in, where it lies, and when it is complete.

Layout of a dataset's folder::

    xrays/<uid>/NNN.npz           one X-Ray a view
    images/<uid>/NNN.png          its reference image, RGBA
    images/<uid>/transforms.json  its cameras
    ids/<uid>/NNN.npz             object, material, face (N,) int32 of each hit, if asked for
    omages/<uid>/RRR.npz          the object as an omage of R x R pixels, if asked for
    00_img_input/ ... 03_splits/  Slice3D's training data, if asked for: see `slices.layout`
    metadata/<uid>.json           the item's row, written last: with it the item is complete
    refused/<uid>.json            why an item is not there: rejected by a gate, or failed
    logs/<uid>.json               seconds and reasons of the last attempt
    settings.json                 the `Recipe` that all of it was made with, and what deflates it
    metadata.jsonl                a line a view, for Hugging Face `datasets` (imagefolder)
    report.json, report.md        what is there, what is not and why

Only logs/ holds times, so that a run that was killed and resumed ends with the same bytes as one
that was not. An item is made in a private folder below `.work/`, which dies with its run, and
moved into place at its end: whoever finds its row finds the item. A uid holds no dot.

All items are made with the same settings, those of the first run: see `claim`. They are also
deflated by the same libraries, those of the first worker: see `writer`.

Worker protocol (``blender -c xray dataset-worker OUT [settings]``): each line on standard input is
an `Item` as JSON, each line on standard output is its `ItemResult`, in the same order. The worker
ends at the end of its input. Everything else that Blender prints goes to standard error. A worker
does not write metadata.jsonl and the report: whoever runs workers calls `finish` at the end, and
`refuse` for an item that took its worker down.
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

# The folders that hold an item's files, in the order in which they are put there.
KINDS = ("ids", IMAGES, SLICES, "images", "omages", "xrays")
# The folders that hold one file an item, and the file's suffix.
SINGLES = {SDFS: ".npy"}
SETTINGS, WRITER = "settings.json", "writer"
PUBLISH_LOCK = "publish.lock"
ATTEMPTS = 1000
# What runs write into, replace and delete; none of it may be a link to somewhere else.
_OWN = (".work", *SINGLES, *KINDS, SPLITS, "metadata", "refused", "logs", "logs/worker.log")

logger = logging.getLogger(__name__)


def claim(folder: str | PathLike[str], settings: DatasetSettings, replace: bool = False) -> str:
    """Make the dataset in `folder` one of `settings`, before items are made; the `settings_hash`.

    Where nothing but gates differs from what is there, that is judged again by its rows: what
    does not pass any more is taken out, what was rejected and now passes will be made. Where more
    differs, `replace` takes out all that was made with other settings.

    Raises XRayError `other_settings` without `replace`, with nothing touched; `cannot_write`, and
    what `Recipe.of` raises.
    """
    folder, recipe = Path(folder), Recipe.of(settings)
    if _recorded(folder) == recipe:
        return recipe.digest
    with _exclusive(folder) as place:
        others = _others(folder, recipe)
        if others and not replace:
            raise _conflict(folder, recipe)
        known = {} if others else _settings(folder)
        kept = {key: known[key] for key in known if key == WRITER}
        # Without gates until all has been judged: whoever goes on after a kill does it again.
        place(SETTINGS, _json({**Recipe(recipe.items, {}).to_dict(), **kept}))
        for uid in others:
            _withdraw(folder, uid, None)
        _judge_again(folder, settings, recipe.digest, place)
        place(SETTINGS, _json({**recipe.to_dict(), **kept}))
    return recipe.digest


def writer(folder: Path) -> Deflater:
    """What deflates the files of the claimed dataset in `folder`: the first worker's fastest.

    Workers with other libraries use what the dataset was begun with, because other libraries give
    other bytes. Raises XRayError `no_deflater` where they lack it, `cannot_write`.
    """
    known = _settings(folder)
    if WRITER not in known:
        with _exclusive(folder) as place:
            known = _settings(folder)  # another worker may have been faster
            known.setdefault(WRITER, fastest().name)
            place(SETTINGS, _json(known))
    return named(known[WRITER])


def conflict(folder: str | PathLike[str], settings: DatasetSettings) -> XRayError | None:
    """What `claim` raises without `replace` where there is what other settings made."""
    folder, recipe = Path(folder), Recipe.of(settings)
    return _conflict(folder, recipe) if _others(folder, recipe) else None


def find(folder: Path, item: Item, digest: str, refused: bool = True) -> ItemResult | None:
    """What is known of `item` with settings of that hash: "exists", "rejected" or nothing.

    refused : whether to look for "rejected" too.

    An item exists while its row does, the source is what it was, and every file that the row
    lists is there with its size.
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

    What killed runs left behind is removed too; the folders of live runs are not touched.
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
    """Remove what killed runs left behind, and refuse the items that crashed them.

    Raises XRayError `cannot_write`.
    """
    with _exclusive(folder) as place:
        for leftover in (folder / ".work").glob("*.lock"):
            if leftover.name != PUBLISH_LOCK:
                _remove_dead(folder, leftover, place)


def publish(folder: Path, item: Item, made: Path, row: dict[str, Any]) -> None:
    """Move what was made for `item` into the dataset in `folder`, its row last.

    made : folder with xrays/, and images/ and ids/ if there are any, in the dataset's
    `work_folder`. row : see `finish`; it needs "settings", the `settings_hash`, and
    "source_bytes". Where another run was faster with the same settings, its files stay.

    Raises XRayError `cannot_write`, `other_settings` where another run has claimed the folder.
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
    """The fields that a row begins with."""
    source = Path(item.source)
    return {
        "uid": item.uid,
        "source": item.name or source.name,
        "source_bytes": source.stat().st_size if source.is_file() else 0,
        "license": item.license,
        "settings": digest,
    }


def read_state(item: Item, companions: Iterable[str] = ()) -> list[str | int]:
    """What tells, without reading them, that an item's files are as they were; for its log.

    companions : names of the files that its own one names, see `companion_hashes`. Of each file:
    path, size, times of the last change of its content and of anything about it. The last cannot
    be set, so that a copy of the same size and time is seen as another file.
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


def put_files(folder: Path, uid: str, made: Path) -> None:
    """`publish` for files without a row: the item is in the layout, but no part of the dataset.

    Raises XRayError `cannot_write`.
    """
    with _exclusive(folder):
        _replace(folder, uid, made)


def refuse(
    folder: Path,
    item: Item,
    digest: str,
    status: str,
    error: XRayError,
    row: dict[str, Any] | None = None,
) -> None:
    """Note why `item` is not in the dataset with settings of that hash.

    status : "rejected" or "failed". row : what else is known, as for `publish`. What other
    settings made of the item goes; where another run has made it with these, it stays.

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
        if find(folder, item, digest, refused=False) is None:
            place(f"refused/{item.uid}.json", _json(values))
            _withdraw(folder, item.uid, None)


def write_log(folder: Path, result: ItemResult, details: dict[str, Any]) -> Path:
    """Write `logs/<uid>.json`, the only file with times; returns its path.

    details : what else is known; "read", the `read_state` before the source was read, spares the
    next run its hash.

    Raises XRayError `cannot_write`.
    """
    name = f"logs/{result.uid}.json"
    with _exclusive(folder) as place:
        place(name, _json({**result.to_dict(), **details}))
        (folder / name).with_suffix(".ends").unlink(missing_ok=True)
    return folder / name


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the body's writing below `folder` fails with into XRayError `cannot_write`."""
    try:
        yield
    except OSError as error:
        raise XRayError(
            "cannot_write",
            f"{folder} cannot be written to ({error.strerror or error}).",
            "Choose a folder that exists or can be made, with space left.",
        ) from error


def item_row(folder: Path, uid: str) -> dict[str, Any] | None:
    """The metadata row of an item, see `finish`; None where it is not complete."""
    return read_row(folder / "metadata" / f"{uid}.json") if is_clean_name(uid) else None


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The metadata row of every item in the dataset, by uid."""
    yield from read_rows(folder / "metadata")


def finish(folder: str | PathLike[str]) -> Report:
    """Write metadata.jsonl and the report of the dataset in `folder`; returns the report.

    Each row has uid, source, source_sha256, source_bytes, license, settings, triangles, gates
    (those touched), images (whether there are any) and `views`, a `ViewStatistics` each. Where they
    apply, also objects and materials (names for the ids), missing_textures (image file names) and
    omage (resolutions, patches, dropped_area, unwrapped: see `omage.encoding.EncodingReport`).

    Raises XRayError `cannot_write`.
    """
    folder = Path(folder)
    report = Report(0, 0, 0, 0, 0, [], 0, 0, {}, [], {})
    counted: Counter[str] = Counter()
    stopped: Counter[str] = Counter()
    with _exclusive(folder) as place:
        sliced: dict[str, list[str]] = {}

        def lines() -> Iterator[str]:
            """Of metadata.jsonl, which may be larger than the memory."""
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
    """Hold the dataset alone. Yields a function that writes a text, or its parts, under a name in
    it, whole.

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
                # Half a character, of a name that is no UTF-8, ends no run.
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
    """Raises XRayError `unsafe_dataset` where what is written would land somewhere else."""
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
    """Hold the lock `name` in the folder `work`, which another run may remove while it is empty."""
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

    The item that it died at is refused where it is to blame.
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
    known = _recorded(folder)
    same = there and all(there[key] == row.get(key) for key in ("settings", "source_sha256"))
    if there and same and _is_whole(folder, there):
        return  # it died only after it was written
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
    """How often runs have ended at an item without a trace."""
    try:
        return int(read_at_most(path, 10))
    except (OSError, ValueError):
        return 0


def _remove_empty(work: Path) -> None:
    with suppress(OSError):  # another run is at work
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
    """Take an item out of the dataset, its row first; its files into `grave`, or for good."""
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
    """What an item has of a kind: a folder, or a file."""
    return folder / kind / f"{uid}{SINGLES.get(kind, '')}"


def _settings(folder: Path) -> dict[str, Any]:
    """What settings.json holds: a `Recipe`, and what wrote the files; empty if there is none."""
    try:
        held: dict[str, Any] = read_json(folder / SETTINGS, RECIPE)
    except (OSError, ValueError):
        return {}
    return held


def _recorded(folder: Path) -> Recipe | None:
    """What the dataset was made with; None where nothing says so."""
    try:
        return Recipe.from_dict(_settings(folder))
    except ValueError:
        return None


def _others(folder: Path, recipe: Recipe) -> list[str]:
    """The uids of what other settings made."""
    return [row["uid"] for row in rows(folder) if row.get("settings") != recipe.digest]


def _conflict(folder: Path, recipe: Recipe) -> XRayError:
    known = _recorded(folder)
    differences = recipe.differences(known) if known else ""
    return other_settings(folder, differences or "which ones is not known")


def _check_claimed(folder: Path, digest: str) -> None:
    known = _recorded(folder)
    if known is not None and known.digest != digest:
        raise other_settings(folder, "another run has replaced it meanwhile")


def _judge_again(folder: Path, settings: DatasetSettings, digest: str, place: Place) -> None:
    """Apply the gates of `settings` to what is there; what other settings refused is forgotten."""
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
    """`row` with why the item is not there after the fields that every row begins with."""
    refusal = {"status": status, "code": error.code, "reason": str(error)}
    first = {key: row[key] for key in ("uid", "source", "source_bytes", "license", "settings")}
    return {**first, **refusal, **{key: row[key] for key in row if key not in {*first, *refusal}}}


def _fits(folder: Path, row: dict[str, Any], item: Item, digest: str) -> bool:
    if row.get("settings") != digest or not item.source:
        return False  # objects of an open file may have changed
    try:
        source = os.stat(item.source)
    except OSError:
        return True  # the source may be gone; what was made from it stays
    if row.get("source_bytes") != source.st_size:
        return False
    log = read_row(folder / "logs" / f"{item.uid}.json", LOG) or {}
    companions = row.get("companions", {})
    if log.get("read") == read_state(item, companions):
        return True  # without reading it again
    if row.get("source_sha256") != file_hash(item.source):
        return False
    paths = companion_paths(Path(item.source), companions)
    try:
        return companion_hashes(Path(item.source), paths) == companions
    except XRayError:  # one of them cannot be read any more
        return False


def _is_whole(folder: Path, row: dict[str, Any]) -> bool:
    try:
        # A dataset has millions of files: joining paths takes as long as looking at them.
        return all(
            os.stat(f"{folder}/{name}").st_size == size for name, size in row["files"].items()
        )
    except (OSError, KeyError, AttributeError):  # a file is missing, or this is no row of ours
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
