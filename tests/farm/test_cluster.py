"""Shards as jobs: submitit's local executor, which is the same code on one machine, and SLURM."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import slurm as slurm_here
from helpers import is_alive, lines, rows, statuses
from submitit.core.utils import FailedJobError

import farm.cluster
from farm.__main__ import main
from farm.cluster import Jobs
from farm.run import run
from farm.settings import ClusterSettings
from farm.shards import read_record
from xray_addon import Camera
from xray_addon.errors import XRayError
from xray_addon.files.transforms import write_transforms
from xray_addon.progress import Cancelled
from xray_addon.settings.dataset import DatasetSettings

SMALL = ClusterSettings(array=2, cpus=1, time=10, job_memory=1)


@pytest.fixture(autouse=True)
def _interruptible():
    """Local jobs are cancelled by SIGINT, and inherit it ignored from a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(farm.cluster, "POLL", 0.2)


@pytest.fixture
def slurm(monkeypatch):
    """A SLURM of this test's own."""
    if absent := slurm_here.missing():
        pytest.skip(
            f"SLURM is not installed ({', '.join(absent)}): apt-get install slurm-wlm munge"
        )
    # Not below pytest's folder, whose path is too long for a Unix socket.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        cluster = slurm_here.Slurm(Path(folder))
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def in_background(jobs):
    """Wait for `jobs` on a thread; returns a function that joins it and gives the results."""
    results = []
    thread = threading.Thread(target=lambda: results.extend(jobs.wait()))
    thread.start()

    def join():
        thread.join(240)
        assert not thread.is_alive()
        return results

    return join


def test_jobs_make_the_same_dataset(source, work, tmp_path, contents):
    folder = source(5, bad="crash")
    progress, failures = [], []
    jobs = Jobs(work(folder), SMALL, "local")
    results = jobs.wait(progress.append, failures.append)
    assert statuses(results) == statuses(run(work(folder, tmp_path / "alone")))
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    assert [result.uid for result in failures] == ["bad"]
    assert (progress[-1].step, progress[-1].of) == (5, 6)


def test_a_preempted_job_goes_on_where_it_was(source, work, tmp_path, contents):
    folder = source(10, order="slow 0.2")
    jobs = Jobs(work(folder), ClusterSettings(array=1, cpus=1, time=10, job_memory=1), "local")
    out = tmp_path / "out"
    wait_for(lambda: len(rows(out)) >= 2)
    (job,) = jobs.jobs
    # What SLURM sends, to the process that does the work.
    (child,) = _children(int(job.job_id))
    os.kill(child, signal.SIGUSR2)
    results = jobs.wait()
    assert set(statuses(results).values()) == {"done", "exists"}
    run(work(folder, tmp_path / "alone"))
    assert contents(out) == contents(tmp_path / "alone")


def test_a_job_that_is_killed_is_named_and_run_again(source, work, tmp_path, contents, worker_ids):
    folder = source(8, order="slow 0.2")
    jobs = Jobs(work(folder), ClusterSettings(array=1, cpus=1, time=10, job_memory=1), "local")
    out = tmp_path / "out"
    wait_for(lambda: len(rows(out)) >= 2)
    (child,) = _children(int(jobs.jobs[0].job_id))
    os.kill(child, signal.SIGKILL)
    results = jobs.wait()
    assert {result.code for result in results} == {"job_lost"}
    assert str(jobs.logs) in results[0].reason
    assert not (set(statuses(results)) & set(rows(out)))
    wait_for(lambda: not any(is_alive(pid) for pid in worker_ids(out)))
    again = Jobs(work(folder), SMALL, "local").wait()
    assert set(statuses(again).values()) <= {"done", "exists"}
    run(work(folder, tmp_path / "alone"))
    assert contents(out) == contents(tmp_path / "alone")


def test_cancelling_ends_all_jobs(source, work, tmp_path, worker_ids):
    def stop(progress):
        if progress.step:
            raise Cancelled

    with pytest.raises(Cancelled):
        Jobs(work(source(80, order="slow 0.5")), SMALL, "local").wait(stop)
    out = tmp_path / "out"
    wait_for(lambda: not any(is_alive(pid) for pid in worker_ids(out)))
    assert 0 < len(rows(out)) < 80


