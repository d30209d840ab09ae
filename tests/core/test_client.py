"""Blender's side never hangs, never shows a traceback, and can always generate again."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_runtime import register_fakes
from waiting import status as status_of
from waiting import wait

from xray_addon.errors import XRayError
from xray_addon.process import child, private_folder, protocol
from xray_addon.process import client as client_module
from xray_addon.process.child import EXTENSION_FOLDER, runtime_variables
from xray_addon.process.client import Job, RuntimeClient
from xray_addon.process.private_folder import PrivateFolder
from xray_addon.process.protocol import GenerateParams
from xray_addon.progress import Cancelled, Progress
from xray_addon.settings.generate import GenerateSettings
from xray_addon.systems import SYSTEMS
from xray_addon.systems.omages import OmagesSettings
from xray_addon.systems.system import Inputs

FAKE = Path(__file__).with_name("fake_runtime.py")
MakeClient = Callable[..., RuntimeClient]


@pytest.fixture(autouse=True, scope="module")
def _fakes() -> Iterator[None]:
    known = dict(SYSTEMS), dict(GenerateSettings.kinds)
    register_fakes()
    yield
    for registered, before in zip((SYSTEMS, GenerateSettings.kinds), known, strict=True):
        registered.clear()
        registered.update(before)


@pytest.fixture(autouse=True)
def _short_graces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "CANCEL_GRACE", 0.4)
    for name in ("TERMINATE_GRACE", "STOP_GRACE"):
        monkeypatch.setattr(child, name, 0.4)


@pytest.fixture
def make_client(tmp_path: Path) -> Iterator[MakeClient]:
    clients: list[RuntimeClient] = []

    def make(*arguments: str, python: str = sys.executable, timeout: float = 40) -> RuntimeClient:
        client = RuntimeClient(
            python,
            tmp_path / "runtime.log",
            arguments=[str(FAKE), *(arguments or ("serve",))],
            start_timeout=timeout,
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeClient]:
    """One client for the tests that leave its process in order."""
    log = tmp_path_factory.mktemp("shared") / "runtime.log"
    client = RuntimeClient(sys.executable, log, arguments=[str(FAKE), "serve"])
    yield client
    client.stop()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n, and more the fake generators do not look at")
    return path


def settings(generator: str = "fake", steps: int = 2, seed: int = 0) -> GenerateSettings:
    return GenerateSettings(generator=generator, steps=steps, seed=seed)


def poll_until(client: RuntimeClient, condition: Callable[[], object], timeout: float = 40) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        start = time.monotonic()
        client.poll()
        assert time.monotonic() - start < 2.0, "poll has waited"
        time.sleep(0.005)


def finish(client: RuntimeClient, job: Job, timeout: float = 40) -> Job:
    poll_until(client, lambda: job.finished, timeout)
    return job


def assert_generates(client: RuntimeClient, image: Path, seed: int = 5) -> None:
    job = finish(client, client.submit(image, settings(seed=seed)))
    assert job.error is None
    assert job.state == "done"
    assert job.result is not None
    assert job.result.surface.vertices[2, 1] == seed


def assert_for_people(error: XRayError | None, code: str) -> None:
    assert error is not None
    assert error.code == code
    assert error.remedy
    assert Path(error.log).name == "runtime.log"
    assert "Traceback" not in str(error)
    assert "\n" not in str(error)


def is_gone(pid: int) -> bool:
    """A process nobody has waited for yet (a zombie) is gone as well."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def test_submit_returns_at_once_and_poll_brings_the_mesh(
    shared: RuntimeClient, image: Path
) -> None:
    client = shared
    start = time.monotonic()
    job = client.submit(image, settings(steps=5, seed=3))
    assert time.monotonic() - start < 2.0
    assert job.state == "queued"
    stages: list[str] = []
    poll_until(client, lambda: stages.append(job.progress.stage) or job.finished)
    assert {"start", "load", "sample"} <= set(stages)
    assert job.result is not None
    np.testing.assert_array_equal(job.result.surface.vertices[2], [0, 3, 1])
    assert client.jobs == []


