"""The command line arguments of a generation: the system, its inputs and its settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import Field, field, fields
from pathlib import Path
from typing import Any

from ..files.mesh_formats import CANNOT_HOLD
from ..settings.arguments import add_setting
from ..settings.generate import GenerateSettings
from . import SYSTEMS
from .system import Inputs, Need, System


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add IMAGE, --mask and --category, if any system takes them."""
    takers = {
        name: [s.label for s in SYSTEMS.values() if getattr(s, name) is not Need.NONE]
        for name in ("mask", "category")
    }
    parser.add_argument(
        "image",
        metavar="IMAGE",
        type=Path,
        nargs="?",
        help="the image file, for systems that take one; or a folder, for a mesh of each image",
    )
    if takers["mask"]:
        text = f"an image file, white where the image is redrawn ({', '.join(takers['mask'])})"
        parser.add_argument("--mask", metavar="FILE", type=Path, help=text)
    if takers["category"]:
        text = f"what to generate ({', '.join(takers['category'])})"
        parser.add_argument("--category", metavar="NAME", default="", help=text)


def add_outputs(
    parser: argparse.ArgumentParser, formats: Sequence[str], *, required: bool = False
) -> None:
    """Add --out and --format. formats : suffixes of the mesh files that can be written."""
    default = "" if required else "; default: <image>.glb here"
    held = "; ".join(lost for suffix in formats if (lost := CANNOT_HOLD[suffix]))
    parser.add_argument(
        *("-o", "--out"),
        metavar="OUT",
        type=Path,
        required=required,
        help=f"the mesh file ({', '.join(formats)}), for a folder of images the folder of the "
        f"meshes{default}. {held}",
    )
    names = [suffix.removeprefix(".") for suffix in formats]
    parser.add_argument(
        "--format",
        choices=names,
        default=names[0],
        help="kind of the files if OUT names none (default: %(default)s)",
    )


def read_inputs(arguments: argparse.Namespace) -> Inputs:
    """The inputs given by the arguments of `add_inputs`."""
    mask, category = getattr(arguments, "mask", None), getattr(arguments, "category", "")
    return Inputs(arguments.image, mask, category)


def own_settings() -> dict[str, list[tuple[System, Field[Any]]]]:
    """The settings that only some systems have, by name: these systems, each with its field."""
    found: dict[str, list[tuple[System, Field[Any]]]] = {}
    for system in SYSTEMS.values():
        for item in system.settings.own_fields():
            found.setdefault(item.name, []).append((system, item))
    return found


def common_field(owners: list[tuple[System, Field[Any]]]) -> Field[Any]:
    """One field for a setting of several systems. Its help text has the meaning in each of them,
    and its limits are the widest. Its default is the first system's; if the option is not given,
    each system uses its own default."""
    if len(owners) == 1:
        return owners[0][1]
    items = [item for _, item in owners]
    metadata = dict(items[0].metadata)
    metadata["help"] = "; ".join(f"{s.label}: {item.metadata['help']}" for s, item in owners)
    for limit, widest in (("min", min), ("max", max)):
        if limit in metadata:
            metadata[limit] = widest(item.metadata[limit] for item in items)
    common: Field[Any] = field(default=items[0].default, metadata=metadata)
    common.name = items[0].name
    return common


def add_systems(parser: argparse.ArgumentParser) -> None:
    """Add options for the shared settings, and a group of options for each system's own."""
    for item in fields(GenerateSettings):
        add_setting(parser, item, choices=list(SYSTEMS) if item.name == "generator" else None)
    groups = {
        system.name: parser.add_argument_group(system.label, system.about)
        for system in SYSTEMS.values()
    }
    for owners in own_settings().values():
        group = groups[owners[0][0].name] if len(owners) == 1 else parser
        add_setting(group, common_field(owners))


def read_systems(arguments: argparse.Namespace) -> GenerateSettings:
    """The settings of the chosen system.

    Raises XRayError `unknown_generator`, and `bad_settings`, also for other systems' settings.
    """
    names = [*GenerateSettings.names(), *own_settings()]
    values = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return GenerateSettings(**values)
