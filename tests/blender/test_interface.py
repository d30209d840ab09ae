"""Errors, the first screen and dialogs: what is drawn, and when it goes away."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
import pytest


class Layout:
    """Notes everything that is drawn into it, and into what it contains."""

    def __init__(self, drawn=None):
        self.drawn = [] if drawn is None else drawn

    def __getattr__(self, name):
        def draw(*arguments, **how):
            made = Layout(self.drawn)
            self.drawn.append((name, arguments, how, made))
            return made

        return draw

    def operators(self):
        return [
            (how.get("text", ""), args[0])
            for name, args, how, _ in self.drawn
            if name == "operator"
        ]

    def made(self, operator):
        """The properties of the operator's button."""
        return next(
            m for name, args, _, m in self.drawn if name == "operator" and args[0] == operator
        )

    def texts(self):
        return [how["text"] for name, _, how, _ in self.drawn if name == "label"]

    def properties(self):
        return [args[1] for name, args, _, _ in self.drawn if name == "prop"]


@pytest.fixture
def layout():
    return Layout()


@pytest.fixture
def context():
    """A sidebar of the default width."""
    return SimpleNamespace(
        preferences=SimpleNamespace(system=SimpleNamespace(ui_scale=1.0)),  # 0 without a window
        region=SimpleNamespace(width=280),
        scene=bpy.context.scene,
        object=None,
        mode="OBJECT",
    )


@pytest.fixture
def jobs(part):
    return part("operators.tasks.jobs")


@pytest.fixture
def widgets(part):
    return part("panels.widgets")


@pytest.fixture
def generate(part):
    return part("operators.generate.ops").XRAY_OT_generate


@pytest.fixture
def fail(jobs, part, generate, timers):
    """Run a generation that fails with this error."""

    def run(*error, circumstances=tuple):
        def work():
            yield part("xray_addon.progress").Progress("load")
            raise part("xray_addon.errors").XRayError(*error)

        task = jobs.Task("Pear", work(), operator=generate.__name__, circumstances=circumstances)
        jobs.submit(task)
        while jobs.queue:
            jobs._tick()
        return task

    return run


# Texts


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one two three", ["one two", "three"]),
        ("one\n\ntwo", ["one", "", "two"]),
        ("see https://a.b/cd/ef", ["see", "https://", "a.b/cd/ef"]),
        ("C:\\abc\\defgh\\ij", ["C:\\abc\\", "defgh\\ij"]),
        ("abcdefghijklmn", ["abcdefghij", "klmn"]),
        ("well-known", ["well-known"]),
        ("", []),
    ],
)
def test_lines_are_kept_and_addresses_are_broken_after_a_slash(widgets, text, lines):
    assert widgets.wrapped(text, 10) == lines


# Errors


def test_an_error_has_buttons_for_its_address_its_log_and_to_dismiss_it(
    widgets, generate, fail, layout, context, jobs
):
    address = "https://huggingface.co/stabilityai/TripoSR"
    fail("no_access", "Accept the licence\nfirst.", f"Go to {address}.", "/tmp/runtime.log")
    widgets.draw_progress(layout, context, generate)
    assert "".join(layout.texts()).replace(" ", "").endswith(f"Goto{address}.")
    assert ("Open huggingface.co", "wm.url_open") in layout.operators()
    assert layout.made("wm.url_open").url == address
    assert layout.made("wm.path_open").filepath == "/tmp/runtime.log"
    assert layout.made("xray.dismiss").index == 0
    assert bpy.ops.xray.dismiss(index=0) == {"FINISHED"}
    assert jobs.failed == []
    assert not bpy.ops.xray.dismiss.poll()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1, "Pear failed. The tab X-Ray in the sidebar says why"),
        (2, "Generate: 0 of 2 done, 2 failed. The tab X-Ray in the sidebar says why"),
    ],
)
def test_a_failure_in_a_window_is_reported_in_short(fail, part, monkeypatch, count, text):
    """Only the panel has what happened and what to do. An ERROR would make a popup too."""
    module, told = part("operators.tasks.watching"), []
    app = SimpleNamespace(background=False)
    monkeypatch.setattr(module, "bpy", SimpleNamespace(app=app))
    operator = SimpleNamespace(
        _tasks=[fail("empty_xray", "It is empty.", "Choose another.") for _ in range(count)],
        bl_label="Generate",
        report=lambda kind, text: told.append((kind, text)),
    )
    assert module.TaskOperator._end(operator) == {"CANCELLED"}
    assert told == [({"WARNING"}, text)]
    app.background, told[:] = True, []
    module.TaskOperator._end(operator)
    assert told[0] == ({"ERROR"}, "It is empty. Choose another.")


