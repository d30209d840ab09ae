"""A small model of Omages that learns eight objects by heart, and what fewer steps cost it.

Run by hand, in the runtime's environment:

    python tests/benchmarks/omages_small.py OUT [--minutes 70]

Trains both networks on omages of 16 x 16 pixels, for so many minutes each, and prints for each way
to sample: the Chamfer distance of the objects to those learned, from points to surfaces, with a
longest side of 1; and the mean error of albedo, metallic and roughness on the learned geometry.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import trimesh
from omages import Nearest, sampled

from runtime.meshes.unwrapping import unwrap_surface
from runtime.omages.generator import OmagesGenerator
from runtime.omages.training import TrainingConfig, train
from xray_addon.omage import Omage
from xray_addon.surface import Material, Surface

SIZE = 16
WEDGE = (
    [[0, 0, 0], [1.6, 0, 0], [1.6, 1, 0], [0, 1, 0], [0, 0.5, 1], [1.6, 0.5, 1]],
    [[0, 4, 5], [0, 5, 1], [2, 5, 4], [2, 4, 3], [0, 3, 4], [1, 5, 2], [0, 1, 2], [0, 2, 3]],
)
WAYS = (
    ("published, guidance 1, 250 / 1000 steps", {"guidance": 1.0}, {}),
    ("published, guidance 4, 250 / 100 steps", {}, {"steps": 100}),
    ("fast, guidance 1, 30 / 20 steps", {"fast": True, "guidance": 1.0}, {"fast": True}),
    ("fast, guidance 1, 15 / 10 steps", {"fast": True, "guidance": 1.0, "steps": 15},
     {"fast": True, "steps": 10}),
)  # fmt: skip


def objects() -> dict[str, Surface]:
    """A shape and a colour for each of eight categories."""
    make = trimesh.creation
    shapes = {
        "shelf": make.box((1, 0.4, 1.4)),
        "vase": make.cylinder(0.35, 1.2, sections=16),
        "lamp": make.cone(0.6, 1.2, sections=16),
        "ottoman": make.icosphere(2),
        "rug": make.box((1.6, 1.1, 0.05)),
        "bowl": make.torus(0.6, 0.22, 24, 12),
        "cup": make.annulus(0.3, 0.45, 0.8, sections=16),
        "tent": trimesh.Trimesh(*WEDGE),
    }
    colors = np.random.default_rng(0).uniform(0.1, 0.9, (len(shapes), 3)).tolist()
    return {
        name: Surface(
            np.asarray(shape.vertices, float),
            np.asarray(shape.faces),
            materials=[Material(base_color=(color[0], color[1], color[2]))],
        )
        for (name, shape), color in zip(shapes.items(), colors, strict=True)
    }


def decoded(omage: Omage) -> Surface:
    """With a longest side of about 1."""
    surface = omage.decode()
    return replace(surface, vertices=surface.vertices / 2)


def main() -> None:
    """Train and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=70.0)
    arguments = parser.parse_args()
    data = arguments.out / "data"
    learned = {}
    for name, surface in objects().items():
        fine, _ = Omage.encoded(surface, 16 * SIZE, smallest=SIZE, unwrap=unwrap_surface)
        learned[name] = fine.resized(SIZE)
        learned[name].save(data / name / "omage.npz")
    shared = {"size": SIZE, "batch": 16, "learning_rate": 1e-3, "final_rate": 0.02, "workers": 0}
    for part, samples, network in (
        ("geometry", 46_000, {"hidden": 96, "depth": 4, "heads": 4}),
        ("material", 100_000, {"channels": 32, "factors": [1, 2], "blocks": 1,
                               "attention": [False, True], "heads": 2}),
    ):  # fmt: skip
        config = TrainingConfig(part=part, samples=samples, network=network, **shared)
        folder = arguments.out / "weights" / part
        trainer = train(config, data, folder, minutes=arguments.minutes)
        print(f"{part}: {trainer.samples} samples in {trainer.seconds / 60:.1f} min")
    generator = OmagesGenerator(arguments.out / "weights", "cpu")
    for way, geometry, material in WAYS:
        began = time.process_time()
        distances, errors = [], []
        for name, omage in learned.items():
            made = decoded(Omage(generator.geometry(name, **geometry)))
            known = decoded(omage)
            there = Nearest(known)(sampled(made, seed=2)[0])[0].mean()
            back = Nearest(made)(sampled(known, seed=1)[0])[0].mean()
            distances.append((there + back) / 2)
            values = generator.material(omage.channels(0, 4), name, **material)
            error = np.abs(values - omage.channels(7, 12))[omage.occupied].mean(axis=0)
            errors.append([error[:3].mean(), error[3], error[4]])
        albedo, metallic, roughness = np.mean(errors, axis=0)
        print(
            f"{way}: CD {np.mean(distances):.4f}, worst {np.max(distances):.4f}; albedo "
            f"{albedo:.3f}, metallic {metallic:.3f}, roughness {roughness:.3f}; "
            f"{(time.process_time() - began) / len(learned):.1f} s of a core an object"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
