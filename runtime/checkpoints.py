"""Finds and downloads weights that are not part of X-Ray.

`xray_addon.systems.weights` defines their names and places. `locate` finds weights on this machine
and never uses the network. `make_offer` asks the hub what there is to fetch. `download` fetches it
after its caller has confirmed the `Offer`. Nothing else here uses the network.

For a machine without network, copy the files to their place. A file gets its name only when it is
complete and its checksum is right. Until then it is called `<name>.<checksum>.partial`, and the
next download continues it.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Self

from xray_addon.errors import XRayError, is_no_space
from xray_addon.files.atomic import replacing
from xray_addon.files.folders import CACHE_VARIABLE, cache_folder
from xray_addon.files.json_files import read_json
from xray_addon.files.json_schema import integer, matching, record, table_of
from xray_addon.files.names import is_clean_path
from xray_addon.progress import Progress, ProgressCallback, ignore_progress
from xray_addon.systems import PUBLISHED
from xray_addon.systems.weights import Checkpoint, Offer, RemoteFile, local_path, megabytes

DEFAULT_HUB = "https://huggingface.co"
# Written last: what was downloaded, and from where. No file taken from a hub has this suffix.
RECORD = "checkpoint.record"
_RECORD = record(
    {"files": table_of(record({"size": integer(0)}), matching(is_clean_path, "a clean path"))}
)
SPARE_SPACE = 64 << 20  # bytes that a download leaves free on the disk

# Default file patterns.
_WEIGHT_FILES = ("*.safetensors", "*.ckpt", "*.json", "*.yaml", "*.yml")
_BLOCK = 1 << 20
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def locate(checkpoint: str | PathLike[str], cache: str | PathLike[str] | None = None) -> Path:
    """The file or folder of `checkpoint` on this machine. Never uses the network.

    checkpoint : a name in `PUBLISHED` (checked first), a local path or a hub id.

    Raises XRayError: `missing_weights` if it is not here, with the files it needs and their place;
    `incomplete_download`; `bad_weights` if a file's size has changed.
    """
    path = local_path(checkpoint)
    if path is not None:
        return path
    name = str(checkpoint).replace("\\", "/")
    hub = Checkpoint.parse(name)
    if hub is None:
        raise XRayError(
            "missing_weights",
            f"There is no checkpoint {str(checkpoint)[:200]!r}.",
            "Give the path of a file or folder that exists, a hub id such as owner/repo, or one "
            f"of: {', '.join(PUBLISHED)}.",
        )
    folder = hub.folder(cache)
    sizes = _recorded_sizes(folder)
    needed = hub.files or tuple(sizes)
    missing = [file for file in needed if not (folder / file).is_file()]
    if missing or not needed:
        raise _not_here(hub, folder, missing, download_command(name, cache))
    for file in needed:
        size = (folder / file).stat().st_size
        if size != sizes.get(file, size):
            raise XRayError(
                "bad_weights",
                f"{folder / file} has {size} bytes; {sizes[file]} were downloaded.",
                f"Download it again: {download_command(name, cache)}",
            )
    return folder


def download_command(name: str, cache: str | PathLike[str] | None = None) -> str:
    """The terminal command that downloads the checkpoint called `name`.

    It uses the Python that runs this, because Blender's users have no other with the runtime.
    """
    words = [sys.executable or "python", "-m", "runtime", "download", name]
    if cache or os.environ.get(CACHE_VARIABLE):  # a new terminal has neither
        words += ["--cache", str(cache_folder(cache))]
    typed = subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
    return f"type in a terminal, in the folder {Path(__file__).parents[1]}:\n  {typed}\n"


def make_offer(
    name: str,
    *,
    online: bool,
    cache: str | PathLike[str] | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Offer:
    """What `download` would fetch. Asks the hub, and checks the files that are already here.

    Raises as `download` does.
    """
    return _ask(name, online, cache, progress)[1]


def download(
    name: str,
    *,
    confirm: Callable[[Offer], bool],
    online: bool,
    cache: str | PathLike[str] | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Path:
    """Download the checkpoint called `name` from its hub; returns its folder.

    Correct files that are already here are not fetched again, and an interrupted file is continued.
    The hub is the one in HF_ENDPOINT, or huggingface.co.

    confirm : called with the licence, the files and their size before anything is fetched.
    online : whether the user allows the network (Blender's online access).

    Raises XRayError: `unknown_checkpoint`, `offline`, `no_consent`, `no_access`, `no_space`,
    `cannot_write`, `download_failed`, `bad_checksum`, and `Cancelled` if `progress` does.
    """
    hub, offer, files = _ask(name, online, cache, progress)
    folder = offer.folder
    if offer.files:
        if not confirm(offer):
            raise XRayError(
                "no_consent",
                f"{hub.repo} was not fetched: its licence and size were not confirmed.",
                "Confirm the download to go on.",
            )
        _check_space(folder, offer.size)
        fetcher = _Fetcher(hub, offer.revision, folder, offer.size, progress)
        for file in offer.files:
            with _hub_errors(hub, folder):
                fetcher.fetch(file)
    made = {
        "repo": hub.repo,
        "revision": offer.revision,
        "licence": offer.licence,
        "licence_url": offer.licence_url,
        "files": {file.path: {"size": file.size, "digest": file.digest} for file in files},
    }
    text = json.dumps(made, indent=1)
    with _hub_errors(hub, folder):
        # A shared, read-only folder already has it.
        if not _holds(folder / RECORD, text):
            with replacing(folder / RECORD) as temporary:
                temporary.write_text(text, encoding="utf-8")
    progress(Progress("done", 1, 1, f"{hub.repo} is in {folder}"))
    return folder


# ------------------------------------------------------------------------------------------ parts


def _ask(
    name: str, online: bool, cache: str | PathLike[str] | None, progress: ProgressCallback
) -> tuple[Checkpoint, Offer, list[RemoteFile]]:
    """The checkpoint called `name`, what remains to be fetched of it, and all of its files."""
    hub = Checkpoint.parse(name)
    if hub is None:
        raise XRayError(
            "unknown_checkpoint",
            f"{name!r} is neither a hub id (owner/repo) nor a known checkpoint.",
            f"Known are: {', '.join(PUBLISHED)}.",
        )
    folder = hub.folder(cache)
    if not online or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise XRayError(
            "offline",
            f"{hub.repo} cannot be fetched: online access is off.",
            "Allow it in Blender's preferences (System > Network), or on a machine with network "
            + _by_hand(hub, folder, hub.files),
        )
    progress(Progress("look up", 0, 1, f"Asking the hub for {hub.repo}"))
    with _hub_errors(hub, folder):
        revision, files, licence, url = _look_up(hub)
    left = tuple(file for file in files if not _is_right(folder / file.path, file, progress))
    size = sum(file.size - _partial_size(folder, file) for file in left)
    return hub, Offer(hub.repo, revision, left, size, licence, url, folder), files


def _look_up(hub: Checkpoint) -> tuple[str, list[RemoteFile], str, str]:
    """The commit, the files, the licence and its address, from the hub."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=_endpoint())
    info: Any = api.repo_info(
        hub.repo,
        repo_type=hub.repo_type,
        revision=hub.revision,
        files_metadata=True,
        timeout=30,
    )
    files = []
    for sibling in info.siblings or []:
        path = sibling.rfilename
        wanted = path in hub.files if hub.files else _is_weight_file(path)
        if not wanted:
            continue
        if not is_clean_path(path):
            raise XRayError(
                "unsafe_weights",
                f"{hub.repo} names a file that would lie outside of its folder: {path!r}.",
                "Nothing was fetched. Take another repository.",
            )
        digest = sibling.lfs.sha256 if sibling.lfs else f"git:{sibling.blob_id}"
        size = sibling.lfs.size if sibling.lfs else sibling.size
        files.append(RemoteFile(path, int(size or 0), digest))
    missing = sorted(set(hub.files) - {file.path for file in files})
    if missing or not files:
        raise XRayError(
            "unknown_checkpoint",
            f"{hub.repo} at {hub.revision} lacks {', '.join(missing) or 'files with weights'}.",
            "Choose another revision (owner/repo@revision) or another repository.",
        )
    card: Any = info.card_data or {}
    stated = card.get("license_name") or card.get("license")
    licence = str(stated or (hub.published.licence if hub.published else "not stated"))
    if hub.published and hub.published.terms:
        licence += f", {hub.published.terms}"
    url = card.get("license_link")
    if not str(url or "").startswith("http"):
        url = hub.published.licence_url if hub.published else f"{_endpoint()}/{hub.page}"
    return str(info.sha), files, licence, str(url)


def _is_weight_file(path: str) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatch.fnmatch(name, pattern) for pattern in _WEIGHT_FILES)


