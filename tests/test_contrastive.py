import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ranks import on_ranks
from trainer.losses.contrastive import PRESETS, ROWS_AT_A_TIME, Contrastive, ContrastiveSettings, kept_pairs

SETTINGS = ContrastiveSettings()
RANKS = 2
# Of eight objects, some without a text or an image; a rank of two has other numbers of them than the other.
HAS_TEXT = torch.tensor([1, 1, 0, 1, 0, 0, 1, 0], dtype=torch.bool)
HAS_IMAGE = torch.tensor([1, 0, 1, 1, 1, 1, 1, 1], dtype=torch.bool)


def _features(count: int = 8, dim: int = 5, seed: int = 0, dtype=torch.float64) -> tuple[torch.Tensor, ...]:
    """Shapes, images and texts that have something to do with one another, of any length."""
    rng = torch.Generator().manual_seed(seed)
    same = torch.randn(count, dim, generator=rng)
    return tuple((same + torch.randn(count, dim, generator=rng)).to(dtype) for _ in range(3))


def _with_zeros(rows: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """As the loader gives them: zeros where there is none."""
    return rows * there[:, None]


def _direction(anchors, others, scale, anchor, candidate, kept=None, zeroed=False) -> float:
    """One direction by its definition, one logarithm at a time."""
    anchors, others = ([row / (np.linalg.norm(row) or 1) for row in rows.detach().numpy()] for rows in (anchors, others))
    losses = []
    for i in np.flatnonzero(anchor):
        logits = {j: scale * anchors[i] @ others[j] for j in np.flatnonzero(candidate)}
        if kept is not None:
            logits = {j: logit if kept[i, j] else 0 for j, logit in logits.items() if kept[i, j] or zeroed}
        losses.append(np.log(sum(np.exp(logit) for logit in logits.values())) - logits[i])
    return float(np.mean(losses))


def _term(shape, other, scale, anchor, candidate, kept=None, zeroed=False) -> float:
    there = _direction(shape, other, scale, anchor, candidate, kept, zeroed)
    back = _direction(other, shape, scale, anchor, candidate, None if kept is None else kept.T, zeroed)
    return (there + back) / 2


def _all(count: int = 8) -> torch.Tensor:
    return torch.ones(count, dtype=torch.bool)


def test_the_loss_is_its_definition():
    shape, image, text = _features()
    made = Contrastive(SETTINGS)(shape, image, text, _all(), _all())
    for name, other in (("image", image), ("text", text)):
        assert made[f"loss_{name}"].item() == pytest.approx(_term(shape, other, 14.28, _all(), _all()), rel=1e-6)
        nearest = (F.normalize(shape) @ F.normalize(other).T).argmax(1)
        assert made[f"accuracy_{name}"].item() == pytest.approx((nearest == torch.arange(8)).double().mean().item())
    assert made["loss"] == made["loss_image"] + made["loss_text"]
    assert made["scale"].item() == pytest.approx(14.28)


def test_who_lacks_a_text_is_neither_anchor_nor_negative():
    shape, image, text = _features()
    made = Contrastive(SETTINGS)(shape, image, _with_zeros(text, HAS_TEXT), HAS_IMAGE, HAS_TEXT)
    some = Contrastive(SETTINGS)(*(rows[HAS_TEXT] for rows in (shape, image, text)), _all(4), _all(4))
    for part in ("loss_text", "accuracy_text"):
        torch.testing.assert_close(made[part], some[part], rtol=1e-12, atol=0)
    assert made["loss_image"].item() == pytest.approx(_term(shape, image, 14.28, HAS_IMAGE, HAS_IMAGE), rel=1e-6)


def test_what_stands_in_the_place_of_a_missing_text_changes_nothing():
    shape, image, text = _features()
    shape.requires_grad_()
    results = []
    for junk in (0, 7):
        made = Contrastive(SETTINGS)(shape, image, torch.where(HAS_TEXT[:, None], text, junk), _all(), HAS_TEXT)
        results.append((*(made[key].detach() for key in ("loss", "accuracy_text")), *torch.autograd.grad(made["loss"], shape)))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def test_in_uni3d_who_lacks_an_image_is_no_anchor_but_a_negative():
    shape, image, text = _features()
    image = _with_zeros(image, HAS_IMAGE)
    made = Contrastive(PRESETS["uni3d"])(shape, image, text, HAS_IMAGE, HAS_TEXT)
    assert made["loss_image"].item() == pytest.approx(_term(shape, image, 1 / 0.07, HAS_IMAGE, _all()), rel=1e-6)
    assert made["loss_text"].item() == pytest.approx(_term(shape, text, 1 / 0.07, HAS_TEXT, HAS_TEXT), rel=1e-6)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_term_without_anybody_is_zero_and_trains_nothing(preset):
    loss = Contrastive(PRESETS[preset])
    shape, image, _ = _features()
    shape.requires_grad_()
    nobody = torch.zeros(8, dtype=torch.bool)
    made = loss(shape, image, torch.zeros_like(image), _all(), nobody)
    assert made["loss_text"] == 0 and made["accuracy_text"] == 0 and made["loss_image"] > 0
    made = loss(shape, torch.zeros_like(image), torch.zeros_like(image), nobody, nobody)
    made["loss"].backward()
    assert made["loss"] == 0 and not shape.grad.any() and not loss.log_scale.grad.any()


def test_one_object_with_a_text_has_nobody_to_be_taken_for():
    shape, image, text = _features()
    only = torch.arange(8) == 3
    made = Contrastive(SETTINGS)(shape, image, _with_zeros(text, only), _all(), only)
    assert made["loss_text"] == 0 and made["accuracy_text"] == 1


@pytest.mark.parametrize(
    ("preset", "scale"),
    [("openshape", 14.28), ("mrd", 14.28), ("duoduo", 14.28), ("uni3d", 1 / 0.07), ("uni3d as published", 1 / 0.07)],
)
def test_both_terms_share_one_scale_that_begins_as_published(preset, scale):
    loss = Contrastive(PRESETS[preset])
    assert [name for name, _ in loss.named_parameters()] == ["log_scale"]
    assert loss.scale.item() == pytest.approx(scale)


def test_the_poster_has_half_of_what_duoduos_code_computes():
    given = (*_features(), HAS_IMAGE, HAS_TEXT)
    code, poster = (Contrastive(PRESETS[name])(*given)["loss"] for name in ("duoduo", "duoduo as in the poster"))
    torch.testing.assert_close(poster, code / 2)
    shape, image, text = given[:3]
    four = sum(_direction(*pair, 14.28, _all(), _all()) for pair in ((shape, image), (image, shape), (shape, text), (text, shape)))
    whole = Contrastive(PRESETS["duoduo as in the poster"])(shape, image, text, _all(), _all())
    assert whole["loss"].item() == pytest.approx(four / 4, rel=1e-6)


@pytest.mark.parametrize(("preset", "highest", "lowest"), [("uni3d", 4.6052, 0.0), ("openshape", 9.0, -9.0), ("duoduo", 9.0, -9.0)])
def test_only_uni3d_holds_the_scale_between_1_and_100(preset, highest, lowest):
    loss = Contrastive(PRESETS[preset])
    for far, kept in ((9.0, highest), (-9.0, lowest), (1.5, 1.5)):
        nn.init.constant_(loss.log_scale, far)
        loss.after_step()
        assert loss.log_scale.item() == pytest.approx(kept)


def test_pairs_that_the_teacher_cannot_tell_apart_are_dropped_within_a_block_only():
    angles = torch.tensor([0.0, 0.3, 2.0, 0.0, 0.1, 3.0]).double()  # in blocks of three
    text = torch.stack([angles.cos(), angles.sin()], dim=1)
    image = text.clone()
    image[1] = text[0]  # the picture of object 1 looks more like the text of object 0 than like its own
    kept = kept_pairs(image, text, _all(6), block=3, margin=0.1)
    # rows: shapes, with the image of the same object; columns: texts
    dropped = {(0, 1), (1, 0), (3, 4), (4, 3)}  # 1 - cos(0.3) = 0.045, cos(0.3) - 1 < 0, 1 - cos(0.1) = 0.005
    assert {(i, j) for i, j in torch.nonzero(~kept).tolist()} == dropped
    assert kept_pairs(image, text, torch.arange(6) != 4, block=3, margin=0.1).logical_not().sum() == 2  # object 4 is not judged
    assert kept_pairs(image, text, _all(6), block=3, margin=0.0).logical_not().nonzero().tolist() == [[1, 0]]


@pytest.mark.parametrize("dropped", ["excluded", "zeroed"])
def test_dropped_pairs_are_left_out_or_stay_with_a_logit_of_zero(dropped):
    shape, image, text = _features(9)
    settings = ContrastiveSettings(block=3, margin=0.4, dropped=dropped)
    kept = kept_pairs(image, text, _all(9), 3, 0.4)
    assert not kept.all() and (kept != kept.T).any()
    made = Contrastive(settings)(shape, image, text, _all(9), _all(9))
    for name, other in (("image", image), ("text", text)):
        expected = _term(shape, other, 14.28, _all(9), _all(9), kept, zeroed=dropped == "zeroed")
        assert made[f"loss_{name}"].item() == pytest.approx(expected, rel=1e-6)


def test_a_batch_that_is_not_whole_blocks_is_refused():
    with pytest.raises(ValueError, match="8 samples on a rank are not whole blocks of 3"):
        Contrastive(ContrastiveSettings(block=3))(*_features(), _all(), _all())


def test_a_batch_in_blocks_of_rows_gives_the_same_loss_and_gradients():
    count = ROWS_AT_A_TIME + 52
    shape, image, text = _features(count, 8)
    has_text = torch.arange(count) % 3 > 0
    shape.requires_grad_()
    loss = Contrastive(SETTINGS)
    made = loss(shape, image, _with_zeros(text, has_text), _all(count), has_text)
    made["loss"].backward()

    again, log_scale = shape.detach().requires_grad_(), loss.log_scale.detach().clone().requires_grad_()
    terms = []
    for other, there in ((image, _all(count)), (text, has_text)):
        logits = log_scale.exp() * F.normalize(again[there]) @ F.normalize(other[there]).T
        own = torch.arange(len(logits))
        terms.append((F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2)
    sum(terms).backward()
    torch.testing.assert_close(made["loss"], sum(terms), rtol=1e-10, atol=0)
    torch.testing.assert_close(shape.grad, again.grad, rtol=1e-8, atol=1e-14)
    torch.testing.assert_close(loss.log_scale.grad, log_scale.grad)


def test_mixed_precision_around_it_changes_nothing():
    given = (*_features(dtype=torch.bfloat16), HAS_IMAGE, HAS_TEXT)
    plain = Contrastive(SETTINGS)(*given)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = Contrastive(SETTINGS)(*given)
    assert plain["loss"].dtype == torch.float32
    assert plain == mixed


class _Step(nn.Module):
    """A small encoder and its loss, in one module as DistributedDataParallel wants it."""

    def __init__(self, settings: ContrastiveSettings) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.encoder = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 5)).double()
        self.loss = Contrastive(settings).double()

    def forward(self, shape, *others):
        return self.loss(self.encoder(shape), *others)


