"""Training data, the model, its training and its weights."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from runtime.meshes.collection import MeshCache, list_meshes
from runtime.training.views import to_frames
from runtime.xray.data import CastDataset, Variety, choose_object, is_one_color, new_shape
from runtime.xray.networks.base import Prediction, image_to_input
from runtime.xray.sampling import NOISES, both_ways, expected, mirrored, noised, sample
from runtime.xray.training import Trainer, TrainingConfig, losses, train
from runtime.xray.weights import FORMAT, load_weights, save_weights
from xray_addon import Surface, XRayError
from xray_addon.canonical import FOV_X
from xray_addon.progress import Cancelled
from xray_addon.published import frames_to_xray
from xray_addon.surface import Material


def dataset(meshes: Path, seed: int = 0, first_batch: int = 0) -> CastDataset:
    return CastDataset(
        list_meshes(meshes),
        seed=seed,
        layers=4,
        resolution=16,
        image_resolution=32,
        batch=2,
        first_batch=first_batch,
    )


def take(source, count: int) -> list[dict[str, torch.Tensor]]:
    samples = iter(source)
    return [next(samples) for _ in range(count)]


def same(a, b) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_samples_depend_on_seed_and_number_alone(meshes: Path):
    first, again = take(dataset(meshes), 6), take(dataset(meshes), 6)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    resumed = take(dataset(meshes, first_batch=2), 2)
    assert all(same(a, b) for a, b in zip(first[4:], resumed, strict=True))
    assert not same(first[0], take(dataset(meshes, seed=1), 1)[0])


def test_image_and_frames_show_the_same_object(meshes: Path):
    for item in take(dataset(meshes), 8):
        alpha = torch.nn.functional.avg_pool2d(item["image"][3:], 2)[0]
        hit = item["frames"][0, 7] > 0
        assert ((alpha > 0.5) == hit).float().mean() > 0.9
        assert item["image"].min() >= 0
        assert item["image"].max() <= 1


def test_the_second_of_a_pair_is_the_mirror_of_the_first(meshes: Path):
    left, right = take(dataset(meshes), 2)
    turned = right["frames"].flip(-1)
    assert torch.equal(turned[:, 0], left["frames"][:, 0])
    assert torch.equal(turned[:, 1], -left["frames"][:, 1])
    assert torch.equal(turned[:, 4:], left["frames"][:, 4:])
    assert torch.equal(mirrored(left["frames"][None])[0], right["frames"])
    alpha = left["image"][3], right["image"][3].flip(-1)
    assert (alpha[0] - alpha[1]).abs().max() < 1


def test_frames_decode_to_the_xray_they_were_made_from(meshes: Path):
    from xray_addon.canonical import FAR, NEAR, canonical_camera, place
    from xray_addon.casting import cast

    surface = MeshCache(list_meshes(meshes)).surface(0)
    matrix, _ = place(surface, 0.3, 0.2)
    xray = cast(surface.transformed(matrix), canonical_camera(16, 0.2), 4)
    again = frames_to_xray(to_frames(xray), near=NEAR, far=FAR, use_hit=True)
    np.testing.assert_array_equal(again.index, xray.index)
    np.testing.assert_allclose(again.hit_depth, xray.hit_depth, atol=1e-6)
    np.testing.assert_allclose(again.hit_normal, xray.hit_normal, atol=1e-6)
    np.testing.assert_allclose(again.hit_color, xray.hit_color, atol=1e-6)


def test_copies_of_one_object_count_as_one(tmp_path: Path, meshes: Path):
    rows = ["path,pack,geom_group,split"]
    for number in range(9):
        target = tmp_path / "pack" / f"copy{number}.glb"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((meshes / "ball.glb").read_bytes())
        rows.append(f"pack/copy{number}.glb,pack,same,train")
    (tmp_path / "pack/ring.glb").write_bytes((meshes / "ring.glb").read_bytes())
    rows.append("pack/ring.glb,pack,other,train")
    rows.append("pack/missing.glb,pack,third,val")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    files = list_meshes(tmp_path / "pack", split="train")
    assert len(files) == 10
    cache = MeshCache(files)
    random = np.random.default_rng(0)
    rings = sum(len(cache.draw(random).faces) == 16 * 8 * 2 for _ in range(400))
    assert 160 < rings < 240
    with pytest.raises(XRayError) as caught:
        list_meshes(tmp_path, split="train", exclude=("pack",))
    assert caught.value.code == "no_data"


def test_one_colour_is_told():
    square = Surface([[0, 0, 0], [1, 0, 0], [0, 1, 0.0]], [[0, 1, 2]])
    assert is_one_color(square)
    assert not is_one_color(replace(square, corner_colors=np.eye(3)[None]))
    texture = np.zeros((2, 2, 3), dtype=np.uint8)
    assert not is_one_color(replace(square, materials=[Material(texture=texture)]))
    assert is_one_color(replace(square, materials=[Material(base_color=(1.0, 0.0, 0.0))]))


def test_objects_of_one_colour_come_as_seldom_as_told(meshes: Path):
    cache = MeshCache(list_meshes(meshes)[:2])
    box = cache.surface(1)
    box.corner_colors = np.random.default_rng(0).random((len(box.faces), 3, 3))

    def plain(share: float) -> float:
        random = np.random.default_rng(0)
        return sum(choose_object(cache, random, share) == 0 for _ in range(600)) / 600

    assert plain(1.0) == pytest.approx(1 / 2, abs=0.05)
    assert plain(1 / 3) == pytest.approx(1 / 4, abs=0.05)


def test_losses_are_zero_for_the_truth_and_grow_with_each_error(meshes: Path):
    item = take(dataset(meshes), 1)[0]
    frames, pose = item["frames"][None], item["pose"][None, :2]
    truth = frames.clone()
    truth[:, :, 7] *= 50  # logits
    hit = frames[:, :, 7] > 0
    exact = losses(Prediction(truth, pose), frames, pose)
    assert all(float(term) < 1e-6 for term in exact.values())
    for channel, names in ((0, ["depth"]), (2, ["normal"]), (5, ["color"]), (7, ["hit"])):
        wrong = truth.clone()
        wrong[:, :, channel] = -wrong[:, :, channel] + 0.1
        terms = losses(Prediction(wrong, pose), frames, pose)
        assert [key for key, term in terms.items() if float(term) > 1e-3] == names
    # Where there is no hit, only the hit channel counts.
    free = truth + torch.tensor([9.0] * 7 + [0])[:, None, None] * ~hit[:, :, None]
    terms = losses(Prediction(free, pose), frames, pose)
    assert all(float(term) < 1e-6 for term in terms.values())


def test_a_model_learns_one_batch(config: TrainingConfig, meshes: Path):
    trainer = Trainer(config, "cpu")
    samples = take(dataset(meshes), 4)
    batch = {name: torch.stack([item[name] for item in samples]) for name in samples[0]}
    first = trainer.step(batch)
    for _ in range(40):
        last = trainer.step(batch)
    assert last["loss"] < 0.6 * first["loss"]


@pytest.mark.parametrize(
    "changes",
    [
        {"denoise_share": 0.5},
        {"network": "video", "fold": 1, "channels": (32, 32)},
    ],
    ids=["sampler", "video"],
)
def test_every_network_learns_is_kept_and_predicts(changes, config, meshes, tmp_path):
    trainer = Trainer(replace(config, **changes), "cpu")
    samples = take(dataset(meshes), 4)
    batch = {name: torch.stack([item[name] for item in samples]) for name in samples[0]}
    first = trainer.step(batch)
    for _ in range(15):
        last = trainer.step(batch)
    assert last["loss"] < 0.9 * first["loss"]
    trainer.save(tmp_path)
    model, _ = load_weights(tmp_path / "model.safetensors", "cpu")
    assert model.config == trainer.model.config
    random = torch.Generator().manual_seed(0)
    prediction = sample(model, image_to_input(batch["image"]), 2, random, start=0.6)
    assert prediction.frames.shape == batch["frames"].shape
    assert prediction.frames.isfinite().all()


def test_the_shipped_configurations_make_networks():
    folder = Path(__file__).parents[2] / "runtime/xray"
    files = sorted(folder.glob("configs/*.json"))
    assert {file.stem for file in files} >= {"stacked", "sampler", "video"}
    for file in (folder / "config.json", *files):
        TrainingConfig.read(file)


def test_a_run_measured_in_compute_ends_when_it_is_spent(config, meshes, tmp_path):
    trainer = train(replace(config, samples=10**6, compute_minutes=0.01), meshes, tmp_path)
    assert 0.6 <= trainer.compute_seconds < 6
    assert trainer.learning_rate() == pytest.approx(0.01 * config.learning_rate)


def test_all_processes_count_the_mean_of_their_computing_time(config, meshes, monkeypatch):
    """It sets the learning rate, with which they all have to take the same steps."""

    def average(tensors):
        if tensors[0].ndim == 0:
            tensors[0].fill_(30.0)

    monkeypatch.setattr("runtime.training.parallel.average", average)
    trainer = Trainer(replace(config, compute_minutes=2.0), "cpu")
    trainer.step(next(iter(DataLoader(dataset(meshes), batch_size=2))))
    assert trainer.done() == 0.25


def test_batches_do_not_depend_on_the_number_of_workers(meshes):
    def batches(workers: int, first: int) -> list[dict[str, torch.Tensor]]:
        loader = DataLoader(dataset(meshes, first_batch=first), batch_size=2, num_workers=workers)
        return take(loader, 3)

    for a, b in zip(batches(0, 3), batches(2, 3), strict=True):
        assert same(a, b)


def test_a_killed_run_resumes_where_it_was(config: TrainingConfig, meshes: Path, tmp_path: Path):
    whole = train(config, meshes, tmp_path / "whole")
    steps = 0
    real = Trainer.step

    def step(self, batch):
        nonlocal steps
        steps += 1
        if steps > 5:
            raise KeyboardInterrupt
        return real(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        with pytest.raises(KeyboardInterrupt):
            train(config, meshes, tmp_path / "cut")
    resumed = train(config, meshes, tmp_path / "cut", resume=True)
    assert resumed.samples == whole.samples == 40
    _, record = load_weights(tmp_path / "cut/model.safetensors", "cpu")
    assert record["trained_samples"] == 40
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_training_stops_when_told_and_leaves_a_checkpoint(config, meshes, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "log_steps", 1)

    def stop(_progress):
        raise Cancelled

    with pytest.raises(Cancelled):
        train(config, meshes, tmp_path, progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.pt",
        "metrics.jsonl",
        "model.safetensors",
        "tensorboard",
    ]
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["samples"] == 4
    assert {"loss", "depth", "hit"} <= line.keys()
    # Of the whole, of the steps and of the loader's workers: neither part is slower than both.
    assert 0 < line["rate"] <= min(line["model_rate"], line["data_rate"])
    [events] = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert all(name.encode() in content for name in line.keys() - {"samples", "seconds"})


def test_a_run_can_start_from_weights(config, meshes, tmp_path):
    save_weights(tmp_path / "w.safetensors", config.model(), {})
    warm = Trainer(replace(config, start_from=str(tmp_path / "w.safetensors")), "cpu")
    start, _ = load_weights(tmp_path / "w.safetensors", "cpu")
    for a, b in zip(warm.model.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert all(p.requires_grad for p in warm.model.parameters())
    assert warm.model.training


def test_a_run_of_which_only_the_weights_are_left_goes_on(config, meshes, tmp_path):
    config = replace(config, samples=16)
    train(replace(config, samples=8), meshes, tmp_path)
    (tmp_path / "checkpoint.pt").unlink()
    resumed = train(config, meshes, tmp_path, resume=True)
    assert resumed.samples == 16
    assert resumed.steps == 4
    _, record = load_weights(tmp_path / "model.safetensors", "cpu")
    assert record["warm_starts"] == 1
    assert record["trained_compute_seconds"] == round(resumed.compute_seconds)
    (tmp_path / "checkpoint.pt").unlink()
    with pytest.raises(XRayError) as caught:
        train(replace(config, channels=(32, 64)), meshes, tmp_path, resume=True)
    assert caught.value.code == "bad_checkpoint"


def test_a_run_is_not_overwritten(config, meshes, tmp_path):
    train(replace(config, samples=4), meshes, tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(XRayError, match="--resume"):
        train(config, meshes, tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_minutes_end_a_run_early(config, meshes, tmp_path):
    assert train(config, meshes, tmp_path, minutes=0.0).samples == config.batch


def test_resuming_nothing_or_another_model_is_an_error(config, meshes, tmp_path):
    with pytest.raises(XRayError) as caught:
        train(config, meshes, tmp_path / "none", resume=True)
    assert caught.value.code == "bad_checkpoint"
    train(replace(config, samples=4), meshes, tmp_path / "small")
    other = replace(config, channels=(32, 64))
    with pytest.raises(XRayError) as caught:
        train(other, meshes, tmp_path / "small", resume=True)
    assert caught.value.code == "bad_checkpoint"


def test_configurations_are_checked(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(asdict(TrainingConfig(batch=4))))
    assert TrainingConfig.read(path).batch == 4
    wrong = ('{"bach": 4}', '{"batch": 3}', '{"network": "none"}', '{"channels": [32]}')
    for content in ("", "[1]", *wrong):
        path.write_text(content)
        with pytest.raises(XRayError) as caught:
            TrainingConfig.read(path)
        assert caught.value.code == "bad_config"


@pytest.mark.parametrize(
    "changes", [{}, {"network": "video", "fold": 1, "channels": (32, 32)}], ids=["stacked", "video"]
)
def test_weights_come_back_nearly_the_same_with_their_record(changes, config, tmp_path):
    torch.manual_seed(0)
    model = replace(config, **changes).model().eval()
    with torch.no_grad():
        model.kernels()[0][0] = 0  # a channel that says nothing
    path = tmp_path / "w.safetensors"
    save_weights(path, model, {"samples": 7, "denoise_share": 0.0})
    again, record = load_weights(path, "cpu")
    assert record["samples"] == 7
    for kernel, kept in zip(model.kernels(), again.kernels(), strict=True):
        step = kernel.detach().flatten(1).abs().amax(dim=1) / 127
        off = (kernel - kept).detach().flatten(1).abs().amax(dim=1)
        assert (off <= 0.51 * step).all()
    kernels = {id(kernel) for kernel in model.kernels()}
    for other, kept in zip(model.parameters(), again.parameters(), strict=True):
        if id(other) not in kernels:
            torch.testing.assert_close(other, kept, rtol=1e-3, atol=1e-6)
    others = sum(p.numel() for p in model.parameters()) - sum(k.numel() for k in model.kernels())
    in_bytes = sum(k.numel() + 4 * len(k) for k in model.kernels())
    assert path.stat().st_size == pytest.approx(in_bytes + 2 * others, rel=0.05)  # and names
    # What was rounded once is not rounded again.
    save_weights(path, again, record)
    for a, b in zip(again.parameters(), load_weights(path, "cpu")[0].parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_weights_may_name_a_switch_that_is_gone_only_where_it_is_off(config, tmp_path):
    for value in (False, True):
        model = config.model()
        record = asdict(model.config) | {"gone": value}
        tensors = {name: tensor.half() for name, tensor in model.state_dict().items()}
        metadata = {"format": FORMAT, "config": json.dumps(record), "training": "{}"}
        save_file(tensors, tmp_path / f"{value}.safetensors", metadata)
    assert load_weights(tmp_path / "False.safetensors", "cpu")[0].config == config.network_config()
    with pytest.raises(XRayError, match="gone") as caught:
        load_weights(tmp_path / "True.safetensors", "cpu")
    assert caught.value.code == "bad_weights"


def test_files_that_are_no_weights_are_refused(config, tmp_path):
    save_weights(tmp_path / "w.safetensors", config.model(), {})
    content = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-100])
    (tmp_path / "text.safetensors").write_text("hello")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name in ("cut", "text", "other"):
        with pytest.raises(XRayError) as caught:
            load_weights(tmp_path / f"{name}.safetensors", "cpu")
        assert caught.value.code == "bad_weights"
    with pytest.raises(XRayError) as caught:
        load_weights(tmp_path / "none.safetensors", "cpu")
    assert caught.value.code == "missing_weights"
    with pytest.raises(XRayError, match="is a folder") as caught:
        load_weights(tmp_path, "cpu")  # as the other generators' checkpoints are
    assert caught.value.code == "bad_weights"


def test_only_what_is_hidden_is_noised():
    frames, noise = torch.rand(2, 4, 8, 2, 2), torch.rand(2, 4, 8, 2, 2)
    seen = noised(frames, noise, torch.tensor([0.0, 1.0]))
    assert torch.equal(seen[:, 0], frames[:, 0])
    assert torch.equal(seen[0, 1:], noise[0, 1:])
    assert torch.equal(seen[1], frames[1])


def test_a_mirrored_picture_gives_the_mirrored_prediction(config):
    torch.manual_seed(0)
    model = config.model().eval()
    torch.nn.init.normal_(model.frame_out.weight, std=0.1)  # zeros before training
    torch.nn.init.normal_(model.pose_out.weight, std=0.1)
    image, time = image_to_input(torch.rand(2, 4, 32, 32)), torch.tensor([0.3, 0.6])
    frames = torch.rand(2, *model.frame_shape)
    alone, both = model(image, frames, time), both_ways(model, image, frames, time)
    turned = both_ways(model, image.flip(-1), mirrored(frames), time)
    torch.testing.assert_close(turned.frames, mirrored(both.frames))
    torch.testing.assert_close(turned.pose, both.pose * torch.tensor([1.0, -1.0]))
    assert not torch.allclose(alone.frames, both.frames)
    torch.testing.assert_close(mirrored(mirrored(frames)), frames)


def test_sampling_is_reproducible_and_seeds_differ(config):
    torch.manual_seed(0)
    model = config.model().eval()
    torch.nn.init.normal_(model.frame_out.weight, std=0.1)  # zeros before training
    image = image_to_input(torch.rand(1, 4, 32, 32))

    def run(seed: int, steps: int) -> torch.Tensor:
        random = torch.Generator().manual_seed(seed)
        return sample(model, image, steps, random, start=0.6).frames

    assert torch.equal(run(0, 4), run(0, 4))
    assert not torch.equal(run(0, 4), run(1, 4))
    assert torch.equal(run(0, 4)[:, 0], run(1, 4)[:, 0])  # what is seen does not change
    assert torch.equal(run(0, 1), run(1, 1))


@torch.no_grad()
def test_what_is_expected_is_a_mean_given_what_is_seen(config):
    torch.manual_seed(0)
    model = config.model().eval()
    torch.nn.init.normal_(model.frame_out.weight, std=0.1)  # zeros before training
    images = image_to_input(torch.rand(2, 4, 32, 32))
    first, found = both_ways(model, images), expected(model, images)
    assert torch.equal(found.pose, first.pose)
    assert torch.equal(found.frames[:, 0], first.frames[:, 0])
    noise = torch.randn((NOISES, *model.frame_shape), generator=torch.Generator().manual_seed(0))
    for number, image in enumerate(images):
        given = noise.clone()
        given[:, 0] = first.clean()[number, 0]
        each = torch.stack(
            [both_ways(model, image[None], x[None], torch.zeros(1)).frames[0] for x in given]
        )
        torch.testing.assert_close(found.frames[number, 1:], each.mean(dim=0)[1:])
        assert each.std(dim=0)[1:].max() > 1e-3


def test_fewer_and_fewer_objects_are_stretched():
    random = np.random.default_rng(0)
    variety = Variety(stretch=0.2, pairs=100)
    for pair, share in ((0, 0.5), (50, 0.25), (100, 0)):
        shapes = np.array([new_shape(random, variety, pair) for _ in range(2000)])
        factors = np.log(shapes[:, range(3), range(3)])
        plain = (shapes == np.eye(4)).all(axis=(1, 2))
        assert plain.mean() == pytest.approx(1 - share, abs=0.05)
        if share:
            assert factors[~plain].std() == pytest.approx(0.2, abs=0.01)
    assert (new_shape(random, Variety(), 0) == np.eye(4)).all()


def test_a_negative_stretch_is_refused(config):
    with pytest.raises(ValueError, match="stretch must be"):
        replace(config, stretch=-0.1)


def test_a_rolled_camera_is_told_and_mirrored(meshes: Path):
    upright, leaning = (
        CastDataset(
            list_meshes(meshes),
            seed=3,
            layers=4,
            resolution=16,
            image_resolution=32,
            batch=2,
            variety=Variety(roll=roll),
        )
        for roll in (0.0, 0.1)
    )
    pair, rolled = list(upright.pair(0)), list(leaning.pair(0))
    assert [float(item["pose"][1]) for item in pair] == [0, 0]
    assert rolled[0]["pose"][1] == -rolled[1]["pose"][1] != 0
    assert rolled[0]["pose"][0] == pair[0]["pose"][0]


def test_far_cameras_show_the_same_object(meshes: Path):
    shape = {"seed": 3, "layers": 4, "resolution": 32, "image_resolution": 64, "batch": 2}
    near, far = (
        [
            next(CastDataset(list_meshes(meshes), variety=Variety(farthest=times), **shape).pair(n))
            for n in range(12)
        ]
        for times in (1.0, 6.0)
    )
    assert [float(item["pose"][2]) for item in near] == pytest.approx([FOV_X] * 12)
    fov = [float(item["pose"][2]) for item in far]
    assert min(fov) < FOV_X / 2
    assert 3 <= sum(each == pytest.approx(FOV_X) for each in fov) <= 9
    for item in far:
        # The depths are those of a near camera, in the middle of the frame.
        hit = item["frames"][0, 7] > 0
        assert item["frames"][0, 0][hit].abs().max() < 0.75
        alpha = torch.nn.functional.avg_pool2d(item["image"][3:], 2)[0]
        assert ((alpha > 0.5) == hit).float().mean() > 0.95


def test_training_starts_from_weights_of_another_resolution(config, tmp_path: Path):
    trainer = Trainer(config, "cpu")
    with torch.no_grad():
        for place in trainer.average.places:
            place.fill_(0.5)
    trainer.save(tmp_path)
    half = {
        "resolution": config.resolution // 2,
        "image_resolution": config.image_resolution // 2,
        "start_from": str(tmp_path / "model.safetensors"),
    }
    smaller = Trainer(replace(config, **half), "cpu").model
    assert smaller.config.resolution == config.resolution // 2
    assert smaller.places[0].shape[1] == trainer.model.places[0].shape[1] // 2
    torch.testing.assert_close(smaller.places[0], torch.full_like(smaller.places[0], 0.5))
    kept, _ = load_weights(tmp_path / "model.safetensors", "cpu")
    torch.testing.assert_close(smaller.image_in.weight, kept.image_in.weight)


def test_training_starts_from_weights_of_fewer_blocks(config, meshes, tmp_path: Path):
    """The network predicts the same as before, until its new blocks have learned."""
    model = config.model()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # some are zeros before training
    save_weights(tmp_path / "w.safetensors", model, {})
    start, _ = load_weights(tmp_path / "w.safetensors", "cpu")
    more = replace(config, blocks=(1, 3), start_from=str(tmp_path / "w.safetensors"))
    grown = Trainer(more, "cpu")
    assert len(list(grown.model.parameters())) > len(list(start.parameters()))
    picture = torch.rand(2, 4, config.image_resolution, config.image_resolution)
    before, now = start(picture), grown.model(picture)
    torch.testing.assert_close(now.frames, before.frames)
    torch.testing.assert_close(now.pose, before.pose)
    loader = DataLoader(grown.dataset(meshes), batch_size=config.batch)
    for _, batch in zip(range(2), loader, strict=False):
        grown.step(batch)
    assert all(block.second.weight.any() for block in grown.model.middle[1:-1:2])
    for name, value in (("blocks", (2, 1)), ("blocks", (1, 0)), ("channels", (32, 64))):
        with pytest.raises(XRayError, match=f"cannot start from .*{name} was ") as caught:
            Trainer(replace(more, **{name: value}), "cpu")
        assert caught.value.code == "bad_settings"


def test_only_what_the_lens_changes_is_trained(config, meshes, tmp_path: Path):
    """Images of the canonical camera give the same as before, others do not."""
    trainer = Trainer(config, "cpu")
    for weight in (*trainer.average.kernels(), trainer.average.frame_out.weight):
        torch.nn.init.normal_(weight, std=0.1)  # some are zeros before training
    trainer.save(tmp_path)
    start, _ = load_weights(tmp_path / "model.safetensors", "cpu")
    picture = torch.rand(2, 4, config.image_resolution, config.image_resolution)
    before = start(picture)
    start_from = {"start_from": str(tmp_path / "model.safetensors"), "lens": True}
    lens = replace(config, **start_from, farthest=4.0, only_lens=True)
    taught = Trainer(lens, "cpu")
    loader = DataLoader(taught.dataset(meshes), batch_size=lens.batch)
    for _, batch in zip(range(8), loader, strict=False):
        taught.step(batch)
    taught.save(tmp_path)
    model, _ = load_weights(tmp_path / "model.safetensors", "cpu")
    assert model.config.lens
    near, far = (model(picture, fov_x=torch.full((2,), FOV_X / times)) for times in (1, 4))
    for prediction in (model(picture), near):
        assert torch.equal(prediction.frames, before.frames)
        assert torch.equal(prediction.pose, before.pose)
    assert not torch.allclose(far.frames, before.frames)
    # A network that is not told the lens does not mind.
    assert torch.equal(start(picture, fov_x=torch.full((2,), 0.2)).frames, before.frames)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"farthest": 2.0}, "needs lens"),
        ({"lens": True, "only_lens": True}, "start_from"),
        ({"start_from": "a.safetensors", "only_lens": True}, "needs lens"),
        ({"lens": True, "network": "video"}, "only the stacked network"),
    ],
)
def test_settings_of_the_lens_that_do_not_fit(config, settings: dict, reason: str):
    with pytest.raises(ValueError, match=reason):
        replace(config, **settings)
