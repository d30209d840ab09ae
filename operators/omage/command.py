"""The subcommand ``blender -c xray omage``: converts mesh files to omages, and omages to meshes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import bpy

from ...xray_addon.dataset.manifest import read_source
from ...xray_addon.errors import DONE, SOME_FAILED, XRayError
from ...xray_addon.progress import Cancelled
from ...xray_addon.settings.arguments import (
    add_setting,
    add_settings,
    settings_from_arguments,
)
from ...xray_addon.settings.dataset import DatasetSettings
from ...xray_addon.settings.omage import OmageSettings
from ..convert.mesh_files import check_output, empty_file, open_alone, save_objects
from ..interface.standard_output import captured_output
from .encoding import encode_objects
from .objects import add_omage
from .ops import load_omage, write_omage_files


def add_parser(commands: Any) -> None:
    """Add `omage` to the subcommands of ``blender -c xray``."""
    parser = commands.add_parser("omage", help="write meshes as omages, or an omage as a mesh")
    parser.set_defaults(run=_run, failure=SOME_FAILED)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        type=Path,
        nargs="?",
        help="a mesh file, a .blend file, a folder or a manifest",
    )
    parser.add_argument(
        "target",
        metavar="OUT",
        type=Path,
        nargs="?",
        help="the .npz of one file, or the folder for one of each",
    )
    parser.add_argument(
        "--decode", metavar="FILE", type=Path, help="an omage to make a mesh of instead"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="with --decode: .glb or .blend to write"
    )
    parser.add_argument(
        "--stitch", action="store_true", help="with --decode: close the seams between patches"
    )
    parser.add_argument(
        "--png", action="store_true", help="also write each omage as PNG files of 16 bits"
    )
    add_settings(parser, OmageSettings)
    add_setting(parser, DatasetSettings.__dataclass_fields__["bare_geometry"])
    parser.add_argument("--json", action="store_true", help="answer with one JSON object")


def _run(arguments: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    encodes, decodes = (arguments.source, arguments.target), (arguments.decode, arguments.out)
    if None not in encodes and decodes == (None, None):
        return _encode(arguments)
    if arguments.decode is not None and encodes == (None, None):
        return _decode(arguments)
    raise XRayError(
        "bad_settings",
        "Either SOURCE and OUT are needed, or --decode FILE.",
        "blender -c xray omage SOURCE OUT, or: blender -c xray omage --decode FILE --out FILE.glb",
    )


def _encode(arguments: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    settings = settings_from_arguments(OmageSettings, arguments)
    bare = getattr(arguments, "bare_geometry", False)
    items = read_source(arguments.source)
    single = arguments.target.suffix.lower() == ".npz"
    if single and len(items) > 1:
        raise XRayError(
            "bad_settings",
            f"{arguments.source} holds {len(items)} meshes, and {arguments.target} one omage.",
            "Name a folder for them.",
        )
    written, failed = [], []
    for item in items:
        path = arguments.target if single else arguments.target / f"{item.uid}.npz"
        try:
            with captured_output([]):
                objects = open_alone(item.source, bare_geometry=bare)
            omage, report = encode_objects(objects, settings)
            write_omage_files(omage, path, pictures=arguments.png)
        except Cancelled:
            raise
        except XRayError as error:
            failed.append({"uid": item.uid, **error.to_dict()})
            sys.stderr.write(f"xray: {item.uid}: {error}\n")
            continue
        sys.stderr.write(f"xray: {item.uid}: {report}\n")
        written.append(
            {
                "uid": item.uid,
                "out": str(path),
                "resolution": omage.resolution,
                "patches": report.charts,
                "dropped_area": round(report.dropped_area, 6),
                "unwrapped": report.unwrapped,
            }
        )
    answer = {"written": written, "failed": failed}
    return (SOME_FAILED if failed else DONE), answer


def _decode(arguments: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    out = arguments.out or Path(f"{arguments.decode.stem}.glb")
    check_output(out)
    downsample = settings_from_arguments(OmageSettings, arguments).downsample
    omage = load_omage(arguments.decode)
    if downsample:
        omage = omage.resized(downsample)
    for note in omage.notes:
        sys.stderr.write(f"xray: {note}\n")
    empty_file()
    collection: Any = bpy.context.scene.collection
    obj: Any = add_omage(omage, arguments.decode.stem, collection, stitch=arguments.stitch)
    save_objects([obj], out)
    return DONE, {"out": str(out), "faces": len(obj.data.polygons), "notes": list(omage.notes)}
