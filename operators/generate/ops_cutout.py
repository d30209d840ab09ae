"""Previews how the object in the panel's image is cut out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bpy

from ..runtime import service
from ..tasks.watching import TaskOperator
from .generation import cut_out_steps
from .settings import panel_settings, panel_values

if TYPE_CHECKING:
    from ...xray_addon.generated import CutOut
    from ..tasks import jobs


@dataclass(frozen=True)
class Shown:
    """The latest cut-out. asked : its image's name, method and margin."""

    cut: CutOut
    asked: tuple[str, str, float]


_shown: Shown | None = None


def shown(scene: Any) -> Shown | None:
    """The latest cut-out if it shows the image in the panel settings `scene`, else None."""
    image = scene.image.name if scene.image else ""
    return _shown if _shown is not None and _shown.asked[0] == image else None


def asked(scene: Any) -> tuple[str, str, float]:
    """The values in the panel settings `scene` that a cut-out depends on."""
    return scene.image.name, scene.remove_background, scene.margin


class XRAY_OT_preview_cutout(TaskOperator):
    """Show how the object in the panel's image is cut out, without making a mesh"""

    bl_idname = "xray.preview_cutout"
    bl_label = "Preview Cut-Out"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require a runtime and an image in the panel."""
        scene: Any = context.scene
        if not service.poll_available(cls):
            return False
        if scene.xray.generate.image is None:
            cls.poll_message_set("Choose an image first (sidebar, X-Ray, Generate)")
            return False
        return True

    def work(self, context: bpy.types.Context) -> jobs.Steps:
        """Cut out the object and store the picture."""
        scene: Any = context.scene
        settings = panel_settings(scene.xray.generate)
        cutting = cut_out_steps(scene.xray.generate.image, settings)
        return _show_steps(cutting, asked(scene.xray.generate))

    @classmethod
    def circumstances(cls, context: bpy.types.Context) -> Any:
        """The panel's inputs and settings, and what is installed."""
        return panel_values(context.scene), service.is_available()

    def summary(self, result: CutOut) -> tuple[str, str]:
        """The method that cut out the object."""
        return "INFO", describe(result)


def _show_steps(cutting: jobs.Steps, key: tuple[str, str, float]) -> jobs.Steps:
    global _shown
    cut = yield from cutting
    _shown = Shown(cut, key)
    return cut


def describe(cut: CutOut) -> str:
    """Describes, in a sentence for people, how the object was cut out."""
    ways = {
        "alpha": "Cut out by the alpha channel",
        "plain": "Cut out from a plain background",
        "built-in": "Cut out by the built-in network",
    }
    way = ways.get(cut.how, f"Cut out by {cut.how}")
    return f"{way}; the image's border cuts it off" if cut.at_border else way


CLASSES: tuple[type[Any], ...] = (XRAY_OT_preview_cutout,)
