"""Runs shards as cluster jobs through submitit: on SLURM, or in tests on this machine."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import submitit
from submitit.core.utils import FailedJobError

from xray_addon.dataset.recipe import Recipe
from xray_addon.dataset.result import FAILED, ItemResult
from xray_addon.dataset.store import claim, conflict, finish, recorded, sweep
from xray_addon.errors import XRayError
from xray_addon.progress import Progress, ProgressCallback, ignore_progress

from . import shards
from .pool import ignore_result
from .run import Work, count_done, missing, run_shard
from .settings import ClusterSettings

ROOT = Path(__file__).resolve().parents[1]

POLL = 2.0  # s between two polls of the jobs
LOST_AFTER = 5  # polls after which a job that ended without a result counts as lost
CANCEL_WAIT = 60.0  # s to wait for cancelled jobs to end
SIGNAL_DELAY = 60  # s between SLURM's signal and a job's time limit; requeueing takes a while
# A requeued job continues where it stopped, so any number of timeouts is fine.
MAX_REQUEUES = 10_000


class ShardJob(submitit.helpers.Checkpointable):
    """The work of one job. After preemption or timeout it is requeued and skips finished items."""

    def __init__(self, work: Work, parts: int) -> None:
        self.work = work
        self.parts = parts

    def __call__(self, index: int) -> list[dict[str, Any]]:
        """Make shard `index` (from 1); returns the results as plain data."""
        results = run_shard(self.work, f"{index}/{self.parts}", ignore_result)
        return [result.to_dict() for result in results]


class Jobs:
    """The jobs of one dataset, from submission to end.

    Nothing is removed before the jobs are submitted. Items with different settings are removed by
    the first job in which a worker starts.

    cluster : "slurm", or "local" for processes on this machine.

    Raises XRayError `no_slurm`, `not_submitted`, `other_settings`, `cannot_write`, and those for
    unusable files named in the settings.
    """

    def __init__(
        self, work: Work, settings: ClusterSettings, cluster: Literal["slurm", "local"] = "slurm"
    ) -> None:
        work = work.absolute()
        self.work = replace(work, farm=replace(work.farm, jobs=work.farm.jobs or settings.cpus))
        self.parts = settings.array
        if shards.is_url(work.out):
            missing(self.work, self.parts)  # raises at once if items have different settings
        else:
            others = conflict(work.out, work.settings)
            if others is not None and not work.replace:
                raise others
            sweep(Path(work.out))  # raises at once if the folder cannot be used
        self._recipe = Recipe.of(work.settings)
        home = self.work.staging if shards.is_url(work.out) else Path(self.work.out)
        self.logs = home / "logs" / "jobs"
        try:
            executor = submitit.AutoExecutor(
                folder=self.logs, cluster=cluster, slurm_max_num_timeout=MAX_REQUEUES
            )
        except RuntimeError as error:
            raise XRayError(
                "no_slurm", f"There is no SLURM here ({error}).", "Run it on a login node."
            ) from error
        executor.update_parameters(
            name="xray",
            timeout_min=settings.time,
            cpus_per_task=settings.cpus,
            mem_gb=settings.job_memory,
            slurm_signal_delay_s=min(SIGNAL_DELAY, settings.time * 30),
            # Even if the cluster does not requeue jobs by default.
            slurm_additional_parameters={"requeue": True},
            # Jobs may start in any folder.
            slurm_setup=[f"export PYTHONPATH={shlex.quote(_python_path())}"],
            **({"slurm_partition": settings.partition} if settings.partition else {}),
        )
        job = ShardJob(self.work, self.parts)
        try:
            self.jobs: list[submitit.Job[list[dict[str, Any]]]] = executor.map_array(
                job, range(1, self.parts + 1)
            )
        except FailedJobError as error:
            raise XRayError(
                "not_submitted",
                f"SLURM rejected the jobs ({str(error).strip()}).",
                "Correct the partition, the time or the memory.",
            ) from error

    def cancel(self) -> None:
        """Cancel all jobs and wait until they have ended. Finished items are kept."""
        for job in self.jobs:
            job.cancel()
        end = time.monotonic() + CANCEL_WAIT
        while time.monotonic() < end and not all(job.done(force_check=True) for job in self.jobs):
            time.sleep(POLL)

    def wait(
        self,
        on_progress: ProgressCallback = ignore_progress,
        on_result: Callable[[ItemResult], None] = ignore_result,
    ) -> list[ItemResult]:
        """Wait for all jobs and finish the dataset; returns the results of all items.

        on_progress : called with the number of complete items; it may raise to cancel the jobs.
        on_result : called for each failed item, including items that no job began.
        """
        looks = dict.fromkeys(range(len(self.jobs)), 0)
        results: list[ItemResult] = []
        lost: list[str] = []
        out = self.work.out
        try:
            if not shards.is_url(out) and conflict(out, self.work.settings) is None:
                claim(out, self.work.settings)
            total = len(missing(self.work, self.parts)) + self._done()
            while looks:
                for number in tuple(looks):
                    job = self.jobs[number]
                    if not job.done(force_check=True):
                        looks[number] = 0
                    elif job.paths.result_pickle.exists():
                        del looks[number]
                        results += self._results(job, number, lost)
                    else:
                        # A job that is being requeued briefly appears to have ended.
                        looks[number] += 1
                        if looks[number] > LOST_AFTER:
                            del looks[number]
                            lost.append(f"job {job.job_id}: {job.state}, {job.paths.stderr}")
                on_progress(Progress("capture", self._done(), total))
                if looks:
                    time.sleep(POLL)
        except BaseException:
            self.cancel()
            raise
        known = {result.uid for result in results if result.status == FAILED}
        why = "; ".join(lost) or "no job got to it"
        results += [
            ItemResult(uid, FAILED, "job_lost", f"Its job ended too early ({why}). Run it again.")
            for uid in missing(self.work, self.parts)
            if uid not in known
        ]
        for result in results:
            if result.status == FAILED:
                on_result(result)
        if not shards.is_url(out):
            finish(out)
        return results

    def _done(self) -> int:
        """The number of complete items, without those that the jobs have yet to remove."""
        out = self.work.out
        if not shards.is_url(out) and recorded(Path(out)) != self._recipe:
            return 0
        return count_done(self.work, self.parts)

    def _results(
        self, job: submitit.Job[list[dict[str, Any]]], number: int, lost: list[str]
    ) -> list[ItemResult]:
        error = job.exception()
        if error is None:
            return [ItemResult.from_dict(values) for values in job.result()]
        last = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        lost.append(f"shard {number + 1}/{self.parts}: {last}, {job.paths.stderr}")
        return []


def _python_path() -> str:
    inherited = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join([str(ROOT), inherited]) if inherited else str(ROOT)
