"""Packs many meshes into one small file, to copy to the training machine.

python -m runtime pack --data MESHES --out meshes.zip [--split train] [--exclude PACK ...]

The zip contains a `manifest.csv` and the quantised meshes (see `quantised`). Unpack it with
`python -m zipfile -e meshes.zip meshes` to get a folder for `--data`.
"""

from __future__ import annotations

import argparse
import csv
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from xray_addon.errors import DONE, SOME_FAILED, XRayError
from xray_addon.files.atomic import replacing
from xray_addon.progress import Progress, ProgressCallback, ignore_progress

from .collection import MeshFile, list_meshes
from .files import read_mesh
from .quantised import SUFFIX, to_quantised

TEXTURE_SIZE = 128  # px
MEGABYTE = 1 << 20


def main(
    arguments: argparse.Namespace, tell: Callable[[str], None], progress: ProgressCallback
) -> int:
    """Run `python -m runtime pack`; returns 0, or 1 if some meshes were left out."""
    out = Path(arguments.out)
    files = list_meshes(
        Path(arguments.data), split=arguments.split, exclude=tuple(arguments.exclude)
    )
    left = pack(files, out, megabytes=arguments.megabytes, progress=progress)
    size = out.stat().st_size / MEGABYTE
    tell(f"{len(files) - len(left)} meshes in {out}, {size:.1f} MiB; {len(left)} left out")
    return SOME_FAILED if left else DONE


def pack(
    files: Sequence[MeshFile],
    out: Path,
    *,
    megabytes: float = 32.0,
    progress: ProgressCallback = ignore_progress,
) -> list[MeshFile]:
    """Write `files` to `out` atomically; returns those left out: unreadable, or beyond the size.

    The smallest are packed first. megabytes : limit for all meshes, not counting file names.
    """
    left: list[MeshFile] = []
    manifest = io.StringIO(newline="")
    rows = csv.writer(manifest)
    rows.writerow(("path", "pack", "geom_group", "split"))
    ordered = sorted(files, key=lambda file: file.path.stat().st_size)
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        used, packed = 0, set[str]()
        for number, file in enumerate(ordered):
            progress(Progress("pack", number, len(files), f"Packing {number} of {len(files)}"))
            try:
                content = to_quantised(read_mesh(file.path, texture_size=TEXTURE_SIZE))
            except XRayError:
                left.append(file)
                continue
            if used + len(content) > megabytes * MEGABYTE:
                left.append(file)
                continue
            used += len(content)
            folder = file.path.parent.name
            path = f"{folder}/{file.path.stem}{SUFFIX}"
            if path in packed:  # other folders may have the same name
                path = f"{folder}/{file.path.stem}-{number}{SUFFIX}"
            packed.add(path)
            archive.writestr(path, content)
            rows.writerow((path, folder, file.group, file.split))
        archive.writestr("manifest.csv", manifest.getvalue(), zipfile.ZIP_DEFLATED)
    return left
