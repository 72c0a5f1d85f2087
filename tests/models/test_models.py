from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tips_dist import counters
from tips_dist.files import StorageError, UserError
from tips_dist.models import (
    Discriminator,
    Lifter,
    initialise,
    lifter_parameters,
    load_weights,
    matched_width,
    parameters_per_seed,
    save_weights,
    write_tensors,
)
from tips_dist.models.blocks import PackedDropout
from tips_dist.models.student import Student
from tips_dist.runfolder.records import Holder
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.training.sampling import stream


def built(name: str, seeds: list[int], **options: float) -> Lifter:
    lifter = Lifter(REPRESENTATIONS[name], 24, len(seeds), **options)  # type: ignore[arg-type]
    initialise(lifter, [stream(seed, "lifter") for seed in seeds])
    return lifter


@pytest.mark.parametrize("width", [64, 128, 256, 1024])
@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_representations_have_equal_parameters_within_two_percent(name: str, width: int) -> None:
    for multiple in (1, 8):
        count = lifter_parameters(name, matched_width(name, width, multiple))
        assert abs(count / lifter_parameters("solo", width) - 1) < 0.02


def test_matched_widths_are_multiples_of_8_where_2_percent_allow_it() -> None:
    for width in (64, 128, 256, 512, 1024):
        for name in ("solo", "torso_legs", "torso_legs_shared", "five_parts_shared", "left_right"):
            assert matched_width(name, width, 8) == width
    assert [matched_width("five_parts", width, 8) for width in (64, 128, 256, 1024)] == [70, 140, 280, 1120]
    assert [matched_width("left_right", width) for width in (64, 128, 1024)] == [63, 127, 1023]  # as runs before


def test_solo_at_the_papers_width_has_the_papers_parameters() -> None:
    assert lifter_parameters("solo", 1024) == pytest.approx(12.67e6, rel=0.005)
    assert lifter_parameters("torso_legs", 1024) == pytest.approx(12.68e6, rel=0.005)
    assert parameters_per_seed(Discriminator(1024, 3), 1) == pytest.approx(6.3e6, rel=0.01)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_the_analytic_count_is_the_real_one(name: str) -> None:
    assert parameters_per_seed(built(name, [0, 1]), 2) == lifter_parameters(name, 24)
    normalised = built(name, [0, 1], batch_norm=True)
    features = sum(buffer.numel() for key, buffer in normalised.named_buffers() if key.endswith("mean")) // 2
    assert parameters_per_seed(normalised, 2) == lifter_parameters(name, 24) + features


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_a_packed_seed_computes_what_it_computes_alone(name: str) -> None:
    poses = torch.randn(3, 8, 17, 2) * 0.1
    packed = built(name, [5, 6, 7])(poses)
    for row, seed in enumerate([5, 6, 7]):
        torch.testing.assert_close(packed[row : row + 1], built(name, [seed])(poses[row : row + 1]))


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_the_root_has_no_offset_and_every_other_joint_has_one(name: str) -> None:
    offsets = built(name, [0])(torch.randn(1, 8, 17, 2) * 0.1)
    assert (offsets[..., 0] == 0).all()
    assert (offsets[..., 1:].abs() > 0).all()


@pytest.mark.parametrize("name", [name for name in REPRESENTATIONS if REPRESENTATIONS[name].independent])
def test_independent_parts_do_not_see_other_joints(name: str) -> None:
    """The papers' point: the torso's depths cannot depend on the legs' keypoints."""
    poses = (torch.randn(1, 4, 17, 2) * 0.1).requires_grad_()
    offsets = built(name, [0])(poses)
    parts = REPRESENTATIONS[name].parts
    for joint in range(1, 17):
        (gradient,) = torch.autograd.grad(offsets[..., joint].sum(), poses, retain_graph=True)
        seen = {j for j in range(17) if gradient[0, :, j].abs().max() > 0}
        assert seen <= {j for part in parts if joint in part.joints for j in part.joints}


def test_shared_representations_see_the_whole_pose() -> None:
    poses = (torch.randn(1, 4, 17, 2) * 0.1).requires_grad_()
    (gradient,) = torch.autograd.grad(built("torso_legs_shared", [0])(poses)[..., 3].sum(), poses)
    assert (gradient.abs().amax((0, 1, 3)) > 0).all()


def test_batch_norm_statistics_belong_to_each_seed() -> None:
    lifter = built("solo", [0, 1], batch_norm=True)
    poses = torch.randn(2, 16, 17, 2) * 0.1
    poses[1] = torch.nan
    assert lifter(poses)[0].isfinite().all()
    lifter.eval()
    assert lifter(poses.nan_to_num())[0].isfinite().all()


