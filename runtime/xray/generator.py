"""`XRayGenerator`: one image to a mesh, with the weights that ship."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xray_addon.camera import Camera
from xray_addon.canonical import FILL, Frame
from xray_addon.casting import cast
from xray_addon.errors import XRayError
from xray_addon.generated import Generated
from xray_addon.pictures.contact_sheet import layer_sheet
from xray_addon.progress import Progress, ProgressCallback, ignore_progress
from xray_addon.reconstruction import reconstruct
from xray_addon.surface import Surface
from xray_addon.systems.system import Inputs
from xray_addon.systems.xray import GUESSED_DISTANCE, SYSTEM, XRaySettings
from xray_addon.xray import XRay

from ..generator import Generator
from ..images.cutout import cut_object
from ..images.framing import frame, frame_sized
from ..images.reading import focal_length
from ..meshes.smoothing import taubin, vertex_normals
from ..torch_helpers.devices import choose_device, flush_denormals
from .centering import centered
from .coloring import textured, two_sides, with_detail
from .decoding import Layers, decode, frame_from
from .networks.base import Network, Prediction, image_to_input
from .sampling import both_ways, sample
from .solid import solid_mesh
from .uprighting import righting_angle, turned
from .weights import DEFAULT_WEIGHTS, load_weights

# Widths in px of the framed image, which the texture is made from. The larger one is taken if the
# object is LARGE times as long in its image as in the smaller one.
IMAGE_SIZES = (512, 1024)
LARGE = 1.5
LAYER_SIZE = 256  # px of the layers
# Rounds of smoothing that remove the pixels' steps from an open surface.
SMOOTHING = 10
# Pixels along the object's longer side in the image below which the mesh is hardly like it.
LEAST_SIDE = 64
# Angle from which on an object leans back so far that it may be set upright, and from which on that
# is more likely a mistake: a car whose roof is behind its hood may seem to lie on its back.
LEANS, LIES = math.radians(7.5), math.radians(30)
LEANS_MUCH = math.radians(15)  # from which on the user is told of an object that stays as it is
# Share of the height up to which the underside of an object that is set upright is extended to the
# ground: it lay there before the object was turned.
FOOT = 0.25
OUTLINE_GRAY = 0.6  # sRGB, of an image that shows an outline only
# Default number of steps if hidden parts vary.
STEPS = 8


class XRayGenerator(Generator):
    """The embedded single-image generator; load it with `runtime.load("xray")`."""

    system = SYSTEM

    def __init__(self, model: Network, device: str, training: dict[str, Any]) -> None:
        self.model = model
        self.device = device
        self.training = training  # the record in the weights: samples, excluded packs, ...

    @classmethod
    def load(cls, checkpoint: str | None = None, device: str = "auto") -> XRayGenerator:
        """Load the weights at `checkpoint` (a safetensors file), by default the built-in ones.

        Raises XRayError: `missing_weights`, `bad_weights`, `no_device`.
        """
        flush_denormals()
        device = choose_device(device)
        model, record = load_weights(Path(checkpoint or DEFAULT_WEIGHTS).expanduser(), device)
        return cls(model, device, record)

    def run(self, inputs: Inputs, settings: XRaySettings, progress: ProgressCallback) -> Generated:
        """A mesh and its layers: closed with a texture, or, for an object without an inside such
        as a sheet, open with corner colours.

        Raises XRayError (unreadable image, no object found, ...) and `Cancelled`.
        """
        cut = cut_object(inputs.image, settings, progress)
        small, large = IMAGE_SIZES
        framed, side = frame_sized(cut.rgba, small, fill=FILL)
        if side >= LARGE * FILL * small:
            framed = frame(cut.rgba, large, fill=FILL)
        chosen = {}
        if not settings.distance:
            distance = focal_length(inputs.image) * math.hypot(*cut.rgba.shape[:2]) / side
            settings = settings.seen_from(distance or GUESSED_DISTANCE)
            chosen = {"distance": settings.distance}
        generated = self.generate_framed(framed, settings, progress)
        notes = (*_notes(side), *generated.notes)
        return replace(generated, notes=notes, chosen={**chosen, **generated.chosen})

    @torch.inference_mode()
    def generate_framed(
        self,
        framed: NDArray[np.uint8],
        settings: XRaySettings,
        progress: ProgressCallback = ignore_progress,
    ) -> Generated:
        """Like `run`, for an image (I, I, 4) that is already in the canonical frame, and a
        `distance` that is known. I is a multiple of 256."""
        can_sample = bool(self.training.get("denoise_share"))
        if (settings.steps > 1 or settings.variation) and not can_sample:
            raise XRayError(
                "bad_settings",
                "These weights predict in one pass; they have not learned to sample.",
                "Set steps to 1 and variation to 0, or choose weights trained with a denoise_share "
                "above 0.",
            )
        shown = torch.from_numpy(framed).permute(2, 0, 1)[None].float().to(self.device) / 255
        image = image_to_input(_reduced(shown, self.model.config.image_resolution))
        seen = frame_from(settings.distance)
        steps = (settings.steps or STEPS) if settings.variation else 1

        def report(step: int) -> None:
            progress(Progress("predict", step, steps, "Predicting the layers"))

        report(0)
        if can_sample and settings.steps != 1:
            random = torch.Generator().manual_seed(settings.seed)
            start = 1 - settings.variation
            prediction = sample(
                self.model, image, steps, random, start=start, fov_x=seen.fov_x, on_step=report
            )
        else:
            prediction = both_ways(self.model, image, fov_x=seen.fov_x)
            report(1)
        progress(Progress("mesh", 0, 2, "Reading the layers"))
        layers, camera = _read(prediction, shown, seen)
        angle = righting_angle(layers, camera)
        righted = settings.upright == "always" or (
            settings.upright == "auto" and self._only_seems_to_lean(angle, shown, seen)
        )
        if righted:
            layers, camera = turned(layers, camera, angle)
        layers = centered(layers, camera)
        progress(Progress("mesh", 1, 2, "Making the mesh", layer_sheet(layers.xray())))
        if layers.closed:
            foot, mirrored = FOOT if righted else 0.0, settings.back == "mirrored"
            surface, xray = closed_surface(layers, framed, camera, foot, mirrored=mirrored)
        else:
            surface, xray = open_surface(layers, framed, camera)
        if not len(surface.faces):
            raise XRayError(
                "nothing_predicted",
                "The model sees no surface in this image.",
                "Try an image that shows the whole object on a plain or transparent background.",
            )
        progress(Progress("mesh", 2, 2, "Done"))
        told = (righted or angle < -LEANS_MUCH) and settings.upright != "always"
        notes = (_leaning(angle, righted=righted),) if told else ()
        upright = "always" if righted else "never"
        chosen = {"upright": upright} if settings.upright == "auto" else {}
        return Generated(surface, xray, camera, notes=notes, chosen=chosen)

    def _only_seems_to_lean(self, angle: float, shown: Tensor, seen: Frame) -> bool:
        """Whether an object that needs `angle` to stand leans back by its colours only.

        They can be unlike those of the training. So the network sees the outline alone, in one
        grey; if that leans forwards instead, it tells nothing.
        """
        if not -LIES < angle < -LEANS:
            return False
        outline = shown.clone()
        outline[:, :3] = OUTLINE_GRAY
        image = image_to_input(_reduced(outline, self.model.config.image_resolution))
        prediction = both_ways(self.model, image, fov_x=seen.fov_x)
        return angle / 2 < righting_angle(*_read(prediction, shown, seen)) < LEANS


load = XRayGenerator.load


def _notes(side: int) -> tuple[str, ...]:
    """What the user should know about an object that is `side` pixels long in its image."""
    if side >= LEAST_SIDE:
        return ()
    return (f"The object is only {side} pixels long in the image: a larger one is better.",)


def _read(prediction: Prediction, shown: Tensor, seen: Frame) -> tuple[Layers, Camera]:
    """The layers of a prediction, and their camera.

    shown : (1, 4, I, I) the framed image. seen : the frame that it shows.
    """
    elevation, roll = prediction.pose[0].tolist()
    camera = seen.camera(LAYER_SIZE, elevation, roll)
    return decode(prediction, _reduced(shown, LAYER_SIZE)[0, 3], camera), camera


def _leaning(angle: float, *, righted: bool) -> str:
    """What to know about a body that needs `angle` to stand upright, and got it if `righted`."""
    degrees = f"{math.degrees(-angle):.0f} degrees"
    if righted:
        return (
            f"The mesh leaned back by about {degrees} and was set upright. If the object leans, "
            "generate it again with Upright set to Never."
        )
    return (
        f"The mesh leans back by about {degrees}. If the object stands upright, generate it again "
        "with Upright set to Always."
    )


def _reduced(image: Tensor, size: int) -> Tensor:
    """RGBA (1, 4, I, I), straight alpha, at (1, 4, size, size)."""
    premultiplied = torch.cat([image[:, :3] * image[:, 3:], image[:, 3:]], dim=1)
    small = functional.interpolate(premultiplied, size=(size, size), mode="area")
    small[:, :3] /= small[:, 3:].clamp(min=1e-4)
    return small


def closed_surface(
    layers: Layers,
    image: NDArray[np.uint8],
    camera: Camera,
    foot: float = 0.0,
    *,
    mirrored: bool = False,
) -> tuple[Surface, XRay]:
    """The solid made from the layers, with a texture, and the X-Ray of that solid.

    image : (I, I, 4) the framed image. camera : of the layers. foot : see `solid_mesh`. mirrored :
    see `two_sides`.
    """
    vertices, faces = solid_mesh(layers, camera, foot)
    if not len(faces):
        return Surface(vertices, faces), layers.xray()
    surface = Surface(
        vertices, faces, corner_normals=vertex_normals(vertices, faces)[faces].astype(np.float32)
    )
    texture = two_sides(layers, image, camera, mirrored=mirrored)
    surface = textured(surface, camera, layers.depth[0], texture)
    # For one view of a small mesh the compiled kernel saves 0.02 s. It takes 0.4 s to load, and the
    # first time 8 s to compile.
    return surface, cast(surface, camera, len(layers.depth), backend="numpy")


def open_surface(layers: Layers, image: NDArray[np.uint8], camera: Camera) -> tuple[Surface, XRay]:
    """An open surface through the likely hits, with corner colours, and the hits themselves.

    image : (I, I, 4) the framed image. camera : of the layers.
    """
    xray = replace(layers, color=with_detail(layers.color, image)).xray()
    surface = reconstruct(xray, camera)
    vertices = taubin(surface.vertices, surface.faces, SMOOTHING)
    normals = vertex_normals(vertices, surface.faces)[surface.faces].astype(np.float32)
    return replace(surface, vertices=vertices, corner_normals=normals), xray
