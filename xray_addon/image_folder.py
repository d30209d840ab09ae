"""A folder of images as input of a command: every image becomes a separate mesh file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .errors import DONE, SOME_FAILED, XRayError, error_code
from .files.mesh_formats import CANNOT_HOLD

# Makes the mesh of an image and writes it to a file; returns information for the report.
Make = Callable[[Path, Path], dict[str, Any]]


def output_files(images: Sequence[Path], folder: Path, suffix: str) -> list[Path]:
    """A path in `folder` for each of `images`, named after the image.

    Names that differ only in suffix keep it: a.png and a.jpg become a.png.glb and a.jpg.glb.

    Raises XRayError `bad_settings` if `folder` is the name of a mesh file.
    """
    if folder.suffix.lower() in CANNOT_HOLD:
        raise XRayError(
            "bad_settings",
            f"{folder} is the name of one file, and a folder of images becomes many.",
            "Name a folder, and the kind of files with --format.",
        )
    stems = Counter(image.stem.lower() for image in images)
    return [
        folder / f"{image.stem if stems[image.stem.lower()] == 1 else image.name}{suffix}"
        for image in images
    ]


def generate_each(
    images: Sequence[Path], files: Sequence[Path], make: Make, say: Callable[[str], None]
) -> tuple[int, dict[str, Any]]:
    """Make a mesh file of each image; an error of one does not stop the others.

    say : called with each result or error at once, and with a summary at the end.

    Returns an exit code, and `{"made": [...], "failed": [...]}` for JSON. Raises XRayErrors that
    would affect every image, such as `missing_weights`.
    """
    made: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for image, file in zip(images, files, strict=True):
        try:
            told = make(image, file)
        except XRayError as error:
            if error.code == "cancelled" or error_code(error.code).stops:
                raise
            failed.append({"image": str(image), **error.to_dict()})
            say(f"{image.name}: {error}")
        else:
            made.append({"image": str(image), "out": str(file), **told})
            say(f"{image.name}: {file}")
    say(f"{len(made)} of {len(images)} images are meshes, {len(failed)} failed")
    for item in failed:
        say(f"  failed: {Path(item['image']).name}: {item['message']}")
    return (SOME_FAILED if failed else DONE), {"made": made, "failed": failed}