class _Fetcher:
    """Fetches the files of one checkpoint and reports their overall progress."""

    def __init__(
        self, hub: Checkpoint, revision: str, folder: Path, size: int, progress: ProgressCallback
    ) -> None:
        self._hub = hub
        self._revision = revision
        self._folder = folder
        self._size = size
        self._progress = progress
        self._done = 0

    def fetch(self, file: RemoteFile) -> None:
        """Fetch one file, check it and give it its name."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(
            self._hub.repo,
            file.path,
            repo_type=self._hub.repo_type,
            revision=self._revision,
            endpoint=_endpoint(),
        )
        target = self._folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(self._folder, file)
        for other in target.parent.glob(f"{target.name}.*.partial"):
            if other != partial:  # a version that the hub has since replaced
                other.unlink()
        # Not hf_hub_download: it starts again after each broken connection, and checks only sizes.
        try:
            with partial.open("ab") as stream:
                if stream.tell() > file.size:
                    stream.seek(0)
                    stream.truncate()
                http_get(
                    url,
                    stream,
                    resume_size=stream.tell(),
                    headers=build_hf_headers(),
                    expected_size=file.size,
                    tqdm_class=self._bar(file.path),
                )
        except OSError as error:
            if is_no_space(error):
                partial.unlink(missing_ok=True)  # do not leave the disk full
            raise
        if not _matches(partial, file, self._progress):
            partial.unlink()
            raise XRayError(
                "bad_checksum",
                f"{file.path} of {self._hub.repo} arrived damaged: its checksum is not "
                f"{file.digest}.",
                "Download it again; if it happens again, a proxy on the way may change files.",
            )
        partial.replace(target)

    def _bar(self, name: str) -> Any:
        """A replacement for tqdm's class in huggingface_hub: each update becomes a `Progress`."""
        fetcher = self

        class Bar:
            def __init__(self, **_options: Any) -> None:
                fetcher._tell(name, 0)

            def __enter__(self) -> Self:
                return self

            def __exit__(self, *_error: object) -> None:
                return None

            def update(self, count: float) -> None:
                fetcher._tell(name, int(count))

        return Bar

    def _tell(self, name: str, count: int) -> None:
        self._done += count
        text = f"Fetching {name}: {megabytes(self._done)} of {megabytes(self._size)}"
        self._progress(Progress("download", self._done, self._size, text))


