from itertools import islice
from typing import Any

import torch

from tips_dist.config import Configuration
from tips_dist.skeleton import MIRROR
from tips_dist.study_file import parse_study
from tips_dist.training.sampling import Batch, Sampler

POSES = torch.randn(100, 17, 2, generator=torch.Generator().manual_seed(0))
CPU = torch.device("cpu")


def configuration(**values: Any) -> Configuration:
    overrides = [f"{key.replace('__', '.')}={value}" for key, value in values.items()]
    text = "{name: a, representations: [solo], training: {batch_size: 16, steps: 20, evaluate_every: 10}}"
    return parse_study(text, "test", overrides).configuration("solo")


def draw(seeds: list[int], start: int, count: int, **values: Any) -> list[Batch]:
    return list(islice(Sampler(POSES, configuration(**values), CPU).batches(seeds, start), count))


def tensors(batch: Batch) -> list[torch.Tensor]:
    return [value for value in vars(batch).values() if value is not None]


def same(first: Batch, second: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))


def test_the_same_seed_and_step_draw_the_same_batch() -> None:
    assert same(draw([1, 2], 10, 1)[0], draw([1, 2], 10, 1)[0])
    assert not same(draw([1, 2], 10, 1)[0], draw([1, 2], 0, 1)[0])


def test_packing_changes_no_draw() -> None:
    packed, alone = (draw(seeds, 0, 2, training__instance_noise=0.1)[1] for seeds in ([3, 4, 5], [4]))
    assert all(torch.equal(a[1:2], b) for a, b in zip(tensors(packed), tensors(alone), strict=True))


def test_starting_in_the_middle_of_a_stretch_goes_on_with_the_same_batches() -> None:
    noisy = {"training__instance_noise": 0.1}
    assert same(draw([1], 0, 8, **noisy)[7], draw([1], 7, 1, **noisy)[0])


def test_a_stretch_ends_at_the_next_evaluation_step() -> None:
    assert len(draw([1], 0, 99)) == 10
    assert len(draw([1], 7, 99)) == 3


def test_flips_mirror_the_pose_and_relabel_its_sides() -> None:
    batch = draw([1], 0, 1, training__flip_probability=1.0)[0]
    mirrored = POSES[:, list(MIRROR)] * torch.tensor([-1.0, 1.0])
    assert all((mirrored == pose).all((1, 2)).any() for pose in batch.poses[0])


def test_swapped_labels_have_the_recipes_share() -> None:
    labels = torch.cat([batch.labels for batch in draw([1], 0, 10, losses__label_swap=0.1, training__batch_size=1000)])
    real, fake = labels.chunk(2, dim=1)
    assert abs((real == 0).float().mean() - 0.1) < 0.02
    assert abs((fake == 1).float().mean() - 0.1) < 0.02


def test_batch_rotation_is_one_angle_per_seed() -> None:
    views = draw([1, 2], 0, 1, training__rotation="batch")[0].views
    assert (views == views[:, :1]).all()
    assert not torch.equal(views[0], views[1])


def test_turns_are_quarter_and_half_turns() -> None:
    sampled, every = draw([1], 0, 1)[0].turns, draw([1], 0, 1, training__turns="all")[0].turns
    assert sampled.shape == (1, 1, 16, 3, 3)
    assert every.shape == (1, 3, 16, 3, 3)
    corners = {tuple(turn.round().int().flatten().tolist()) for turn in every.flatten(0, 2)}
    assert len(corners) == 3
    assert {tuple(turn.round().int().flatten().tolist()) for turn in sampled.flatten(0, 2)} == corners
    assert torch.allclose(every, every.round(), atol=1e-6)


def test_turns_of_every_second_pose_are_those_it_has_anyway_and_workers_share_them() -> None:
    whole = draw([1], 0, 1, training__turns="all")[0].turns
    some = draw([1], 0, 1, training__turns="all", training__turned_every=2)[0].turns
    assert torch.equal(some, whole[:, :, ::2])
    told = configuration(training__turns="all", training__turned_every=2)
    shares = [next(Sampler(POSES, told, CPU, rank, 2).batches([1], 0)).turns for rank in (0, 1)]
    assert torch.equal(torch.cat(shares, dim=2), some)


def test_instance_noise_falls_linearly_to_nothing_and_leaves_the_root() -> None:
    batches = [draw([1], start, 10, training__instance_noise=0.5, training__batch_size=256) for start in (0, 10)]
    noise = [batch.noise for stretch in batches for batch in stretch if batch.noise is not None]
    assert len(noise) == 20
    assert noise[0].shape == (1, 512, 17, 2)
    assert all((one[:, :, 0] == 0).all() for one in noise)
    for step in (0, 5, 19):  # in normalised 2D, a tenth of the root-to-head distance
        assert abs(float(noise[step][:, :, 1:].std()) - 0.05 * (1 - step / 20)) < 0.001