def test_the_details_are_copied_and_not_drawn(widgets, generate, fail, layout, context, jobs):
    fail("no_cutout", "No.", "Try again.", "", "tried alpha: it is opaque")
    widgets.draw_progress(layout, context, generate)
    assert "opaque" not in " ".join(layout.texts())
    assert "tried alpha: it is opaque" in jobs.failure_details()


def test_an_error_goes_when_what_it_came_from_changes(
    widgets, generate, fail, layout, context, jobs, part
):
    panel = bpy.context.scene.xray.generate
    panel.image = bpy.data.images.new("bad", 8, 8)
    fail("no_object", "It is empty.", circumstances=lambda: generate.circumstances(bpy.context))
    widgets.draw_progress(layout, context, generate)
    widgets.draw_progress(layout, context, generate)
    assert " ".join(layout.texts()).count("empty") == 2  # it stays
    panel.image = bpy.data.images.new("good", 8, 8)
    again = Layout()
    widgets.draw_progress(again, context, generate)
    assert again.drawn == []
    assert jobs.failed == []


@pytest.mark.parametrize(
    "change",
    [
        lambda panel, _: setattr(panel, "margin", 2.0),
        lambda panel, _: setattr(panel.systems.xray, "variation", 0.5),
        lambda _, preferences: setattr(preferences, "generator", "triposr"),
        lambda _, preferences: setattr(preferences, "device", "cpu"),
    ],
)
def test_every_setting_of_a_generation_is_among_its_circumstances(part, generate, change):
    panel = bpy.context.scene.xray.generate
    before = generate.circumstances(bpy.context)
    assert generate.circumstances(bpy.context) == before
    change(panel, part("operators.properties").preferences())
    assert generate.circumstances(bpy.context) != before


def test_an_error_goes_when_the_same_work_succeeds(jobs, part, fail, generate):
    fail("out_of_memory", "Full.")

    def work():
        yield part("xray_addon.progress").Progress("load")

    jobs.submit(jobs.Task("Other", work(), operator="XRAY_OT_capture"))
    jobs.queue[0].batch = object()
    failed = fail("out_of_memory", "Full again.")
    jobs.queue.append(jobs.Task("Apple", work(), operator=generate.__name__, batch=object()))
    jobs.queue.insert(0, jobs.Task("Ring", work(), operator="XRAY_OT_capture", batch=object()))
    while len(jobs.queue) > 1:
        jobs._tick()
    assert jobs.failed == [failed]
    while jobs.queue:
        jobs._tick()
    assert jobs.failed == []


def test_the_results_of_a_dataset_can_be_dismissed(part, cube, tmp_path):
    ops = part("operators.dataset.ops")
    settings = {"views": 1, "size": 16, "layers": 2, "image": "none"}
    assert bpy.ops.xray.dataset(directory=str(tmp_path), **settings) == {"FINISHED"}
    assert ops.last_run() is not None
    assert bpy.ops.xray.dataset_dismiss() == {"FINISHED"}
    assert ops.last_run() is None
    assert not bpy.ops.xray.dataset_dismiss.poll()
    assert (tmp_path / "report.md").is_file()


