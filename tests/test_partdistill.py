"""PartDistill: the student, units read and made, the losses by hand, and made lamps that teach more than their teacher knows."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lamps import lamp, taught_lamp, view_of, write_units

from evaluate.part_segmentation import part_ious
from trainer.chance import Stream, permutation
from trainer.partdistill.distill import (
    PAPER,
    RELEASED,
    Augment,
    Distillation,
    Settings,
    align,
    augmented,
    believed,
    distill,
    logits_of,
    parts_of,
    some_points,
    turns,
)
from trainer.partdistill.losses import class_weights, distillation, rescored
from trainer.partdistill.student import Blocks, Student, StudentConfig, far_apart, interpolated, official
from trainer.partdistill.units import Box, Units, collated, integrated, labels, listed, of_boxes, of_probabilities, read

TINY = StudentConfig(
    parts=2, groups=(24, 12, 6), group_sizes=(6, 4, 4), widths=(12, 24, 48), depths=(1, 1, 1), radii=(0.32, 0.64, 1.28), heads=2
)


def student_of(config=TINY, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Student(config)


def parameters(module):
    return sum(one.numel() for one in module.parameters())


# The student


def test_the_published_sizes():
    student = Student(StudentConfig(parts=5))
    assert student.config.channels == 681
    assert parameters(student.extractor) == pytest.approx(12.65e6, abs=5e3)
    assert parameters(student) - parameters(student.extractor) == 3 * 681 * 682 + 5 * 682  # 1.39 M + 682 R
    assert sum(one.numel() for one in student.head_parameters()) == 3 * 681 * 682 + 5 * 682


def test_the_encoder_never_moves():
    student = student_of().train()
    before = {name: value.clone() for name, value in student.extractor.state_dict().items()}
    xyz = torch.randn(2, 64, 3, generator=torch.Generator().manual_seed(1)) / 3
    trained = student(xyz)
    trained.sum().backward()
    assert student.training and not any(module.training for module in student.extractor.modules())
    assert torch.equal(trained, student.eval()(xyz))
    assert all(torch.equal(value, before[name]) for name, value in student.extractor.state_dict().items())
    assert all(one.grad is None for one in student.extractor.parameters())
    assert all(one.grad is not None for one in student.head_parameters())


def test_a_shape_does_not_depend_on_its_batch():
    xyz = torch.rand(3, 80, 3, generator=torch.Generator().manual_seed(2)) - 0.5
    student = student_of()
    assert torch.allclose(student(xyz)[1], student(xyz[1:2])[0], atol=1e-6)


def test_points_near_the_origin_are_no_centres():
    xyz = torch.nn.functional.normalize(torch.randn(1, 40, 3, generator=torch.Generator().manual_seed(3)), dim=2)
    xyz[0, 10:20] *= 1e-3  # in the middle of the others, and soon the farthest from those that are taken
    for centers, _ in student_of().extractor.h_encoder(xyz):
        assert (centers[0, 1:].square().sum(1) > 1e-3).all()


def test_centres_attend_to_those_within_the_radius_alone():
    centers = torch.tensor([[[0.0, 0, 0], [0.3, 0, 0], [0.5, 0, 0], [2.0, 0, 0]]])
    far = far_apart(centers, 0.5)
    assert far[0].int().tolist() == [[0, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0]]  # at the radius: apart
    blocks = Blocks(12, 1, TINY)
    tokens = torch.randn(1, 4, 12, generator=torch.Generator().manual_seed(4))
    changed = tokens.clone()
    changed[0, 3] += 1
    here, there = (blocks(one, torch.zeros_like(one), far) for one in (tokens, changed))
    assert torch.equal(here[0, :3], there[0, :3]) and not torch.equal(here[0, 3], there[0, 3])


def test_positions_are_given_to_every_block():
    blocks = Blocks(12, 3, TINY)
    given = []
    for block in blocks.blocks:
        block.register_forward_hook(lambda module, inputs, output: given.append((inputs[0], output)))
    chance = torch.Generator().manual_seed(5)
    tokens, positions = torch.randn(1, 4, 12, generator=chance), torch.randn(1, 4, 12, generator=chance)
    blocks(tokens, positions, torch.zeros(1, 4, 4, dtype=torch.bool))
    came = [tokens, *(after for _, after in given)]
    assert all(torch.equal(before, out + positions) for (before, _), out in zip(given, came, strict=False))


def test_interpolation_by_inverse_squared_distance():
    centers = torch.tensor([[[0.0, 0, 0], [3.0, 0, 0], [0, 2.0, 0], [9.0, 9.0, 9.0]]])
    tokens = torch.tensor([[[1.0], [10.0], [100.0], [1e6]]])
    at = torch.tensor([[[1.0, 0, 0], [0.0, 0, 0]]])
    weights = np.array([1, 1 / 4, 1 / 5])  # squared distances 1, 4, 5; the fourth centre is not one of three
    expected = (weights * [1, 10, 100]).sum() / weights.sum()
    assert interpolated(at, centers, tokens)[0, :, 0].tolist() == [pytest.approx(expected), pytest.approx(1, abs=1e-5)]


def test_an_official_encoder_is_taken_and_the_head_left_alone():
    taken, from_ = student_of(seed=1), student_of(seed=2)
    head = taken.fc1.weight.clone()
    file = {
        "base_model": {
            **{f"module.{key}": value for key, value in from_.extractor.state_dict().items()},
            "module.mask_token": torch.zeros(1, 1, 48),
            "module.h_decoder.0.blocks.0.norm1.weight": torch.ones(48),
        },
        "epoch": 300,
    }
    taken.load_official(file)
    assert all(torch.equal(value, taken.state_dict()[key]) for key, value in from_.state_dict().items() if "extractor" in key)
    assert torch.equal(taken.fc1.weight, head)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_saved_student_is_taken_whole(prefix):
    taken, from_ = student_of(seed=1), student_of(seed=2)
    state = from_.state_dict() | {
        "extractor.propagations.0.mlp_convs.0.weight": torch.ones(1),
        "extractor.convs1.bias": torch.ones(1),
    }
    state |= {"extractor.bns1.weight": torch.ones(1), "extractor.label_conv.0.weight": torch.ones(1)}
    file = {"model_state_dict": {prefix + key: value for key, value in state.items()}}
    taken.load_official(file)
    assert all(torch.equal(value, taken.state_dict()[key]) for key, value in from_.state_dict().items())
    assert official(file).keys() == from_.state_dict().keys()


@pytest.mark.parametrize("change", [{"extractor.new": torch.ones(1)}, {"fc1.weight": None}])
def test_keys_too_many_or_too_few_are_refused(change):
    state = {key: value for key, value in (student_of().state_dict() | change).items() if value is not None}
    with pytest.raises(RuntimeError, match=next(iter(change))):
        student_of().load_official({"model_state_dict": state})


# The losses

LOGITS = torch.log(torch.tensor([[[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5], [0.6, 0.2, 0.2]]]))
PART = torch.tensor([[0, 1, 2]])
SCORE = torch.tensor([[[0.9, 0.5, 0.0], [0.0, 0.4, 0.0], [0.0, 0.0, 0.7], [0.0, 0.0, 0.0]]])


def test_per_point_and_per_unit_by_hand():
    first, second, third, fourth = -0.9 * math.log(0.5), -0.5 * math.log(0.3), -0.4 * math.log(0.8), -0.7 * math.log(0.5)
    covered = SCORE > 0
    per_point = distillation(LOGITS, PART, covered, SCORE, form="per point")
    assert float(per_point) == pytest.approx(((first + second) / 2 + third + fourth + 0) / 4)
    per_unit = distillation(LOGITS, PART, covered, SCORE, form="per unit")
    assert float(per_unit) == pytest.approx(first + (second + third) / 2 + fourth)
    weights = torch.tensor([2.0, 3.0, 5.0])
    weighted = distillation(LOGITS, PART, covered, SCORE, weights, "per point")
    assert float(weighted) == pytest.approx(((2 * first + 3 * second) / 2 + 3 * third + 5 * fourth + 0) / 4)


@pytest.mark.parametrize("form", ["per point", "per unit"])
def test_units_that_cover_nothing_change_nothing(form):
    padded = torch.nn.functional.pad(SCORE, (0, 2))
    part = torch.nn.functional.pad(PART, (0, 2))
    whole = distillation(LOGITS, PART, SCORE > 0, SCORE, form=form)
    assert torch.equal(whole, distillation(LOGITS, part, padded > 0, padded, form=form))
    assert torch.equal(class_weights(PART, SCORE > 0, 3, "log"), class_weights(part, padded > 0, 3, "log"))


def test_no_unit_believed_is_still_covered():
    """In backward distillation a unit may score 0 where it covers a point: it counts among the units of that point."""
    believed = torch.tensor([[[0.5, 0.0, 1.0]]])
    loss = distillation(LOGITS, PART, SCORE > 0, believed)
    assert float(loss) == pytest.approx((-0.5 * math.log(0.5) / 2 - math.log(0.5)) / 4)


def test_weights_of_parts_by_their_logarithm():
    covered = torch.ones(1, 64, 4, dtype=torch.bool)
    weights = class_weights(torch.tensor([[0, 0, 0, 1]]), covered, 4, "log")
    # a part in four of which has every pair: 1/3 and 1 of the mean count; the last two have none
    assert weights.tolist() == pytest.approx([1, 1, 4, 4])
    rare = covered.clone()
    rare[0, 8:, 3] = False
    count = torch.tensor([192.0, 8.0])
    expected = (200 / (count * 4)).log() / math.log(4) + 1
    assert class_weights(torch.tensor([[0, 0, 0, 1]]), rare, 4, "log").tolist() == pytest.approx(
        [1, float(expected[1].clamp(1, 4)), 4, 4]
    )


def test_weights_of_parts_by_their_effective_number():
    covered = torch.ones(1, 64, 3, dtype=torch.bool)
    weights = class_weights(torch.tensor([[0, 0, 2]]), covered, 3, "effective number")
    ratio = (1 - 0.9999**128) / (1 - 0.9999**64)
    assert weights[1] == 0  # no pair: no weight, and no NaN
    assert float(weights[2] / weights[0]) == pytest.approx(ratio, rel=1e-3)
    assert float(weights.sum()) == pytest.approx(2)  # as many as have pairs
    everything = class_weights(torch.tensor([[0, 1, 2]]), covered, 3, "effective number")
    assert everything.tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("rule", ["log", "effective number"])
def test_a_batch_without_votes_has_finite_weights(rule):
    assert class_weights(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 8, 1, dtype=torch.bool), 3, rule).isfinite().all()


def test_units_are_scored_by_the_student():
    covered = torch.tensor([[[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]], dtype=torch.bool)
    agreement = rescored(torch.tensor([[0, 0, 1, 2]]), torch.tensor([[0, 1, 1]]), covered)
    assert agreement.tolist() == [[0.5, 0.5, 0.0]]


# Units


def test_the_released_format(tmp_path):
    file = tmp_path / "03636649" / "abc" / "extracted" / "preprocess.h5"
    probability = np.zeros((4, 2, 3), np.float32)
    probability[0, 0] = [0.7, 0.2, 0.1]
    probability[3, 1] = [0.1, 0.3, 0.6]
    write_units(file, [0, 2], probability, np.array([24, 25, 26, 27]))
    units = read(file)
    assert units.part.tolist() == [0, 2]
    assert np.array_equal(units.score, np.float32([[0.7, 0], [0, 0], [0, 0], [0, 0.6]]))
    assert np.array_equal(units.xyz, np.arange(12).reshape(4, 3))
    assert labels(file, 24).tolist() == [0, 1, 2, 3]
    assert listed(tmp_path, ["shape_data/03636649/abc", "shape_data/02691156/def"], "03636649") == [file]
    with pytest.raises(ValueError, match="1 of 2 shapes of 03636649 have no units, the first .*xyz"):
        listed(tmp_path, ["shape_data/03636649/abc", "shape_data/03636649/xyz"], "03636649")


def test_a_shape_without_predictions_has_no_units(tmp_path):
    write_units(tmp_path / "one" / "preprocess.h5", [], np.zeros((4, 0, 3), np.float32), np.zeros(4))
    units = read(tmp_path / "one" / "preprocess.h5")
    assert (units.part.shape, units.score.shape) == ((0,), (4, 0))
    with pytest.raises(ValueError, match="no shape has units"):
        distill(student_of(), [units], Settings(), torch.Generator())
    with pytest.raises(ValueError, match="the shape has no units"):
        align(student_of(), units, Settings())


def test_units_are_padded_with_such_as_cover_nothing():
    few = Units(np.zeros((2, 3), np.float32), np.array([1]), np.float32([[0.5], [0]]))
    many = Units(np.ones((2, 3), np.float32), np.array([1, 0, 2]), np.full((2, 3), 0.25, np.float32))
    batch = collated([few, many])
    assert batch.part.tolist() == [[1, 0, 0], [1, 0, 2]]
    assert batch.covered.int().tolist() == [[[1, 0, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]]
    assert batch.xyz.shape == (2, 2, 3)


def test_a_unit_per_box_of_the_points_seen_in_it():
    view = view_of(3, np.ones((4, 5)), seen=[1, 2, 4, 6], pixels=[0 * 5 + 0, 1 * 5 + 2, 1 * 5 + 3, 3 * 5 + 4])
    other = view_of(4, np.ones((4, 5)), seen=[0], pixels=[7])
    boxes = [
        Box(3, (0.0, 0.0, 3.0, 2.0), part=1, score=0.75),
        Box(3, (2.5, 1.5, 3.4, 1.6), part=0, score=0.5),  # a pixel's centre, not the pixel, must be in the box
        Box(3, (0.0, 2.0, 4.0, 4.0), part=0, score=0.5),  # nothing is seen in it
        Box(4, (2.0, 1.0, 3.0, 2.0), part=1, score=0.25),
    ]
    units = of_boxes(np.zeros((7, 3)), [view, other], boxes)
    assert units.part.tolist() == [1, 0, 1]
    assert [np.flatnonzero(of_unit).tolist() for of_unit in units.score.T] == [[1, 2], [2], [0]]
    assert units.score.max(axis=0).tolist() == [0.75, 0.5, 0.25]


def test_a_unit_per_patch_of_the_same_part():
    likeliest = np.array(
        [
            [0, 1, 1, 1, 0],
            [1, 0, 1, 1, 0],
            [1, 1, 1, 1, 0],
        ]
    )
    probability = np.where(likeliest[..., None] == [0, 1], 0.5, 0.25) + np.arange(15).reshape(3, 5, 1) / 100
    depth = np.ones((3, 5))
    depth[:, 3] = np.nan  # the background between the object's two halves
    view = view_of(0, depth, seen=[0, 1, 2, 3, 4, 5], pixels=[0, 6, 1, 12, 8, 9])
    units = of_probabilities(np.zeros((6, 3)), [view, view_of(1, depth, [0], [0])], {0: probability})
    # part 0: pixels that touch at a corner, and the right edge; part 1: one patch; the point in the background is in none
    assert units.part.tolist() == [0, 0, 1]
    assert [np.flatnonzero(of_unit).tolist() for of_unit in units.score.T] == [[0, 1], [5], [2, 3]]
    assert units.score[[0, 1, 2, 3, 5], [0, 0, 2, 2, 1]] == pytest.approx([0.5, 0.56, 0.51, 0.62, 0.59])


def test_a_view_that_shows_no_point_has_no_units():
    units = of_boxes(np.zeros((2, 3)), [view_of(0, np.ones((2, 2)), [], [])], [Box(0, (0.0, 0.0, 2.0, 2.0), 0, 1.0)])
    assert (units.part.shape, units.score.shape) == ((0,), (2, 0))


# Made lamps


def mean_iou(predicted, truth):
    return np.mean([part_ious(np.asarray(ours), theirs, 2).mean() for ours, theirs in zip(predicted, truth, strict=True)])


FEW = replace(RELEASED, points=192, epochs=12, batch=4, rate=0.01, window=3)


@pytest.fixture(scope="module")
def lamps():
    chance = np.random.default_rng(0)
    return [taught_lamp(chance) for _ in range(16)]


@pytest.fixture(scope="module")
def distilled(lamps):
    student = student_of()
    epochs = distill(student, [units for units, _, _ in lamps], FEW, torch.Generator().manual_seed(0))
    return student, epochs


def test_the_student_knows_more_than_its_teacher(lamps, distilled):
    student, epochs = distilled
    truth = [part for _, part, _ in lamps]
    teacher = mean_iou([integrated(units, 2).argmax(axis=1) for units, _, _ in lamps], truth)
    pupil = mean_iou([logits_of(student, units.xyz).argmax(1) for units, _, _ in lamps], truth)
    chance = np.random.default_rng(99)
    new = [lamp(chance) for _ in range(8)]
    on_new = mean_iou([logits_of(student, xyz).argmax(1) for xyz, _ in new], [part for _, part in new])
    print(f"mIoU: teacher {teacher:.3f}, student {pupil:.3f}, on new lamps {on_new:.3f}; {epochs}")
    assert teacher < 0.5 and min(pupil, on_new) > 0.7
    start = [epoch.backward for epoch in epochs].index(True)
    assert start > FEW.window and all(epoch.backward for epoch in epochs[start:])
    assert epochs[start - 1].loss < epochs[0].loss


def test_backward_distillation_is_what_makes_it_better(lamps, distilled):
    truth = [part for _, part, _ in lamps]
    student = student_of()
    epochs = distill(
        student, [units for units, _, _ in lamps], replace(FEW, backward="never", epochs=8), torch.Generator().manual_seed(0)
    )
    assert not any(epoch.backward for epoch in epochs)
    forward, backward = (
        mean_iou([logits_of(one, units.xyz).argmax(1) for units, _, _ in lamps], truth) for one in (student, distilled[0])
    )
    print(f"mIoU: forward alone {forward:.3f}, then backward {backward:.3f}")
    assert backward > forward + 0.1


def test_backward_distillation_believes_bad_units_less(lamps, distilled):
    student, _ = distilled
    good, bad, teacher_bad = [], [], []
    for units, _, right in lamps:
        belief = believed(student, units).numpy()
        good += belief[right].tolist()
        bad += belief[~right].tolist()
        teacher_bad += units.score.max(axis=0)[~right].tolist()
    print(f"belief in good units {np.mean(good):.2f}, in bad ones {np.mean(bad):.2f} (teacher: {np.mean(teacher_bad):.2f})")
    assert len(bad) > 5 and np.mean(bad) < 0.4 * np.mean(teacher_bad)
    assert np.mean(good) > 2 * np.mean(bad)


def test_the_students_agreement_takes_the_place_of_the_teachers_scores(lamps):
    """A teacher that is half as sure of everything is listened to half as much, until backward distillation starts."""
    still = replace(FEW, rate=0.0, epochs=3, window=1, threshold=math.inf)  # starts after two epochs of a student that never learns
    shapes = [units for units, _, _ in lamps[:4]]
    unsure = [replace(units, score=units.score / 2) for units in shapes]
    sure, half = (
        [epoch.loss for epoch in distill(student_of(), some, still, torch.Generator().manual_seed(0))] for some in (shapes, unsure)
    )
    assert [b / a for a, b in zip(sure, half, strict=True)] == pytest.approx([0.5, 0.5, 1.0])
    aligned = [align(student_of(), some[0], FEW, forward_steps=0, backward_steps=2) for some in (shapes, unsure)]
    assert torch.equal(aligned[0].fc4.weight, aligned[1].fc4.weight)


@pytest.mark.parametrize("training", [True, False])
def test_asking_a_student_leaves_its_mode(training, lamps):
    student = student_of().train(training)
    logits_of(student, lamps[0][0].xyz)
    assert student.training is training


@pytest.mark.parametrize("moved", [lambda xyz: xyz * 7 + 3, lambda xyz: xyz / 50 - 2])
def test_units_are_scored_on_points_prepared_as_in_training(lamps, distilled, moved):
    student, _ = distilled
    units, _, _ = lamps[0]
    elsewhere = replace(units, xyz=moved(units.xyz))
    assert torch.equal(believed(student, units) > 0.5, believed(student, elsewhere) > 0.5)
    agree = logits_of(student, units.xyz).argmax(1) == logits_of(student, elsewhere.xyz).argmax(1)
    assert agree.float().mean() > 0.98


def test_equation_3_teaches_as_well(lamps):
    settings = replace(FEW, form="per unit", weights="effective number", rate=0.003)
    student = student_of()
    distill(student, [units for units, _, _ in lamps], settings, torch.Generator().manual_seed(0))
    pupil = mean_iou([logits_of(student, units.xyz).argmax(1) for units, _, _ in lamps], [part for _, part, _ in lamps])
    teacher = mean_iou([integrated(units, 2).argmax(axis=1) for units, _, _ in lamps], [part for _, part, _ in lamps])
    print(f"mIoU: teacher {teacher:.3f}, student {pupil:.3f}")
    assert pupil > teacher + 0.2


def test_the_same_chance_gives_the_same_student(lamps):
    shapes = [units for units, _, _ in lamps[:4]]
    settings = replace(FEW, epochs=2, batch=2)
    losses = [
        [epoch.loss for epoch in distill(student_of(), shapes, settings, torch.Generator().manual_seed(seed))] for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_every_epoch_trains_and_the_mode_is_left_as_it_was(lamps):
    student, modes = student_of().eval(), []
    student.fc1.register_forward_hook(lambda *_: modes.append(student.training))

    def after_epoch(epoch):
        assert not student.training
        logits_of(student, lamps[0][0].xyz)

    distill(student, [lamps[0][0]], replace(FEW, epochs=3), torch.Generator().manual_seed(0), after_epoch)
    assert modes == [True, False] * 3 and not student.training


def test_one_shape_alone_teaches_a_head(lamps, distilled):
    """Test-time alignment: a head that knows nothing, and one that knows lamps."""
    units, part, _ = lamps[1]
    for student in (student_of(), distilled[0]):
        before = {name: value.clone() for name, value in student.state_dict().items()}
        aligned = align(student, units, FEW)
        assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
        assert all(torch.equal(value, before[name]) for name, value in aligned.state_dict().items() if "extractor" in name)
        teacher = mean_iou([integrated(units, 2).argmax(axis=1)], [part])
        iou = mean_iou([logits_of(aligned, units.xyz).argmax(1)], [part])
        print(f"mIoU of one lamp: teacher {teacher:.3f}, aligned {iou:.3f}")
        assert iou > teacher
        again = align(student, units, FEW)
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in aligned.state_dict().items())


# Going on, choosing, asking


@pytest.mark.parametrize("stop", [1, 3])
def test_what_is_kept_of_an_epoch_is_all_that_the_next_one_needs(lamps, stop):
    """Stopped before backward distillation begins, and while it lasts."""
    settings = replace(FEW, epochs=4, window=1, threshold=math.inf)  # begins with the third epoch
    shapes = [units for units, _, _ in lamps[:4]]
    whole, stopped = (Distillation(student_of(), shapes, settings, torch.Generator().manual_seed(0)) for _ in range(2))
    for one in (whole, stopped):
        for _ in range(stop):
            one.epoch()
        with torch.no_grad():
            one.student.fc4.weight.neg_(), one.student.fc4.bias.neg_()  # says the other part of each point
    if stop == 3:  # so what is believed cannot be found again from the student
        assert not any(torch.equal(mine, believed(whole.student, shape)) for mine, shape in zip(whole.beliefs, shapes, strict=True))
    again = Distillation(student_of(), shapes, settings, torch.Generator())
    again.load(stopped.state())
    while not whole.finished:
        assert whole.epoch() == again.epoch()
    assert again.finished and [epoch.backward for epoch in again.done] == [False, False, True, True]
    assert all(torch.equal(value, again.student.state_dict()[name]) for name, value in whole.student.state_dict().items())


def test_backward_distillation_starts_from_the_best_if_there_is_a_judge(lamps):
    """The figure falls from epoch to epoch: the third begins with the first student, and that is the result."""
    settings = replace(FEW, epochs=3, window=1, threshold=math.inf)
    shapes, seen = [units for units, _, _ in lamps[:4]], []

    def figure(student):
        with torch.no_grad():  # the first says that all is one part, the second that all is the other
            student.fc4.bias[:] = torch.tensor([1e3, 0.0]).roll(len(seen))
        seen.append({name: value.clone() for name, value in student.state_dict().items()})
        return -len(seen)

    taught = Distillation(student_of(), shapes, settings, torch.Generator().manual_seed(0), figure)
    for _ in range(3):
        taught.epoch()
    assert all(
        torch.equal(mine == 1, torch.from_numpy(shape.part == 0)) for mine, shape in zip(taught.beliefs, shapes, strict=True)
    )
    assert [epoch.figure for epoch in taught.done] == [-1, -2, -3]
    taught.take_best()
    assert all(torch.equal(value, seen[0][name]) for name, value in taught.student.state_dict().items())


def test_every_point_of_a_shape_is_asked_as_many_at_a_time_as_taught(lamps):
    student, sizes = student_of(), []
    student.extractor.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(inputs[0].shape[:2])))
    xyz = lamps[0][0].xyz
    part = parts_of(student, xyz, 150, seed=1, batch=2)
    assert sizes == [(2, 150), (1, 150)] and part.shape == (400,)
    sizes.clear()
    whole = parts_of(student, xyz, 400, seed=1)
    assert sizes == [(1, 400)]
    order = permutation(torch.tensor([1]), Stream.SHUFFLE, 400)[0].numpy()
    shuffled = logits_of(student, xyz[order]).argmax(1).numpy()
    assert np.array_equal(whole[order], shuffled)
    assert len(parts_of(student, xyz[:40], 150, seed=1)) == 40  # fewer than it was taught by: some are seen twice


# When backward distillation starts


@pytest.mark.parametrize(
    ("losses", "rule", "starts"),
    [
        ([1.0, 0.5, 0.3, 0.2, 0.15, 0.14], "change", False),
        ([0.2, 0.2, 0.2, 0.2, 0.2], "change", False),  # nothing to compare the average with
        ([0.2, 0.2, 0.2, 0.2, 0.2, 0.2], "change", True),
        ([9.0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2], "change", True),  # the average of the last five, before and now
        ([9.0, 0.2, 0.2, 0.2, 0.2, 0.2], "change", False),
        ([0.2] * 20, "level", False),
        ([0.009] * 5, "level", True),
        ([0.009] * 4, "level", False),
        ([0.0] * 20, "never", False),
    ],
)
def test_backward_distillation_starts(losses, rule, starts):
    assert turns(losses, Settings(backward=rule)) is starts


def test_the_published_settings():
    assert (RELEASED.rate, RELEASED.batch, RELEASED.epochs, RELEASED.points) == (0.003, 16, 25, 2048)
    assert (PAPER.rate, PAPER.form, PAPER.backward, PAPER.weights) == (0.001, "per unit", "level", "effective number")


# Chance


def test_points_are_drawn_with_their_scores():
    shape = Units(np.arange(30, dtype=np.float32).reshape(10, 3), np.array([0]), np.arange(10, dtype=np.float32)[:, None])
    some = some_points(shape, 6, torch.tensor([3]))
    assert len(set(some.score[:, 0])) == 6 and np.array_equal(some.xyz[:, 0], 3 * some.score[:, 0])
    many = some_points(shape, 24, torch.tensor([3]))
    counts = np.bincount(many.score[:, 0].astype(int))
    assert len(many.xyz) == 24 and sorted(counts) == [2] * 6 + [3] * 4


def test_augmentation_stays_within_its_limits():
    xyz = torch.rand(64, 100, 3, generator=torch.Generator().manual_seed(6)) - 0.5
    seeds = torch.arange(64)
    still = Augment(jitter=0.0, most=0.0)
    moved = augmented(xyz, seeds, still)
    scale = (moved[:, 0] - moved[:, 1]) / (xyz[:, 0] - xyz[:, 1])
    shift = moved[:, 0] - scale * xyz[:, 0]
    assert 0.9 <= scale.min() < 0.92 and 1.08 < scale.max() <= 1.1001 and (scale.std(dim=1) > 1e-3).all()  # each axis its own
    assert -0.101 <= shift.min() < -0.08 and 0.08 < shift.max() <= 0.101
    jitter = augmented(xyz, seeds, Augment()) - moved
    assert float(jitter.abs().max()) == pytest.approx(0.02, abs=1e-5) and 0.009 < float(jitter.std()) < 0.01
    assert torch.equal(augmented(xyz[5:6], seeds[5:6], Augment())[0], augmented(xyz, seeds, Augment())[5])
