"""X-Ray at the paper's scale, for checkpoints in the published format."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..camera import PUBLISHED_FOV_X
from ..canonical import FILL, Frame
from ..settings.base import setting
from ..settings.generate import GenerateSettings
from .system import Output, Published, System


@dataclass
class XRayPaperSettings(GenerateSettings):
    """How X-Ray at paper scale generates."""

    generator: str = setting("xray-paper", "What makes the mesh")
    steps: int = setting(0, "Sampling steps; 0 means 25", min=0, max=1000, on=25)
    batch_order: str = setting(
        "fixed",
        "How guided and unguided layers are put together",
        choices={
            "fixed": "Each guided layer with its own unguided one",
            "published": "Mixed up by a bug of diffusers 0.25, as in the published results",
        },
    )


# The camera of the published data; depths are not limited.
FRAME = Frame(1.2, PUBLISHED_FOV_X, FILL, near=0.1, far=math.inf)
# added_time_ids of the published pipeline: frames per second - 1, motion, noise on the image.
TIME_IDS = (6.0, 127.0, 0.0)

SYSTEM = System(
    name="xray-paper",
    label="X-Ray (paper scale)",
    about="The published X-Ray, from your own checkpoint and Stable Video Diffusion's encoders",
    paper="https://arxiv.org/abs/2404.14329",
    licence="none published; Stable Video Diffusion's encoders and SDXL's VAE to download",
    module="runtime.xray_paper",
    settings=XRayPaperSettings,
    outputs=frozenset({Output.XRAY}),
    frame=FRAME,
    weights=(
        # The image encoder, VAE, scheduler and feature extractor; its 3 GB network is not needed.
        Published(
            "svd",
            "stabilityai/stable-video-diffusion-img2vid",
            (
                "feature_extractor/preprocessor_config.json",
                "image_encoder/config.json",
                "image_encoder/model.fp16.safetensors",
                "scheduler/scheduler_config.json",
                "vae/config.json",
                "vae/diffusion_pytorch_model.fp16.safetensors",
            ),
            1_460_000_000,
            "Stability AI Community Licence (not free for every commercial use; must be accepted)",
            "https://huggingface.co/stabilityai/stable-video-diffusion-img2vid",
            ("svd", "stable-video-diffusion-img2vid", "stable-video-diffusion-img2vid-xt"),
        ),
        Published(
            "sdxl-vae",
            "madebyollin/sdxl-vae-fp16-fix",
            ("config.json", "diffusion_pytorch_model.safetensors"),
            335_000_000,
            "MIT",
            "https://huggingface.co/madebyollin/sdxl-vae-fp16-fix",
            ("sdxl_vae", "sdxl-vae", "sdxl-vae-fp16-fix"),
        ),
    ),
)
