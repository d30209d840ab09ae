"""Published weights from inside Blender: what is missing, the question, the download."""

from __future__ import annotations

from pathlib import Path

import bpy
import pytest
from fake_hub import COMMIT, Hub

CONTENT = bytes(range(256)) * 200


@pytest.fixture
def scene(xray, tmp_path):
    """The panel's settings, with TripoSR chosen and an empty checkpoint folder."""
    preferences = bpy.context.preferences.addons[xray.__name__].preferences
    preferences.generator = "triposr"
    preferences.checkpoint_folder = str(tmp_path / "cache")
    return bpy.context.scene.xray.generate


@pytest.fixture
def hub(part, monkeypatch, tmp_path):
    """A hub on this machine and a runtime that may ask it; skipped without the runtime."""
    hub = Hub("stabilityai/TripoSR", {"config.yaml": b"a: 1\n", "model.ckpt": CONTENT})
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no_token"))
    service = part("operators.runtime.service")
    python = service.environment().python
    if not python.is_file():
        pytest.skip("the model runtime is not installed here; `make setup` does it")
    service.command = service.Command(str(python), ("-m", "runtime", "serve"))
    yield hub
    service.stop()
    service.command = None
    hub.close()


@pytest.fixture
def online(part, monkeypatch):
    """Blender's online access is on, which only its preferences or command line can do."""

    class App:
        online_access = True

        def __getattr__(self, name):
            return getattr(bpy.app, name)

    class Bpy:
        app = App()

        def __getattr__(self, name):
            return getattr(bpy, name)

    monkeypatch.setattr(part("operators.runtime.service"), "bpy", Bpy())


def test_each_generator_has_a_checkpoint_of_its_own(scene, xray, part):
    machine = bpy.context.preferences.addons[xray.__name__].preferences
    scene.systems.triposr.checkpoint = "/weights/of/triposr"
    read = part("operators.generate.settings").panel_settings
    machine.generator = "xray"
    assert read(scene).checkpoint == ""
    scene.systems.xray.checkpoint = "/weights/of/xray"
    machine.generator = "triposr"
    assert read(scene).checkpoint == "/weights/of/triposr"


def test_what_is_missing_follows_generator_and_checkpoint(scene, part, tmp_path):
    service = part("operators.runtime.service")

    def missing():
        return service.missing_weights(bpy.context.scene)

    assert missing() == ["triposr"]
    scene.systems.triposr.checkpoint = str(tmp_path)
    assert missing() == []
    scene.systems.triposr.checkpoint = ""
    folder = tmp_path / "cache/stabilityai--TripoSR"
    folder.mkdir(parents=True)
    for file in ("config.yaml", "model.ckpt"):
        (folder / file).touch()
    assert missing() == []


def test_the_licence_is_shown_and_nothing_fetched_before_it_is_accepted(hub, online, scene):
    with pytest.raises(RuntimeError, match="do-good-only") as refused:
        bpy.ops.xray.weights_download()
    for part in ("model.ckpt", "accept=True", "0.1 MB", "stabilityai--TripoSR"):
        assert part in str(refused.value)
    assert hub.fetched() == []


def test_weights_are_fetched_into_the_folder_of_the_preferences(hub, online, scene, tmp_path):
    assert bpy.ops.xray.weights_download(weights="triposr", accept=True) == {"FINISHED"}
    assert (tmp_path / "cache/stabilityai--TripoSR/model.ckpt").read_bytes() == CONTENT
    with pytest.raises(RuntimeError, match="has all its weights"):
        bpy.ops.xray.weights_download()


def test_offline_the_error_names_the_files_and_where_to_put_them(hub, scene, tmp_path):
    assert not bpy.app.online_access
    with pytest.raises(RuntimeError, match="online access is off") as refused:
        bpy.ops.xray.weights_download(weights="triposr", accept=True)
    assert str(tmp_path / "cache/stabilityai--TripoSR/model.ckpt") in str(refused.value)
    assert hub.requests == []


def test_the_steps_tell_how_far_they_are_and_can_be_cancelled(hub, online, scene, part, tmp_path):
    hub.files["model.ckpt"] = CONTENT * 600
    hub.pause = 0.05
    service, jobs = part("operators.runtime.service"), part("operators.tasks.jobs")
    offer = jobs.run(service.offer_steps("triposr"), interval=0.01)
    assert (offer.revision, len(offer.files)) == (COMMIT, 2)
    steps = service.download_steps("triposr", offer.revision)
    while next(steps).step < 10_000_000:
        pass
    steps.throw(part("xray_addon.progress").Cancelled())
    with pytest.raises(part("xray_addon.progress").Cancelled):
        jobs.run(steps, interval=0.01)
    (partial,) = Path(tmp_path / "cache").rglob("model.ckpt.*.partial")
    assert partial.stat().st_size < len(CONTENT) * 600


def test_the_dialog_shows_what_was_offered_and_is_asked_once(xray, part, scene, monkeypatch):
    """In a window the hub's answer opens the dialog; its OK fetches that very commit."""
    module, weights = part("operators.runtime.ops_weights"), part("xray_addon.systems.weights")
    offer = weights.Offer(
        "me/mine", COMMIT, (weights.RemoteFile("a.ckpt", 7, ""),), 7, "MIT", "https://x", Path("/c")
    )
    asked = []
    ops = type("Ops", (), {"xray": type("X", (), {})})
    ops.xray.weights_download = staticmethod(lambda *args, **how: asked.append((args, how)))
    fake = type("Bpy", (), {"app": type("App", (), {"background": False}), "ops": ops})
    monkeypatch.setattr(module, "bpy", fake)
    operator = type("Operator", (), {"weights": "me/mine"})()
    summary = module.XRAY_OT_weights_download.summary
    assert summary(operator, offer) == ("INFO", "me/mine: 0.0 MB, licence MIT")
    assert asked == [(("INVOKE_DEFAULT",), {"weights": "me/mine", "revision": COMMIT})]
    assert module._offer is offer
    assert "/c" in summary(operator, Path("/c"))[1]


def test_panel_and_preferences_draw_the_downloads(scene, part, fake_runtime):
    drawn = []

    class Layout:
        def __getattr__(self, _name):
            return lambda *_args, **_how: Layout()

        def operator(self, name, **how):
            drawn.append((name, how.get("text")))
            return type("Properties", (), {})()

        def label(self, **how):
            drawn.append(("label", how["text"]))

    panel = part("panels.weights")
    panel.draw_missing_weights(Layout(), bpy.context)
    assert drawn == [("xray.weights_download", "Download triposr (1.68 GB)…")]
    drawn.clear()
    panel.draw_published_weights(Layout(), bpy.context)
    published = part("xray_addon.systems").PUBLISHED
    assert [text.split()[1].removesuffix("…") for _, text in drawn] == list(published)
    assert {"triposr", "svd", "sdxl-vae"} <= set(published)
