"""What tests wait for of a runtime's process, which Blender asks from its timer."""

from __future__ import annotations

import time
from typing import Any

from xray_addon.process.client import Job, RuntimeClient
from xray_addon.process.protocol import RuntimeStatus
from xray_addon.progress import Cancelled, ProgressCallback, ignore_progress

STEP = 0.01  # s between two looks


def wait(
    client: RuntimeClient,
    job: Job,
    on_progress: ProgressCallback = ignore_progress,
    timeout: float = 60.0,
) -> Any:
    """The result of `job`; raises its error, and `Cancelled` where it was cancelled.

    on_progress : what it raises cancels the job, and comes out when that has ended.
    """
    end = time.monotonic() + timeout
    try:
        while not job.finished:
            assert time.monotonic() < end, f"nothing came in {timeout:g} s; see {client.log}"
            turn(client)
            on_progress(job.progress)
    except BaseException:
        client.cancel(job)
        while not job.finished:  # bounded: the process is killed in the end
            turn(client)
        raise
    if job.error is not None:
        raise job.error
    if job.result is None:
        raise Cancelled
    return job.result


def status(client: RuntimeClient, timeout: float = 60.0) -> RuntimeStatus:
    """A fresh status of the process, which lives."""
    end = time.monotonic() + timeout
    while not client.is_ready:
        assert time.monotonic() < end
        turn(client)
    client.latest_status = None
    while client.latest_status is None:
        assert time.monotonic() < end
        client.request_status()
        turn(client)
    return client.latest_status


def turn(client: RuntimeClient) -> None:
    """One round of the timer."""
    client.poll()
    time.sleep(STEP)
