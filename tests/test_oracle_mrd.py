"""The relation losses against an independent implementation of the same reading of MRD's paper: relations, terms, totals,
gradients."""

import json
import math

import numpy as np
import pytest
import torch

from trainer.losses.contrastive import PRESETS, Contrastive
from trainer.losses.gathering import unit
from trainer.losses.relations import Relations, RelationsSettings, cosine_errors, euclidean, ranks, similarity

FORMS = {"euclid": "euclidean", "sim": "similarity", "rank": "partial-order"}
CASES = ("", "masked_text_", "nodiag_")


class _Oracle:
    """The file's arrays as tensors of float64; remembers which were compared."""

    def __init__(self, path) -> None:
        self.arrays = dict(np.load(path, allow_pickle=False))
        self.config = json.loads(str(self.arrays["config"]))
        self.left = {name for name in self.arrays if name.split("/")[0] in ("out", "mid", "grad")}
        self.features = [torch.from_numpy(self.arrays[f"in/f{name}"]) for name in "PIT"]
        self.everyone = torch.ones(len(self.features[0]), dtype=torch.bool)
        self.texted = torch.zeros_like(self.everyone)
        self.texted[torch.from_numpy(self.arrays["in/text_idx"])] = True
        self.scale = torch.tensor(1 / self.config["tau"], dtype=torch.float64)
        self.logits = torch.from_numpy(np.stack([self.arrays[f"in/logits_{name}"] for name in ("alpha", "beta", "gamma")]))

    def compare(self, name: str, made: torch.Tensor, tolerance: float = 1e-9) -> None:
        expected, made = self.arrays[name], made.detach().numpy()
        assert made.shape == expected.shape, name
        print(f"{name}: {np.abs(made - expected).max():.1e}")
        np.testing.assert_allclose(made, expected, rtol=0, atol=0 if expected.dtype.kind == "i" else tolerance, err_msg=name)
        self.left.discard(name)


def _relations(oracle: _Oracle, dtype=torch.float64, **settings) -> Relations:
    made = Relations(RelationsSettings(margin=oracle.config["margin"], **settings)).to(dtype)
    made.logits.data.copy_(oracle.logits)
    return made


def _contrastive(oracle: _Oracle, dtype=torch.float64) -> Contrastive:
    made = Contrastive(PRESETS["mrd"]).to(dtype)
    made.log_scale.data.fill_(-math.log(oracle.config["tau"]))
    return made


@pytest.fixture
def oracle(oracles) -> _Oracle:
    return _Oracle(oracles / "mrd.npz")


def _compare_case(oracle: _Oracle, case: str, form: str, dtype=torch.float64, tolerance: float = 1e-9) -> None:
    """One form in one of the cases: everybody has a text, some have none, or the diagonal is left out."""
    shape, image, text = (rows.to(dtype, copy=True) for rows in oracle.features)
    shape.requires_grad_()
    has_text = oracle.texted if case == "masked_text_" else oracle.everyone
    contrastive = _contrastive(oracle, dtype)(shape, image, text, oracle.everyone, has_text)
    relations = _relations(oracle, dtype, form=FORMS[form], diagonal=case != "nodiag_")
    made = relations(shape, image, text, has_text, oracle.scale.to(dtype))
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


def test_oracle_mrd(oracle):
    units = {name: unit(rows) for name, rows in zip("PIT", oracle.features, strict=True)}
    every = oracle.everyone[:, None] & oracle.everyone
    others = every & ~torch.eye(len(every), dtype=torch.bool)
    for a in "PIT":
        for b in "PIT":
            rows = units[a], units[b]
            if f"out/rel_euclid_{a}{b}" in oracle.left:
                oracle.compare(f"out/rel_euclid_{a}{b}", euclidean(*rows, every))
                oracle.compare(f"out/rel_sim_{a}{b}", similarity(*rows, oracle.scale, every).exp())
                oracle.compare(f"out/rel_rank_{a}{b}", ranks(*rows, oracle.everyone))
            if a == b:
                oracle.compare(f"out/nodiag_rel_sim_{a}{b}", similarity(*rows, oracle.scale, others).exp())
    for form in FORMS:
        for case in CASES:
            if case != "nodiag_" or form == "sim":
                _compare_case(oracle, case, form)
    mixed = _relations(oracle, mixed_teacher=True)(*oracle.features, oracle.everyone, oracle.scale)
    oracle.compare("out/alt_mixed_teacher_relation_sim", mixed["loss"])
    errors = cosine_errors(*oracle.features)
    oracle.compare(
        "out/mae_cosine_PP_II__PP_TT__PT_IT__PI_TI", torch.stack([errors[name] for name in ("PP/II", "PP/TT", "PT/IT", "PI/TI")])
    )
    assert not oracle.left


def test_oracle_mrd_in_float32(oracle):
    for form in FORMS:
        for case in CASES[:2]:
            _compare_case(oracle, case, form, torch.float32, 1e-5)