def _matches(path: Path, file: RemoteFile, progress: ProgressCallback) -> bool:
    """Whether the bytes in `path` are exactly those of `file`."""
    size = path.stat().st_size
    if size != file.size:
        return False
    kind, _, expected = file.digest.rpartition(":")
    # Git's name of a blob (SHA-1) does not protect against forgery, but the hub has nothing else
    # for small files.
    digest = hashlib.sha1(b"blob %d\0" % size) if kind == "git" else hashlib.sha256()
    done = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            done += len(block)
            progress(Progress("check", done, size, f"Checking {file.path}"))
    return digest.hexdigest() == expected


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _is_right(path: Path, file: RemoteFile, progress: ProgressCallback) -> bool:
    return path.is_file() and _matches(path, file, progress)


def _partial(folder: Path, file: RemoteFile) -> Path:
    target = folder / file.path
    return target.with_name(f"{target.name}.{file.digest.rpartition(':')[2][:12]}.partial")


def _partial_size(folder: Path, file: RemoteFile) -> int:
    partial = _partial(folder, file)
    size = partial.stat().st_size if partial.is_file() else 0
    return size if size <= file.size else 0


def _check_space(folder: Path, size: int) -> None:
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if existing is None or not existing.is_dir():  # a missing drive, or a file
        raise _cannot_write(existing or folder)
    if not os.access(existing, os.W_OK):
        raise _cannot_write(existing)
    free = shutil.disk_usage(existing).free
    if free < size + SPARE_SPACE:
        raise _no_space(folder, f"{megabytes(size)} are needed and {megabytes(free)} are left")


