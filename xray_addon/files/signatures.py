"""Recognises files that are not what their names say, by their first bytes."""

from __future__ import annotations

import re
from os import PathLike
from typing import NamedTuple

from .opening import open_regular

BEGIN = 1024  # bytes that are inspected


class Kind(NamedTuple):
    """What a file is, as a phrase that follows its name, and what to do about it."""

    what: str
    remedy: str


_POINTER = Kind(
    "is a Git LFS pointer, not the file itself", "Fetch the file: git lfs pull, in its repository."
)
_ANNEXED = Kind("is a git-annex pointer, not the file itself", "Fetch the file: git annex get.")
_PAGE = Kind("is a web page", "Download the file itself, not the page about it.")
_REFUSAL = Kind("is a web server's error message", "Download the file again.")
_EMPTY = Kind("is an empty file", "Download or export it again.")

_HTML = re.compile(
    rb"\s*(<!--.{0,400}?-->\s*)?(<\?xml[^>]*>\s*)?<(!doctype\s+html|html|head)\b", re.S
)
_XML_ERROR = re.compile(rb"\s*(<\?xml[^>]*>\s*)?<Error>", re.S)
_JSON_ERROR = re.compile(rb'\s*\{\s*"(error|message|detail|errors|status|statusCode)"\s*:')
_TEXT_ERROR = re.compile(rb"\s*([45]\d\d\b[^\d\n]{0,80}|not found|forbidden|access denied)", re.I)


def stand_in(begin: bytes) -> Kind | None:
    """What stands in for the real file, given its first bytes; None if nothing does.

    Recognises Git LFS and git-annex pointers, web pages, web servers' error messages and empty
    files.
    """
    if not begin:
        return _EMPTY
    text = begin[:BEGIN].removeprefix(b"\xef\xbb\xbf")
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        return _POINTER
    if text.startswith((b"/annex/objects/", b"../.git/annex/")):
        return _ANNEXED
    if _HTML.match(text.lower()):
        return _PAGE
    if _XML_ERROR.match(text) or _JSON_ERROR.match(text):
        return _REFUSAL
    if len(begin) < 200 and _TEXT_ERROR.match(text):
        return _REFUSAL
    return None


def _saved(what: str, how: str = "Save it as PNG or JPEG.") -> Kind:
    return Kind(f"is {what}, which X-Ray does not read", how)


_BLENDER_READS = "Load it as an image in Blender and choose that, or save it as PNG."
_HEIC = _saved(
    "a HEIC photo",
    "Export it as JPEG or PNG; phones can also take JPEG (on an iPhone: Settings, Camera, "
    "Formats, Most Compatible).",
)
# The first bytes of unsupported images and of other files that people choose as images.
_IMAGES = (
    (b"v/1\x01", _saved("an OpenEXR image", _BLENDER_READS)),
    (b"#?RADIANCE", _saved("a Radiance HDR image", _BLENDER_READS)),
    (b"#?RGBE", _saved("a Radiance HDR image", _BLENDER_READS)),
    (b"SDPX", _saved("a DPX image", _BLENDER_READS)),
    (b"XPDS", _saved("a DPX image", _BLENDER_READS)),
    (b"\x80\x2a\x5f\xd7", _saved("a Cineon image", _BLENDER_READS)),
    (b"\xff\x0a", _saved("a JPEG XL image")),
    (b"\0\0\0\x0cJXL \r\n\x87\n", _saved("a JPEG XL image")),
    (b"8BPS", _saved("a Photoshop file")),
    (b"gimp xcf", _saved("a GIMP file")),
    (b"DDS ", _saved("a DDS texture", _BLENDER_READS)),
    (b"\xabKTX", _saved("a KTX texture")),
    (b"%PDF", _saved("a PDF")),
    (b"%!PS", _saved("a PostScript file")),
    (b"glTF", Kind("is a mesh, not an image", "Choose an image.")),
    (b"BLENDER", Kind("is a .blend file, not an image", "Choose an image.")),
    (b"\x1aE\xdf\xa3", Kind("is a video", "Save one frame as PNG or JPEG.")),
)
_SVG = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype[^>]*>\s*)?<svg\b", re.S | re.I)
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def unread_image(begin: bytes) -> Kind | None:
    """What an unreadable image file is, given its first bytes; None if unknown."""
    if begin[4:8] == b"ftyp":
        brands = {begin[i : i + 4] for i in (8, *range(16, min(len(begin), 64), 4))}
        if brands & {b"avif", b"avis"}:
            return _saved("an AVIF image of an unusual kind")
        if brands & _HEIC_BRANDS:
            return _HEIC
        return Kind("is a video", "Save one frame as PNG or JPEG.")
    if _SVG.match(begin):
        return _saved("a vector drawing (SVG)")
    for signature, kind in _IMAGES:
        if begin.startswith(signature):
            return kind
    return stand_in(begin)


def stand_in_at(path: object) -> Kind | None:
    """`stand_in` of the file at `path`; None if it cannot be read or `path` is not a path."""
    if not isinstance(path, (str, PathLike)):
        return None
    try:
        return stand_in(first_bytes(path))
    except (OSError, ValueError):
        return None


def first_bytes(path: str | PathLike[str]) -> bytes:
    """The first `BEGIN` bytes of a regular file. Raises OSError."""
    with open_regular(path) as stream:
        return stream.read(BEGIN)