def test_jobs_are_cancelled_if_the_source_cannot_be_read_any_more(source, work, monkeypatch):
    jobs = Jobs(work(source(20, order="slow 0.5")), SMALL, "local")

    def missing(*_):
        raise XRayError("missing_file", "The source is gone.")

    monkeypatch.setattr(farm.cluster, "missing", missing)
    with pytest.raises(XRayError, match="gone"):
        jobs.wait()
    assert all(job.done(force_check=True) for job in jobs.jobs)


@pytest.mark.parametrize(("asked", "used"), [(0, 3), (2, 2)])
def test_a_job_has_the_processes_that_are_asked_for_or_one_per_core(
    source, work, monkeypatch, asked, used
):
    monkeypatch.setattr(farm.cluster.submitit.AutoExecutor, "map_array", lambda *_: [])
    settings = ClusterSettings(array=2, cpus=3, time=10, job_memory=1)
    assert Jobs(work(source(1), jobs=asked), settings, "local").work.farm.jobs == used


def test_shards_at_a_url_are_made_by_jobs(source, work, tmp_path):
    url = f"file://{tmp_path}/chairs"
    place = work(source(5), url, staging=str(tmp_path / "staging"))
    results = Jobs(place, SMALL, "local").wait()
    assert statuses(results) == {f"item{number:03d}": "done" for number in range(5)}
    packed = [uid for index in (1, 2) for uid in read_record(url, index)["items"]]
    assert sorted(packed) == sorted(statuses(results))


def test_paths_are_those_of_the_submission(source, work, tmp_path, monkeypatch, fake_blender):
    """Jobs start in any folder."""
    folder = source(2)
    monkeypatch.chdir(tmp_path)
    write_transforms(tmp_path / "poses.json", [Camera.look_at((0, -2, 1))], ["000"])
    (tmp_path / "list.csv").write_text(f"path\n{folder.name}/item000.obj\n")
    (tmp_path / "bin").symlink_to(fake_blender.parent)
    asked = work("list.csv", "out", blender="bin/fake-blender")
    settings = replace(asked.settings, cameras="poses", poses="poses.json")
    jobs = Jobs(replace(asked, settings=settings), SMALL, "local")
    submitted = jobs.work
    for path in (submitted.source, submitted.out, submitted.settings.poses):
        assert path.startswith(f"{tmp_path}/")
    assert submitted.farm.blender == f"{tmp_path}/bin/fake-blender"
    assert submitted.settings.hdri == ""
    assert work("list.csv").absolute().farm.blender == str(fake_blender)
    jobs.cancel()
    assert replace(asked, farm=replace(asked.farm, blender="blender")).absolute().farm.blender == (
        "blender"
    )


def test_other_settings_are_found_before_anything_is_submitted(source, work):
    place = work(source(2))
    run(place)
    with pytest.raises(XRayError, match="views is 2 there and 3 here"):
        Jobs(replace(place, settings=replace(place.settings, views=3)), SMALL, "local")


def test_jobs_replace_what_other_settings_made(source, work, tmp_path, contents):
    folder, progress = source(3), []
    run(work(folder))
    other = replace(work(folder), settings=DatasetSettings(views=3), replace=True)
    assert set(statuses(Jobs(other, SMALL, "local").wait(progress.append)).values()) == {"done"}
    alone = replace(other, out=str(tmp_path / "alone"))
    run(alone)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    steps = [each.step for each in progress]
    assert steps == sorted(steps), "the old items do not count as done"
    assert (progress[-1].step, progress[-1].of) == (3, 3)


@pytest.mark.parametrize(
    ("fault", "changed"),
    [
        ("no_slurm", {"views": 3}),
        ("not_submitted", {"views": 3}),
        ("not_submitted", {"min_hits": 99}),  # a gate, which rejects all that is there
        ("job_lost", {"views": 3}),
    ],
)
def test_nothing_is_removed_where_no_job_starts(
    source, work, tmp_path, contents, monkeypatch, fault, changed
):
    folder = source(2)
    run(work(folder))
    before = contents(tmp_path / "out")
    other = work(folder, blender="/bin/false")
    other = replace(other, settings=replace(other.settings, **changed), replace=True)
    if fault == "job_lost":  # no worker starts in it
        results = Jobs(other, SMALL, "local").wait()
        assert {result.code for result in results} == {fault}
    else:
        if fault == "no_slurm":
            monkeypatch.setenv("PATH", "/nowhere")
        else:
            reason = FailedJobError("invalid partition")
            executor = farm.cluster.submitit.AutoExecutor
            monkeypatch.setattr(executor, "map_array", Mock(side_effect=reason))
        with pytest.raises(XRayError) as caught:
            Jobs(other, SMALL, "slurm" if fault == "no_slurm" else "local")
        assert caught.value.code == fault
    assert contents(tmp_path / "out") == before


