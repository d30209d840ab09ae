"""One machine: what crashes costs itself alone, and whatever is killed can be run again."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import termios
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import in_turn, is_alive, lines, rows, statuses

import farm.worker
from farm.__main__ import main
from farm.run import run
from xray_addon.dataset.result import FAILED, ItemResult
from xray_addon.errors import XRayError
from xray_addon.progress import Cancelled
from xray_addon.settings.dataset import DatasetSettings

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("XRAY_KILLS", "4"))  # more of them take longer and find more
OPTIONS = ("--views=2", "--jobs=2")


@pytest.fixture
def command(fake_blender):
    """Start `python -m farm` as a process of its own."""
    started = []

    def start(source, out):
        process = subprocess.Popen(
            [sys.executable, "-m", "farm", source, out, *OPTIONS, f"--blender={fake_blender}"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def test_all_items_are_there_at_the_end(source, work, tmp_path):
    results = run(work(source(5)))
    assert statuses(results) == {f"item{i:03d}": "done" for i in range(5)}
    assert rows(tmp_path / "out") == [f"item{i:03d}" for i in range(5)]
    assert len(lines(tmp_path / "out")) == 10
    assert not (tmp_path / "out/.work").exists()


def test_what_every_item_would_meet_ends_the_run(source, work, tmp_path):
    with pytest.raises(XRayError, match="No space left"):
        run(work(source(5, "full"), jobs=1))
    assert not list((tmp_path / "out" / "logs").glob("*.json"))


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("crash", "SIGSEGV"),
        ("exit", "exit code 7"),
        ("flood", "output"),
        ("mute", "output"),
    ],
)
def test_a_worker_that_dies_costs_that_item_alone(source, work, tmp_path, order, reason):
    results = run(work(source(before="ok", bad=order, zafter="ok"), jobs=1))
    assert statuses(results) == {"before": "done", "bad": "failed", "zafter": "done"}
    (bad,) = (result for result in results if result.uid == "bad")
    assert bad.code == "worker_died"
    assert reason in bad.reason
    assert rows(tmp_path / "out") == ["before", "zafter"]
    # The log holds only the lines about this item.
    text = Path(bad.log).read_text()
    assert "working on bad" in text
    assert "before" not in text
    assert "zafter" not in text
    assert bad.code in (tmp_path / "out/report.md").read_text()


def test_a_worker_that_hangs_costs_that_item_alone(source, work, tmp_path, worker_ids):
    orders = in_turn("ok", "hang", "ok")
    results = run(work(source(**orders), jobs=1, timeout=3.0))
    assert [result.status for result in results] == ["done", "failed", "done"]
    assert results[1].code == "worker_hung"
    assert "3 s" in results[1].reason
    assert not any(is_alive(pid) for pid in worker_ids(tmp_path / "out"))


@pytest.mark.parametrize("order", ["garbage", "wrong"])
def test_what_is_no_result_is_passed_over(source, work, order):
    assert statuses(run(work(source(one=order)))) == {"one": "done"}


def test_a_worker_that_dies_of_earlier_items_costs_none(source, work):
    results = run(work(source(**in_turn("ok", "crash-after 1", "ok")), jobs=1))
    assert [result.status for result in results] == ["done", "done", "done"]


def test_a_worker_that_ends_between_items_costs_none(source, work):
    results = run(work(source(**in_turn("leave", "ok", "leave", "ok")), jobs=1))
    assert [result.status for result in results] == ["done"] * 4


def test_a_worker_that_is_ended_by_hand_costs_no_item(source, work):
    assert statuses(run(work(source(one="die-once")))) == {"one": "done"}


def test_what_a_worker_refuses_is_passed_on(source, work):
    results = run(work(source(bad="failed", odd="rejected", good="ok")))
    assert statuses(results) == {"bad": "failed", "odd": "rejected", "good": "done"}


def test_a_second_run_does_only_what_is_missing(source, work, tmp_path, worker_ids, contents):
    folder = source(3, bad="crash", odd="rejected")
    run(work(folder))
    before = contents(tmp_path / "out")
    (folder / "bad.obj").write_text("ok")
    results = run(work(folder))
    assert statuses(results) == dict.fromkeys(("item000", "item001", "item002"), "exists") | {
        "bad": "done",
        "odd": "rejected",
    }
    after = contents(tmp_path / "out")
    assert all(after[name] == before[name] for name in before if name.startswith("xrays/"))
    assert not (tmp_path / "out/logs/bad.log").exists()
    # With nothing to do, no Blender is started.
    workers = worker_ids(tmp_path / "out")
    run(work(folder))
    assert worker_ids(tmp_path / "out") == workers


def test_workers_are_replaced_after_some_items(source, work, tmp_path, worker_ids):
    run(work(source(5), jobs=1, recycle=2))
    assert len(worker_ids(tmp_path / "out")) == 1 + 3  # the first sees whether workers start


def test_workers_are_replaced_when_they_grow(source, work, tmp_path, worker_ids):
    run(work(source(3, order="leak 150000000"), jobs=1, memory=140))
    assert len(worker_ids(tmp_path / "out")) == 1 + 3


def test_shards_share_the_items_out(source, work, tmp_path):
    folder = source(7)
    parts = [statuses(run(work(folder), f"{i}/3")) for i in (1, 2, 3)]
    assert sorted(uid for part in parts for uid in part) == rows(tmp_path / "out")
    assert sum(len(part) for part in parts) == 7


def test_a_run_can_be_cancelled_from_its_callback(source, work, tmp_path, worker_ids):
    def stop(result):
        raise Cancelled

    with pytest.raises(Cancelled):
        run(work(source(6)), on_result=stop)
    assert not any(is_alive(pid) for pid in worker_ids(tmp_path / "out"))
    assert not (tmp_path / "out/.work").exists()


def test_a_blender_without_the_extension_blames_no_item(source, work, tmp_path):
    broken = tmp_path / "broken-blender"
    broken.write_text("#!/bin/sh\necho no such command >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(XRayError, match="Install the X-Ray extension") as error:
        run(work(source(2), blender=str(broken)))
    assert "no such command" in Path(error.value.log).read_text()
    assert not (tmp_path / "out/refused").exists()


def test_what_a_worker_says_of_the_settings_is_the_reason(source, work, tmp_path):
    """Such as an environment image that only Blender can read."""
    answer = ItemResult("", FAILED, "bad_environment", "sky.hdr is not an image.")
    choosy = tmp_path / "choosy-blender"
    choosy.write_text(f"#!/bin/sh\necho Blender\necho '{json.dumps(answer.to_dict())}'\nexit 2\n")
    choosy.chmod(0o755)
    with pytest.raises(XRayError, match=r"sky\.hdr is not an image") as caught:
        run(work(source(2), blender=str(choosy)))
    assert caught.value.code == "bad_environment"
    assert not (tmp_path / "out/refused").exists()


@pytest.mark.parametrize(
    ("orders", "name", "folder"),
    [
        ({"a": "ok"}, "worker.log", True),
        ({"a": "ok"}, "a.log", True),
        ({"a": "crash"}, "a.log", True),
        ({"a": "ok"}, "", False),
    ],
)
def test_a_log_that_cannot_be_written_is_said(source, work, tmp_path, orders, name, folder):
    place = tmp_path / "out/logs" / name
    if folder:
        (place / "full").mkdir(parents=True)
    else:
        place.parent.mkdir()
        place.write_text("a file")
    with pytest.raises(XRayError, match="logs cannot be written") as caught:
        run(work(source(**orders)))
    assert caught.value.code == "cannot_write"


def test_a_full_disk_is_said_of_a_workers_log(source, work, monkeypatch):
    real = Path.open

    def full(self, mode="r", *arguments, **options):
        if self.name == "worker-1.log" and "a" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(XRayError, match="No space left") as caught:
        run(work(source(1)))
    assert caught.value.code == "cannot_write"


def test_nothing_is_replaced_where_no_worker_starts(source, work, tmp_path, contents):
    folder = source(2)
    run(work(folder))
    before = contents(tmp_path / "out")
    broken = tmp_path / "broken-blender"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    other = work(folder, blender=str(broken))
    other = replace(other, settings=DatasetSettings(views=3), replace=True)
    with pytest.raises(XRayError, match="Install the X-Ray extension"):
        run(other)
    assert contents(tmp_path / "out") == before


def test_a_link_in_place_of_the_log_is_refused_before_it_is_followed(source, work, tmp_path):
    folder = source(1)
    run(work(folder))
    outside = tmp_path / "mine.txt"
    outside.write_text("mine")
    (tmp_path / "out" / "logs" / "worker.log").symlink_to(outside)
    with pytest.raises(XRayError) as caught:
        run(replace(work(folder), settings=DatasetSettings(views=3), replace=True))
    assert caught.value.code == "unsafe_dataset"
    assert outside.read_text() == "mine"


def test_other_settings_are_named_and_replace_only_where_that_is_said(
    source, tmp_path, fake_blender, capsys, monkeypatch, contents
):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # they are pytest's here
    out = tmp_path / "out"
    arguments = [str(source(2)), str(out), f"--blender={fake_blender}"]
    assert main([*arguments, "--views=2"]) == 0
    before = contents(out)
    assert main([*arguments, "--views=3"]) == 2
    assert "views is 2 there and 3 here" in capsys.readouterr().err
    assert contents(out) == before
    assert main([*arguments, "--views=3", "--replace"]) == 0
    assert (out / "xrays/item000/002.npz").exists()


def test_a_worker_that_never_starts_is_given_up(source, work, tmp_path, monkeypatch):
    monkeypatch.setattr(farm.worker, "START_TIMEOUT", 0.5)
    stuck = tmp_path / "stuck-blender"
    stuck.write_text("#!/bin/sh\nsleep 60\n")
    stuck.chmod(0o755)
    with pytest.raises(XRayError, match="did not end within"):
        run(work(source(2), blender=str(stuck)))


@pytest.mark.parametrize(
    ("orders", "options", "code", "message"),
    [
        ({"a": "ok", "b": "rejected"}, (), 0, "1 done, 1 rejected"),
        ({"a": "ok", "bad": "crash"}, (), 1, "bad: failed: Blender stopped (SIGSEGV)"),
        ({"a": "ok"}, ("--shard=3/2",), 2, "is no shard"),
        ({"a": "ok"}, ("--slurm", "--shard=1/2"), 2, "--array"),
        ({"a": "ok"}, ("--layers=0",), 2, "layers must lie between"),
        ({"a": "ok"}, ("--blender=/nowhere/blender",), 2, "Give Blender's path"),
        ({}, (), 2, "no mesh files"),
    ],
)
def test_exit_codes(
    source, tmp_path, fake_blender, capsys, monkeypatch, orders, options, code, message
):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # they are pytest's here
    arguments = [str(source(**orders)), str(tmp_path / "out"), "--views=2", "--jobs=1"]
    assert main([*arguments, f"--blender={fake_blender}", *options]) == code
    assert message in capsys.readouterr().err


def test_a_failed_item_is_one_line_with_its_log(source, tmp_path, command):
    process = command(source(bad="exit", good="ok"), tmp_path / "out")
    _, err = process.communicate(timeout=60)
    (line,) = (line for line in err.splitlines() if "bad" in line)
    assert "exit code 7" in line
    assert line.endswith(str(tmp_path / "out/logs/bad.log"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_all_workers_and_leaves_no_half_item(
    source, tmp_path, command, worker_ids, number
):
    out = tmp_path / "out"
    process = command(source(30, order="slow 0.2"), out)
    wait_for(lambda: len(rows(out)) >= 2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Run the same command again" in err
    assert not any(is_alive(pid) for pid in worker_ids(out))
    assert not (out / ".work").exists()
    assert 2 <= len(rows(out)) < 30
    for kind in ("xrays", "images"):
        assert {path.name for path in (out / kind).iterdir()} == set(rows(out))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's death signal")
def test_a_hanging_worker_dies_with_its_farm(source, tmp_path, command, worker_ids):
    out = tmp_path / "out"
    process = command(source(a="hang", b="hang"), out)
    wait_for(lambda: (out / "logs/workers.txt").exists() and len(worker_ids(out)) == 3)
    process.kill()
    process.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in worker_ids(out)))


def test_killed_anywhere_and_run_again_gives_the_same_bytes(
    source, work, tmp_path, command, worker_ids, contents
):
    folder = source(6 * KILLS, order="slow 0.05", odd="rejected")
    out, random_moments = tmp_path / "out", random.Random(5)
    for _ in range(KILLS):
        victim = random_moments.choice(("farm", "farm", "worker"))
        process = command(folder, out)
        before = len(rows(out))
        wait_for(lambda: process.poll() is not None or len(rows(out)) > before)  # noqa: B023
        time.sleep(random_moments.uniform(0, 0.4))
        pid = process.pid if victim == "farm" else worker_ids(out)[-1]
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=60)
    run(work(folder))
    run(work(folder, tmp_path / "undisturbed"))
    assert contents(out) == contents(tmp_path / "undisturbed")
    assert len(rows(out)) == 6 * KILLS


def test_two_farms_on_one_folder_at_once(source, work, tmp_path, command, contents):
    folder = source(12, order="slow 0.02")
    both = [command(folder, tmp_path / "out") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    run(work(folder, tmp_path / "alone"))
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def test_progress_shows_rate_and_time_left(source, tmp_path, fake_blender):
    # The bar is for terminals only, so it is given one.
    folder, out = source(8, order="slow 0.3"), tmp_path / "out"
    screen, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    process = subprocess.Popen(
        [sys.executable, "-m", "farm", folder, out, *OPTIONS, f"--blender={fake_blender}"],
        cwd=ROOT,
        stderr=terminal,
    )
    output = bytearray()

    def listen():
        try:
            while chunk := os.read(screen, 4096):
                output.extend(chunk)
        except OSError:  # how the end of a terminal reads on Linux
            return

    os.close(terminal)
    listener = threading.Thread(target=listen)
    listener.start()
    assert process.wait(60) == 0
    listener.join(10)
    os.close(screen)
    assert b"8/8" in output
    assert b"item/s" in output or b"s/item" in output
    assert b"<00:" in output  # what is left