def test_result_files_and_the_private_folder_do_not_stay(
    make_client: MakeClient, image: Path
) -> None:
    client = make_client()
    wait(client, client.submit(image, settings()), timeout=40)
    folder = client._folder
    assert folder is not None
    assert list(folder.iterdir()) == []
    client.stop()
    assert not folder.exists()


def test_wait_hears_progress_and_returns_the_mesh(shared: RuntimeClient, image: Path) -> None:
    client = shared
    reports: list[Progress] = []
    generated = wait(client, client.submit(image, settings(steps=5)), reports.append, timeout=40)
    assert generated.surface.faces.shape == (1, 3)
    assert any(progress.stage == "sample" and progress.of == 5 for progress in reports)


def test_jobs_run_one_after_the_other_in_one_process(shared: RuntimeClient, image: Path) -> None:
    client = shared
    jobs = [client.submit(image, settings(seed=seed)) for seed in range(4)]
    wait(client, jobs[0], timeout=40)
    pid = client.pid
    for job in jobs:
        wait(client, job, timeout=40)
    assert [job.result.surface.vertices[2, 1] for job in jobs if job.result] == [0, 1, 2, 3]
    assert client.pid == pid


def test_the_job_keeps_the_settings_it_was_submitted_with(
    shared: RuntimeClient, image: Path
) -> None:
    client = shared
    mine = settings(seed=1)
    job = client.submit(image, mine)
    mine.seed = 2
    assert wait(client, job, timeout=40).surface.vertices[2, 1] == 1


def test_a_library_that_prints_does_not_corrupt_the_stream(
    shared: RuntimeClient, image: Path
) -> None:
    client = shared
    job = finish(client, client.submit(image, settings("printing")))
    assert job.state == "done"
    log = client.log.read_text()
    assert "not a message" in log
    assert "neither is this" in log


def test_a_library_that_reads_stdin_does_not_eat_requests(
    shared: RuntimeClient, image: Path
) -> None:
    client = shared
    jobs = [client.submit(image, settings("reading")) for _ in range(2)]
    assert [finish(client, job).state for job in jobs] == ["done", "done"]


@pytest.mark.parametrize(
    ("generator", "code"),
    [("memory", "out_of_memory"), ("broken", "internal")],
)
def test_errors_are_typed_and_the_traceback_is_only_in_the_log(
    shared: RuntimeClient, image: Path, generator: str, code: str
) -> None:
    client = shared
    job = finish(client, client.submit(image, settings(generator)))
    assert job.state == "failed"
    assert_for_people(job.error, code)
    assert "Traceback" in client.log.read_text()
    with pytest.raises(XRayError):
        wait(client, job)
    assert_generates(client, image)


def test_what_the_image_is_to_blame_for_names_no_log(shared: RuntimeClient, image: Path) -> None:
    job = finish(shared, shared.submit(image, settings("blind")))
    assert job.error is not None
    assert (job.error.code, job.error.log) == ("no_object", "")


def test_a_missing_image_is_named(shared: RuntimeClient, tmp_path: Path) -> None:
    client = shared
    job = finish(client, client.submit(tmp_path / "none.png", settings()))
    assert_for_people(job.error, "missing_file")
    assert "none.png" in str(job.error)


STAGES = ["queued", "start", "load", "generate", "sample", "save"]


@pytest.mark.parametrize("stage", STAGES)
def test_cancel_at_every_stage(shared: RuntimeClient, image: Path, stage: str) -> None:
    client = shared
    assert_generates(client, image)
    if stage == "queued":
        client.submit(image, settings(steps=10))
    slow_to_load = replace(settings(steps=5 if stage == "save" else 200), checkpoint=stage)
    job = client.submit(image, slow_to_load)
    reached = STAGES[STAGES.index(stage) :]  # a busy machine may show a short stage too late
    poll_until(client, lambda: job.progress.stage in reached or job.finished)
    client.cancel(job)
    client.cancel(job)
    finish(client, job)
    # The last stage is so short that it may be over before it is seen.
    assert job.state == "cancelled" or (stage == "save" and job.state == "done")
    assert job.error is None
    assert_generates(client, image)


