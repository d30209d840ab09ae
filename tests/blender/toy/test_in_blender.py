"""What a new system can do in Blender. `test_new_system.py` runs this file, with the
extension built from a copy of the source that has Toy's two parts and nothing else changed."""

from __future__ import annotations

import json
import shlex
import sys
import time
from dataclasses import fields
from types import SimpleNamespace

import bpy
import pytest

MODULE = "bl_ext.user_default.xray"


@pytest.fixture
def runtime(part):
    """The extension's own runtime, in this Python: Toy needs no torch."""
    service = part("operators.runtime.service")
    service.command = service.Command(sys.executable, ("-m", "runtime", "serve"))
    yield service
    service.stop()
    service.command = None


@pytest.fixture
def chosen(xray):
    machine = bpy.context.preferences.addons[MODULE].preferences
    machine.generator = "toy"
    return bpy.context.scene.xray.generate


class Layout:
    """Keeps what is drawn; every part of it is itself."""

    def __init__(self):
        self.shown, self.buttons = [], []

    def __getattr__(self, _name):
        return lambda *_args, **_how: self

    def prop(self, source, name, **_how):
        getattr(source, name)  # as Blender, which draws nothing that is not there
        self.shown.append(name)

    def operator(self, name, **_how):
        properties = getattr(bpy.ops.xray, name.partition(".")[2]).get_rna_type().properties
        button = SimpleNamespace(**{p.identifier: None for p in properties})
        self.buttons.append((name, button))
        return button


def draw(part, panel):
    layout = Layout()
    cls = getattr(part("panels.generate"), panel)
    cls.draw(SimpleNamespace(layout=layout), bpy.context)
    return layout


def test_the_panel_draws_what_it_takes_and_its_settings(runtime, chosen, part):
    chosen.systems.toy.category, chosen.systems.toy.corners = "ball", 7
    layout = draw(part, "XRAY_PT_generate")
    assert "category" in layout.shown
    assert "image" not in layout.shown
    button = next(button for name, button in layout.buttons if name == "xray.generate")
    assert (button.generator, button.category, button.corners) == ("toy", "ball", 7)
    assert {"corners", "seed", "checkpoint"} <= set(draw(part, "XRAY_PT_generate_settings").shown)
    assert "variation" not in draw(part, "XRAY_PT_generate_settings").shown
    assert not part("panels.generate").XRAY_PT_generate_cutout.poll(bpy.context)
    # What the panel's button is given makes a mesh.
    given = {k: v for k, v in vars(button).items() if v is not None}
    assert bpy.ops.xray.generate(**given) == {"FINISHED"}
    assert len(bpy.context.object.data.polygons) == 7


def test_the_operator_makes_mesh_material_and_picture(runtime, chosen, part):
    arguments = {"generator": "toy", "category": "bat", "corners": 5, "keep_layers": True}
    assert bpy.ops.xray.generate(**arguments) == {"FINISHED"}
    obj = bpy.context.object
    assert obj.name == "Bat"
    assert len(obj.data.polygons) == 5
    nodes = obj.data.materials[0].node_tree.nodes
    shader = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
    for socket in ("Base Color", "Metallic", "Roughness"):
        assert shader.inputs[socket].is_linked
    image = shader.inputs["Metallic"].links[0].from_node.image
    assert image.colorspace_settings.name == "Non-Color"
    assert image.pixels[0] == pytest.approx(80 / 255)
    picture = bpy.data.images["Bat sketch"]
    assert picture.use_fake_user
    assert tuple(picture.size) == (8, 8)
    assert tuple(picture.pixels)[-4:-1] == (1.0, 0.0, 0.0)


def test_what_it_does_not_take_is_refused(runtime, chosen):
    for arguments, message in (
        ({}, "Toy needs a category"),
        ({"category": "bal"}, "has no category 'bal'.*such as ball"),
        ({"category": "ball", "object_size": 0.5}, "is a setting of Slice3D, not of Toy"),
        ({"category": "ball", "image": bpy.data.images.new("a", 4, 4).name}, "Toy takes no image"),
    ):
        with pytest.raises(RuntimeError, match=message):
            bpy.ops.xray.generate(generator="toy", **arguments)


def test_it_is_made_again_and_its_command_does_the_same(runtime, chosen, part, capfd, tmp_path):
    bpy.ops.xray.generate(generator="toy", category="boat", corners=6, seed=2)
    first = bpy.context.object
    assert bpy.ops.xray.another_seed() == {"FINISHED"}
    again = bpy.context.object
    assert again["xray_settings"]["seed"] == 3
    assert again["xray_inputs"]["category"] == "boat"
    words = shlex.split(part("operators.generate.ops").command_line(first))
    assert words[:4] == ["blender", "-c", "xray", "generate"]
    assert {"--generator=toy", "--category=boat", "--corners=6", "--seed=2"} <= set(words)
    out = tmp_path / "boat.glb"
    words[words.index("--out") + 1] = str(out)
    assert part("operators.command").main([*words[3:], "--json"]) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1]) == {"out": str(out), "faces": 6}


def test_the_command_line_refuses_what_belongs_to_others(runtime, chosen, part, capfd):
    main = part("operators.command").main
    assert main(["generate", "--generator", "toy", "--category", "ball", "--variation", "1"]) == 2
    assert "variation is a setting of X-Ray, not of Toy" in capfd.readouterr().err


def test_every_setting_has_its_description(part):
    system = part("xray_addon.systems").SYSTEMS["toy"]
    assert all(item.metadata["help"] for item in fields(system.settings))


def test_the_extension_is_enabled_within_three_tenths_of_a_second(xray):
    bpy.ops.preferences.addon_disable(module=MODULE)
    began = time.perf_counter()
    bpy.ops.preferences.addon_enable(module=MODULE)
    assert time.perf_counter() - began < 0.3
