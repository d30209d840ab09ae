"""The person at the window works on while meshes are made: nothing is taken out of their hands."""

from __future__ import annotations

import time

from test_window import JOBS, clean, generate, idle, runs

SELECTED = "[o.name for o in bpy.context.view_layer.objects if o.select_get()]"
ACTIVE = "bpy.context.view_layer.objects.active.name"
MODAL = "[o.bl_idname for o in bpy.context.window_manager.windows[0].modal_operators]"
PLAYS = "bpy.context.window_manager.windows[0].screen.is_animation_playing"
VIEW = "[round(x, 3) for x in view3d()['area'].spaces.active.region_3d.view_location]"
STATE = f"[task.state for task in {JOBS}.queue]"


def in_view(blender, code: str) -> None:
    blender.do(f"with bpy.context.temp_override(**view3d()):\n    {code}")


def test_a_mesh_arrives_beside_edit_mode(fake, picture):
    generate(fake, picture("slow"))
    runs(fake)
    in_view(fake, "bpy.ops.object.mode_set(mode='EDIT')")
    view = fake.get(VIEW)
    fake.until("'slow' in bpy.data.objects", 120)
    idle(fake)
    time.sleep(1)
    fake.shot("still-editing")
    assert fake.get("bpy.context.mode") == "EDIT_MESH"
    assert (fake.get(SELECTED), fake.get(ACTIVE), fake.get(VIEW)) == (["Cube"], "Cube", view)
    in_view(fake, "bpy.ops.object.mode_set(mode='OBJECT')")
    assert fake.get("'slow' in bpy.context.view_layer.objects")
    assert clean(fake)


def test_a_mesh_arrives_beside_a_transform(fake, picture):
    generate(fake, picture("slow"))
    runs(fake)
    fake.hover_view()
    fake.press("g")
    fake.nudge(90, 40)
    assert "TRANSFORM_OT_translate" in fake.get(MODAL)
    fake.until("'slow' in bpy.data.objects", 120)
    idle(fake)
    time.sleep(1)
    fake.shot("still-moving")
    assert "TRANSFORM_OT_translate" in fake.get(MODAL)
    assert (fake.get(SELECTED), fake.get(ACTIVE)) == (["Cube"], "Cube")
    fake.press("Return")
    fake.until(f"not {MODAL}", 10)
    assert fake.get("bpy.data.objects['Cube'].location.length > 0.1")
    assert fake.get("bpy.data.objects['slow'].location.length < 5")
    assert clean(fake)


def test_escape_belongs_to_blender_first_and_cancels_one_task(fake, picture):
    generate(fake, picture("slow"), picture("pear"))
    runs(fake)
    fake.hover_view()
    in_view(fake, "bpy.ops.screen.animation_play()")
    fake.until(PLAYS, 10)
    fake.press("Escape")
    fake.until(f"not {PLAYS}", 10)
    assert fake.get(STATE) == ["running", "queued"]
    fake.press("g")
    assert "TRANSFORM_OT_translate" in fake.get(MODAL)
    fake.press("Escape")
    fake.until(f"'TRANSFORM_OT_translate' not in {MODAL}", 10)
    assert fake.get(STATE) == ["running", "queued"]
    assert not fake.get(f"{JOBS}.queue[0].cancelling")
    fake.press("Escape")
    fake.until("'pear' in bpy.data.objects", 60)
    idle(fake)
    assert "slow" not in fake.get("list(bpy.data.objects.keys())")
    assert clean(fake)


def test_undo_of_the_image_keeps_the_work(fake, picture):
    path = str(picture("slow"))
    in_view(fake, f"bpy.ops.image.open(filepath={path!r}); bpy.ops.ed.undo_push(message='Open')")
    in_view(fake, "bpy.ops.xray.generate('INVOKE_DEFAULT', image='slow.png')")
    runs(fake)
    fake.hover_view()
    fake.press("ctrl+z")
    fake.until("'slow.png' not in bpy.data.images", 10)
    fake.until("'slow' in bpy.data.objects", 120)
    idle(fake)
    fake.shot("made-without-its-image")
    assert fake.get(f"[str(task.error) for task in {JOBS}.failed]") == []
    time.sleep(1)
    fake.until("show_tab()")
    fake.click_operator("xray.another_seed")
    fake.until("'slow.001' in bpy.data.objects", 120)
    idle(fake)
    fake.shot("another-seed")
    assert fake.get("bpy.data.objects['slow.001']['xray_settings']['seed']") == 1
    assert clean(fake)


