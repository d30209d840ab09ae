"""Panels, menus and dialogs in a real window: every test leaves its screenshots in build/gui."""

from __future__ import annotations

import time

import pytest

PANELS = {
    "generate": ("XRAY_PT_generate",),
    "cut-out": ("XRAY_PT_generate_cutout",),
    "settings": ("XRAY_PT_generate_settings",),
    "result": ("XRAY_PT_generate_result",),
    "runtime": ("XRAY_PT_runtime",),
    "capture": ("XRAY_PT_capture",),
    "omage": ("XRAY_PT_omage", "XRAY_PT_omage_material"),
    "slices": ("XRAY_PT_slices",),
    "dataset": ("XRAY_PT_dataset", "XRAY_PT_dataset_cameras"),
    "dataset-objects": ("XRAY_PT_dataset", "XRAY_PT_dataset_object"),
    "dataset-images": ("XRAY_PT_dataset", "XRAY_PT_dataset_images", "XRAY_PT_dataset_gates"),
}


@pytest.mark.parametrize("name", PANELS)
def test_every_panel_is_drawn_at_its_default_width(fake, name):
    for panel in PANELS[name]:
        fake.do(f"open_panel({panel!r})")
    fake.do("show_tab()")
    time.sleep(1)
    fake.shot(name)
