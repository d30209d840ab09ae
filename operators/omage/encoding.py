"""Converts Blender objects to an omage."""

from __future__ import annotations

from collections.abc import Sequence

import bpy

from ...xray_addon.dataset.precision import check_step
from ...xray_addon.omage import Omage
from ...xray_addon.omage.encoding import EncodingReport
from ...xray_addon.settings.dataset import DatasetSettings
from ...xray_addon.settings.omage import OmageSettings
from ..convert.baking import read_surface
from ..convert.unwrapping import unwrap_surface


def encode_objects(
    objects: Sequence[bpy.types.Object], settings: OmageSettings
) -> tuple[Omage, EncodingReport]:
    """The omage of all `objects` together, and a report.

    Procedural materials are baked first. Meshes without usable UVs get new ones by Smart UV
    Project. The objects themselves do not change.

    Raises XRayError `no_faces`, `far_from_origin`, `no_charts`, `cannot_bake`, `bad_settings`.
    """
    bpy.context.view_layer.update()
    depsgraph = bpy.context.evaluated_depsgraph_get()
    baking = DatasetSettings(bake_size=settings.bake_size, visible_in=settings.visible_in)
    surface, sources = read_surface(objects, depsgraph, baking, factors=True)
    check_step(sources.step, surface.longest_side / settings.resolution)
    omage, report = Omage.encoded(
        surface,
        settings.resolution,
        patches=settings.patches,
        smallest=settings.smallest,
        part=sources.object,
        unwrap=unwrap_surface,
    )
    return (omage.resized(settings.downsample) if settings.downsample else omage), report
