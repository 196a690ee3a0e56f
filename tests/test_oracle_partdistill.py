"""PartDistill's student, loss and metric against the published code run with random weights: all of partdistill_*.npz."""

import json

import numpy as np
import pytest
import torch

from evaluate.part_segmentation import CATEGORIES, part_ious, part_segmentation
from trainer.partdistill.losses import class_weights, distillation, rescored
from trainer.partdistill.student import Student, StudentConfig, official

ENCODER = 1e-5  # allowed: so much, and so much of the value
LOSS, LOSS_SHARE = 1e-6, 1e-5
GRADIENT, GRADIENT_SHARE = 1e-7, 1e-4
EQUATION = 1e-5
PERCENT = 1e-9


def loaded(file):
    arrays = np.load(file, allow_pickle=False)
    return json.loads(str(arrays["config"])), {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "config"}


def compare(what, ours, theirs, allowed, share=0.0):
    difference = (ours - theirs).abs()
    print(f"partdistill_{what}: {difference.max():.1e}")
    assert (difference <= allowed + share * theirs.abs()).all()


def part(arrays, prefix):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


# The student


def test_the_student_and_all_on_the_way(oracles):
    config, arrays = loaded(oracles / "partdistill_student.npz")
    student = Student(
        StudentConfig(
            parts=config["n_part"],
            groups=tuple(config["num_groups"]),
            group_sizes=tuple(config["group_sizes"]),
            widths=tuple(config["dims"]),
            depths=tuple(config["depths"]),
            radii=tuple(config["local_radius"]),
            heads=config["num_heads"],
        )
    )
    student.load_state_dict(official(part(arrays, "state/")), strict=True)
    found = {}

    def of_level(level):
        def keep(module, inputs, output):
            found[f"level{level}_token_embed"], found[f"level{level}_blocks"] = inputs[0], output

        return keep

    def of_encoder(module, inputs, output):
        for level, (centers, tokens) in enumerate(output):
            found[f"level{level}_centers"], found[f"level{level}_normed"] = centers, tokens

    for level, blocks in enumerate(student.extractor.h_encoder.encoder_blocks):
        blocks.register_forward_hook(of_level(level))
    student.extractor.h_encoder.register_forward_hook(of_encoder)
    student.extractor.register_forward_hook(lambda module, inputs, output: found.update(point_features=output.mT))
    with torch.no_grad():
        logits = student(arrays["in/xyz"])

    assert found.keys() == part(arrays, "mid/").keys()
    for name, ours in found.items():
        compare(f"student mid/{name}", ours, arrays[f"mid/{name}"], ENCODER, ENCODER)
    compare("student out/logits", logits, arrays["out/logits"], ENCODER, ENCODER)
    assert part(arrays, "in/").keys() == {"xyz"} and part(arrays, "out/").keys() == {"logits"}


# The loss


@pytest.fixture(scope="module")
def votes(oracles):
    """The oracle's arrays, and its units as the loss takes them."""
    config, arrays = loaded(oracles / "partdistill_loss.npz")
    probability = arrays["in/conf_unit"]
    return config, arrays, arrays["in/cls_unit"][:, 0], probability.amax(3), probability.any(3)


def test_what_a_unit_covers(votes):
    _, arrays, part, score, covered = votes
    assert torch.equal(covered, arrays["mid/covered"]) and torch.equal(covered, score > 0)
    assert (arrays["in/cls_unit"] == part.unsqueeze(1)).all()
    assert torch.equal(
        arrays["in/conf_unit"].argmax(3)[covered], part.unsqueeze(1).expand_as(covered)[covered]
    )  # eq. 3's Z is the unit's part


def test_class_weights(votes):
    config, arrays, part, _, covered = votes
    ours = class_weights(part, covered, config["R"], "log")
    compare("loss out/class_weight_opt1", ours, arrays["out/class_weight_opt1"], LOSS, LOSS_SHARE)


@pytest.mark.parametrize("mode", ["forward", "forward_noweight", "backward", "backward_noweight"])
def test_the_released_loss(votes, mode):
    config, arrays, part, score, covered = votes
    if mode.startswith("backward"):
        belief = rescored(arrays["in/student_logits"].argmax(2), part, covered)
        compare(f"loss out/{mode}/unit_score", belief, arrays[f"out/{mode}/unit_score"], LOSS)
        score = belief.unsqueeze(1)
    weights = class_weights(part, covered, config["R"], "none" if mode.endswith("noweight") else "log")
    logits = arrays["in/logits"].clone().requires_grad_()
    loss = distillation(logits, part, covered, score, weights, "per point")
    loss.backward()
    compare(f"loss out/{mode}/loss", loss.detach(), arrays[f"out/{mode}/loss"], LOSS, LOSS_SHARE)
    compare(f"loss grad/{mode}/logits", logits.grad, arrays[f"grad/{mode}/logits"], GRADIENT, GRADIENT_SHARE)


@pytest.mark.parametrize("mode", ["forward", "backward"])
def test_equation_3(votes, mode):
    _, arrays, part, score, covered = votes
    if mode == "backward":
        score = rescored(arrays["in/student_logits"].argmax(2), part, covered).unsqueeze(1).expand_as(score)
    theirs = arrays[f"out/paper_eq3_{mode}_per_shape"]
    ours = [
        distillation(arrays["in/logits"][[one]], part[[one]], covered[[one]], score[[one]], form="per unit")
        for one in range(len(theirs))
    ]
    compare(f"loss out/paper_eq3_{mode}_per_shape", torch.stack(ours).double(), theirs, EQUATION)
    mean = distillation(arrays["in/logits"], part, covered, score, form="per unit")
    compare(f"loss mean of paper_eq3_{mode}", mean.double(), theirs.mean(), EQUATION)


def test_every_array_of_the_loss_is_looked_at(votes):
    _, arrays, *_ = votes
    modes = ("forward", "forward_noweight", "backward", "backward_noweight")
    assert {name for name in arrays if name.startswith(("out/", "grad/", "mid/"))} == {
        "mid/covered",
        "out/class_weight_opt1",
        *(f"out/{mode}/loss" for mode in modes),
        *(f"grad/{mode}/logits" for mode in modes),
        *(f"out/{mode}/unit_score" for mode in modes[2:]),
        *(f"out/paper_eq3_{mode}_per_shape" for mode in ("forward", "backward")),
    }


# The metric


def test_miou(oracles):
    config, arrays = loaded(oracles / "partdistill_miou.npz")
    category, parts = config["category"], config["n_part"]
    assert CATEGORIES[category].parts == parts
    predicted, truth = arrays["in/pred"].numpy(), arrays["in/target"].numpy()
    ious = 100 * torch.tensor(np.array([part_ious(*shape, parts) for shape in zip(predicted, truth, strict=True)]))
    whole = part_segmentation((category, *shape) for shape in zip(predicted, truth, strict=True))
    compare("miou out/instance_iou_percent", ious.mean(1), arrays["out/instance_iou_percent"], PERCENT)
    compare("miou out/part_iou_mean_over_shapes_percent", ious.mean(0), arrays["out/part_iou_mean_over_shapes_percent"], PERCENT)
    for ours in (whole.categories[category], whole.overall, whole.instances):
        compare(
            "miou out/category_miou_percent",
            torch.tensor(100 * ours, dtype=torch.double),
            arrays["out/category_miou_percent"],
            PERCENT,
        )
    assert part(arrays, "out/").keys() == {"instance_iou_percent", "part_iou_mean_over_shapes_percent", "category_miou_percent"}
