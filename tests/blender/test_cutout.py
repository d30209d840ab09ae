"""The cut-out before a generation: what the panel shows, and when it no longer fits."""

from __future__ import annotations

import bpy
import numpy as np
import pytest


@pytest.fixture
def scene(fake_runtime, tmp_path, part):
    """The panel's settings with an image chosen."""
    path = tmp_path / "pear.png"
    part("xray_addon.files.png").write_png(path, np.full((8, 8, 3), 200, np.uint8))
    settings = bpy.context.scene.xray.generate
    settings.image = bpy.data.images.load(str(path))
    return settings


def test_it_is_made_with_the_panels_settings(scene, part):
    cutout = part("operators.generate.ops_cutout")
    scene.remove_background = "plain"
    assert bpy.ops.xray.preview_cutout() == {"FINISHED"}
    shown = cutout.shown(scene)
    assert shown.asked == cutout.asked(scene)
    assert shown.cut.how == "plain, margin 0.0"
    scene.margin = 2.0
    assert cutout.shown(scene).asked != cutout.asked(scene)
    bpy.ops.xray.preview_cutout()
    assert cutout.shown(scene).cut.how == "plain, margin 2.0"


def test_the_way_is_told_in_words(part):
    describe = part("operators.generate.ops_cutout").describe
    cut = part("xray_addon.generated").CutOut
    assert describe(cut(None, "plain")) == "Cut out from a plain background"
    assert describe(cut(None, "rembg")) == "Cut out by rembg"


def test_it_is_not_shown_for_another_image(scene, part):
    cutout = part("operators.generate.ops_cutout")
    bpy.ops.xray.preview_cutout()
    scene.image = bpy.data.images.new("fig", 4, 4)
    assert cutout.shown(scene) is None
    scene.image = None
    assert cutout.shown(scene) is None
    assert not bpy.ops.xray.preview_cutout.poll()


def test_the_function_needs_no_panel(scene, part, tmp_path):
    settings = part("xray_addon.settings").GenerateSettings(remove_background="alpha")
    steps = part("operators.generate.generation").cut_out_steps(tmp_path / "pear.png", settings)
    cut = part("operators.tasks.jobs").run(steps, interval=0.02)
    assert cut.how == "alpha, margin 0.0"
    assert cut.picture.dtype == np.uint8
    assert cut.picture.shape[2] == 4


def test_why_there_is_none_is_told(scene, tmp_path):
    path = tmp_path / "bad.png"
    path.write_bytes((tmp_path / "pear.png").read_bytes())
    scene.image = bpy.data.images.load(str(path))
    with pytest.raises(RuntimeError, match="There is no object"):
        bpy.ops.xray.preview_cutout()
