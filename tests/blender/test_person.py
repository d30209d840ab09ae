"""When finished work may change mode and selection, and who gets Esc."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

ESCAPE = SimpleNamespace(type="ESC", value="PRESS", mouse_x=50, mouse_y=50)


@pytest.fixture
def person(part):
    return part("operators.tasks.person")


@pytest.fixture
def jobs(part):
    return part("operators.tasks.jobs")


@pytest.fixture
def window(person, monkeypatch):
    """The one window: nothing plays, no operator runs, and the mouse is over the 3D view."""
    area = SimpleNamespace(type="VIEW_3D", x=0, y=0, width=100, height=100)
    screen = SimpleNamespace(is_animation_playing=False, areas=[area])
    window = SimpleNamespace(screen=screen, modal_operators=[])
    monkeypatch.setattr(person, "_windows", lambda: [window])
    person.has_pressed()
    return window


def operator(name):
    return SimpleNamespace(bl_idname=name)


def test_only_somebody_elses_operator_keeps_a_person_busy(person, window):
    window.modal_operators = [operator("XRAY_OT_generate"), operator("XRAY_OT_dataset")]
    assert person.is_idle()
    window.modal_operators.append(operator("TRANSFORM_OT_translate"))
    assert not person.is_idle()


def test_an_operator_beside_which_a_button_was_pressed_holds_nobody_up(person, window):
    window.modal_operators = [operator("RENDER_OT_render")]
    person.has_pressed()
    assert person.is_idle()
    assert person.needs_escape(window, ESCAPE)  # it ends the render
    window.modal_operators.append(operator("TRANSFORM_OT_translate"))
    assert not person.is_idle()


def test_escape_is_left_to_blender_where_it_means_something(person, window):
    assert not person.needs_escape(window, ESCAPE)
    window.screen.is_animation_playing = True
    assert person.needs_escape(window, ESCAPE)
    window.screen.is_animation_playing = False
    window.modal_operators = [operator("XRAY_OT_generate"), operator("VIEW3D_OT_fly")]
    assert person.needs_escape(window, ESCAPE)
    window.modal_operators.pop()
    window.screen.areas[0].type = "FILE_BROWSER"
    assert person.needs_escape(window, ESCAPE)
    window.screen.areas[0].x = 60
    assert not person.needs_escape(window, ESCAPE)


@pytest.fixture
def watch(part, jobs, window):
    """Queue tasks as an operator does, and send it an event."""
    watching, progress = part("operators.tasks.watching"), part("xray_addon.progress")

    def work():
        while True:
            yield progress.Progress("wait")

    tasks = [jobs.submit(jobs.Task(label, work())) for label in "ab"]
    jobs._tick()
    itself = SimpleNamespace(_tasks=tasks, _timer=None, _end=lambda: {"FINISHED"})
    manager = SimpleNamespace(event_timer_remove=lambda _: None)
    context = SimpleNamespace(window=window, window_manager=manager)
    yield lambda event: watching.TaskOperator.modal(itself, context, event)
    jobs.shut_down()


def test_escape_cancels_the_running_task_and_no_other(jobs, watch):
    first, second = jobs.queue
    assert watch(ESCAPE) == {"RUNNING_MODAL"}
    assert (first.cancelling, second.cancelling, second.state) == (True, False, "queued")
    # Again while it is being cancelled: nothing of ours to cancel.
    assert watch(ESCAPE) == {"PASS_THROUGH"}
    jobs._tick()
    jobs._tick()
    assert (first.state, second.state) == ("cancelled", "running")
    assert watch(ESCAPE) == {"RUNNING_MODAL"}
    assert second.cancelling


def test_escape_stops_an_animation_and_not_the_task(jobs, watch, window):
    window.screen.is_animation_playing = True
    assert watch(ESCAPE) == {"PASS_THROUGH"}
    assert not jobs.queue[0].cancelling


def test_the_end_is_no_undo_step_in_the_middle_of_a_transform(jobs, watch, window):
    jobs.cancel_all()
    jobs._tick()
    window.modal_operators = [operator("TRANSFORM_OT_translate")]
    timer = SimpleNamespace(type="TIMER", value="NOTHING")
    assert watch(timer) == {"PASS_THROUGH"}
    window.modal_operators.clear()
    assert watch(timer) == {"FINISHED"}
