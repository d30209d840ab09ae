"""Objects count as a render's camera sees them, or as the viewport shows them."""

from __future__ import annotations

import bpy
import numpy as np
import pytest


@pytest.fixture
def pair(xray):
    """A cube at the origin, and another at x = 9 that tests switch off."""
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.mesh.primitive_cube_add(location=(9, 0, 0))
    return bpy.data.objects["Cube"], bpy.data.objects["Cube.001"]


@pytest.fixture
def shown(convert):
    """The number of cubes that are read."""

    def count(objects, visible_in="render"):
        bpy.context.view_layer.update()
        depsgraph = bpy.context.evaluated_depsgraph_get()
        surface = convert.surface_from_objects(objects, depsgraph, visible_in=visible_in)
        assert len(surface.faces) % 12 == 0
        return len(surface.faces) // 12

    return count


def moved(obj, name="Part", parent=None):
    """Move `obj` alone into a new collection; returns it."""
    made = bpy.data.collections.new(name)
    (parent or bpy.context.scene.collection).children.link(made)
    for collection in list(obj.users_collection):
        collection.objects.unlink(obj)
    made.objects.link(obj)
    return made


def layer(name="Part", within=None):
    found = within or bpy.context.view_layer.layer_collection
    return found.children[name]


def disabled_collection(obj):
    moved(obj).hide_render = True


def nested_in_a_disabled_collection(obj):
    inner = moved(obj)
    outer = bpy.data.collections.new("Outer")
    bpy.context.scene.collection.children.unlink(inner)
    bpy.context.scene.collection.children.link(outer)
    outer.children.link(inner)
    outer.hide_render = True


def excluded_collection(obj):
    moved(obj)
    layer().exclude = True


def holdout_collection(obj):
    moved(obj)
    layer().holdout = True


def indirect_collection(obj):
    moved(obj)
    layer().indirect_only = True


@pytest.mark.parametrize(
    "switch_off",
    [
        lambda obj: setattr(obj, "hide_render", True),
        lambda obj: setattr(obj, "visible_camera", False),
        lambda obj: setattr(obj, "is_shadow_catcher", True),
        lambda obj: setattr(obj, "is_holdout", True),
        disabled_collection,
        nested_in_a_disabled_collection,
        excluded_collection,
        holdout_collection,
        indirect_collection,
    ],
)
def test_what_no_camera_sees_does_not_count(pair, shown, switch_off):
    assert shown(pair) == 2
    switch_off(pair[1])
    assert shown(pair) == 1
    kept = excluded_collection != switch_off  # that one is nowhere
    assert shown(pair, "viewport") == 1 + kept


@pytest.mark.parametrize(
    "hide",
    [
        lambda obj: setattr(obj, "hide_viewport", True),
        lambda obj: obj.hide_set(True),
        lambda obj: setattr(moved(obj), "hide_viewport", True),
        lambda obj: (moved(obj), setattr(layer(), "hide_viewport", True)),
    ],
)
def test_what_only_the_viewport_hides_counts_and_stays_hidden(pair, shown, hide):
    hide(pair[1])
    bpy.context.view_layer.objects.active = pair[0]
    pair[0].select_set(True)
    before = [obj.visible_get() for obj in pair], [obj.select_get() for obj in pair]
    assert before[0] == [True, False]
    assert shown(pair) == 2
    assert shown(pair, "viewport") == 1
    assert ([obj.visible_get() for obj in pair], [obj.select_get() for obj in pair]) == before
    assert bpy.context.view_layer.objects.active == pair[0]


def test_the_selection_of_what_is_switched_off_stays(pair, shown):
    pair[1].hide_render = True
    pair[1].select_set(True)
    bpy.context.view_layer.objects.active = pair[1]
    shown(pair)
    assert pair[1].select_get()
    assert bpy.context.view_layer.objects.active == pair[1]
    assert pair[1].visible_get()


