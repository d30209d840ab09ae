"""Omages: generates an object of a category as one image of 64 x 64 pixels, with its material."""

from __future__ import annotations

from dataclasses import dataclass

from ..omage.categories import CATEGORIES
from ..settings.base import setting
from ..settings.generate import GenerateSettings
from .system import Need, Output, Published, System


@dataclass
class OmagesSettings(GenerateSettings):
    """How Omages generate."""

    generator: str = setting("omages", "What makes the mesh")
    sampler: str = setting(
        "published",
        "How the networks sample",
        choices={
            "published": "As published: 250 steps for the geometry, 1000 for the material",
            "fast": "A solver that needs 30 and 20 steps",
        },
    )
    geometry_steps: int = setting(
        0, "Steps for the geometry; 0 for the usual", min=0, max=1000, on=250
    )
    material_steps: int = setting(
        0, "Steps for the material; 0 for the usual", min=0, max=1000, on=1000
    )
    guidance: float = setting(
        4.0, "How much the category counts: 1 as trained, 4 as published", min=1.0, max=20.0
    )
    average: bool = setting(
        False,
        "Take the running average of the material network's weights, which the published code "
        "stores but does not use",
    )
    stitch: bool = setting(False, "Close the seams between the patches of the mesh")
    geometry: str = setting(
        "",
        "An omage whose geometry is kept: only its material is made",
        path=True,
    )


SYSTEM = System(
    name="omages",
    label="Omages",
    about="An object of a category, with its material, as a geometry image",
    paper="https://arxiv.org/abs/2408.03178",
    licence="CC-BY-4.0, for academic research use; to download",
    module="runtime.omages",
    settings=OmagesSettings,
    image=Need.NONE,
    category=Need.REQUIRED,
    categories=CATEGORIES,
    outputs=frozenset({Output.PICTURES, Output.MATERIAL}),
    weights=(
        Published(
            "omages",
            "3dlg-hcvc/omages_ABO",
            ("N2G_dit_allcate.ckpt", "G2M_imagen_allcate.ckpt"),
            0,
            "CC-BY-4.0",
            "https://huggingface.co/datasets/3dlg-hcvc/omages_ABO",
            repo_type="dataset",
            terms="for academic research use",
        ),
    ),
    checkpoint="omages",
)
