"""The queue: work goes on step by step, ends as it should, and can be cancelled."""

from __future__ import annotations

import signal
import threading
from types import SimpleNamespace

import bpy
import pytest


@pytest.fixture
def jobs(part):
    return part("operators.tasks.jobs")


@pytest.fixture
def progress(part):
    return part("xray_addon.progress")


@pytest.fixture
def count_to(progress):
    def steps(stop, seen=None):
        for i in range(stop):
            yield progress.Progress("count", i, stop)
            if seen is not None:
                seen.append(i)
        return stop

    return steps


def test_tasks_run_one_after_the_other(jobs, count_to, run_tasks):
    seen = []
    first = jobs.submit(jobs.Task("First", count_to(3, seen)))
    second = jobs.submit(jobs.Task("Second", count_to(2, seen)))
    assert bpy.app.timers.is_registered(jobs._tick)
    assert (first.state, second.state) == ("queued", "queued")
    run_tasks()
    assert seen == [0, 1, 2, 0, 1]
    assert (first.result, second.result) == (3, 2)
    assert jobs.failed == []


def test_the_timer_ends_with_the_work(jobs, count_to):
    jobs.submit(jobs.Task("Only", count_to(1)))
    assert jobs._tick() is not None
    assert jobs._tick() is None  # what makes Blender drop the timer


def test_an_error_is_kept_for_the_panel_until_the_next_task(jobs, part, count_to, run_tasks):
    error = part("xray_addon.errors").XRayError("full", "The disk is full.")

    def fail():
        yield part("xray_addon.progress").Progress("write")
        raise error

    task = jobs.submit(jobs.Task("Fail", fail()))
    run_tasks()
    assert (task.state, task.error, jobs.failed) == ("failed", error, [task])
    jobs.submit(jobs.Task("Next", count_to(1)))
    assert jobs.failed == []
    run_tasks()


def test_a_bug_fails_its_task_and_not_the_queue(jobs, progress, count_to, timers, caplog):
    def broken():
        yield progress.Progress("divide")
        raise ZeroDivisionError

    bad = jobs.submit(jobs.Task("Bad", broken()))
    good = jobs.submit(jobs.Task("Good", count_to(1)))
    timers.fire()
    timers.fire()
    assert (bad.state, bad.error.code) == ("failed", "internal")
    assert "ZeroDivisionError" in caplog.text
    timers.fire()
    timers.fire()
    assert good.state == "done"
    assert timers.functions == []


def test_a_running_task_is_cancelled_inside(jobs, progress, run_tasks):
    ended = []

    def steps():
        try:
            while True:
                yield progress.Progress("wait")
        finally:
            ended.append(True)

    task = jobs.submit(jobs.Task("Long", steps()))
    jobs._tick()
    jobs.cancel(task)
    run_tasks()
    assert (task.state, ended) == ("cancelled", [True])
    assert jobs.failed == []


def test_a_task_may_take_its_time_to_wind_down(jobs, progress, run_tasks):
    seen = []

    def steps():
        left = 3
        cancelled = False
        while left or not cancelled:
            try:
                yield progress.Progress("wait")
            except progress.Cancelled:
                seen.append("cancel")
                cancelled = True
            left -= cancelled
        raise progress.Cancelled

    task = jobs.submit(jobs.Task("Slow", steps()))
    jobs._tick()
    jobs.cancel(task)
    run_tasks()
    assert (task.state, seen) == ("cancelled", ["cancel"])


def test_a_waiting_task_is_cancelled_without_starting(jobs, count_to, run_tasks):
    seen = []
    jobs.submit(jobs.Task("First", count_to(2)))
    second = jobs.submit(jobs.Task("Second", count_to(2, seen)))
    jobs.cancel(second)
    run_tasks()
    assert (second.state, seen) == ("cancelled", [])


def test_esc_cancels_what_is_about_to_run_and_nothing_that_waits(jobs, count_to, run_tasks):
    assert not jobs.cancel_running()
    first, second = (jobs.submit(jobs.Task(name, count_to(2))) for name in ("First", "Second"))
    assert jobs.cancel_running()
    run_tasks()
    assert (first.state, second.state) == ("cancelled", "done")


def test_work_outlives_a_new_file(jobs, count_to, run_tasks):
    task = jobs.submit(jobs.Task("Through", count_to(3)))
    jobs._tick()
    bpy.ops.wm.read_homefile(use_empty=True)
    assert bpy.app.timers.is_registered(jobs._tick)
    run_tasks()
    assert task.result == 3


def test_disabling_the_extension_cancels_its_work(xray, jobs, count_to):
    task = jobs.submit(jobs.Task("Cut", count_to(3)))
    jobs._tick()
    bpy.ops.preferences.addon_disable(module=xray.__name__)
    assert task.state == "cancelled"
    assert not bpy.app.timers.is_registered(jobs._tick)


def test_work_of_a_window_ends_and_is_cancelled_like_other_work(jobs, progress, count_to):
    window = SimpleNamespace(as_pointer=lambda: 7)
    assert jobs.run(jobs.in_window(count_to(3), window)) == 3
    ended = []

    def steps():
        try:
            yield progress.Progress("wait")
        except progress.Cancelled:
            yield progress.Progress("tidy")
            ended.append(True)
            raise

    work = jobs.in_window(steps(), window)
    assert next(work).stage == "wait"
    assert work.throw(progress.Cancelled()).stage == "tidy"
    with pytest.raises(progress.Cancelled):
        next(work)
    assert ended == [True]


def test_a_script_waits_for_the_result(jobs, count_to):
    seen = []
    assert jobs.run(count_to(3), seen.append) == 3
    assert [report.step for report in seen] == [0, 1, 2]


def test_ctrl_c_cancels_a_script(jobs, progress):
    def steps():
        for _ in range(500):
            yield progress.Progress("wait")

    # A shell's background jobs inherit an ignored SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.1, signal.raise_signal, (signal.SIGINT,))
    timer.start()
    try:
        with pytest.raises(progress.Cancelled):
            jobs.run(steps(), interval=0.01)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def test_a_line_for_people(jobs, progress):
    assert jobs.describe(progress.Progress("sample", 3, 25, "sampling")) == "Sampling 3/25"
    assert jobs.describe(progress.Progress("load")) == "Load"