def test_cancel_is_heard_in_the_middle_and_the_process_stays(
    shared: RuntimeClient, image: Path
) -> None:
    client = shared
    job = client.submit(image, settings(steps=1000))
    poll_until(client, lambda: job.progress.step > 2)
    pid = client.pid
    client.cancel(job)
    assert job.cancelling
    assert finish(client, job).state == "cancelled"
    with pytest.raises(Cancelled):
        wait(client, job)
    assert_generates(client, image)
    assert client.pid == pid


def test_a_job_that_ignores_cancel_and_terminate_is_killed_in_time(
    make_client: MakeClient, image: Path
) -> None:
    client = make_client()
    job = client.submit(image, settings("stubborn"))
    waiting = client.submit(image, settings(seed=9))
    poll_until(client, lambda: job.progress.stage == "generate")
    pid = client.pid
    start = time.monotonic()
    client.cancel(job)
    assert finish(client, job).state == "cancelled"
    assert time.monotonic() - start < 0.4 + 0.4 + 5.0
    assert finish(client, waiting).state == "done"
    assert client.pid != pid
    assert client.error is None


def test_a_job_is_cancelled_in_the_middle_of_its_work(shared: RuntimeClient, image: Path) -> None:
    client = shared

    def stop(progress: Progress) -> None:
        if progress.step > 1:
            raise Cancelled

    job = client.submit(image, settings(steps=1000))
    with pytest.raises(Cancelled):
        wait(client, job, stop, timeout=40)
    assert job.state == "cancelled"


@pytest.mark.parametrize("seed", range(8))
def test_the_runtime_is_killed_at_a_random_moment(
    make_client: MakeClient, image: Path, seed: int
) -> None:
    draw = random.Random(seed)
    client = make_client()
    job = client.submit(image, settings(steps=20))
    end = time.monotonic() + draw.uniform(0.0, 1.0)
    while time.monotonic() < end:
        client.poll()
        time.sleep(0.005)
    if client.pid is not None:
        os.kill(client.pid, draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGABRT]))
    finish(client, job)
    if job.state != "done":
        assert job.state == "failed"
        assert_for_people(job.error, "runtime_died")
    assert_generates(client, image)


def test_a_crash_fails_its_job_and_the_next_one_gets_a_new_process(
    make_client: MakeClient, image: Path
) -> None:
    client = make_client()
    crashing = client.submit(image, settings("crashing"))
    waiting = client.submit(image, settings(seed=4))
    assert finish(client, crashing).state == "failed"
    assert_for_people(crashing.error, "runtime_died")
    assert "SIGSEGV" in str(crashing.error)
    assert finish(client, waiting).state == "done"


def test_an_idle_process_that_died_is_replaced(make_client: MakeClient, image: Path) -> None:
    client = make_client()
    assert_generates(client, image)
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    assert_generates(client, image)
    os.kill(client.pid, signal.SIGKILL)
    poll_until(client, lambda: not client.is_running)
    assert_for_people(client.error, "runtime_died")


@pytest.mark.parametrize(
    ("returncode", "words", "message"),
    [
        (-9, "", "SIGKILL"),
        (-15, "", "ended from outside"),
        (-6, "terminate called after throwing an instance of 'std::bad_alloc'", "out of memory"),
        (1, "RuntimeError: CUDA error: unspecified launch failure", "the GPU's driver failed"),
        (3, "ModuleNotFoundError", "exit code 3"),
    ],
)
def test_why_it_died_is_reported(tmp_path: Path, returncode: int, words: str, message: str) -> None:
    log = tmp_path / "runtime.log"
    log.write_text(f"--- before\nout of memory\n--- now\n{words}\n")
    error = child.death_error(returncode, True, child.last_words(log))
    assert message in error.message
    assert error.remedy


def test_a_runtime_that_never_answers_is_given_up(make_client: MakeClient, image: Path) -> None:
    client = make_client("mute", timeout=0.5)
    job = finish(client, client.submit(image, settings()))
    assert_for_people(job.error, "runtime_not_answering")
    assert not client.is_running


