"""`XRayGenerator`: one image to a mesh, with the weights that ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xray_addon.canonical import FAR, FILL, NEAR, canonical_camera
from xray_addon.errors import XRayError
from xray_addon.generated import Generated
from xray_addon.pictures.contact_sheet import layer_sheet
from xray_addon.progress import Progress, ProgressCallback, ignore_progress
from xray_addon.reconstruction import reconstruct
from xray_addon.systems.system import Inputs
from xray_addon.systems.xray import SYSTEM, XRaySettings
from xray_addon.xray import XRay

from ..generator import Generator
from ..images.cutout import cut_object
from ..images.framing import frame
from ..torch_helpers.devices import choose_device
from .enlarging import enlarge_frames
from .networks.base import Network, Prediction, image_to_input
from .sampling import sample
from .solid import smooth_surface, solid_layers
from .weights import DEFAULT_WEIGHTS, load_weights

OUTPUT_SIZE = 256
# Least distance between a layer and the next (frame units): no object is thinner than paper.
MIN_THICKNESS = 0.005
# Rounds that smooth the steps of the pixels off the mesh.
SMOOTHING = 10
# An object of which this share of the seen pixels has a back is closed: its layers come in pairs.
CLOSED_SHARE = 0.7
# Where the settings leave it open, and the weights have learned to sample: two steps are as near,
# more make backs smoother (docs/quality.md).
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
        """With the weights at `checkpoint` (a safetensors file), or those that ship.

        Raises XRayError: `missing_weights`, `bad_weights`, `no_device`.
        """
        # Denormals in small activations slow a CPU down tenfold.
        torch.set_flush_denormal(True)
        device = choose_device(device)
        model, record = load_weights(Path(checkpoint or DEFAULT_WEIGHTS), device)
        return cls(model, device, record)

    def run(self, inputs: Inputs, settings: XRaySettings, progress: ProgressCallback) -> Generated:
        """A closed or open mesh with corner colours, and its layers.

        Raises XRayError (unreadable image, no object found, ...) and `Cancelled`.
        """
        cut = cut_object(inputs.image, settings, progress)
        framed = frame(cut.rgba, OUTPUT_SIZE, fill=FILL)
        return self.generate_framed(framed, settings, progress)

    def generate_framed(
        self,
        framed: NDArray[np.uint8],
        settings: XRaySettings,
        progress: ProgressCallback = ignore_progress,
    ) -> Generated:
        """As `run`, from an image (256, 256, 4) that is already in the canonical frame."""
        can_sample = bool(self.training.get("denoise_share"))
        steps = settings.steps or (STEPS if can_sample else 1)
        if steps > 1 and not can_sample:
            raise XRayError(
                "bad_settings",
                "These weights predict in one pass; they have not learned to sample.",
                "Set steps to 1, or choose weights trained with a denoise_share above 0.",
            )
        if settings.variation == 0:
            steps = 1  # what the first pass says
        size = self.model.config.image_resolution
        fine = torch.from_numpy(framed).permute(2, 0, 1)[None].float().to(self.device) / 255
        premultiplied = torch.cat([fine[:, :3] * fine[:, 3:], fine[:, 3:]], dim=1)
        small = functional.interpolate(premultiplied, size=(size, size), mode="area")
        small[:, :3] /= small[:, 3:].clamp(min=1e-4)
        progress(Progress("predict", 0, steps, "Predicting the layers"))
        prediction = sample(
            self.model,
            image_to_input(small),
            steps,
            torch.Generator().manual_seed(settings.seed),
            start=1 - settings.variation,
            on_step=lambda step: progress(
                Progress("predict", step, steps, "Predicting the layers")
            ),
        )
        progress(Progress("mesh", 0, 2, "Reading the layers"))
        xray = decode(prediction, fine)
        camera = canonical_camera(OUTPUT_SIZE, float(prediction.elevation[0]))
        progress(Progress("mesh", 1, 2, "Linking the layers", layer_sheet(xray)))
        surface = reconstruct(xray, camera)
        if not len(surface.faces):
            raise XRayError(
                "nothing_predicted",
                "The model sees no surface in this image.",
                "Try an image that shows the whole object on a plain or transparent background.",
            )
        surface = smooth_surface(surface, SMOOTHING)
        progress(Progress("mesh", 2, 2, "Done"))
        return Generated(surface, xray, camera)


load = XRayGenerator.load


@torch.no_grad()
def decode(prediction: Prediction, fine: Tensor) -> XRay:
    """The X-Ray (L, 256, 256) that a prediction stands for; the first of its batch.

    fine : (1, 4, 256, 256) the framed image, straight alpha. Its detail, which the frames are
        too coarse to hold, is added to the first layer's colours.
    """
    frames = prediction.frames[:1].float()  # (1, L, 8, S, S)
    coarse_size = frames.shape[-2:]
    logit, closed = _pair(frames[0, :, 7:])
    frames = torch.cat([frames[:, :, :7].clamp(-1, 1), logit[None]], dim=2)
    frames, known = enlarge_frames(frames, fine.shape[-1])
    values, known, share = frames[0, :, :7], known[0].float(), frames[0, :, 7:].sigmoid()
    # The outline is the image's own; a closed object's back has the same one.
    outline = fine[0, 3] > 0.5
    share[: 2 if closed else 1] = outline.float()
    # A layer is there only where it has values, and behind the one before it.
    known = known.cumprod(dim=0) > 0
    inside = known & ((share > 0.5).float().cumprod(dim=0) > 0)
    least = MIN_THICKNESS * torch.arange(len(values), device=values.device).view(-1, 1, 1, 1)
    depth = (values[:, :1] * 0.5 + 0.5) * (FAR - NEAR) + NEAR
    depth = (depth - least).cummax(dim=0).values + least
    color = values[:, 4:7].clamp(-1, 1) * 0.5 + 0.5
    coarse = functional.interpolate(
        functional.interpolate(fine, size=coarse_size, mode="area"),
        size=fine.shape[-2:],
        mode="bilinear",
        align_corners=False,
    )
    # Close to the outline the coarse picture mixes with the background.
    detail = (fine[0, :3] - coarse[0, :3]) * (coarse[0, 3:] > 0.98)
    color[0] = (color[0] + detail).clamp(0, 1)
    color = color.movedim(1, -1).cpu().numpy()
    if closed:
        return solid_layers(
            (depth * known)[:, 0].cpu().numpy(),
            color,
            share[::2, 0].cpu().numpy(),
            outline.cpu().numpy(),
            canonical_camera(fine.shape[-1]),
        )
    normal = functional.normalize(values[:, 1:4], dim=1)
    return XRay((depth * inside)[:, 0].cpu().numpy(), normal.movedim(1, -1).cpu().numpy(), color)


def _pair(logit: Tensor) -> tuple[Tensor, bool]:
    """Make entering and leaving a closed object agree: each pair of layers shares its logit.

    logit (L, 1, S, S). Returns the logits and whether the object is closed; those of an object
    that is mostly open (a leaf, a sheet) are left as they are.
    """
    hit = logit > 0
    if hit[1].sum() < CLOSED_SHARE * hit[0].sum() or len(logit) % 2:
        return logit, False
    pairs = logit.unflatten(0, (-1, 2)).mean(dim=1)
    return pairs.repeat_interleave(2, dim=0), True
