"""The three ways of RenderDiffusion in Blender: from an image, a part of one, or none."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from types import SimpleNamespace

import bpy
import numpy as np
import pytest

MODULE = "bl_ext.user_default.xray"


@pytest.fixture
def panel(fake_runtime):
    """The panel's settings, with RenderDiffusion chosen."""
    machine = bpy.context.preferences.addons[MODULE].preferences
    before, machine.generator = machine.generator, "renderdiffusion"
    yield bpy.context.scene.xray.generate
    machine.generator = before


@pytest.fixture
def files(part, tmp_path):
    """An image of 20 x 10 pixels and a mask of it, a quarter of which is white."""
    image, mask = tmp_path / "chair.png", tmp_path / "seat.png"
    pixels = np.zeros((10, 20, 3), np.uint8)
    part("xray_addon.files.png").write_png(image, pixels + 200)
    pixels[:5, :10] = 255
    part("xray_addon.files.png").write_png(mask, pixels)
    return image, mask


class Layout:
    """Keeps what is drawn; every part of it is itself."""

    def __init__(self):
        self.buttons, self.texts, self.shown = {}, [], []

    def __getattr__(self, _name):
        return lambda *_args, **_how: self

    def label(self, text="", **_how):
        self.texts.append(text)

    def prop(self, source, name, **_how):
        getattr(source, name)
        self.shown.append(name)

    def template_ID(self, source, name, **_how):  # noqa: N802 - Blender's name
        self.prop(source, name)

    template_ID_preview = template_ID  # noqa: N815

    def operator(self, name, **_how):
        properties = getattr(bpy.ops.xray, name.partition(".")[2]).get_rna_type().properties
        self.buttons[name] = SimpleNamespace(**{p.identifier: None for p in properties})
        return self.buttons[name]


def draw(part, name="XRAY_PT_generate"):
    layout = Layout()
    context = SimpleNamespace(
        scene=bpy.context.scene,
        object=bpy.context.object,
        region=None,
        # Without a window Blender's own scale is 0.
        preferences=SimpleNamespace(system=SimpleNamespace(ui_scale=1.0)),
    )
    getattr(part("panels.generate"), name).draw(SimpleNamespace(layout=layout), context)
    return layout


def press(layout):
    """What the button of `layout` does; the new object."""
    given = {k: v for k, v in vars(layout.buttons["xray.generate"]).items() if v is not None}
    assert bpy.ops.xray.generate(**given) == {"FINISHED"}
    return bpy.context.object


def made(obj):
    """How the fake made `obj`, and its faces."""
    return obj["xray_notes"], len(obj.data.polygons)


def load(path):
    return bpy.data.images.load(str(path))