def test_a_runtime_that_reads_nothing_blocks_nothing(make_client: MakeClient) -> None:
    client = make_client("deaf", timeout=5.0)
    client.start()
    start = time.monotonic()
    for _ in range(200):  # far more than a pipe holds
        client._ask("status", {"padding": "x" * 10_000})
        client.poll()
    client.stop()
    assert time.monotonic() - start < 10.0


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("garbage", "bad_reply"),
        ("flood", "bad_reply"),
        ("wrong_version", "version_mismatch"),
        ("exit", "runtime_died"),
    ],
)
def test_a_runtime_that_speaks_nonsense_fails_the_job(
    make_client: MakeClient, image: Path, mode: str, code: str
) -> None:
    client = make_client(mode)
    job = finish(client, client.submit(image, settings()))
    assert job.state == "failed"
    assert_for_people(job.error, code)


def test_a_runtime_that_dies_in_the_middle_of_a_line_fails_the_job(
    make_client: MakeClient, image: Path
) -> None:
    job = finish(client := make_client("half_line"), client.submit(image, settings()))
    assert job.error is not None
    assert job.error.code in ("bad_reply", "runtime_died")


def test_the_log_tells_why_a_runtime_did_not_start(make_client: MakeClient, image: Path) -> None:
    client = make_client("exit")
    jobs = [client.submit(image, settings()) for _ in range(2)]
    assert [finish(client, job).state for job in jobs] == ["failed", "failed"]
    assert "exit code 3" in str(jobs[0].error)
    assert "No module named" in client.log.read_text()


def test_a_missing_interpreter_says_to_install(
    make_client: MakeClient, image: Path, tmp_path: Path
) -> None:
    client = make_client(python=str(tmp_path / "python"))
    job = client.submit(image, settings())
    assert job.state == "failed"
    assert_for_people(job.error, "runtime_missing")
    assert "Install Runtime" in str(job.error)


def test_status_and_release(make_client: MakeClient, image: Path) -> None:
    client = make_client()
    client.start()
    status = status_of(client)
    assert status.pid == client.pid
    assert status.generator == ""
    assert "python" in status.versions
    wait(client, client.submit(image, settings()), timeout=40)
    status = status_of(client)
    assert (status.generator, status.device) == ("fake", "cpu")
    assert status.device_name
    client.release()
    poll_until(client, lambda: client.latest_status and not client.latest_status.generator)


def test_status_answers_while_a_model_blocks(make_client: MakeClient, image: Path) -> None:
    client = make_client()
    job = client.submit(image, settings("stubborn"))
    poll_until(client, lambda: job.progress.stage == "generate")
    status = status_of(client)
    assert status.busy


def test_the_weights_are_released_when_idle(make_client: MakeClient, image: Path) -> None:
    client = make_client("serve", "0.2")
    wait(client, client.submit(image, settings()), timeout=40)
    time.sleep(0.5)
    status = status_of(client)
    assert status.generator == ""
    assert_generates(client, image)


def test_stop_ends_everything_and_submit_works_again(make_client: MakeClient, image: Path) -> None:
    client = make_client()
    threads = threading.active_count()
    running = client.submit(image, settings("stubborn"))
    queued = client.submit(image, settings())
    poll_until(client, lambda: running.progress.stage == "generate")
    pid = client.pid
    assert pid is not None
    start = time.monotonic()
    client.stop()
    client.stop()
    assert time.monotonic() - start < 10.0
    assert (running.state, queued.state) == ("cancelled", "cancelled")
    assert is_gone(pid)
    assert threading.active_count() == threads
    assert_generates(client, image)


def test_the_log_does_not_grow_without_end(
    make_client: MakeClient, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "LOG_LIMIT", 10)
    client = make_client()
    for _ in range(3):
        assert_generates(client, image)
        client.stop()
    assert client.log.read_text().count("starts") == 1
    assert client.log.with_name("runtime.log.1").read_text().count("starts") == 1


PARENT = """
import sys, time
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parent))
from fake_runtime import register_fakes
from xray_addon.process.client import RuntimeClient
from xray_addon.settings import GenerateSettings
register_fakes()
client = RuntimeClient(sys.executable, sys.argv[2], arguments=[sys.argv[1], "serve"])
job = client.submit(sys.argv[3], GenerateSettings(generator=sys.argv[4]))
while job.progress.stage != "generate" and not job.finished:
    client.poll()
    time.sleep(0.01)
print(client.pid, flush=True)
if sys.argv[5] == "wait":
    time.sleep(300)
"""