def _stepped(settings: ContrastiveSettings, first: int, last: int, step: nn.Module | None = None) -> dict:
    """Loss and gradients of the encoder and the scale on rows first..last of the batch."""
    shape, image, text = _features()
    step = step or _Step(settings)
    given = (shape, _with_zeros(image, HAS_IMAGE), _with_zeros(text, HAS_TEXT), HAS_IMAGE, HAS_TEXT)
    made = step(*(rows[first:last] for rows in given))
    made["loss"].backward()
    gradients = {name.removeprefix("module."): parameter.grad for name, parameter in step.named_parameters()}
    return {"made": {name: value.detach() for name, value in made.items()}, "gradients": gradients}


SHARED = {
    "openshape": PRESETS["openshape"],
    "uni3d": PRESETS["uni3d"],
    "hard": replace(PRESETS["openshape"], block=2, margin=0.5),
    "uni3d as published": PRESETS["uni3d as published"],
}


def _on_a_rank() -> dict:
    size = 8 // RANKS
    first = size * dist.get_rank()
    results = {}
    for name, settings in SHARED.items():
        results[name] = _stepped(settings, first, first + size, DistributedDataParallel(_Step(settings)))
    return results


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory):
    return on_ranks(RANKS, tmp_path_factory.mktemp("group"), _on_a_rank)


