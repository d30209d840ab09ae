"""Names the missing extension of a glTF file, or makes a copy without materials to read instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ...xray_addon.errors import XRayError
from ...xray_addon.files.json_files import parse_json
from ...xray_addon.files.json_schema import plain
from ...xray_addon.files.opening import open_regular

LARGEST_JSON = 1 << 26  # bytes
# Extensions that store the vertices themselves: without them there is no shape.
_COMPRESSION = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")
_LOOKS = ("materials", "textures", "images", "samplers")
_MAGIC, _JSON_CHUNK = b"glTF", b"JSON"


def required_extensions(path: Path) -> list[str]:
    """The extensions that a glTF file requires; empty if it cannot be read."""
    try:
        return [str(name) for name in _read(path)[0].get("extensionsRequired", ())]
    except (OSError, ValueError, AttributeError, TypeError):
        return []


def unread_extension(path: Path, reason: str) -> XRayError | None:
    """The error if an importer's `reason` names an extension that the glTF file requires."""
    found = [name for name in required_extensions(path) if name in reason]
    if not found:
        return None
    compressed = [name for name in found if name in _COMPRESSION]
    remedy = (
        "Its vertices are compressed: write it without, e.g. with `gltf-transform copy`."
        if compressed
        else "Read its bare geometry (--bare-geometry), or export it without the extension."
    )
    return XRayError(
        "unreadable_file",
        f"{path.name} requires the glTF extension {found[0]}, which this Blender does not read.",
        remedy,
    )


def write_bare(path: Path, folder: Path) -> Path:
    """Copy a glTF file to `folder` without materials and required extensions.

    Raises OSError, and ValueError if it is not a glTF file.
    """
    document, rest = _read(path)
    for name in ("extensionsRequired", *_LOOKS):
        document.pop(name, None)
    for mesh in document.get("meshes", ()):
        for primitive in mesh.get("primitives", ()):
            primitive.pop("material", None)
            primitive.pop("extensions", None)
    for buffer in document.get("buffers", ()):
        uri = buffer.get("uri", "data:")
        if not uri.startswith("data:"):
            buffer["uri"] = quote(str((path.parent / unquote(uri)).absolute()))
    text = json.dumps(document).encode()
    copy = folder / path.name
    if rest is None:
        copy.write_bytes(text)
        return copy
    text += b" " * (-len(text) % 4)
    length = 20 + len(text) + len(rest)
    with copy.open("wb") as stream:
        stream.write(_MAGIC + (2).to_bytes(4, "little") + length.to_bytes(4, "little"))
        stream.write(len(text).to_bytes(4, "little") + _JSON_CHUNK + text + rest)
    return copy


def _read(path: Path) -> tuple[dict[str, Any], bytes | None]:
    """The JSON of a glTF file, and the rest of a .glb (None for a .gltf).

    Raises OSError, ValueError.
    """
    with open_regular(path) as stream:
        begin = stream.read(20)
        if begin[:4] != _MAGIC:
            text, rest = begin + stream.read(LARGEST_JSON), None
        else:
            text = stream.read(min(int.from_bytes(begin[12:16], "little"), LARGEST_JSON))
            rest = stream.read()
    document = parse_json(text, plain, largest=LARGEST_JSON)
    if not isinstance(document, dict):
        raise ValueError("it is no glTF document")
    return document, rest
