"""Converts any exception in the runtime to an error for the user."""

from __future__ import annotations

import errno

from xray_addon.errors import XRayError, is_no_space, is_out_of_memory


def typed_error(error: BaseException) -> XRayError:
    """`error` as an XRayError for the user; with the code `internal` if its cause is unknown."""
    text = str(error).strip()
    lines, lower = text.splitlines() or [""], text.lower()
    if isinstance(error, XRayError):
        return error
    if is_out_of_memory(error):
        return XRayError(
            "out_of_memory",
            "The device has not enough free memory.",
            "Close other programs that use it, release the runtime's memory and try again, "
            "or set the device to the CPU.",
        )
    if isinstance(error, RuntimeError) and "driver" in lower and "nvidia" in lower:
        return XRayError(
            "driver_too_old",
            "The NVIDIA driver does not fit the runtime's CUDA version.",
            "Update the driver and restart, or set the device to the CPU.",
        )
    if "in DataLoader worker process" in text:
        # torch only passes on the text of a worker's traceback.
        message = text.rpartition("XRayError: ")[2] if "XRayError: " in text else lines[-1]
        return XRayError(
            "bad_data", message, "Correct or remove what is named and go on with --resume."
        )
    if is_no_space(error):
        return XRayError("no_space", "The disk is full.", "Free some space and try again.")
    if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError) or (
        isinstance(error, OSError) and error.errno == errno.EROFS
    ):
        what = error.filename or "a file or folder"
        reason = error.strerror or lines[0]
        return XRayError(
            "cannot_write", f"No access to {what} ({reason}).", "Choose another file or folder."
        )
    if type(error).__name__ == "UnidentifiedImageError":
        return XRayError(
            "unreadable_image", text, "Choose an image file such as PNG, JPEG or WebP."
        )
    return XRayError(
        "internal",
        f"The generator failed ({type(error).__name__}: {lines[0]}).",
        "Try again; if it happens again, report it together with the log.",
    )
