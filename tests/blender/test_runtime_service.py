"""Install, start and stop the runtime from Blender."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import MagicMock

import bpy
import pytest


@pytest.fixture
def service(part):
    return part("operators.runtime.service")


def test_start_stop_release(fake_runtime):
    assert not bpy.ops.xray.runtime_stop.poll()
    assert not bpy.ops.xray.release_memory.poll()
    assert bpy.ops.xray.runtime_start() == {"FINISHED"}
    assert fake_runtime.is_running()
    assert not bpy.ops.xray.runtime_start.poll()
    assert bpy.ops.xray.release_memory() == {"FINISHED"}
    assert bpy.ops.xray.runtime_stop() == {"FINISHED"}
    assert not fake_runtime.is_running()


def test_the_state_is_one_word(fake_runtime, part, monkeypatch):
    assert fake_runtime.state() == "off"
    steps = fake_runtime.start_steps()
    next(steps)
    assert fake_runtime.state() == "starting"
    part("operators.tasks.jobs").run(steps, interval=0.01)
    assert fake_runtime.state() == "ready"
    client = fake_runtime.current_client()
    os.kill(client.pid, signal.SIGKILL)
    end = time.monotonic() + 20
    while fake_runtime.is_running():
        assert time.monotonic() < end
        time.sleep(0.02)
        client.poll()
    assert fake_runtime.state() == "lost"
    layout = MagicMock()
    monkeypatch.setattr(part("panels.widgets"), "draw_text", MagicMock())  # it needs a window
    part("panels.widgets").draw_runtime(layout, bpy.context)
    row = layout.box.return_value.row.return_value
    assert "xray.copy_report" in [call.args[0] for call in row.operator.call_args_list]
    assert bpy.ops.xray.copy_report.poll()
    assert client.error.message in part("operators.runtime.ops")._bug_report()
    assert set(part("panels.widgets").STATES) == {"off", "starting", "ready", "busy", "lost"}


def test_a_check_says_what_a_bug_report_needs(fake_runtime, part):
    assert not bpy.ops.xray.copy_report.poll()
    assert bpy.ops.xray.runtime_check() == {"FINISHED"}
    report = part("operators.runtime.ops").report
    check = part("xray_addon.process.environment").Check
    found = check({"torch": "2.13.0"}, "cuda", "RTX A4000", 16_000_000_000, "580.65")
    whole = fake_runtime.health_report(found)
    for text in (f"Blender {bpy.app.version_string}", "System: ", "Model: xray", "Process: ready"):
        assert text in report
        assert text in whole
    assert "RTX A4000, 16.00 GB, driver 580.65" in whole
    assert "torch 2.13.0" in whole


def test_the_process_is_told_when_to_release_its_memory(service, xray, monkeypatch, tmp_path):
    found = SimpleNamespace(is_installed=True, python="python", runtime_log=tmp_path / "log")
    monkeypatch.setattr(service, "environment", lambda: found)
    bpy.context.preferences.addons[xray.__name__].preferences.release_after = 2
    assert service.client()._command[-2:] == ["--idle", "120"]
    service.stop()


def test_removing_ends_the_process_first(fake_runtime, part, monkeypatch):
    bpy.ops.xray.runtime_start()
    removed = []
    found = SimpleNamespace(uninstall=lambda: removed.append(fake_runtime.is_running()))
    monkeypatch.setattr(fake_runtime, "environment", lambda: found)
    part("operators.tasks.jobs").run(fake_runtime.remove_steps(), interval=0.01)
    assert removed == [False]


def test_disabling_the_extension_ends_the_process(xray, fake_runtime):
    bpy.ops.xray.runtime_start()
    client = fake_runtime.current_client()
    bpy.ops.preferences.addon_disable(module=xray.__name__)
    assert not client.is_running


@pytest.fixture
def watch(fake_runtime, part, timers, monkeypatch):
    """Starts the process as in a window, and fires the timers until something is redrawn."""
    app = SimpleNamespace(background=False, timers=bpy.app.timers, online_access=False)
    monkeypatch.setattr(fake_runtime, "bpy", SimpleNamespace(app=app))
    redrawn = []
    monkeypatch.setattr(part("operators.tasks.jobs"), "redraw", lambda: redrawn.append(True))
    for _ in range(2):  # the second finds it started
        part("operators.tasks.jobs").run(fake_runtime.start_steps(), interval=0.01)
    assert timers.functions == [fake_runtime._watch]

    def until(happened):
        end = time.monotonic() + 20.0
        while not happened():
            assert time.monotonic() < end
            time.sleep(0.02)
            redrawn.clear()
            timers.fire()
        assert redrawn, "it happened, and nobody sees it"

    return until


def test_the_panel_hears_of_the_end_of_an_idle_process(fake_runtime, timers, watch):
    client = fake_runtime.current_client()
    watch(lambda: client.latest_status is not None)
    os.kill(client.pid, signal.SIGTERM)
    watch(lambda: not fake_runtime.is_running())
    assert client.error.code == "runtime_died"
    assert bpy.ops.xray.runtime_start.poll()
    assert timers.functions == []


def test_the_panel_hears_of_what_an_idle_process_holds(fake_runtime, watch, monkeypatch):
    client = fake_runtime.current_client()
    watch(lambda: client.latest_status is not None)
    known = client.latest_status
    monkeypatch.setattr(fake_runtime, "STATUS_INTERVAL", 0.0)
    monkeypatch.setattr(client, "latest_status", replace(known, memory=1))
    watch(lambda: client.latest_status.memory != 1)


def test_nobody_watches_a_stopped_process(fake_runtime, timers, watch):
    fake_runtime.stop()
    assert timers.functions == []


def test_without_a_window_nobody_watches(fake_runtime, timers):
    bpy.ops.xray.runtime_start()
    assert timers.functions == []


def test_a_grey_button_says_why(xray, tmp_path):
    addon = bpy.context.preferences.addons[xray.__name__]
    addon.preferences.runtime_folder = str(tmp_path / "nothing here")
    for operator, reason in (
        (bpy.ops.xray.runtime_start, "Install the runtime first"),
        (bpy.ops.xray.runtime_stop, "not running"),
        (bpy.ops.xray.release_memory, "not running"),
        (bpy.ops.xray.cancel, "Nothing is running"),
    ):
        assert not operator.poll()
        with pytest.raises(RuntimeError, match=reason):
            operator()


def test_installing_needs_online_access_or_a_wheelhouse(xray, tmp_path):
    bpy.context.preferences.system.use_online_access = False
    assert not bpy.ops.xray.runtime_install.poll()
    with pytest.raises(RuntimeError, match="Online Access"):
        bpy.ops.xray.runtime_install()
    addon = bpy.context.preferences.addons[xray.__name__]
    addon.preferences.wheelhouse = str(tmp_path)
    assert bpy.ops.xray.runtime_install.poll()


class FakeEnvironment:
    """Installs in five steps, on whatever thread it is called."""

    log = "install.log"

    def __init__(self, error=None):
        self.error = error
        self.asked = {}
        self.thread = None
        self.installed = False

    def install(self, *, progress, **asked):
        from bl_ext.user_default.xray.xray_addon.process.environment import Check
        from bl_ext.user_default.xray.xray_addon.progress import Progress

        self.asked, self.thread = asked, threading.current_thread()
        for step in range(5):
            progress(Progress("install", step, 5, "unpacking"))
            time.sleep(0.02)
        if self.error:
            raise self.error
        self.installed = True
        return Check({}, "cpu", "a fake CPU")


def test_an_install_shows_its_progress_and_its_device(service, part, monkeypatch, tmp_path):
    environment = FakeEnvironment()
    monkeypatch.setattr(service, "environment", lambda: environment)
    seen = []
    steps = service.install_steps(online=False, wheelhouse=tmp_path, device="cpu")
    check = part("operators.tasks.jobs").run(steps, seen.append, 0.01)
    assert check.device_name == "a fake CPU"
    assert environment.asked == {"online": False, "wheelhouse": tmp_path, "device": "cpu"}
    assert environment.thread is not threading.main_thread()
    assert "unpacking" in {report.message for report in seen}


def test_an_install_that_fails_says_why(service, part, monkeypatch):
    error = part("xray_addon.errors").XRayError("no_space", "The disk is full.", "Free 6 GB.")
    monkeypatch.setattr(service, "environment", lambda: FakeEnvironment(error))
    steps = service.install_steps(online=True, wheelhouse=None, device="auto")
    with pytest.raises(type(error), match="The disk is full"):
        part("operators.tasks.jobs").run(steps, interval=0.01)


def test_an_install_is_stopped_when_blender_quits(service, part, monkeypatch, run_tasks):
    jobs, environment = part("operators.tasks.jobs"), FakeEnvironment()
    monkeypatch.setattr(service, "environment", lambda: environment)
    steps = service.install_steps(online=True, wheelhouse=None, device="auto")
    task = jobs.submit(jobs.Task("Install", steps))
    run_tasks(until=lambda: task.progress.step == 1)
    jobs.shut_down()
    assert not environment.thread.is_alive()
    assert not environment.installed


def test_an_install_can_be_cancelled(service, part, monkeypatch, run_tasks):
    jobs = part("operators.tasks.jobs")
    monkeypatch.setattr(service, "environment", FakeEnvironment)
    steps = service.install_steps(online=True, wheelhouse=None, device="auto")
    task = jobs.submit(jobs.Task("Install", steps))
    run_tasks(until=lambda: task.progress.step == 1)
    jobs.cancel(task)
    run_tasks()
    assert task.state == "cancelled"
