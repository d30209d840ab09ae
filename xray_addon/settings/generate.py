"""How a mesh is generated, and what it is made into."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Settings, setting

# What the runtime's registry holds; Blender's process never imports the runtime to ask it.
GENERATORS = ("xray", "triposr", "xray-paper")


@dataclass
class GenerateSettings(Settings):
    """How one image becomes a mesh."""

    generator: str = setting("xray", "Name of the generator")
    checkpoint: str = setting(
        "",
        "Path of other weights, for TripoSR and xray-paper also a hub id; empty for X-Ray's own or "
        "TripoSR's published ones; xray-paper needs one",
    )
    steps: int = setting(
        0,
        "Steps of the sampling; 0 takes the generator's own: 8 for xray (1 is one pass without "
        "sampling), 25 for xray-paper. TripoSR has only one pass",
        min=0,
        max=1000,
    )
    seed: int = setting(
        0, "Seed of the sampling; the same seed gives the same mesh", min=0, max=2**31 - 1
    )
    freedom: float = setting(
        0.4,
        "xray: how far what the image does not show may go from the likeliest; 0 makes all seeds "
        "alike, 1 starts from noise alone",
        min=0.0,
        max=1.0,
    )
    device: str = setting("auto", "Where the model runs", choices=("auto", "cpu", "cuda", "mps"))
    remove_background: str = setting(
        "auto",
        "How the object is cut out: by its alpha channel, by rembg, off a plain background or by "
        "the built-in network; 'auto' takes the first that serves",
        choices=("auto", "alpha", "rembg", "plain", "built-in"),
    )
    margin: float = setting(
        0.0,
        "Moves the cut-out's edge: outwards above 0, inwards below, in percent of the image's "
        "longer side",
        min=-10.0,
        max=10.0,
    )
    mesh_resolution: int = setting(
        256,
        "TripoSR: grid points along each side of the box that is meshed; fewer are taken where the "
        "mesh would have more than three million triangles",
        min=32,
        max=512,
    )
    density_threshold: float = setting(
        25.0, "TripoSR: density of the field where the surface is", min=0.01, max=10_000.0
    )
    texture_size: int = setting(
        0, "TripoSR: side of a baked texture in pixels; 0 keeps vertex colours", min=0, max=8192
    )
    batch_order: str = setting(
        "mended",
        "xray-paper: 'published' repeats the mix-up of guided and unguided layers in diffusers "
        "0.25, which the published numbers have",
        choices=("mended", "published"),
    )


@dataclass
class ResultSettings(Settings):
    """What a generated mesh is made into. The default leaves it as the generator gives it."""

    topology: str = setting(
        "triangles",
        "'quads' remeshes into even quads, closed, without the finest details",
        choices=("triangles", "quads"),
    )
    target_faces: int = setting(
        0, "About how many faces; 0 for as many as there are", min=0, max=10_000_000
    )
    symmetry: str = setting(
        "none",
        "Mirror across the middle of this axis: 'x' keeps the right half, 'y' the half that the "
        "image shows, 'z' the upper one",
        choices=("none", "x", "y", "z"),
    )
    height: float = setting(0.0, "Height in metres; 0 leaves the size", min=0.0, max=1e6)
    color: str = setting(
        "attribute",
        "Colours as an 'attribute' of the mesh, or as a 'texture' on a UV map",
        choices=("attribute", "texture"),
    )
    bake_size: int = setting(
        1024,
        "Width and height of that texture in pixels",
        min=16,
        max=8192,
        only=("color", ("texture",)),
    )
    smooth_angle: float = setting(
        0.0,
        "Edges sharper than this many degrees look sharp; 0 keeps the generator's own shading",
        min=0.0,
        max=180.0,
    )
    asset: bool = setting(False, "Mark as an asset, with a preview")
