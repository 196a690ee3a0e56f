"""Recipes: schedules against values worked out by hand, and the numbers that the papers and the published code give."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from trainer.learner import Losses, _adamw
from trainer.recipes import RECIPES, Optimiser, Schedule

PUBLISHED = {  # batch, epochs, learning rate, weight decay, clip, seed, precision
    "openshape-pointbert": (200, 1000, 5e-4, 0.01, None, 0, "float32"),
    "mrd-t": (512, 300, 1e-3, 0.05, None, 0, "float32"),
    "mrd-l-shapenet": (192, 70, 1e-3, 0.05, None, 0, "float32"),
    "uni3d-g": (1152, 200, 1e-3, 0.1, 5.0, 4096, "float16"),
    "duoduo": (1600, 80, 5e-5, 0.01, None, 123, "float16"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_has_the_published_numbers(name):
    recipe = RECIPES[name]
    optimiser = recipe.optimiser
    found = (recipe.batch, recipe.epochs, optimiser.lr, optimiser.weight_decay, recipe.clip, recipe.seed, recipe.precision)
    assert found == PUBLISHED[name]
    assert recipe.ema is None  # nobody published one


def test_every_published_system_and_size_has_a_recipe():
    sizes = [f"uni3d-{size}" for size in ("ti", "s", "b", "l", "g")] + [f"mrd-{size}" for size in "tsmbl"]
    scalings = [f"openshape-pointbert-{scaling}" for scaling in (1, 2, 3, 5, 6)]
    small = ["pointbert-small", "pointbert-small-mrd", "uni3d-small", "multiview-small"]
    expected = {*sizes, *(f"mrd-{size}-shapenet" for size in "tsmbl"), *scalings, *small, "openshape-pointbert", "duoduo"}
    assert RECIPES.keys() == expected
    assert all(recipe.name == name for name, recipe in RECIPES.items())


def test_only_openshapes_way_and_what_builds_on_it_is_mirrored():
    """Trap 5: the swap of y and z is a mirror, and no other system does it."""
    mirrored = {name for name, recipe in RECIPES.items() if recipe.sees_points and recipe.input.frame == "yz-swapped"}
    assert mirrored == {name for name in RECIPES if name.startswith(("openshape-", "mrd-"))}
    up = {name: recipe.augment.turn for name, recipe in RECIPES.items() if recipe.sees_points}
    assert all(turn == ("z" if name in mirrored else "y") for name, turn in up.items())  # about the axis that is up there


def test_only_uni3d_clamps_its_scale_and_only_mrd_has_relations():
    """Trap 9."""
    clamped = {name for name, recipe in RECIPES.items() if recipe.contrastive.largest_log_scale is not None}
    assert clamped == {name for name in RECIPES if name.startswith("uni3d")}
    related = {name: recipe.relation_weight for name, recipe in RECIPES.items() if recipe.relations}
    assert related == {name: 3.0 for name in RECIPES if "mrd" in name}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_told_as_json_and_names_what_it_is_from(name):
    recipe = RECIPES[name]
    assert json.loads(json.dumps(asdict(recipe)))["batch"] == recipe.batch
    assert recipe.why and recipe.kind in ("pointbert", "uni3d", "duoduo")


def test_the_small_mrd_recipe_differs_in_its_relations_alone():
    mrd, plain = RECIPES["pointbert-small-mrd"], RECIPES["pointbert-small"]
    assert replace(mrd, relations=None, name=plain.name, why=plain.why) == plain


def test_openshapes_steps():
    schedule = RECIPES["openshape-pointbert"].schedule
    assert [schedule.at(done, 100, 1000) for done in (0, 9_999, 10_000, 20_000)] == [1.0, 1.0, 0.967, 0.967**2]


def test_uni3ds_rise_and_cosine_to_zero():
    schedule = RECIPES["uni3d-b"].schedule
    at = [schedule.at(done, 1000, 110) for done in (0, 4_999, 9_999, 10_000, 60_000, 85_000)]
    assert at[:4] == [1e-4, 0.5, 1.0, 1.0]
    assert at[4] == pytest.approx(0.5)
    assert at[5] == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert schedule.at(109_999, 1000, 110) == pytest.approx(0, abs=1e-9)


def test_mrds_rise_takes_fifteen_epochs():
    schedule = RECIPES["mrd-s"].schedule
    assert schedule.at(15 * 7 - 2, 7, 300) == (15 * 7 - 1) / (15 * 7)
    assert schedule.at(15 * 7, 7, 300) == 1.0


def test_duoduos_cosine_stands_still_within_an_epoch_and_ends_above_zero():
    schedule, lr = RECIPES["duoduo"].schedule, RECIPES["duoduo"].optimiser.lr
    assert schedule.at(0, 10, 80) == schedule.at(9, 10, 80) == 1.0
    assert schedule.at(10, 10, 80) < 1.0
    # torch's CosineAnnealingLR, stepped once an epoch
    parameter = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(torch.optim.AdamW([parameter], lr=lr), T_max=80, eta_min=1e-7)
    for epoch in range(80):
        assert lr * schedule.at(10 * epoch + 3, 10, 80) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        theirs.optimizer.step()
        theirs.step()


def test_a_constant_rate_only_rises():
    schedule = Schedule(kind="constant", warmup_epochs=2)
    assert [schedule.at(done, 2, 10) for done in (0, 3, 4, 19)] == [0.25, 1.0, 1.0, 1.0]


def test_decay_and_rate_of_each_parameter_are_uni3ds():
    from trainer.encoders.uni3d import Uni3d, Uni3dConfig

    config = Uni3dConfig(width=32, depth=3, heads=1, hidden=64, flavour="swiglu", groups=4, group_size=4, pc_encoder_dim=16, out=8)
    encoder = Uni3d(config)
    losses = Losses(RECIPES["pointbert-small-mrd"])
    settings = RECIPES["uni3d-g"].optimiser
    optimiser = _adamw(encoder, losses, settings)
    names = {id(one): name for module in (encoder, losses) for name, one in module.named_parameters()}
    told = {names[id(one)]: (group["weight_decay"], group["share"]) for group in optimiser.param_groups for one in group["params"]}
    assert len(told) == len(names)
    assert told["cls_token"] == told["cls_pos"] == (0.1, 1.0)  # three dimensions: decayed
    assert told["encoder.first_conv.0.weight"] == told["trans2embed.weight"] == (0.1, 1.0)
    assert told["trans2embed.bias"] == told["visual.fc_norm.weight"] == (0.0, 1.0)
    for block, share in enumerate((0.95**3, 0.95**2, 0.95)):
        assert told[f"visual.blocks.{block}.attn.proj.weight"] == (0.1, pytest.approx(share))
        assert told[f"visual.blocks.{block}.norm1.weight"] == (0.0, pytest.approx(share))
    assert told["contrastive.log_scale"] == told["relations.logits"] == (0.0, 1.0)


def test_all_means_all_but_the_weights_of_relations():
    """OpenShape decays its log-scale, too."""
    losses = Losses(RECIPES["pointbert-small-mrd"])
    encoder = torch.nn.Linear(2, 2)
    groups = _adamw(encoder, losses, Optimiser(lr=1.0)).param_groups
    decayed = {id(one) for group in groups if group["weight_decay"] for one in group["params"]}
    assert decayed == {id(encoder.weight), id(encoder.bias), id(losses.contrastive.log_scale)}