@pytest.mark.parametrize("display", ["WIRE", "BOUNDS"])
@pytest.mark.parametrize("operand", ["OBJECT", "COLLECTION"])
def test_a_boolean_cutter_cuts_and_does_not_count(pair, surface_of, display, operand):
    body, cutter = pair
    cutter.location = (1, 1, 1)
    cut = body.modifiers.new("Cut", "BOOLEAN")
    cut.operand_type = operand
    if operand == "OBJECT":
        cut.object = cutter
    else:
        cut.collection = moved(cutter)
    cutter.display_type = display
    surface = surface_of(*pair)
    assert np.allclose(surface.bounds, [[-1] * 3, [1] * 3])
    assert len(surface.faces) > 12, "it is cut"


def test_heavy_objects_drawn_as_bounds_count_in_renders_alone(pair, shown):
    pair[1].display_type = "BOUNDS"
    assert shown(pair) == 2
    assert shown(pair, "viewport") == 1


def test_instances_count_as_their_objects_and_their_instancer(pair, shown):
    inner = moved(pair[0])
    second = bpy.data.collections.new("Second")
    inner.children.link(second)
    bpy.context.scene.collection.objects.unlink(pair[1])
    second.objects.link(pair[1])
    layer().exclude = True
    holder = bpy.data.objects.new("Holder", None)
    holder.instance_type, holder.instance_collection = "COLLECTION", inner
    bpy.context.collection.objects.link(holder)
    assert shown([holder]) == 2
    second.hide_render = True
    assert shown([holder]) == 1
    second.hide_render = False
    pair[0].visible_camera = False
    assert shown([holder]) == 1
    pair[0].visible_camera, holder.is_holdout = True, True
    with pytest.raises(Exception, match="Holder is a holdout"):
        shown([holder])
    assert shown([holder], "viewport") == 2


@pytest.mark.parametrize(
    ("switch_off", "reason"),
    [
        (lambda obj: setattr(obj, "hide_render", True), "Cube is disabled in renders"),
        (lambda obj: setattr(obj, "visible_camera", False), "Cube is invisible to the camera"),
        (disabled_collection, "Cube is in a collection that is switched off"),
    ],
)
def test_why_nothing_counts_is_said_with_the_option(pair, shown, part, switch_off, reason):
    switch_off(pair[0])
    with pytest.raises(part("xray_addon.errors").XRayError, match=reason) as caught:
        shown(pair[:1])
    assert caught.value.code == "no_faces"
    assert "--visible-in viewport" in caught.value.remedy
    assert shown(pair[:1], "viewport") == 1


def test_capture_dataset_slices_and_omages_alike(pair, part, tmp_path):
    pair[1].hide_render = True
    settings = part("xray_addon.settings")
    capture = part("operators.dataset.plain").capture_objects
    dataset = part("operators.dataset.capture")
    slices = part("operators.slices.slicing").slice_objects
    slice_settings = part("xray_addon.settings.slices").SliceSettings
    omage = part("operators.omage.encoding").encode_objects
    omage_settings = part("xray_addon.settings.omage").OmageSettings
    item = part("xray_addon.dataset.manifest").Item("a", "", name="a")

    def width(pictures):
        return int((pictures[..., 3].any(axis=0)).any(axis=0).sum())

    found = {}
    for visible_in in ("render", "viewport"):
        folder = tmp_path / visible_in
        run = capture(
            pair,
            folder / "plain",
            settings.CaptureSettings(
                views=1, size=32, layers=4, combine=True, visible_in=visible_in
            ),
        )
        steps = dataset.dataset_steps(
            [item],
            folder / "set",
            settings.DatasetSettings(
                views=1,
                size=32,
                layers=4,
                image="cast",
                image_size=32,
                visible_in=visible_in,
                min_iou=0.0,
            ),
            load=lambda _: pair,
        )
        made = part("operators.tasks.jobs").run(steps)
        pictures = slices(pair, slice_settings(size=32, visible_in=visible_in))
        encoded, _ = omage(pair, omage_settings(resolution=64, visible_in=visible_in))
        found[visible_in] = (
            run.results[0].hits,
            made.report.triangles,
            width(pictures),
            len(np.unique(encoded.patches)),
        )
    assert found["render"][0] > 1.5 * found["viewport"][0] > 0  # one cube fills the view
    assert (found["render"][1], found["viewport"][1]) == (12, 24)
    assert found["render"][2] != found["viewport"][2]
    assert found["viewport"][3] > found["render"][3]
