"""Slice3D: predicts twelve slices that reveal what an image hides, and makes a mesh of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..camera import PUBLISHED_FOV_X
from ..canonical import Frame
from ..settings.base import setting
from ..settings.generate import GenerateSettings
from .system import ByHand, HandFile, Output, System

# The published camera; the meshed box is 1 wide.
FRAME = Frame(distance=1.2, fov_x=PUBLISHED_FOV_X, fill=0.65, near=0.6, far=1.8)
PAGE = "https://1drv.ms/f/s!AkDQSKsmQQCghq1jUC2J0nowH4XeOQ"
LICENCE = "not stated by the authors"
REGRESSION = HandFile(
    "reg_slices/experiments/2024_0419_objaverse_regression_pretrained/ckpt/"
    "112_146222_0.01299_0.843_0.0132.ckpt",
    "regression",
    "the regression branch",
    144_000_000,
    ("branch", ("regression",)),
)
DIFFUSION = HandFile(
    "gen_slices/logs/2024-04-23T02-11-33_objaverse-ldm-kl-8/checkpoints/epoch=000103.ckpt",
    "diffusion",
    "the generation of slices",
    2_760_000_000,
    ("branch", ("generation",)),
)
GT_TO_3D = HandFile(
    "reg_slices/experiments/2024_0419_objaverse_gt_to_3d_pretrained/ckpt/"
    "116_208728_0.007433_0.9034.ckpt",
    "gt_to_3d",
    "slices to 3D",
    74_000_000,
    ("branch", ("generation", "slices")),
)


@dataclass
class Slice3DSettings(GenerateSettings):
    """How Slice3D generates."""

    generator: str = setting("slice3d", "What makes the mesh")
    branch: str = setting(
        "regression",
        "Where the slices come from",
        choices={
            "regression": "Drawn in one pass",
            "generation": "Sampled, so that seeds differ",
            "slices": "Your own: X_1.png to Z_4.png in one folder, any of which is the image",
        },
    )
    steps: int = setting(
        0,
        "Steps of the sampling; 0 takes 200, as published",
        min=0,
        max=500,
        on=200,
        only=("branch", ("generation",)),
    )
    grid_resolution: int = setting(
        256,
        "Grid cells along each side of the box that is meshed; fewer are taken where the mesh "
        "would have more than three million triangles",
        min=32,
        max=512,
    )
    object_size: float = setting(
        FRAME.fill,
        "Share of the picture that the object's longer side takes; 0 keeps its size in the image, "
        "as published",
        min=0.0,
        max=1.0,
        unit="factor",
        on=FRAME.fill,
    )
    elevation: float = setting(
        0.0,
        "How many degrees the image looks down on the object; the mesh is tilted by as much to "
        "stand upright",
        min=-90.0,
        max=90.0,
        unit="degrees",
    )
    fill_hidden: bool = setting(
        True, "Give what the image hides the nearest visible colour; grey without"
    )

    def seed_matters(self, _given: Collection[str] = ("image",), /) -> bool:
        """Whether the slices are sampled."""
        return self.branch == "generation"


SYSTEM = System(
    name="slice3d",
    label="Slice3D",
    about="Twelve slices show what the image hides; they become a distance field and a mesh",
    paper="https://arxiv.org/abs/2312.02221",
    licence=f"{LICENCE}; to fetch by hand",
    module="runtime.slice3d",
    settings=Slice3DSettings,
    outputs=frozenset({Output.PICTURES}),
    frame=FRAME,
    by_hand=ByHand(PAGE, LICENCE, (REGRESSION, DIFFUSION, GT_TO_3D)),
)
