"""The only exception that crosses module and process boundaries, and the table of its codes."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

# Exit codes of every command line.
DONE, SOME_FAILED, USAGE, RUNTIME_FAILED, CANCELLED = 0, 1, 2, 3, 130

_NO_SPACE = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})

GUIDE = "docs/user-guide.md"
_GENERATING = f"{GUIDE}#images-and-generating"
_RUNTIME = f"{GUIDE}#the-runtime"
_WEIGHTS = f"{GUIDE}#weights"
_FILES = f"{GUIDE}#layers-and-files"
_OMAGES = f"{GUIDE}#omages"
_CAPTURING = f"{GUIDE}#capturing-and-datasets"
_WORKERS = f"{GUIDE}#workers-clusters-training"


@dataclass(frozen=True)
class ErrorCode:
    """How an error with one code is handled.

    page : the section of the user guide that lists it.
    exit_code : of a command that fails with it; None if that depends on the command.
    stops : it ends a run over many objects or images, because it would affect all the others.
    rejects : the object itself is unusable, so it is not tried again.
    gate : the name under which the dataset's report counts it; "" for the code itself.
    """

    page: str
    exit_code: int | None = None
    stops: bool = False
    rejects: bool = False
    gate: str = ""

    @property
    def blames_image(self) -> bool:
        """Whether the image is the reason, so that a log would not help."""
        return self.page == _GENERATING and self.exit_code == SOME_FAILED


ERROR_CODES = {
    "missing_image": ErrorCode(_GENERATING, exit_code=USAGE),
    "missing_mask": ErrorCode(_GENERATING, exit_code=USAGE),
    "missing_category": ErrorCode(_GENERATING, exit_code=USAGE),
    "unknown_category": ErrorCode(_GENERATING, exit_code=USAGE),
    "unused_input": ErrorCode(_GENERATING, exit_code=USAGE),
    "bad_mask": ErrorCode(_GENERATING, exit_code=SOME_FAILED),
    "unreadable_image": ErrorCode(_GENERATING, exit_code=SOME_FAILED),
    "no_images": ErrorCode(_GENERATING),
    "no_object": ErrorCode(_GENERATING, exit_code=SOME_FAILED),
    "no_cutout": ErrorCode(_GENERATING, exit_code=SOME_FAILED),
    "fake_transparency": ErrorCode(_GENERATING, exit_code=SOME_FAILED),
    "object_at_border": ErrorCode(_GENERATING, exit_code=SOME_FAILED),
    "camera_inside": ErrorCode(_GENERATING, exit_code=USAGE),
    "missing_slices": ErrorCode(_GENERATING, exit_code=USAGE),
    "other_sizes": ErrorCode(_GENERATING, exit_code=USAGE),
    "nothing_predicted": ErrorCode(_GENERATING, exit_code=SOME_FAILED),
    "unknown_generator": ErrorCode(_GENERATING, exit_code=USAGE, stops=True),
    "bad_settings": ErrorCode(_GENERATING, exit_code=USAGE, stops=True),
    "out_of_memory": ErrorCode(_GENERATING),
    "bad_result": ErrorCode(_GENERATING),
    "not_installed": ErrorCode(_RUNTIME, stops=True),
    "offline": ErrorCode(_RUNTIME),
    "install_failed": ErrorCode(_RUNTIME),
    "no_space": ErrorCode(_RUNTIME),
    "not_writable": ErrorCode(_RUNTIME),
    "busy": ErrorCode(_RUNTIME),
    "driver_too_old": ErrorCode(_RUNTIME),
    "broken": ErrorCode(_RUNTIME, stops=True),
    "no_device": ErrorCode(_RUNTIME, stops=True),
    "runtime_missing": ErrorCode(_RUNTIME, stops=True),
    "runtime_not_started": ErrorCode(_RUNTIME, stops=True),
    "runtime_not_answering": ErrorCode(_RUNTIME, stops=True),
    "runtime_died": ErrorCode(_RUNTIME),
    "version_mismatch": ErrorCode(_RUNTIME, stops=True),
    "bad_reply": ErrorCode(_RUNTIME),
    "bad_message": ErrorCode(_RUNTIME),
    "missing_package": ErrorCode(_RUNTIME, stops=True),
    "missing_weights": ErrorCode(_WEIGHTS, stops=True),
    "bad_weights": ErrorCode(_WEIGHTS, stops=True),
    "other_weights": ErrorCode(_WEIGHTS, stops=True),
    "bad_checksum": ErrorCode(_WEIGHTS),
    "bad_checkpoint": ErrorCode(_WEIGHTS),
    "unknown_checkpoint": ErrorCode(_WEIGHTS, stops=True),
    "unsafe_weights": ErrorCode(_WEIGHTS, stops=True),
    "no_consent": ErrorCode(_WEIGHTS),
    "no_access": ErrorCode(_WEIGHTS),
    "download_failed": ErrorCode(_WEIGHTS),
    "incomplete_download": ErrorCode(_WEIGHTS),
    "nothing_missing": ErrorCode(_WEIGHTS),
    "missing_file": ErrorCode(_FILES, exit_code=USAGE, gate="unreadable"),
    "unknown_format": ErrorCode(_FILES, exit_code=USAGE, gate="unreadable"),
    "unreadable_file": ErrorCode(_FILES, gate="unreadable"),
    "unreadable_mesh": ErrorCode(_FILES),
    "no_importer": ErrorCode(_FILES, gate="unreadable"),
    "cannot_write": ErrorCode(_FILES, stops=True),
    "bad_xray_file": ErrorCode(_FILES),
    "empty_xray": ErrorCode(_FILES),
    "too_large": ErrorCode(_FILES),
    "bad_transforms": ErrorCode(_FILES, exit_code=USAGE),
    "no_layers": ErrorCode(_FILES),
    "no_attribute": ErrorCode(_FILES),
    "no_hits_left": ErrorCode(_FILES),
    "no_surface": ErrorCode(_FILES),
    "bad_omage": ErrorCode(_OMAGES),
    "empty_omage": ErrorCode(_OMAGES, exit_code=SOME_FAILED),
    "no_omage": ErrorCode(_OMAGES),
    "needs_unwrap": ErrorCode(_OMAGES, rejects=True),
    "no_charts": ErrorCode(_OMAGES, rejects=True),
    "other_faces": ErrorCode(_OMAGES),
    "no_faces": ErrorCode(_CAPTURING, rejects=True, gate="empty"),
    "no_camera": ErrorCode(_CAPTURING, rejects=True),
    "unsupported_camera": ErrorCode(_CAPTURING, rejects=True),
    "object_gone": ErrorCode(_CAPTURING),
    "scene_gone": ErrorCode(_CAPTURING, stops=True),
    "unsaved_image": ErrorCode(_CAPTURING),
    "no_folder": ErrorCode(_CAPTURING, exit_code=USAGE),
    "no_source": ErrorCode(_CAPTURING, exit_code=USAGE),
    "no_meshes": ErrorCode(_CAPTURING, exit_code=USAGE),
    "no_items": ErrorCode(_CAPTURING),
    "bad_manifest": ErrorCode(_CAPTURING, exit_code=USAGE),
    "other_settings": ErrorCode(_CAPTURING, exit_code=USAGE, stops=True),
    "no_deflater": ErrorCode(_CAPTURING, exit_code=USAGE, stops=True),
    "unsafe_dataset": ErrorCode(_CAPTURING, exit_code=USAGE, stops=True),
    "crashed": ErrorCode(_CAPTURING, rejects=True),
    "source_changed": ErrorCode(_CAPTURING),
    "bad_mesh": ErrorCode(_CAPTURING, rejects=True, gate="empty"),
    "far_from_origin": ErrorCode(_CAPTURING, rejects=True),
    "encloses_nothing": ErrorCode(_CAPTURING, rejects=True),
    "needs_baking": ErrorCode(_CAPTURING, rejects=True),
    "cannot_bake": ErrorCode(_CAPTURING),
    "no_renderer": ErrorCode(_CAPTURING, stops=True),
    "no_gpu": ErrorCode(_CAPTURING, stops=True),
    "no_denoiser": ErrorCode(_CAPTURING, stops=True),
    "no_lights": ErrorCode(_CAPTURING, rejects=True),
    "bad_environment": ErrorCode(_CAPTURING, exit_code=USAGE),
    "render_failed": ErrorCode(_CAPTURING),
    "no_numba": ErrorCode(_CAPTURING, exit_code=USAGE),
    "low_iou": ErrorCode(_CAPTURING, rejects=True),
    "few_hits": ErrorCode(_CAPTURING, rejects=True),
    "dropped_hits": ErrorCode(_CAPTURING, rejects=True),
    "out_of_range": ErrorCode(_CAPTURING, rejects=True),
    "no_blender": ErrorCode(_WORKERS),
    "worker_not_started": ErrorCode(_WORKERS),
    "worker_hung": ErrorCode(_WORKERS),
    "worker_died": ErrorCode(_WORKERS),
    "bad_item": ErrorCode(_WORKERS),
    "bad_dataset": ErrorCode(_WORKERS, exit_code=USAGE),
    "no_slurm": ErrorCode(_WORKERS),
    "not_submitted": ErrorCode(_WORKERS),
    "job_lost": ErrorCode(_WORKERS),
    "bad_shard": ErrorCode(_WORKERS),
    "bad_metadata": ErrorCode(_WORKERS),
    "no_data": ErrorCode(_WORKERS, exit_code=USAGE),
    "bad_data": ErrorCode(_WORKERS),
    "bad_config": ErrorCode(_WORKERS, exit_code=USAGE),
    "cancelled": ErrorCode(_WORKERS, exit_code=CANCELLED),
    "internal": ErrorCode(_WORKERS),
}


class XRayError(Exception):
    """What happened and what to do about it, written for the person who sees it.

    Parameters
    ----------
    code : short machine name, stable across versions, e.g. ``"unreadable_image"``.
    message : what happened.
    remedy : what to do about it; may be empty.
    log : path of the log file with the details, if there is one.
    details : more information for experts and bug reports; not part of `str`.
    """

    def __init__(
        self, code: str, message: str, remedy: str = "", log: str = "", details: str = ""
    ) -> None:
        super().__init__(code, message, remedy, log, details)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.log = log
        self.details = details

    def __str__(self) -> str:
        parts = [self.message, self.remedy, f"Log: {self.log}" if self.log else ""]
        return " ".join(part for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "code": self.code,
            "message": self.message,
            "remedy": self.remedy,
            "log": self.log,
            "details": self.details,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> XRayError:
        """The inverse of `to_dict`. Missing keys become empty."""
        return cls(
            str(data.get("code", "internal")),
            str(data.get("message", "Unknown error.")),
            str(data.get("remedy", "")),
            str(data.get("log", "")),
            str(data.get("details", "")),
        )


# Out-of-memory messages of Python, C++, torch's devices and Linux, in lower case.
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "bad_alloc", "memoryerror")


def is_out_of_memory(reason: BaseException | str) -> bool:
    """Whether an error, or the last output of a process, means that memory ran out."""
    if isinstance(reason, MemoryError) or type(reason).__name__ == "OutOfMemoryError":  # torch's
        return True
    if isinstance(reason, str | RuntimeError | OSError):
        return any(sign in str(reason).lower() for sign in _OUT_OF_MEMORY)
    return False


def is_no_space(error: BaseException) -> bool:
    """Whether `error` means a full disk, an exceeded quota, or a file above the size limit."""
    return isinstance(error, OSError) and error.errno in _NO_SPACE


def error_code(code: str) -> ErrorCode:
    """How `code` is handled. An unknown code, e.g. of a later version, has no effects."""
    return ERROR_CODES.get(code, ErrorCode(f"{GUIDE}#when-something-goes-wrong"))


def exit_code(error: XRayError, otherwise: int = RUNTIME_FAILED) -> int:
    """The exit code of a command that fails with `error`; `otherwise` if its code has none."""
    known = error_code(error.code).exit_code
    return otherwise if known is None else known
