"""`report.md`: a dataset's contents, and its rejected and failed items with reasons."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ..files.plain import Plain
from .gates import GATES
from .result import REJECTED

_LINES = json.JSONEncoder(ensure_ascii=False)


@dataclass
class Report(Plain):
    """The statistics of a dataset.

    gates : for each gate, how many items it `counted` and how many of these it `refused`.
    hits : per layer, over all views. dropped : hits behind the last layer.
    missing_textures : by item, the names of missing image files. incomplete : by item, the missing
        libraries and other files without which it was captured.
    omages : number of items with omages. unwrapped : by item, why it needed new UVs.
    """

    captured: int
    rejected: int
    failed: int
    views: int
    triangles: int
    hits: list[int]
    dropped: int
    outside: int
    gates: dict[str, dict[str, int]]
    refused: list[dict[str, str]]
    missing_textures: dict[str, list[str]]
    omages: int = 0
    unwrapped: dict[str, str] = field(default_factory=dict)
    incomplete: dict[str, list[str]] = field(default_factory=dict)

    def to_markdown(self) -> str:
        """The report as readable text."""
        lines = [
            "# Dataset",
            "",
            f"{self.captured} captured, {self.rejected} rejected, {self.failed} failed. "
            f"{self.views} views, {self.triangles} triangles, {sum(self.hits)} hits, "
            f"{self.dropped} behind the last layer, {self.outside} outside near and far.",
            "",
            "| gate | counted | refused | meaning |",
            "|---|---|---|---|",
        ]
        for name, counts in self.gates.items():
            meaning = GATES.get(name, "")
            lines.append(f"| {name} | {counts['counted']} | {counts['refused']} | {meaning} |")
        lines += ["", "| layer | hits |", "|---|---|"]
        lines += [f"| {i} | {count} |" for i, count in enumerate(self.hits, 1)]
        if self.refused:
            lines += ["", "| refused | source | status | code | reason |", "|---|---|---|---|---|"]
            lines += [
                "| "
                + " | ".join(
                    _cell(row[key]) for key in ("uid", "source", "status", "code", "reason")
                )
                + " |"
                for row in self.refused
            ]
        if self.omages:
            lines += ["", f"{self.omages} as omages, {len(self.unwrapped)} of them unwrapped anew."]
        if self.unwrapped:
            lines += ["", "| unwrapped | because its UVs cannot be used |", "|---|---|"]
            lines += [f"| {uid} | {_cell(reason)} |" for uid, reason in self.unwrapped.items()]
        for title, found in (
            ("item | missing image files", self.missing_textures),
            ("incomplete item | captured without", self.incomplete),
        ):
            if found:
                lines += ["", f"| {title} |", "|---|---|"]
            lines += [f"| {uid} | {_cell(', '.join(names))} |" for uid, names in found.items()]
        return "\n".join(lines) + "\n"

    def add(self, row: dict[str, Any]) -> None:
        """Count a metadata row."""
        self.captured += 1
        self.triangles += row["triangles"]
        if "missing_textures" in row:
            self.missing_textures[row["uid"]] = row["missing_textures"]
        if "incomplete" in row:
            self.incomplete[row["uid"]] = row["incomplete"]
        if "omage" in row:
            self.omages += 1
            if row["omage"]["unwrapped"]:
                self.unwrapped[row["uid"]] = row["omage"]["unwrapped"]
        for view in row["views"]:
            self.views += 1
            self.dropped += view["dropped"]
            self.outside += view["outside"]
            self.hits += [0] * (len(view["hits"]) - len(self.hits))
            for layer, hits in enumerate(view["hits"]):
                self.hits[layer] += hits

    def add_refused(self, row: dict[str, Any]) -> None:
        """Count the row of a rejected or failed item."""
        keys = ("uid", "source", "status", "code", "reason")
        self.refused.append({key: str(row.get(key, "")) for key in keys})
        if row["status"] == REJECTED:
            self.rejected += 1
        else:
            self.failed += 1


def _cell(text: str) -> str:
    """`text` in a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def view_line(row: dict[str, Any], index: int) -> str:
    """One line of metadata.jsonl; `file_name` is the image, as Hugging Face imagefolder expects."""
    name = f"{row['uid']}/{index:03d}"
    view = row["views"][index]
    values = {
        "file_name": f"images/{name}.png",
        "xray": f"xrays/{name}.npz",
        "uid": row["uid"],
        "view": index,
        "source": row["source"],
        "source_sha256": row["source_sha256"],
        "license": row["license"],
        "triangles": row["triangles"],
        "hits": view["hits"],
        "dropped": view["dropped"],
        "outside": view["outside"],
        "iou": view["iou"],
        "gates": row["gates"],
    }
    return _LINES.encode(values) + "\n"
