"""Paints the mask of the part to redraw in the panel's image."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np

from ...xray_addon.errors import XRayError
from ...xray_addon.files.png import encode_png
from ..convert import texture_from_image
from ..convert.images import image_editors, open_image_editor
from ..convert.meshes import image_from_png
from ..tasks.watching import OperatorResult
from .generation import image_name

# The brightness of the image in a new mask, so that none of its pixels counts as white.
DIMMED = 0.45
WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


class XRAY_OT_paint_mask(bpy.types.Operator):
    """Paint over the panel's image, in an Image Editor, what is redrawn"""

    bl_idname = "xray.paint_mask"
    bl_label = "Paint Mask"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require an image in the panel."""
        scene: Any = context.scene
        if scene.xray.generate.image is None:
            cls.poll_message_set("Choose an image first (sidebar, X-Ray, Generate)")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Create a mask if there is none, and open it."""
        scene: Any = context.scene
        panel = scene.xray.generate
        try:
            if panel.mask is None:
                panel.mask = new_mask(panel.image)
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        _paint_in_white(context.tool_settings)
        if not bpy.app.background:
            _open(panel.mask)
        self.report({"INFO"}, "Paint white what is redrawn, and black what is kept")
        return {"FINISHED"}


def new_mask(image: Any) -> Any:
    """An empty mask of the size of `image`, which shows the image darkened.

    Raises XRayError `unreadable_image` if the image has no pixels.
    """
    pixels = texture_from_image(image)
    if pixels is None:
        raise XRayError(
            "unreadable_image",
            f"The image {image.name} has no pixels.",
            "Reload it, or choose another one.",
        )
    dark = np.rint(pixels[..., :3] * DIMMED).astype(np.uint8)
    mask = image_from_png(f"{image_name(image)} mask", encode_png(dark))
    mask.use_fake_user = True
    return mask


def _paint_in_white(tools: Any) -> None:
    """Set the colours of the brush: white, and black as the one that X swaps to."""
    shared = getattr(tools.image_paint, "unified_paint_settings", None)  # since Blender 5
    for brush in (shared or tools.unified_paint_settings, tools.image_paint.brush):
        if brush is not None:
            brush.color, brush.secondary_color = WHITE, BLACK


def _open(image: Any) -> None:
    """Show `image` in an Image Editor in Paint mode; in a new window if none is open."""
    editors = [area for area in image_editors() if area.ui_type == "IMAGE_EDITOR"]
    if not editors:
        open_image_editor(image, _paint)
        return
    editors[0].spaces.active.image = image
    _paint(editors[0])


def _paint(area: Any) -> None:
    space = area.spaces.active
    space.ui_mode = "PAINT"
    space.show_region_toolbar = space.show_region_tool_header = True
    area.tag_redraw()


CLASSES: tuple[type[Any], ...] = (XRAY_OT_paint_mask,)