def test_dropout_masks_come_from_each_seeds_own_stream() -> None:
    poses = torch.randn(1, 16, 17, 2).expand(2, -1, -1, -1) * 0.1

    def run(seeds: list[int], counted: bool, step: int = 0) -> torch.Tensor:
        lifter = built("torso_legs", seeds, dropout=0.5)
        if counted:
            lifter.take_keys(counters.at(counters.keys(seeds, "dropout", torch.device("cpu")), step))
        else:
            lifter.take_generators([stream(seed, "dropout", step) for seed in seeds])
        output: torch.Tensor = lifter(poses[: len(seeds)])
        return output

    for counted in (True, False):
        torch.testing.assert_close(run([3, 4], counted)[1:], run([4], counted))
        assert not torch.equal(run([4], counted), run([4], counted, step=1))


def test_counted_masks_differ_between_layers_and_calls_and_keep_their_share() -> None:
    lifter = built("solo", [0], dropout=0.25)
    layers = [layer for layer in lifter.modules() if isinstance(layer, PackedDropout)]
    lifter.take_keys(counters.keys([0], "dropout", torch.device("cpu")))
    ones = torch.ones(1, 512, 23)  # a width that fills no word
    masks = [layer(ones) > 0 for layer in (*layers[:2], layers[0])]
    for index, mask in enumerate(masks):
        assert mask.float().mean() == pytest.approx(0.75, abs=0.02)
        for other in masks[:index]:
            assert (mask == other).float().mean() == pytest.approx(0.75**2 + 0.25**2, abs=0.02)


def test_a_workers_share_of_the_counted_masks_is_its_part_of_the_whole() -> None:
    layer, keys = PackedDropout(0.5), counters.keys([0, 1], "dropout", torch.device("cpu"))

    def masks(rank: int, workers: int, size: int) -> torch.Tensor:
        layer.keys, layer.calls, layer.share = keys, 0, (rank, workers, size)
        features: torch.Tensor = layer(torch.ones(4, 3 * size, 10))  # three views of each pose
        return features > 0

    whole = masks(0, 1, 8).view(4, 3, 8, 10)
    for rank in range(2):
        assert torch.equal(masks(rank, 2, 4).view(4, 3, 4, 10), whole[:, :, 4 * rank : 4 * rank + 4])


@pytest.mark.parametrize("options", [{}, {"batch_norm": True}, {"dropout": 0.1}, {"batch_norm": True, "dropout": 0.1}])
def test_weights_round_trip_with_their_record(tmp_path: Path, options: dict[str, float]) -> None:
    lifter = built("five_parts", [0, 1], **options)
    save_weights(tmp_path / "w.safetensors", lifter, 1, {"scale": 100.0, "step": 7})
    loaded, record = load_weights(tmp_path / "w.safetensors")
    poses = torch.randn(2, 8, 17, 2) * 0.1
    assert record.step == 7
    torch.testing.assert_close(loaded(poses[1:]), lifter.eval()(poses)[1:])


def test_weights_that_had_biases_before_batch_norm_compute_the_same() -> None:
    lifter = built("torso_legs_shared", [0, 1], batch_norm=True).eval()
    poses = torch.randn(2, 8, 17, 2) * 0.1
    expected, tensors = lifter(poses), lifter.state_dict()
    for mean in [name for name in tensors if name.endswith("mean")]:
        stem, place = mean.removesuffix(".mean").rsplit(".", 1)
        tensors[f"{stem}.{int(place) - 1}.bias"] = bias = torch.randn_like(tensors[mean])
        tensors[mean] = tensors[mean] + bias
    lifter.load_state_dict(tensors)
    torch.testing.assert_close(lifter(poses), expected)


def test_a_full_disk_is_a_storage_error_and_keeps_the_old_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    write_tensors(path, {"a": torch.zeros(2)}, Holder(host="h", pid=1))
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write_tensors(path, {"a": torch.ones(2)}, Holder(host="h", pid=1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_and_foreign_weights_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(UserError, match="no such weights file"):
        load_weights(path)
    save_weights(path, built("solo", [0]), 0, {"scale": 1.0})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"w\.safetensors: not a safetensors file, or damaged"):
        load_weights(path)
    import safetensors.torch

    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="no tips-dist record"):
        load_weights(path)


def test_student_lifts_pixels_in_and_out(tmp_path: Path) -> None:
    save_weights(tmp_path / "s.safetensors", built("solo", [0]), 0, {"scale": 2000.0, "part_signs": [-1]})
    student = Student.load(tmp_path / "s.safetensors")
    poses = np.random.default_rng(0).normal(500, 100, (10, 17, 2))
    lifted = student.lift(poses, batch=3)
    assert lifted.shape == (10, 17, 3)
    assert (lifted[:, 0] == 0).all()
    np.testing.assert_allclose(lifted, student.lift(poses), rtol=1e-5, atol=1e-6)
    poses[4, 2, 1] = np.nan
    with pytest.raises(UserError, match="row 4 holds non-finite"):
        student.lift(poses)
    with pytest.raises(UserError, match=r"expected an array of shape \(N, 17, 2\)"):
        student.lift(poses[:, :3])