@pytest.mark.parametrize("way", ["generate", "reconstruct", "inpaint"])
def test_panel_operator_and_command_agree(panel, part, files, tmp_path, capfd, way):
    image, mask = files
    inputs, words = {}, []
    if way != "generate":
        panel.image = load(image)
        inputs["filepath"], words = str(image), [str(image)]
    if way == "inpaint":
        panel.mask = load(mask)
        inputs["mask"], words = str(mask), [*words, f"--mask={mask}"]
    panel.systems.renderdiffusion.t_r, panel.seed = 4, 2
    by_panel = press(draw(part))
    bpy.ops.xray.generate(generator="renderdiffusion", t_r=4, seed=2, **inputs)
    by_operator = bpy.context.object
    assert by_operator != by_panel
    assert made(by_operator) == made(by_panel)
    expected = {
        "generate": "Generated.",
        "reconstruct": "Reconstructed from 20 x 10 pixels.",
        "inpaint": "Reconstructed from 20 x 10 pixels. White: 25%.",
    }
    notes, faces = made(by_panel)
    assert notes == expected[way]
    assert by_panel.name == ("RenderDiffusion" if way == "generate" else "chair")
    # The copied command is the one that a person would write, and it makes the same.
    copied = shlex.split(part("operators.generate.ops").command_line(by_operator))
    wanted = ["--generator=renderdiffusion", "--seed=2", "--t-r=4"]
    assert copied[:-2] == ["blender", "-c", "xray", "generate", *words, *wanted]
    out = tmp_path / "out.glb"
    capfd.readouterr()
    assert part("operators.command").main([*copied[3:-2], "--out", str(out), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"out": str(out), "faces": faces}


def test_a_mask_in_a_file_that_is_closed_for_it_is_refused(panel, part, files, tmp_path, capfd):
    load(files[1]).name = "Seat"
    capfd.readouterr()
    command = ["generate", str(files[0]), "--generator=renderdiffusion", "--mask=Seat", "--json"]
    assert part("operators.command").main([*command, f"--out={tmp_path / 'out.glb'}"]) == 2
    error = json.loads(capfd.readouterr().out)["error"]
    assert (error["code"], error["remedy"]) == ("bad_settings", "Save the mask to a file.")


def test_seeds_stand_side_by_side_without_an_image(panel, part):
    panel.variations = 3
    press(draw(part))
    found = [obj for obj in bpy.data.objects if "xray_settings" in obj]
    found.sort(key=lambda obj: obj["xray_settings"]["seed"])
    assert [obj.name for obj in found] == [f"RenderDiffusion{n}" for n in ("", ".001", ".002")]
    bpy.context.view_layer.update()
    for left, right in pairwise(found):
        gap = right.location.x - right.dimensions.x / 2 - left.location.x - left.dimensions.x / 2
        assert gap > 0


def test_pictures_of_the_field_arrive_with_the_mesh(panel):
    bpy.ops.xray.generate(generator="renderdiffusion", keep_layers=True)
    for name in ("RenderDiffusion image", "RenderDiffusion orbit"):
        assert tuple(bpy.data.images[name].size) == (8, 8)
        assert bpy.data.images[name].use_fake_user


def test_the_panel_says_that_no_image_is_needed(panel, part, files):
    hint = "Without an image, the object is made up."
    assert hint in " ".join(draw(part).texts)
    panel.image = load(files[0])
    layout = draw(part)
    assert hint not in " ".join(layout.texts)
    assert {"image", "mask"} <= set(layout.shown)
    assert {"t_r", "steps", "orbit_views"} <= set(draw(part, "XRAY_PT_generate_settings").shown)
    own = panel.systems.renderdiffusion
    assert own.bl_rna.properties["t_r"].name == "t_r"


def test_a_mask_without_its_image_is_refused_and_nothing_is_added(panel, files):
    with pytest.raises(RuntimeError, match="there is no image"):
        bpy.ops.xray.generate(generator="renderdiffusion", mask=str(files[1]))
    assert not [obj for obj in bpy.data.objects if "xray_settings" in obj]
    with pytest.raises(RuntimeError, match="X-Ray takes no mask"):
        bpy.ops.xray.generate(generator="xray", filepath=str(files[0]), mask=str(files[1]))


def test_it_is_made_again_with_its_mask(panel, files):
    image, mask = (load(path) for path in files)
    bpy.ops.xray.generate(generator="renderdiffusion", image=image.name, mask=mask.name)
    first = bpy.context.object
    assert bpy.ops.xray.another_seed() == {"FINISHED"}
    again = bpy.context.object
    assert again != first
    assert made(again) == made(first)
    assert again["xray_settings"]["seed"] == 1


# Painting a mask


def test_a_new_mask_shows_the_image_and_chooses_nothing(panel, part, files):
    panel.image = load(files[0])
    assert bpy.ops.xray.paint_mask() == {"FINISHED"}
    mask = panel.mask
    assert (mask.name, tuple(mask.size)) == ("chair mask", (20, 10))
    values = np.array(mask.pixels).reshape(10, 20, 4)
    assert 0.2 < values[..., :3].min() <= values[..., :3].max() < 0.5
    press(draw(part))
    assert made(bpy.context.object)[0].endswith("White: 0%.")
    # Painted white, also without being saved; asking again goes on with the same mask.
    values[5:, :10, :3] = 1.0
    mask.pixels.foreach_set(values.ravel().astype(np.float32))
    mask.update()
    assert bpy.ops.xray.paint_mask() == {"FINISHED"}
    assert panel.mask == mask
    press(draw(part))
    assert made(bpy.context.object)[0].endswith("White: 25%.")
    # Without a file of its own it has no command.
    with pytest.raises(RuntimeError, match="chair mask is not saved in its own file"):
        bpy.ops.xray.copy_command()


def test_the_brush_paints_white(panel, files):
    tools = bpy.context.tool_settings
    shared = getattr(tools.image_paint, "unified_paint_settings", None)
    shared = shared or tools.unified_paint_settings
    shared.color = (1.0, 0.0, 0.0)
    panel.image = load(files[0])
    bpy.ops.xray.paint_mask()
    assert tuple(shared.color) == (1.0, 1.0, 1.0)
    assert tuple(shared.secondary_color) == (0.0, 0.0, 0.0)


def test_a_mask_needs_an_image_with_pixels(panel, tmp_path):
    assert not bpy.ops.xray.paint_mask.poll()
    panel.image = bpy.data.images.new("gone", 4, 4)
    panel.image.source, panel.image.filepath = "FILE", str(tmp_path / "gone.png")
    with pytest.raises(RuntimeError, match="has no pixels"):
        bpy.ops.xray.paint_mask()
    assert panel.mask is None