def test_only_arrows_that_would_move_nothing_are_grey(
    widgets, generate, layout, context, jobs, part, timers, monkeypatch
):
    def work():
        yield part("xray_addon.progress").Progress("load")
        yield part("xray_addon.progress").Progress("sample")

    for label in "abc":
        jobs.submit(jobs.Task(label, work(), operator=generate.__name__))

    def drawn():
        layout.drawn.clear()
        widgets.draw_progress(layout, context, generate)
        arrows = [made.enabled for *_, made in layout.drawn if "enabled" in vars(made)]
        return layout.texts(), list(zip(arrows[::2], arrows[1::2], strict=True))  # up and down

    monkeypatch.setattr(jobs, "_paused", True)
    assert drawn() == (["a", "b", "c"], [(False, True), (True, True), (True, False)])
    assert [name for _, name in layout.operators()].count("xray.cancel_all") == 1
    monkeypatch.setattr(jobs, "_paused", False)
    jobs._tick()
    # What "a" is doing stands below its bar.
    assert drawn() == (["a", "Load", "b", "c"], [(False, True), (True, False)])
    jobs.cancel_all()
    jobs._tick()


# The first screen


@pytest.fixture
def first_screen(part, xray, monkeypatch, layout, context, tmp_path):
    """Draw the panel Generate without a runtime, with Blender online or not."""
    service, installing = part("operators.runtime.service"), part("operators.runtime.ops")
    plan = part("xray_addon.process.environment").Plan("CPU", 400_000_000, 3_000_000_000)
    bpy.context.preferences.addons[xray.__name__].preferences.runtime_folder = str(tmp_path)
    monkeypatch.setattr(service, "install_plan", lambda: plan)

    def draw(online):
        arguments = {"online": online, "wheelhouse": None, "device": "auto"}
        monkeypatch.setattr(service, "install_arguments", lambda *_, **__: arguments)
        part("panels.generate").XRAY_PT_generate.draw(SimpleNamespace(layout=layout), context)
        return installing

    return draw


def test_offline_the_first_screen_offers_both_ways(first_screen, layout):
    first_screen(online=False)
    text = " ".join(layout.texts())
    assert "needs the model runtime" in text
    assert "about 0.4 GB to download, 3 GB of free disk space" in text.replace("  ", " ")
    assert layout.operators() == [
        ("Allow Online Access", "extensions.userpref_allow_online"),
        ("", "xray.runtime_install"),
        ("Install Offline…", "xray.runtime_install_offline"),
    ]


def test_online_it_need_not_be_allowed(first_screen, layout):
    first_screen(online=True)
    assert [name for _, name in layout.operators()] == [
        "xray.runtime_install",
        "xray.runtime_install_offline",
    ]


def test_a_folder_without_wheels_is_refused(first_screen, tmp_path):
    first_screen(online=False)
    with pytest.raises(RuntimeError, match="has no Python wheels"):
        bpy.ops.xray.runtime_install_offline(directory=str(tmp_path))


def test_the_folder_of_an_install_is_kept_for_repairs(part, xray, monkeypatch, tmp_path):
    service = part("operators.runtime.service")
    (tmp_path / "tiny-1.0-py3-none-any.whl").touch()
    asked = {}

    def install(**arguments):
        asked.update(arguments)
        yield part("xray_addon.progress").Progress("venv")
        return SimpleNamespace(device_name="CPU")

    monkeypatch.setattr(service, "install_steps", install)
    assert bpy.ops.xray.runtime_install_offline(directory=str(tmp_path)) == {"FINISHED"}
    assert (asked["online"], asked["wheelhouse"]) == (False, tmp_path)
    assert part("operators.properties").preferences().wheelhouse == str(tmp_path)


# Dialogs


class Dialog:
    """An operator as Blender calls it: properties that know whether they were given."""

    def __init__(self, operator, **given):
        shown = getattr(bpy.ops.xray, operator.bl_idname.partition(".")[2]).get_rna_type()
        for item in shown.properties:
            default = getattr(item, "default", None)
            setattr(self, item.identifier, given.get(item.identifier, default))
        self.properties = SimpleNamespace(is_property_set=lambda name: name in given, bl_rna=shown)
        self.layout = Layout()
        for name in ("_fill_in", "draw", "invoke"):
            setattr(self, name, getattr(operator, name).__get__(self))

    def execute(self, _context):
        return {"FINISHED"}


