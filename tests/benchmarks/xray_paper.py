"""How fast X-Ray at paper scale samples, beside the published pipeline run eagerly.

Run by hand in the runtime's environment; both sides have the same random weights and inputs:

    python tests/benchmarks/xray_paper.py                              # small, on the CPU
    python tests/benchmarks/xray_paper.py --size full --device cuda    # the published size

`published` is the pipeline step by step with diffusers' own classes: both halves of the guidance
in one batch, the scheduler's steps, no recording, no compiling. Times on the CPU are seconds of
processor time, which other programs disturb least; on CUDA they are wall-clock seconds. Peak memory
is the device's, CUDA only, and includes the other side's weights. `difference` is the greatest
one, as a share of the greatest value.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from functools import partial
from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from runtime.xray_paper import parts  # noqa: E402
from runtime.xray_paper.denoiser import Denoiser, faster_frames  # noqa: E402
from runtime.xray_paper.sampling import sample, set_steps  # noqa: E402
from xray_addon.systems.xray_paper import TIME_IDS  # noqa: E402

SMALL_UNET = parts.FULL_UNET | {
    "block_out_channels": [32, 64],
    "cross_attention_dim": 64,
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
    "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
    "num_attention_heads": [2, 4],
    "sample_size": 16,
}
SMALL_UPSAMPLER = parts.FULL_UPSAMPLER | {
    "block_out_channels": [32, 32, 64],
    "layers_per_block": 1,
}
SIZES = {
    "small": (SMALL_UNET, SMALL_UPSAMPLER),
    "full": (parts.FULL_UNET, parts.FULL_UPSAMPLER),
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}


def random_weights(model):
    """Weights with which every layer does something; diffusers' own start at no change."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_uniform_(parameter, a=2.5)
    return model.eval().requires_grad_(False)


def placed(model, device, dtype):
    model = copy.deepcopy(model).to(device)
    return model if dtype == torch.float32 else model.to(dtype)


@torch.no_grad()
def published(unet, scheduler, embedding, latents, noise, steps):
    """The published pipeline's loop."""
    set_steps(scheduler, steps, noise.device)
    dtype = unet.dtype
    frames = noise * scheduler.init_noise_sigma
    tokens = torch.cat([torch.zeros_like(embedding), embedding]).to(dtype)
    image = latents[:, None].repeat(1, noise.shape[1], 1, 1, 1)
    image = torch.cat([torch.zeros_like(image), image])
    ids = noise.new_tensor([TIME_IDS] * 2).to(dtype)
    guidance = torch.linspace(1, 3, noise.shape[1], device=noise.device).view(1, -1, 1, 1, 1)
    for moment in scheduler.timesteps:
        scaled = scheduler.scale_model_input(torch.cat([frames, frames]), moment)
        x = torch.cat([scaled, image], dim=2).to(dtype)
        output = unet(x, moment, encoder_hidden_states=tokens, added_time_ids=ids).sample
        without, given = output.float().chunk(2)
        guided = without + guidance * (given - without)
        frames = scheduler.step(guided, moment, frames).prev_sample
    return frames[0]


def timed(works, device, repeat):
    """Of each of `works`: result, least time in seconds, peak memory in GB. They take turns."""
    cuda = device == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    least, peak, results = [float("inf")] * len(works), [0.0] * len(works), [None] * len(works)
    for turn in range(repeat + 1):  # the first is to warm up
        for i, work in enumerate(works):
            if cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            start = clock()
            results[i] = work()
            if cuda:
                torch.cuda.synchronize()
                peak[i] = torch.cuda.max_memory_allocated() / 1e9
            if turn:
                least[i] = min(least[i], clock() - start)
    return list(zip(results, least, peak, strict=True))


def difference(got, want):
    return float((got.float() - want.float()).abs().max() / want.float().abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    device, steps, repeat = arguments.device, arguments.steps, arguments.repeat
    torch.set_flush_denormal(True)

    config, upsampler_config = SIZES[arguments.size]
    unet = random_weights(parts.new_unet(config))
    upsampler = random_weights(parts.make_upsampler(upsampler_config))
    size, factor = config["sample_size"], 2 ** (len(upsampler_config["block_out_channels"]) - 1)
    random = torch.Generator().manual_seed(0)
    embedding = torch.randn(1, 1, config["cross_attention_dim"], generator=random).to(device)
    latents = torch.randn(1, 4, size, size, generator=random).to(device)
    noise = torch.randn(1, 8, 8, size, size, generator=random).to(device)
    low = torch.randn(8, 12, size, size, generator=random).to(device)
    # The published size with its half-precision weights; the CPU only knows single precision.
    precisions = [torch.float32] + [torch.float16] * (device == "cuda")
    name = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"{torch.get_num_threads()} CPU threads"
    )
    print(f"{arguments.size}, {steps} steps, {name}, torch {torch.__version__}")
    print(f"{'':26}{'published':>22}{'X-Ray':>22}{'ratio':>8}{'difference':>12}")
    for dtype in precisions:
        kind = str(dtype).removeprefix("torch.")
        plain = placed(unet, device, dtype)
        fast = Denoiser(placed(unet, device, dtype))
        scheduler = EulerDiscreteScheduler(**SCHEDULER)
        inputs = (scheduler, embedding, latents, noise)
        works = (
            lambda m=plain, i=inputs: published(m, *i, steps),
            lambda d=fast, i=inputs: sample(d, *i, steps=steps),
        )
        report(f"{steps} steps, {kind}", *timed(works, device, repeat))
        del plain, fast, works
        plain, fast = placed(upsampler, device, dtype), placed(upsampler, device, dtype)
        faster_frames(fast)
        x, indicator = low.to(dtype), torch.zeros(1, 8, device=device, dtype=dtype)

        def enlarge(model, x=x, indicator=indicator):
            with torch.no_grad():
                return model(x, indicator, num_frames=8)

        works = (partial(enlarge, plain), partial(enlarge, fast))
        report(f"upsampler to {size * factor}, {kind}", *timed(works, device, repeat))


def report(name, theirs, ours):
    cells = "".join(
        f"{seconds:10.3f} s " + (f"{memory:6.2f} GB" if memory else 9 * " ")
        for _, seconds, memory in (theirs, ours)
    )
    print(
        f"{name:26}{cells}{theirs[1] / ours[1]:8.2f}{difference(ours[0], theirs[0]):12.1e}",
        flush=True,
    )


if __name__ == "__main__":
    main()
