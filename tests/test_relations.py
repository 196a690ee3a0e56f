import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from ranks import on_ranks
from trainer.losses.relations import TERMS, Relations, RelationsSettings, cosine_errors, distances, euclidean, ranking, ranks

FORMS = ("similarity", "euclidean", "partial-order")
SCALE = torch.tensor(10.0, dtype=torch.float64)
RANKS = 2
HAS_TEXT = torch.tensor([1, 1, 0, 1, 0, 0, 1, 0], dtype=torch.bool)
ALL = torch.ones(8, dtype=torch.bool)


def _features(count: int = 8, dim: int = 5, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Shapes, images and texts that have something to do with one another, of any length."""
    rng = torch.Generator().manual_seed(seed)
    same = torch.randn(count, dim, generator=rng)
    return tuple((same + torch.randn(count, dim, generator=rng)).double() for _ in range(3))


def _relations(logits=None, **settings) -> Relations:
    made = Relations(RelationsSettings(**settings)).double()
    if logits is not None:
        made.logits.data.copy_(torch.tensor(logits))
    return made


def _discrepancy(form: str, student: str, teacher: str, features: dict[str, np.ndarray], diagonal: bool, margin: float) -> float:
    """One term by its definition, number by number."""

    def cosines(relation):
        return features[relation[0]] @ features[relation[1]].T

    def apart(relation):
        rows, columns = (features[name] for name in relation)
        return np.array([[np.linalg.norm(row - column) for column in columns] for row in rows])

    n = len(features["P"])
    self_out = student == "PP" and not diagonal
    if form == "similarity":
        total = 0.0
        for i in range(n):
            others = [j for j in range(n) if not (self_out and i == j)]
            p, q = (np.exp(float(SCALE) * cosines(relation)[i, others]) for relation in (student, teacher))
            p, q = p / p.sum(), q / q.sum()
            total += (p * np.log(p / q)).sum() + (q * np.log(q / p)).sum()
        return total / n
    if form == "euclidean":
        p, q = (apart(relation) / apart(relation)[apart(relation) > 0].mean() for relation in (student, teacher))
        return ((p - q) ** 2).mean()
    losses = []
    for i in range(n):
        others = [j for j in range(n) if not (student == "PP" and i == j)]
        rank = apart(teacher)[i].argsort().argsort()
        for place, j in enumerate(others):
            for k in others[place + 1 :]:
                losses.append(max(0, margin - np.sign(rank[j] - rank[k]) * (apart(student)[i, j] - apart(student)[i, k])))
    return float(np.mean(losses))


@pytest.mark.parametrize(
    ("form", "diagonal"), [("similarity", True), ("similarity", False), ("euclidean", True), ("partial-order", True)]
)
def test_the_terms_are_their_definition_and_the_weights_mix_them_in_pairs(form, diagonal):
    shape, image, text = _features()
    logits = [[0.3, -0.2], [1.0, 0.0], [-0.5, 0.5]]
    made = _relations(logits, form=form, diagonal=diagonal, margin=0.2)(shape, image, text, ALL, SCALE)
    features = {name: F.normalize(rows).numpy() for name, rows in zip("PIT", (shape, image, text), strict=True)}
    terms = [_discrepancy(form, *term, features, diagonal, 0.2) for term in TERMS]
    assert [f"{student}|{teacher}" for student, teacher in TERMS] == ["PP|II", "PP|TT", "PI|IT", "PI|TI", "PT|IT", "PT|TI"]
    np.testing.assert_allclose(made["terms"].numpy(), terms, rtol=1e-12)
    weights = [[math.exp(one) / (math.exp(a) + math.exp(b)) for one in (a, b)] for a, b in logits]
    np.testing.assert_allclose(made["weights"].numpy(), weights, rtol=1e-7)
    weighted = np.ravel(weights) * terms
    for name, part in (("intra", weighted[:2]), ("cross", weighted[2:]), ("loss", weighted)):
        assert made[name].item() == pytest.approx(part.sum(), rel=1e-7)


@pytest.mark.parametrize("form", FORMS)
def test_terms_with_texts_are_over_those_who_have_one_and_the_first_is_over_all(form):
    shape, image, text = _features()
    made, whole = (_relations(form=form)(shape, image, text, there, SCALE)["terms"] for there in (HAS_TEXT, ALL))
    some = _relations(form=form)(*(rows[HAS_TEXT] for rows in (shape, image, text)), ALL[:4], SCALE)["terms"]
    torch.testing.assert_close(made[0], whole[0], rtol=0, atol=0)
    torch.testing.assert_close(made[1:], some[1:], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "settings", [{"form": form} for form in FORMS] + [{"diagonal": False}, {"mixed_teacher": True}], ids=lambda one: str(one)
)
@pytest.mark.parametrize("texts", [0, 1])
def test_without_anybody_to_compare_there_is_no_loss_and_nothing_breaks(settings, texts):
    shape, image, text = _features()
    shape.requires_grad_()
    relations = _relations(**settings)
    made = relations(shape, image, torch.zeros_like(text), torch.arange(8) < texts, SCALE)
    made["loss"].backward()
    assert shape.grad.isfinite().all() and relations.logits.grad.isfinite().all()
    if settings.get("mixed_teacher"):
        assert not made["terms"].any()
    else:
        assert made["terms"][0] > 0 and not made["terms"][1:].any()


@pytest.mark.parametrize("form", FORMS)
def test_what_stands_in_the_place_of_a_missing_text_changes_nothing(form):
    shape, image, text = _features()
    shape.requires_grad_()
    results = []
    for junk in (0, 7):
        made = _relations(form=form)(shape, image, torch.where(HAS_TEXT[:, None], text, junk), HAS_TEXT, SCALE)
        results.append((made["terms"], *torch.autograd.grad(made["loss"], shape)))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


@pytest.mark.parametrize("learn_scale", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_only_the_student_and_the_weights_learn(form, learn_scale):
    given = [rows.requires_grad_() for rows in _features()]
    scale = SCALE.clone().requires_grad_()
    relations = _relations(form=form, learn_scale=learn_scale)
    relations(*given, ALL, scale)["loss"].backward()
    assert given[0].grad.any() and given[1].grad is None and given[2].grad is None
    assert relations.logits.grad.any()
    assert (scale.grad is not None) == (learn_scale and form == "similarity")


def test_with_a_scale_that_learns_the_loss_falls_by_raising_the_temperature():
    scale = SCALE.clone().requires_grad_()
    _relations(learn_scale=True)(*_features(), ALL, scale)["loss"].backward()
    assert scale.grad > 0


def test_weights_drift_to_the_smaller_term_or_stay_halves():
    relations = _relations()
    made = relations(*_features(), ALL, SCALE)
    made["loss"].backward()
    assert made["weights"].flatten().tolist() == [0.5] * 6
    smaller = made["terms"].view(3, 2).argmin(1)
    assert torch.equal((-relations.logits.grad).argmax(1), smaller)
    fixed = _relations(dynamic=False)
    again = fixed(*(rows.requires_grad_() for rows in _features()), ALL, SCALE)
    again["loss"].backward()
    assert again["loss"] == made["loss"] and fixed.logits.grad is None


@pytest.mark.parametrize("form", FORMS)
def test_a_student_that_is_the_teacher_has_nothing_to_learn_of_relations(form):
    same, text = _features()[0], 2 * _features()[0]
    made = _relations(form=form, margin=0.0)(same.requires_grad_(), same, text, ALL, SCALE)
    made["loss"].backward()
    assert made["loss"].item() == pytest.approx(0, abs=1e-14)
    assert same.grad.isfinite().all()


def test_jeffreys_divergence_is_both_kl_divergences_without_a_half():
    shape, image, text = _features()
    made = _relations()(shape, image, text, ALL, SCALE)["terms"][0]
    p, q = ((float(SCALE) * F.normalize(x) @ F.normalize(x).T).log_softmax(1) for x in (shape, image))
    both = F.kl_div(p, q, reduction="batchmean", log_target=True) + F.kl_div(q, p, reduction="batchmean", log_target=True)
    torch.testing.assert_close(made, both)


def test_a_mixed_teacher_is_one_divergence_against_the_weighted_sum():
    given = _features()
    first, second = (_relations([[far, -far]] * 3, mixed_teacher=True)(*given, ALL, SCALE)["terms"] for far in (40, -40))
    terms = _relations()(*given, ALL, SCALE)["terms"].view(3, 2)
    torch.testing.assert_close(torch.stack([first, second], dim=1), terms)
    p, i, t = ((float(SCALE) * F.normalize(x) @ F.normalize(x).T).softmax(1) for x in given)
    mixture = (i + t) / 2
    made = _relations(mixed_teacher=True)(*given, ALL, SCALE)
    torch.testing.assert_close(made["intra"], ((p - mixture) * (p / mixture).log()).sum(1).mean())
    assert made["loss"] < _relations()(*given, ALL, SCALE)["loss"]  # Jeffrey's divergence is convex


@pytest.mark.parametrize("settings", [{"mixed_teacher": True}, {"diagonal": False}])
def test_choices_of_the_similarity_are_refused_elsewhere(settings):
    with pytest.raises(ValueError, match="choices of the form 'similarity', not of 'euclidean'"):
        RelationsSettings(form="euclidean", **settings)


@pytest.mark.parametrize("n", [3, 16, 17, 45])
@pytest.mark.parametrize("margin", [0.0, 0.05, 0.9])
def test_the_ranking_loss_is_the_mean_over_all_triples(n, margin):
    shape, image, _ = _features(n, 4)
    shape = F.normalize(shape).requires_grad_()
    kept = torch.rand(n, n, generator=torch.Generator().manual_seed(1)) < 0.8
    teacher = ranks(F.normalize(image), F.normalize(image), torch.ones(n, dtype=torch.bool))
    apart = distances(shape, shape.detach())
    made = ranking(apart, teacher, kept, margin)

    violations = []
    for i in range(n):
        j, k = torch.combinations(kept[i].nonzero()[:, 0]).T
        sign = (teacher[i, j] - teacher[i, k]).sign()
        violations.append((margin - sign * (apart[i, j] - apart[i, k])).relu())
    expected = torch.cat(violations).mean()
    torch.testing.assert_close(made, expected)
    ours, theirs = (torch.autograd.grad(loss, shape, retain_graph=True)[0] for loss in (made, expected))
    torch.testing.assert_close(ours, theirs)


def test_distances_over_their_mean_do_not_change_with_the_size_of_all_and_nor_does_their_gradient():
    rows, weights, _ = _features()
    kept = HAS_TEXT[:, None] & HAS_TEXT
    rows.requires_grad_()
    made = euclidean(rows, rows, kept)
    torch.testing.assert_close(made, euclidean(3 * rows, 3 * rows, kept))
    (gradient,) = torch.autograd.grad((made * (weights @ weights.T)).sum(), rows)
    assert (gradient * rows).sum().abs() < 1e-13 and gradient.any()  # the way outwards, along which all distances grow alike


def test_equal_rows_have_distance_zero_and_a_finite_gradient():
    shape, image, text = _features()
    shape = torch.cat([shape[:4], shape[:4]]).float().requires_grad_()
    assert not distances(shape, shape).diagonal().any()
    for form in FORMS:
        made = Relations(RelationsSettings(form=form))(shape, image.float(), text.float(), ALL, SCALE.float())
        assert made["loss"].dtype == torch.float32 and torch.autograd.grad(made["loss"], shape)[0].isfinite().all()


def test_mixed_precision_around_it_changes_nothing():
    given = (*(rows.bfloat16() for rows in _features()), HAS_TEXT, SCALE.float())
    relations = Relations(RelationsSettings())
    plain = relations(*given)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = relations(*given)
    torch.testing.assert_close(plain, mixed, rtol=0, atol=0)
    assert plain["loss"].dtype == torch.float32


def test_errors_of_cosines_are_those_of_whole_matrices():
    count = 2100
    features = _features(count, 6)
    p, i, t = (F.normalize(rows) for rows in features)
    made = cosine_errors(*features)
    assert list(made) == ["PP/II", "PP/TT", "PT/IT", "PI/TI"]
    for name, ours, theirs in (("PP/II", p @ p.T, i @ i.T), ("PP/TT", p @ p.T, t @ t.T), ("PT/IT", p @ t.T, i @ t.T)):
        torch.testing.assert_close(made[name], (ours - theirs).abs().mean())
    torch.testing.assert_close(made["PI/TI"], (p @ i.T - t @ i.T).abs().mean())
    assert all(error == 0 for error in cosine_errors(p, p, p).values())


class _Step(nn.Module):
    """A small encoder and its relations."""

    def __init__(self, form: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.encoder = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 5)).double()
        self.relations = _relations([[0.3, -0.2], [1.0, 0.0], [-0.5, 0.5]], form=form)

    def forward(self, shape, *others):
        return self.relations(self.encoder(shape), *others, SCALE)


def _stepped(form: str, first: int, last: int) -> dict:
    step = _Step(form)
    made = step(*(rows[first:last] for rows in (*_features(), HAS_TEXT)))
    made["loss"].backward()
    gradients = {name: parameter.grad for name, parameter in step.named_parameters()}
    return {"made": {name: value.detach() for name, value in made.items()}, "gradients": gradients}


def _on_a_rank() -> dict:
    size = 8 // RANKS
    first = size * dist.get_rank()
    results = {form: _stepped(form, first, first + size) for form in FORMS}
    for result in results.values():  # what DistributedDataParallel does
        for gradient in result["gradients"].values():
            dist.all_reduce(gradient)
            gradient /= RANKS
    return results


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory):
    return on_ranks(RANKS, tmp_path_factory.mktemp("group"), _on_a_rank)


@pytest.mark.parametrize("form", FORMS)
def test_two_ranks_give_what_one_process_gives_on_the_same_global_batch(of_ranks, form):
    assert HAS_TEXT.view(RANKS, -1).sum(1).tolist() == [3, 1]
    one = _stepped(form, 0, 8)
    for result in of_ranks:
        torch.testing.assert_close(result[form], one, rtol=1e-10, atol=1e-13)
