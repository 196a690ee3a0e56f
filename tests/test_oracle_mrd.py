"""The relation losses against an independent implementation of the same reading of MRD's paper: relations, terms, totals,
gradients."""

import math

import torch

from oracle import Oracle
from trainer.losses.contrastive import PRESETS, Contrastive
from trainer.losses.gathering import unit
from trainer.losses.relations import Relations, RelationsSettings, cosine_errors, euclidean, ranks, similarity

FORMS = {"euclid": "euclidean", "sim": "similarity", "rank": "partial-order"}
FLOAT64, FLOAT32 = 1e-9, 1e-5


def _given(oracle: Oracle) -> tuple:
    """Shapes, images, texts (float64); who exists, who has a text; the scale of the similarities."""
    features = [oracle.arrays[f"in/f{name}"] for name in "PIT"]
    everyone = torch.ones(len(features[0]), dtype=torch.bool)
    texted = torch.zeros_like(everyone)
    texted[oracle.arrays["in/text_idx"]] = True
    return features, everyone, texted, torch.tensor(1 / oracle.config["tau"], dtype=torch.float64)


def _relations(oracle: Oracle, dtype=torch.float64, **settings) -> Relations:
    made = Relations(RelationsSettings(margin=oracle.config["margin"], **settings)).to(dtype)
    made.logits.data.copy_(torch.stack([oracle.arrays[f"in/logits_{name}"] for name in ("alpha", "beta", "gamma")]))
    return made


def _compare_case(oracle: Oracle, case: str, form: str, dtype=torch.float64, tolerance: float = FLOAT64) -> None:
    """One form in one of the cases: everybody has a text, some have none, or the diagonal is left out."""
    features, everyone, texted, scale = _given(oracle)
    shape, image, text = (rows.to(dtype, copy=True) for rows in features)
    shape.requires_grad_()
    has_text = texted if case == "masked_text_" else everyone
    contrast = Contrastive(PRESETS["mrd"]).to(dtype)
    contrast.log_scale.data.fill_(-math.log(oracle.config["tau"]))
    contrastive = contrast(shape, image, text, everyone, has_text)
    relations = _relations(oracle, dtype, form=FORMS[form], diagonal=case != "nodiag_")
    made = relations(shape, image, text, has_text, scale.to(dtype))
    total = contrastive["loss"] + oracle.config["lam"] * made["loss"]
    total.backward()
    if case != "nodiag_":
        for name, part in (("", "loss"), ("_PI", "loss_image"), ("_PT", "loss_text")):
            oracle.compare(f"out/{case}contrastive{name}", contrastive[part], tolerance)
    for name, part in (("intra", "intra"), ("cross", "cross"), ("relation", "loss"), ("terms", "terms")):
        oracle.compare(f"out/{case}{name}_{form}", made[part], tolerance)
    oracle.compare(f"out/{case}total_{form}", total, tolerance)
    oracle.compare(f"grad/{case}total_{form}/fP", shape.grad, tolerance)
    for row, name in enumerate(("alpha", "beta", "gamma")):
        oracle.compare(f"grad/{case}total_{form}/logits_{name}", relations.logits.grad[row], tolerance)
        oracle.compare(f"out/weight_{name}", made["weights"][row], tolerance)


def test_oracle_mrd(oracles):
    oracle = Oracle.read(oracles, "mrd")
    features, everyone, _, scale = _given(oracle)
    units = {name: unit(rows) for name, rows in zip("PIT", features, strict=True)}
    every = everyone[:, None] & everyone
    others = every & ~torch.eye(len(every), dtype=torch.bool)
    for a in "PIT":
        for b in "PIT":
            rows = units[a], units[b]
            oracle.compare(f"out/rel_euclid_{a}{b}", euclidean(*rows, every), FLOAT64)
            oracle.compare(f"out/rel_sim_{a}{b}", similarity(*rows, scale, every).exp(), FLOAT64)
            oracle.compare(f"out/rel_rank_{a}{b}", ranks(*rows, everyone))
        oracle.compare(f"out/nodiag_rel_sim_{a}{a}", similarity(units[a], units[a], scale, others).exp(), FLOAT64)
    for form in FORMS:
        for case in ("", "masked_text_"):
            _compare_case(oracle, case, form)
    _compare_case(oracle, "nodiag_", "sim")
    mixed = _relations(oracle, mixed_teacher=True)(*features, everyone, scale)
    oracle.compare("out/alt_mixed_teacher_relation_sim", mixed["loss"], FLOAT64)
    errors = cosine_errors(*features)
    four = torch.stack([errors[name] for name in ("PP/II", "PP/TT", "PT/IT", "PI/TI")])
    oracle.compare("out/mae_cosine_PP_II__PP_TT__PT_IT__PI_TI", four, FLOAT64)
    assert not oracle.left()


def test_oracle_mrd_in_float32(oracles):
    for form in FORMS:
        for case in ("", "masked_text_"):
            _compare_case(Oracle.read(oracles, "mrd"), case, form, torch.float32, FLOAT32)