def test_no_slurm_is_named(source, work, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(XRayError, match="There is no SLURM here"):
        Jobs(work(source(1)), SMALL)


def _children(pid: int) -> list[int]:
    """The processes that process `pid` has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


@pytest.mark.slurm
def test_slurm_requeues_and_cancels_and_the_dataset_is_complete(
    slurm, source, work, tmp_path, contents
):
    folder, out = source(24, order="slow 1"), tmp_path / "out"
    settings = ClusterSettings(array=4, partition="main", cpus=1, time=5, job_memory=1)
    jobs = Jobs(work(folder), settings)
    join = in_background(jobs)
    array = jobs.jobs[0].job_id.split("_")[0]
    wait_for(lambda: len(rows(out)) >= 4)

    # One job goes for good, another is put back into the queue by hand.
    slurm.ask("scancel", f"{array}_1")
    slurm.ask("scontrol", "requeue", f"{array}_0")
    results = join()
    assert "Requeue=1" in slurm.ask("scontrol", "show", "job", f"{array}_0")
    assert "Restarts=1" in slurm.ask("scontrol", "show", "job", f"{array}_0")
    lost = {result.uid for result in results if result.code == "job_lost"}
    assert lost
    assert set(rows(out)) | lost == {f"item{number:03d}" for number in range(24)}
    assert not set(rows(out)) & lost
    assert all(f"{array}_1" in result.reason for result in results if result.uid in lost)

    # Run again, it does what is missing.
    again = Jobs(work(folder), settings).wait()
    assert {uid for uid, status in statuses(again).items() if status == "done"} == lost
    run(work(folder, tmp_path / "alone"))
    assert contents(out) == contents(tmp_path / "alone")
    assert len(lines(out)) == 48


@pytest.mark.slurm
def test_slurm_preempts_a_job_that_goes_on_afterwards(slurm, source, work, tmp_path, contents):
    folder, out = source(12, order="slow 0.7"), tmp_path / "out"
    settings = ClusterSettings(array=1, partition="main", cpus=2, time=5, job_memory=1)
    jobs = Jobs(work(folder), settings)
    join = in_background(jobs)
    wait_for(lambda: len(rows(out)) >= 2)
    # Both nodes are wanted by somebody more urgent.
    slurm.ask("srun", "-p", "urgent", "--nodes=2", "--exclusive", "sleep", "1")
    assert set(statuses(join()).values()) == {"done", "exists"}
    run(work(folder, tmp_path / "alone"))
    assert contents(out) == contents(tmp_path / "alone")
    assert "Restarts=1" in slurm.ask("scontrol", "show", "job", jobs.jobs[0].job_id)


@pytest.mark.slurm
def test_slurm_from_the_command_line(slurm, source, tmp_path, fake_blender, monkeypatch, capsys):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # they are pytest's here
    options = ("--slurm", "--array=2", "--cpus=1", "--time=5", "--job-memory=1", "--views=2")
    arguments = [str(source(4, bad="crash")), str(tmp_path / "out"), *options]
    assert main([*arguments, f"--blender={fake_blender}", "--partition=nowhere"]) == 2
    assert "invalid partition" in capsys.readouterr().err
    assert main([*arguments, f"--blender={fake_blender}", "--partition=main"]) == 1
    output = capsys.readouterr().err
    assert "bad: failed: Blender stopped (SIGSEGV)" in output
    assert "4 done, 1 failed" in output
    assert len(lines(tmp_path / "out")) == 8


@pytest.mark.slurm
def test_slurm_ends_its_jobs_with_ctrl_c(slurm, source, work, tmp_path):
    def stop(progress):
        if progress.step:
            raise Cancelled

    settings = ClusterSettings(array=2, partition="main", cpus=1, time=5, job_memory=1)
    with pytest.raises(Cancelled):
        Jobs(work(source(40, order="slow 0.5")), settings).wait(stop)
    wait_for(lambda: not slurm.ask("squeue", "-h").strip())
    assert 0 < len(rows(tmp_path / "out")) < 40
