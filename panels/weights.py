"""Shows which published weights are downloaded, with Download buttons; used by several panels."""

from __future__ import annotations

from typing import Any

import bpy

from ..operators.interface.translation import translated
from ..operators.properties import chosen_system, system_settings
from ..operators.runtime import service
from ..operators.runtime.ops_weights import XRAY_OT_weights_download
from ..xray_addon.systems import PUBLISHED
from ..xray_addon.systems.weights import is_here, megabytes
from .widgets import draw_progress, draw_text


def draw_missing_weights(layout: Any, context: bpy.types.Context) -> bool:
    """Draw how to get the weights that the chosen generator lacks; returns whether it lacks any."""
    lacks = False
    for name in service.missing_weights(context.scene):
        _draw_download(layout, name)
        lacks = True
    draw_progress(layout, context, XRAY_OT_weights_download)
    by_hand = _draw_by_hand(layout, context)
    own = _draw_own_checkpoint(layout, context)
    return lacks or by_hand or own


def _draw_own_checkpoint(layout: Any, context: Any) -> bool:
    """Draw that the chosen system needs weights that the user has trained, if none are chosen;
    returns whether that is so."""
    system = chosen_system()
    own = system_settings(context.scene.xray.generate, system)
    if not system.needs_own_checkpoint or own.checkpoint:
        return False
    text = "{} needs weights that you have trained. Choose them in Settings: Checkpoint."
    draw_text(layout, context, translated(text).format(system.label), icon="ERROR")
    return True


def _draw_by_hand(layout: Any, context: bpy.types.Context) -> bool:
    """Draw which files the user must download in a browser, from where, and where to put them;
    returns whether any are missing."""
    missing, system = service.missing_by_hand(context.scene), chosen_system()
    if not missing or system.by_hand is None:
        return False
    box = layout.box()
    text = translated("{} needs weights that only its authors' page has. Licence: {}.")
    draw_text(box, context, text.format(system.label, system.by_hand.licence), icon="IMPORT")
    for file in missing:
        draw_text(box, context, f"{file.name} ({file.what})")
    box.operator("wm.url_open", text="Open the Page", icon="URL").url = system.by_hand.page
    folder = service.folder_by_hand(context.scene)
    draw_text(box, context, translated("Put them into {}").format(folder))
    return True


def draw_published_weights(layout: Any, context: bpy.types.Context) -> None:
    """Draw all published weights: downloaded, or with a Download button."""
    column = layout.column(heading="Weights")
    for name in PUBLISHED:
        if is_here(name, service.checkpoint_folder()):
            column.label(text=translated("{} is downloaded").format(name), icon="CHECKMARK")
        elif service.is_available():
            _draw_download(column, name)
    draw_progress(layout, context, XRAY_OT_weights_download)


def _draw_download(layout: Any, name: str) -> None:
    known = PUBLISHED.get(name)
    size = f" ({megabytes(known.size)})" if known and known.size else ""
    button = layout.operator(
        XRAY_OT_weights_download.bl_idname,
        text=translated("Download {}…").format(name + size),
        icon="IMPORT",
    )
    button.weights = name