@pytest.mark.parametrize("end", ["killed", "exits"])
def test_the_runtime_ends_with_its_parent(tmp_path: Path, image: Path, end: str) -> None:
    command = [sys.executable, "-c", PARENT, str(FAKE), str(tmp_path / "runtime.log"), str(image)]
    with subprocess.Popen(
        [*command, "stubborn", "wait" if end == "killed" else "end"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(EXTENSION_FOLDER)},
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if end == "killed":
            parent.kill()
        parent.wait(40)
    deadline = time.monotonic() + 30
    while not is_gone(pid):
        assert time.monotonic() < deadline, "the runtime outlives its parent"
        time.sleep(0.05)


class Pictures:
    """A client with a job that runs, and whatever its process might name as a preview."""

    def __init__(self, client: RuntimeClient, image: Path) -> None:
        self.client = client
        self.job = client.submit(image, settings(steps=200))
        while self.job.progress.stage != "sample":
            client.poll()
            time.sleep(0.01)
        self.folder = client._folder

    def hear(self, file: Path | str, **more: object) -> None:
        params = {"id": self.job.id, "stage": "sample", "preview": str(file), **more}
        self.client._process._incoming.put(protocol.Request(protocol.PROGRESS, params))
        started = time.monotonic()
        self.client.poll()
        assert time.monotonic() - started < 1


def test_no_preview_breaks_or_blocks_the_window(shared: RuntimeClient, image: Path) -> None:
    pictures = Pictures(shared, image)
    file = pictures.folder / "preview.npy"
    np.save(file, np.zeros((4, 4, 4), np.uint8))
    pictures.hear(file)
    assert pictures.job.progress.preview is not None
    whole = io.BytesIO()
    np.save(whole, np.zeros((4, 4, 4), np.uint8))
    header = whole.getvalue()[:128]
    contents = [b"", b"\x93NUMPY", header, header.replace(b"(4, 4, 4)", b"(4, 4, 9)" * 1)]
    contents += [header[:10] + b"(" * 118, header[:10] + b"{" + b"[" * 117, header + b"x" * 10**6]
    contents += [header.replace(b"|u1", b"|O "), header.replace(b"'descr'", b"'desc\xff'")]
    for content in contents:
        file.write_bytes(content)
        pictures.hear(file)
        assert pictures.job.progress.preview is None
        assert not file.exists()
    with file.open("wb") as stream:
        stream.write(header)
        stream.truncate(1 << 34)
    pictures.hear(file)
    if hasattr(os, "mkfifo"):
        os.mkfifo(file)
        pictures.hear(file)
    (pictures.folder / "folder").mkdir()
    for odd in (
        pictures.folder / "folder",
        "/dev/zero",
        f"{file}\0",
        pictures.folder / ("x" * 999),
    ):
        pictures.hear(odd)
    for more in ({"step": 10**400}, {"of": -1}, {"step": True}, {"id": []}, {"stage": 3}):
        pictures.hear("", **more)
    assert isinstance(pictures.job.progress.fraction, float)
    shared.cancel(pictures.job)
    with pytest.raises(Cancelled):
        wait(shared, pictures.job)


def test_whatever_goes_wrong_in_a_message_costs_the_process_and_not_the_window(
    shared: RuntimeClient, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = Pictures(shared, image)
    with monkeypatch.context() as patch:
        patch.setattr(RuntimeClient, "_receive", lambda *_: 1 / 0)
        pictures.hear("")
    with pytest.raises(XRayError) as caught:
        wait(shared, pictures.job)
    assert caught.value.code == "bad_reply"
    assert wait(shared, shared.submit(image, settings())) is not None


def test_a_cleaner_that_takes_the_temporary_folder_costs_nothing(
    shared: RuntimeClient, image: Path
) -> None:
    wait(shared, shared.submit(image, settings()))
    first = shared._folder
    shutil.rmtree(first)
    assert wait(shared, shared.submit(image, settings())) is not None
    assert shared._folder != first


def test_results_of_killed_jobs_are_swept(make_client: MakeClient, image: Path) -> None:
    client = make_client()
    pictures = Pictures(client, image)
    (pictures.folder / "half.npz").write_bytes(b"x")
    os.kill(client.pid, signal.SIGKILL)
    with pytest.raises(XRayError):
        wait(client, pictures.job)
    assert list(pictures.folder.iterdir()) == []


def test_folders_of_the_dead_are_swept_and_those_of_the_living_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    living = PrivateFolder()
    dead, other = (tmp_path / f"{private_folder.PREFIX}{name}" for name in ("dead", "other"))
    for folder in (dead, other):
        folder.mkdir()
        (folder / "result.npz").touch()
    dead.with_name(dead.name + private_folder.OWNER).touch()
    private_folder.sweep()
    owner = living.path.name + private_folder.OWNER
    assert {path.name for path in tmp_path.iterdir()} == {living.path.name, owner, other.name}
    assert living.path.stat().st_mode & 0o077 == 0
    living.remove()
    assert [path.name for path in tmp_path.iterdir()] == [other.name]


@pytest.mark.skipif(not hasattr(os, "getppid") or os.name == "nt", reason="no signals there")
@pytest.mark.parametrize("generator", ["fake", "stubborn"])
def test_a_killed_parents_child_and_folder_are_gone_in_two_seconds(
    tmp_path: Path, image: Path, generator: str
) -> None:
    """XRAY_KILLS=300 for the long version, whose figures are in docs/security.md."""
    kills = int(os.environ.get("XRAY_KILLS", "2"))
    draw = random.Random(3)
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(EXTENSION_FOLDER)}
    slowest = 0.0
    for _ in range(kills):
        command = [sys.executable, "-c", PARENT, str(FAKE), str(tmp_path / "log"), str(image)]
        with subprocess.Popen(
            [*command, generator, "wait"], stdout=subprocess.PIPE, text=True, env=environment
        ) as parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            time.sleep(draw.uniform(0, 0.3))
            killed = time.monotonic()
            parent.kill()
            parent.wait(40)
        folders = list(tmp_path.glob(f"{private_folder.PREFIX}*"))
        while not is_gone(pid) or any(folder.exists() for folder in folders):
            assert time.monotonic() - killed < 10, "the runtime or its folder outlives its parent"
            time.sleep(0.01)
        slowest = max(slowest, time.monotonic() - killed)
    sys.stdout.write(f"{kills} kills of {generator}'s parent, slowest end {slowest:.2f} s\n")
    assert slowest < 2.0


def test_paths_become_absolute_and_a_hubs_name_stays(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    client = RuntimeClient(tmp_path / "no-python", tmp_path / "runtime.log")
    (tmp_path / "triposr").mkdir()
    for given, sent in (
        ("weights", str(tmp_path / "weights")),
        ("owner/repo", "owner/repo"),
        ("triposr", "triposr"),  # the published one, whatever is called so here
        ("./triposr", str(tmp_path / "triposr")),
    ):
        job = client.submit(image, replace(settings(), checkpoint=given))
        assert isinstance(job.params, GenerateParams)
        assert job.params.settings.checkpoint == sent
    (tmp_path / "mine.npz").touch()
    job = client.submit(Inputs(category="chair"), OmagesSettings(geometry="mine.npz"))
    assert isinstance(job.params, GenerateParams)
    assert isinstance(job.params.settings, OmagesSettings)
    assert job.params.settings.geometry == str(tmp_path / "mine.npz")


def test_the_process_starts_anew_for_another_folder_or_network_and_not_without(
    make_client: MakeClient, image: Path
) -> None:
    client = make_client()
    assert_generates(client, image)
    first = client.pid
    assert_generates(client, image)
    assert client.pid == first
    client.online = True
    assert_generates(client, image)
    second = client.pid
    assert second != first
    client.checkpoints = "/elsewhere"
    assert_generates(client, image)
    assert client.pid not in (first, second)
    assert client.error is None


def test_the_process_is_told_where_downloaded_weights_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XRAY_CHECKPOINTS", "/the/user's")
    assert runtime_variables(False, "/the/preference")["XRAY_CHECKPOINTS"] == "/the/preference"
    assert runtime_variables(False)["XRAY_CHECKPOINTS"] == "/the/user's"
    assert runtime_variables(False)["XRAY_ONLINE"] == "0"