def _cannot_write(path: object) -> XRayError:
    return XRayError(
        "cannot_write",
        f"The weights have no place to go: {path} cannot be written to.",
        "Choose another Checkpoint Folder in the preferences of X-Ray (in a terminal: --cache, or "
        f"{CACHE_VARIABLE}), or let somebody who may write there fetch them.",
    )


def _no_space(folder: Path, why: str) -> XRayError:
    return XRayError(
        "no_space",
        f"The disk of {folder} has too little space: {why}.",
        "Free some, or choose a Checkpoint Folder on another disk in the preferences of X-Ray (in "
        f"a terminal: --cache, or {CACHE_VARIABLE}).",
    )


@contextmanager
def _hub_errors(hub: Checkpoint, folder: Path) -> Iterator[None]:
    """Convert the exceptions of huggingface_hub and the network to XRayErrors."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise XRayError(
            "no_access",
            f"{hub.repo} is only for users who have accepted its licence.",
            f"Accept it at {_endpoint()}/{hub.page}, then log in by `hf auth login` or set "
            "HF_TOKEN to a token of yours.",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise XRayError(
            "unknown_checkpoint",
            f"The hub has no {hub.repo} at {hub.revision}, or you may not see it.",
            "Check the name; for a private repository log in by `hf auth login`.",
        ) from error
    except (errors.HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        if is_no_space(error):
            raise _no_space(folder, "it is full") from error
        if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
            raise _cannot_write(error.filename or folder) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise XRayError(
            "download_failed",
            f"{hub.repo} could not be fetched ({reason}).",
            "Check the connection and download again: it goes on where it stopped. Or "
            + _by_hand(hub, folder, hub.files),
        ) from error


def _not_here(hub: Checkpoint, folder: Path, missing: list[str], command: str) -> XRayError:
    partial = sorted(folder.rglob("*.partial"))
    if partial:
        return XRayError(
            "incomplete_download",
            f"The download of {hub.repo} broke off: {partial[0]} is not whole.",
            f"Go on with it: {command}",
        )
    licence = ""
    if hub.published:
        named = (hub.published.licence, hub.published.terms)
        licence = f" Its licence: {', '.join(part for part in named if part)}."
    known = hub.published.size if hub.published else 0
    name = hub.published.name if hub.published else hub.repo
    size = f" ({megabytes(known)})" if known else ""
    return XRayError(
        "missing_weights",
        f"The weights of {hub.repo} are not on this machine.{licence}",
        f"Press Download {name} in X-Ray's Generate panel or preferences, or to fetch them"
        f"{size} {command}Or " + _by_hand(hub, folder, tuple(missing) or hub.files),
    )


def _by_hand(hub: Checkpoint, folder: Path, files: tuple[str, ...]) -> str:
    """How to get the files here without this machine's network."""
    if not files:
        return f"fetch the files of {_endpoint()}/{hub.page} and put them into {folder}."
    lines = "".join(
        f"\n  {_endpoint()}/{hub.page}/resolve/{hub.revision}/{file} -> {folder / file}"
        for file in files
    )
    return f"fetch these files and put them there:{lines}"


def _recorded_sizes(folder: Path) -> dict[str, int]:
    """The size of each file that `download` left in `folder`; empty if it left none."""
    try:
        record = read_json(folder / RECORD, _RECORD)
        return {path: item["size"] for path, item in record["files"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise XRayError(
            "bad_weights",
            f"{folder / RECORD} cannot be read ({error}).",
            "Remove it, then download the checkpoint again.",
        ) from error


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_HUB).rstrip("/")
