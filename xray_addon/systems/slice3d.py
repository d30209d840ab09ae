"""Slice3D: what an image hides, as twelve slices, and back to a mesh."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from ..files.folders import cache_folder
from ..settings.base import setting
from ..settings.generate import GenerateSettings
from .system import Output, System

PAGE = "https://1drv.ms/f/s!AkDQSKsmQQCghq1jUC2J0nowH4XeOQ"
LICENCE = "not stated by the authors"


@dataclass(frozen=True)
class WeightsFile:
    """A file on the authors' drive. path : there. what : the network in it. size : for people."""

    path: str
    what: str
    size: str

    @property
    def name(self) -> str:
        """Without the folders."""
        return self.path.rpartition("/")[2]


FILES = {
    "regression": WeightsFile(
        "reg_slices/experiments/2024_0419_objaverse_regression_pretrained/ckpt/"
        "112_146222_0.01299_0.843_0.0132.ckpt",
        "the regression branch",
        "about 0.4 GB",
    ),
    "diffusion": WeightsFile(
        "gen_slices/logs/2024-04-23T02-11-33_objaverse-ldm-kl-8/checkpoints/epoch=000103.ckpt",
        "the generation of slices",
        "2.8 GB or more",
    ),
    "gt_to_3d": WeightsFile(
        "reg_slices/experiments/2024_0419_objaverse_gt_to_3d_pretrained/ckpt/"
        "116_208728_0.007433_0.9034.ckpt",
        "slices to 3D",
        "about 0.2 GB",
    ),
}
# What each branch needs of them.
BRANCHES = {
    "regression": ("regression",),
    "generation": ("diffusion", "gt_to_3d"),
    "slices": ("gt_to_3d",),
}


def checkpoint_folder(cache: str | PathLike[str] | None = None) -> Path:
    """Where the files are looked for unless a checkpoint is chosen."""
    return cache_folder(cache) / "slice3d"


@dataclass
class Slice3DSettings(GenerateSettings):
    """How Slice3D generates."""

    generator: str = setting("slice3d", "The system that makes the mesh")
    branch: str = setting(
        "regression",
        "'regression' draws the slices in one pass, 'generation' samples them, so that seeds "
        "differ; 'slices' takes your own: the image is a folder with X_1.png to Z_4.png",
        choices=tuple(BRANCHES),
    )
    steps: int = setting(0, "Steps of the sampling; 0 takes 200, as published", min=0, max=500)
    mesh_resolution: int = setting(
        256,
        "Grid cells along each side of the box that is meshed; fewer are taken where the mesh "
        "would have more than three million triangles",
        min=32,
        max=512,
    )
    object_size: float = setting(
        0.65,
        "Share of the picture that the object's longer side takes; 0 keeps its size in the image, "
        "as published",
        min=0.0,
        max=1.0,
    )
    elevation: float = setting(
        0.0,
        "How many degrees the image looks down on the object; the mesh is tilted by as much to "
        "stand upright",
        min=-90.0,
        max=90.0,
    )
    fill_hidden: bool = setting(
        True, "Give what the image hides the nearest visible colour; grey without"
    )


SYSTEM = System(
    name="slice3d",
    label="Slice3D",
    about="Twelve slices show what the image hides; they become a distance field and a mesh",
    paper="https://arxiv.org/abs/2312.02221",
    licence=f"{LICENCE}; to fetch by hand",
    module="runtime.slice3d",
    settings=Slice3DSettings,
    outputs=frozenset({Output.PICTURES}),
)
