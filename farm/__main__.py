"""The command line: ``python -m farm SOURCE OUT [options]``.

Exit codes: 0 done, 1 some items failed, 2 usage or set-up, 130 cancelled.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections import Counter
from typing import Any

from tqdm import tqdm

from xray_addon.dataset.manifest import read_source, shard
from xray_addon.dataset.result import EXISTS, FAILED, REJECTED, ItemResult
from xray_addon.errors import DONE, SOME_FAILED, USAGE, XRayError, exit_code
from xray_addon.progress import Cancelled, Progress
from xray_addon.settings.arguments import add_settings, settings_from_arguments
from xray_addon.settings.dataset import DatasetSettings

from .run import Work, run
from .settings import ClusterSettings, FarmSettings


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code. Errors go to stderr, one per line."""
    arguments = make_parser().parse_args(argv)
    # SIGTERM cleans up like Ctrl-C, because some shells do not pass Ctrl-C on to their children.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        work = Work(
            str(arguments.source),
            str(arguments.out),
            settings_from_arguments(DatasetSettings, arguments),
            settings_from_arguments(FarmSettings, arguments),
            arguments.replace,
        )
        if arguments.slurm:
            results = _on_slurm(work, arguments)
        else:
            results = _here(work, arguments.shard or "1/1")
    except KeyboardInterrupt:
        error: XRayError = Cancelled("Cancelled. Run the same command again to continue.")
    except XRayError as raised:
        error = raised
    else:
        counts = Counter(result.status for result in results)
        summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        sys.stderr.write(f"{summary or 'nothing to do'}\n")
        return SOME_FAILED if counts[FAILED] else DONE
    sys.stderr.write(f"error: {error}\n")
    return exit_code(error, USAGE)


def make_parser() -> argparse.ArgumentParser:
    """The argument parser; most arguments come from the settings dataclasses."""
    parser = argparse.ArgumentParser(
        prog="python -m farm",
        description="Make an X-Ray dataset of many objects with many Blender processes.",
    )
    parser.add_argument("source", metavar="SOURCE", help="folder, manifest or mesh file")
    parser.add_argument("out", metavar="OUT", help="a folder, or any fsspec URL for shards")
    parser.add_argument(
        "--shard", default="", metavar="i/N", help="only the ith of N parts (default: everything)"
    )
    parser.add_argument(
        "--slurm", action="store_true", help="run as a SLURM job array, one shard per job, and wait"
    )
    parser.add_argument(
        "--replace", action="store_true", help="remove items that were made with different settings"
    )
    for title, cls in (
        ("this machine", FarmSettings),
        ("SLURM", ClusterSettings),
        ("dataset", DatasetSettings),
    ):
        add_settings(parser.add_argument_group(title), cls)
    return parser


def _here(work: Work, part: str) -> list[ItemResult]:
    items = shard(read_source(work.source), part)
    with tqdm(total=len(items), unit="item", dynamic_ncols=True, disable=None) as bar:

        def on_result(result: ItemResult) -> None:
            if result.status == EXISTS and not bar.disable:
                # It took no time, so it must not affect the displayed rate.
                bar.initial += 1
                bar.n += 1
                bar.last_print_n += 1
                bar.refresh()
            else:
                bar.update()
            _tell(bar, result)

        return run(work, part, on_result)


def _on_slurm(work: Work, arguments: argparse.Namespace) -> list[ItemResult]:
    if arguments.shard:
        raise XRayError(
            "bad_settings", "--slurm runs all shards.", "Set their number with --array."
        )
    from .cluster import Jobs  # imported here because it takes half a second

    jobs = Jobs(work, settings_from_arguments(ClusterSettings, arguments))
    sys.stderr.write(f"Jobs {jobs.jobs[0].job_id} to {jobs.jobs[-1].job_id}, logs: {jobs.logs}\n")
    with tqdm(unit="item", dynamic_ncols=True, disable=None) as bar:

        def on_progress(progress: Progress) -> None:
            if not bar.total and not bar.disable:
                bar.initial = bar.n = bar.last_print_n = progress.step
                bar.total = progress.of
            bar.update(progress.step - bar.n)

        return jobs.wait(on_progress, lambda result: _tell(bar, result))


def _tell(bar: tqdm[Any], result: ItemResult) -> None:
    """Print a line for an item that was rejected or failed."""
    if result.status in (REJECTED, FAILED):
        log = f" Log: {result.log}" if result.log else ""
        bar.write(f"{result.uid}: {result.status}: {result.reason}{log}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