@pytest.fixture
def manager():
    asked = []
    return SimpleNamespace(
        asked=asked,
        fileselect_add=lambda _: asked.append("file"),
        invoke_props_dialog=lambda *_, **__: asked.append("dialog") or {"RUNNING_MODAL"},
    )


def invoke(dialog, manager):
    context = SimpleNamespace(window_manager=manager, scene=bpy.context.scene)
    return dialog.invoke(context, None)


def test_the_file_dialog_begins_as_the_panel_and_in_the_last_folder(
    generate, manager, part, tmp_path
):
    panel = bpy.context.scene.xray.generate
    panel.seed, panel.target_faces, panel.systems.xray.variation = 7, 900, 0.5
    part("operators.properties").preferences().image_folder = str(tmp_path)
    dialog = Dialog(generate, seed=3)
    assert invoke(dialog, manager) == {"RUNNING_MODAL"}
    assert manager.asked == ["file"]
    assert (dialog.seed, dialog.target_faces, dialog.variation) == (3, 900, 0.5)
    assert Path(dialog.filepath) == tmp_path
    assert dialog.filepath.endswith("/")


def test_a_category_is_asked_for(generate, manager):
    dialog = Dialog(generate, generator="omages")
    assert invoke(dialog, manager) == {"RUNNING_MODAL"}
    assert manager.asked == ["dialog"]
    dialog = Dialog(generate, generator="omages", category="chair")
    assert invoke(dialog, manager) == {"FINISHED"}


@pytest.mark.parametrize(
    ("system", "inside", "outside"),
    [
        ("xray", {"remove_background", "variation", "keep_layers"}, {"category", "branch"}),
        ("omages", {"category", "sampler", "guidance"}, {"remove_background", "variation"}),
        ("triposr", {"density_threshold"}, {"seed", "keep_layers", "sampler"}),
    ],
)
def test_the_dialog_has_what_the_system_needs(generate, system, inside, outside):
    dialog = Dialog(generate, generator=system)
    dialog.draw(bpy.context)
    shown = set(dialog.layout.properties())
    assert inside <= shown
    assert not outside & shown
    assert "topology" in shown
    assert "bake_size" not in shown  # only for textures


def test_the_last_folder_is_remembered(fake_runtime, part, tmp_path):
    image = tmp_path / "apple.png"
    part("xray_addon.files.png").write_png(image, np.full((8, 8, 3), 200, np.uint8))
    assert bpy.ops.xray.generate(filepath=str(image)) == {"FINISHED"}
    assert Path(part("operators.properties").preferences().image_folder) == tmp_path


# Panels


def test_a_setting_that_0_switches_off_is_drawn_with_its_checkbox(part, layout):
    panel = bpy.context.scene.xray.generate
    part("operators.interface.drawing").draw_properties(layout, panel, ("topology", "height"))
    assert layout.properties() == ["topology", "use_height", "height"]


def test_stray_hits_are_not_listed_as_a_layer(part, layout, cube, context):
    cube["xray_hits"] = [5000, 4000, 3, 1, 0]
    cube["xray_settings"] = {}
    context.object = cube
    part("panels.layers").XRAY_PT_layers.draw(SimpleNamespace(layout=layout), context)
    listed = [text for text in layout.texts() if text.startswith("Layer ") or "hit" in text]
    assert listed == ["Layer 1", "5,000 hits", "Layer 2", "4,000 hits"]


def test_show_layers_is_the_opposite_of_hidden(xray):
    collection = bpy.data.collections.new("Apple Layers")
    collection.hide_viewport = True
    assert not collection.xray.visible
    collection.xray.visible = True
    assert not collection.hide_viewport