@pytest.mark.parametrize("name", ["openshape", "uni3d", "hard"])
def test_two_ranks_give_what_one_process_gives_on_the_same_global_batch(of_ranks, name):
    assert HAS_TEXT.view(RANKS, -1).sum(1).tolist() == [3, 1]  # as many rows to gather, not as many texts
    one = _stepped(SHARED[name], 0, 8)
    for rank in range(RANKS):
        torch.testing.assert_close(of_ranks[rank][name], one, rtol=1e-10, atol=1e-13)


def test_uni3ds_own_way_trains_the_encoder_with_one_direction_only(of_ranks):
    """Loss: mean of the ranks' own means. Gradient of the encoder: of shapes looking for images and texts, not the other way
    round."""
    settings = SHARED["uni3d as published"]
    shape, image, text = _features()
    given = (_with_zeros(image, HAS_IMAGE), _with_zeros(text, HAS_TEXT))
    step = _Step(settings)
    made = step.encoder(shape)
    scale, losses = step.loss.scale, []
    for part in torch.arange(8).chunk(RANKS):
        for others, there, candidates in ((given[0], HAS_IMAGE, _all()), (given[1], HAS_TEXT, HAS_TEXT)):
            anchors = part[there[part]]
            logits = scale * F.normalize(made)[anchors] @ F.normalize(others).T
            back = scale * F.normalize(others)[anchors] @ F.normalize(made.detach()).T
            both = (one.masked_fill(~candidates, -math.inf) for one in (logits, back))
            losses.append(sum(F.cross_entropy(one, anchors) for one in both) / 2 / RANKS)
    sum(losses).backward()
    torch.testing.assert_close(sum(result["uni3d as published"]["made"]["loss"] for result in of_ranks) / RANKS, sum(losses))
    for result in of_ranks:  # averaged
        for name, parameter in step.named_parameters():
            torch.testing.assert_close(result["uni3d as published"]["gradients"][name], parameter.grad)


def test_in_one_process_uni3ds_way_is_the_usual_one():
    ours, published = (_stepped(PRESETS[name], 0, 8) for name in ("uni3d", "uni3d as published"))
    torch.testing.assert_close(ours, published, rtol=0, atol=0)
