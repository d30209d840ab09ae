"""What tests of the farm look at."""

from __future__ import annotations

import json
from pathlib import Path


def statuses(results) -> dict[str, str]:
    return {result.uid: result.status for result in results}


def rows(folder: Path) -> list[str]:
    return sorted(path.stem for path in (Path(folder) / "metadata").glob("*.json"))


def lines(folder: Path) -> list[dict]:
    text = (Path(folder) / "metadata.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def in_turn(*orders: str) -> dict[str, str]:
    """Names for items that have one worker do `orders` in that turn."""
    return {f"item{number}": order for number, order in enumerate(orders)}


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
