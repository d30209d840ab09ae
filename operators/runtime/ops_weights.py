"""The operator that downloads published weights, after showing their licence and size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from ...xray_addon.errors import XRayError
from ...xray_addon.systems import PUBLISHED
from ...xray_addon.systems.weights import Offer, megabytes
from ..tasks.watching import OperatorResult, TaskOperator
from . import service

if TYPE_CHECKING:
    from ..tasks import jobs

DIALOG_WIDTH = 520  # px at the default size: wide enough for a path

_offer: Offer | None = None  # what the dialog shows


class XRAY_OT_weights_download(TaskOperator):
    """Download weights published by their authors. First shows licence and size, and asks"""

    bl_idname = "xray.weights_download"
    bl_label = "Download Weights"
    bl_options = {"REGISTER"}

    weights: bpy.props.StringProperty(
        name="Weights",
        description=f"{', '.join(PUBLISHED)} or a hub id; empty for what the generator lacks",
        options={"SKIP_SAVE"},
    )
    accept: bpy.props.BoolProperty(
        name="Accept",
        description="For scripts: accept the licence and the size without confirmation",
        options={"SKIP_SAVE"},
    )
    revision: bpy.props.StringProperty(
        name="Revision",
        description="The commit whose offer was shown",
        options={"HIDDEN", "SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require a runtime. Without online access, it explains how to copy the files by hand."""
        return service.poll_available(cls)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> OperatorResult:
        """Ask the hub first, then the user."""
        if self.revision:
            return context.window_manager.invoke_props_dialog(
                self, width=DIALOG_WIDTH, title="Download Weights", confirm_text="Accept, Download"
            )
        return self.execute(context)

    def draw(self, _context: bpy.types.Context) -> None:
        """Show the files to download, and their licence."""
        column = self.layout.column(align=True)
        if _offer is None:
            column.label(text=f"{self.weights} at {self.revision}")
            return
        column.label(text=f"{_offer.repo} at {_offer.revision[:12]}")
        column.label(text=f"Licence: {_offer.licence}")
        column.operator("wm.url_open", text="Read Licence", icon="URL").url = _offer.licence_url
        column.separator()
        column.label(text=f"{megabytes(_offer.size)} to download to {_offer.folder}:")
        for file in _offer.files:
            column.label(text=f"{file.path} ({megabytes(file.size)})", icon="FILE")

    @classmethod
    def circumstances(cls, context: bpy.types.Context) -> Any:
        """Whether downloading is allowed, and what is missing."""
        return bpy.app.online_access, *service.missing_weights(context.scene)

    def work(self, context: bpy.types.Context) -> jobs.Steps:
        """Download what was confirmed, or ask the hub first. Raises XRayError `nothing_missing`."""
        if not self.weights:
            names = service.missing_weights(context.scene)
            if not names:
                raise XRayError(
                    "nothing_missing",
                    "The chosen generator has all its weights.",
                    "Choose another generator, or download others in the preferences of X-Ray.",
                )
            self.weights = names[0]
        if self.revision:
            return service.download_steps(self.weights, self.revision)
        return _accepted(self.weights) if self.accept else service.offer_steps(self.weights)

    def summary(self, result: Any) -> tuple[str, str]:
        """The folder of the weights. If this was the hub's offer, ask the user now."""
        global _offer
        if isinstance(result, Path):
            return "INFO", f"The weights are in {result}"
        if not result.files:
            return "INFO", f"{result.repo} is already in {result.folder}"
        if bpy.app.background:
            raise XRayError("no_consent", str(result), "Pass accept=True to download it.")
        _offer = result
        ask: Any = bpy.ops.xray  # type: ignore[attr-defined]
        ask.weights_download("INVOKE_DEFAULT", weights=self.weights, revision=result.revision)
        return "INFO", f"{result.repo}: {megabytes(result.size)}, licence {result.licence}"


def _accepted(name: str) -> jobs.Steps:
    """Ask the hub and download what it offers."""
    offer = yield from service.offer_steps(name)
    return (yield from service.download_steps(name, offer.revision))


CLASSES: tuple[type[Any], ...] = (XRAY_OT_weights_download,)