def test_undo_leaves_the_work_on_a_mesh_alone(fake, picture):
    generate(fake, picture("apple"))
    fake.until("'apple' in bpy.data.objects", 90)
    idle(fake)
    move = "bpy.ops.transform.translate(value=(0, 0, 1))"
    in_view(fake, f"{move}; bpy.ops.ed.undo_push(message='Move')")
    in_view(fake, "bpy.ops.xray.apply_result('INVOKE_DEFAULT', topology='quads')")
    fake.until(f"{JOBS}.queue and {JOBS}.queue[0].progress.stage == 'finish'", 30)
    time.sleep(1)
    fake.hover_view()
    fake.press("ctrl+z")
    fake.until("bpy.data.objects['apple'].location.z == 0", 10)
    assert fake.get(f"len({JOBS}.queue)") == 1
    idle(fake, 180)
    time.sleep(1)
    fake.shot("undone-while-finishing")
    assert fake.get(f"[str(task.error) for task in {JOBS}.failed]") == []
    assert fake.get("{len(p.vertices) for p in bpy.data.objects['apple'].data.polygons} == {4}")
    assert clean(fake)


def test_results_stand_beside_what_is_there_and_are_framed_once(fake, picture):
    generate(fake, picture("apple"))
    fake.until("'apple' in bpy.data.objects", 90)
    idle(fake)
    time.sleep(1)
    fake.shot("beside-the-cube")
    left = "min((o.matrix_world @ __import__('mathutils').Vector(c)).x for c in o.bound_box)"
    assert fake.get(f"[{left} for o in [bpy.data.objects['apple']]]")[0] > 1.0
    assert fake.get("bpy.data.objects['apple'].location.z") == 0.0
    framed = fake.get(VIEW)
    assert framed[0] > 1.0
    generate(fake, picture("pear"), picture("plum"))
    fake.until("'pear' in bpy.context.scene.objects", 90)
    time.sleep(0.5)
    again = fake.get(VIEW)
    assert again[0] > framed[0]
    fake.until("'plum' in bpy.data.objects", 90)
    idle(fake)
    time.sleep(1)
    assert fake.get(VIEW) == again
    in_view(fake, "bpy.ops.view3d.view_all()")
    time.sleep(1)
    fake.shot("a-row")
    assert clean(fake)


def test_another_seed_layers_and_a_mirrored_back_are_a_press_away(fake, picture):
    generate(fake, picture("apple"), seed=3)
    idle(fake)
    time.sleep(1)
    fake.until("show_tab()")
    fake.click_operator("xray.another_seed")
    fake.until("'apple.001' in bpy.data.objects", 90)
    idle(fake)
    time.sleep(1)
    fake.shot("seed-4")
    made = fake.get("bpy.data.objects['apple.001']['xray_settings'].to_dict()")
    assert (made["seed"], made["variation"]) == (4, 1.0)
    fake.click_operator("xray.keep_layers")
    fake.until("'xray_layers' in bpy.data.objects['apple.001']", 90)
    idle(fake)
    time.sleep(1)
    fake.shot("with-layers")
    fake.do("bpy.ops.xray.use_seed()")
    assert fake.get("bpy.context.scene.xray.generate.seed") == 4
    fake.click_operator("xray.mirror_back")
    fake.until("'apple.002' in bpy.data.objects", 90)
    idle(fake)
    time.sleep(1)
    fake.shot("mirrored-back")
    made = fake.get("bpy.data.objects['apple.002']['xray_settings'].to_dict()")
    assert (made["seed"], made["back"]) == (4, "mirrored")
    assert clean(fake)
