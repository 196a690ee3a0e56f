"""PartDistill's student, loss and metric against the published code run with random weights: all of partdistill_*.npz."""

import numpy as np
import torch

from evaluate.part_segmentation import CATEGORIES, part_ious, part_segmentation
from oracle import FORWARD, Oracle
from trainer.partdistill.losses import class_weights, distillation, rescored
from trainer.partdistill.student import Student, StudentConfig, official

LOSS, GRADIENT = (1e-6, 1e-5), (1e-7, 1e-4)  # allowed: so much, and so much of the value
SCORE, EQUATION, PERCENT = 1e-6, 1e-5, 1e-9


def test_the_student_and_all_on_the_way(oracles):
    oracle = Oracle.read(oracles, "partdistill_student")
    config = oracle.config
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
    student.load_state_dict(official(oracle.part("state/")), strict=True)
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
    logits = student(oracle.arrays["in/xyz"])

    for name, ours in found.items():
        oracle.compare(f"mid/{name}", ours, *FORWARD)
    oracle.compare("out/logits", logits, *FORWARD)
    assert not oracle.left()
    assert oracle.part("in/").keys() == {"xyz"}


def test_the_loss(oracles):
    oracle = Oracle.read(oracles, "partdistill_loss")
    given = oracle.part("in/")
    probability, part = given["conf_unit"], given["cls_unit"][:, 0]
    score, covered = probability.amax(3), probability.any(3)
    oracle.compare("mid/covered", covered)
    assert torch.equal(covered, score > 0)
    assert (given["cls_unit"] == part.unsqueeze(1)).all()
    # eq. 3's Z is the unit's part
    assert torch.equal(probability.argmax(3)[covered], part.unsqueeze(1).expand_as(covered)[covered])

    weights = {kind: class_weights(part, covered, oracle.config["R"], kind) for kind in ("none", "log")}
    oracle.compare("out/class_weight_opt1", weights["log"], *LOSS)
    belief = rescored(given["student_logits"].argmax(2), part, covered)
    for direction, trusted in (("forward", score), ("backward", belief.unsqueeze(1))):
        for mode, kind in ((direction, "log"), (f"{direction}_noweight", "none")):  # the released loss
            logits = given["logits"].clone().requires_grad_()
            loss = distillation(logits, part, covered, trusted, weights[kind], "per point")
            loss.backward()
            oracle.compare(f"out/{mode}/loss", loss, *LOSS)
            oracle.compare(f"grad/{mode}/logits", logits.grad, *GRADIENT)
            if direction == "backward":
                oracle.compare(f"out/{mode}/unit_score", belief, SCORE)
        per_shape = f"out/paper_eq3_{direction}_per_shape"  # equation 3
        cut = [[one] for one in range(len(oracle.arrays[per_shape]))]
        ours = [distillation(given["logits"][one], part[one], covered[one], trusted[one], form="per unit") for one in cut]
        oracle.compare(per_shape, torch.stack(ours), EQUATION)
        mean = distillation(given["logits"], part, covered, trusted, form="per unit")
        torch.testing.assert_close(mean.double(), oracle.arrays[per_shape].mean(), atol=EQUATION, rtol=0)
    assert not oracle.left()


def test_the_metric(oracles):
    oracle = Oracle.read(oracles, "partdistill_miou")
    category, parts = oracle.config["category"], oracle.config["n_part"]
    assert CATEGORIES[category].parts == parts
    shapes = list(zip(oracle.arrays["in/pred"].numpy(), oracle.arrays["in/target"].numpy(), strict=True))
    ious = 100 * np.array([part_ious(*shape, parts) for shape in shapes])
    whole = part_segmentation((category, *shape) for shape in shapes)
    oracle.compare("out/instance_iou_percent", ious.mean(1), PERCENT)
    oracle.compare("out/part_iou_mean_over_shapes_percent", ious.mean(0), PERCENT)
    for ours in (whole.categories[category], whole.overall, whole.instances):
        oracle.compare("out/category_miou_percent", 100 * ours, PERCENT)
    assert not oracle.left()
