"""The contrastive losses against the published systems' own: values, gradients, accuracies and masks, in one process and on
ranks."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from ranks import on_ranks
from trainer.losses.contrastive import PRESETS, Contrastive, ContrastiveSettings, kept_pairs

SYSTEMS = ("openshape", "uni3d", "duoduo")
PUBLISHED = {"openshape": "openshape", "uni3d": "uni3d as published", "duoduo": "duoduo"}
SHAPE = {"openshape": "pc", "uni3d": "pc", "duoduo": "shape"}  # what the arrays call the shapes


class _Oracle:
    """One file's arrays; remembers which were compared and the largest difference."""

    def __init__(self, path: Path) -> None:
        self.arrays = dict(np.load(path, allow_pickle=False))
        self.config = json.loads(str(self.arrays["config"]))
        self.left = {name for name in self.arrays if name.split("/")[0] in ("out", "mid", "grad")}

    def input(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self.arrays[f"in/{name}"]))

    def compare(self, name: str, made: torch.Tensor, factor: float = 1.0) -> None:
        """Tolerances of the oracles' README; accuracies and masks are exact."""
        expected, made = self.arrays[name], factor * made.detach().numpy()
        assert made.shape == expected.shape, name
        print(f"{name}: {np.abs(made.astype(float) - expected).max():.1e}")
        exact = expected.dtype == bool or "acc" in name.rsplit("/", 1)[1]
        relative = 1e-4 if name.startswith("grad") else 1e-5
        np.testing.assert_allclose(made, expected, rtol=1e-6 if exact else relative, atol=0 if exact else 1e-6, err_msg=name)
        self.left.discard(name)


def _given(oracle: _Oracle, system: str) -> tuple[torch.Tensor, ...]:
    """Shapes, images, texts, who has an image, who has a text: of the whole batch, without a mask."""
    shape, image, text = (oracle.input(name) for name in (SHAPE[system], "image", "text"))
    everyone = torch.ones(len(shape), dtype=torch.bool)
    return shape, image, text, oracle.input("use_image") > 0 if system == "uni3d" else everyone, everyone


def _run(settings: ContrastiveSettings, log_scale: torch.Tensor, given: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    """The parts of the loss, and its gradients: `shape` and `log_scale`."""
    loss = Contrastive(settings)
    loss.log_scale.data.copy_(log_scale)
    shape = given[0].clone().requires_grad_()
    made = loss(shape, *given[1:])
    made["loss"].backward()
    return {**{name: part.detach() for name, part in made.items()}, "grad_shape": shape.grad, "grad_log_scale": loss.log_scale.grad}


def _on_a_rank(folder: str) -> dict:
    results = {}
    for system in SYSTEMS:
        oracle = _Oracle(Path(folder, f"loss_{system}.npz"))
        mine = [rows.chunk(dist.get_world_size())[dist.get_rank()] for rows in _given(oracle, system)]
        results[system] = _run(PRESETS[PUBLISHED[system]], oracle.input("log_scale"), mine)
    return results


@pytest.fixture(scope="module")
def of_ranks(oracles, tmp_path_factory):
    worlds = {_Oracle(oracles / f"loss_{system}.npz").config["world"] for system in SYSTEMS}
    return {world: on_ranks(world, tmp_path_factory.mktemp("group"), _on_a_rank, str(oracles)) for world in worlds}


def _compare_ranks(oracle: _Oracle, system: str, of_ranks: dict) -> None:
    world = oracle.config["world"]
    for rank, results in enumerate(of_ranks[world]):
        made, name = results[system], f"world{world}_rank{rank}"
        oracle.compare(f"out/{name}/total", made["loss"])
        oracle.compare(f"grad/{name}/grad_pc", made["grad_shape"])
        oracle.compare(f"grad/{name}/grad_log_scale", made["grad_log_scale"])
        for modality in ("image", "text"):
            if system == "uni3d":
                oracle.compare(f"out/{name}/pc_{modality}_acc", made[f"accuracy_{modality}"], 100)
            else:
                oracle.compare(f"out/{name}/loss_{modality}", made[f"loss_{modality}"])


def test_oracle_openshape(oracles, of_ranks):
    oracle = _Oracle(oracles / "loss_openshape.npz")
    shape, image, text, everyone, _ = given = _given(oracle, "openshape")
    some = torch.zeros_like(everyone)
    some[oracle.input("has_text_idx")] = True
    block, margin = oracle.config["K"], oracle.config["thr"]
    plain = PRESETS["openshape"]
    hard = replace(plain, block=block, margin=margin, dropped="zeroed")
    oracle.compare("mid/hardneg/mask", kept_pairs(image, text, everyone, block, margin))
    for case, settings, has_text in (
        ("partial_text", plain, some),
        ("no_text", plain, torch.zeros_like(everyone)),
        ("hardneg", hard, everyone),
    ):
        made = _run(settings, oracle.input("log_scale"), (*given[:3], everyone, has_text))
        oracle.compare(f"out/{case}/total", made["loss"])
        for modality in ("image", "text")[: 1 if case == "no_text" else 2]:
            oracle.compare(f"out/{case}/loss_{modality}", made[f"loss_{modality}"])
            oracle.compare(f"out/{case}/acc_{modality}", made[f"accuracy_{modality}"])
        oracle.compare(f"grad/{case}/pc", made["grad_shape"])
        oracle.compare(f"grad/{case}/log_scale", made["grad_log_scale"])
    _compare_ranks(oracle, "openshape", of_ranks)
    assert not oracle.left


@pytest.mark.parametrize("preset", ["uni3d", "uni3d as published"])
def test_oracle_uni3d(oracles, of_ranks, preset):
    oracle = _Oracle(oracles / "loss_uni3d.npz")
    made = _run(PRESETS[preset], oracle.input("log_scale"), _given(oracle, "uni3d"))
    oracle.compare("out/total", made["loss"])
    for modality in ("image", "text"):
        oracle.compare(f"out/loss_{modality}", made[f"loss_{modality}"])
        oracle.compare(f"out/pc_{modality}_acc", made[f"accuracy_{modality}"], 100)
    oracle.compare("grad/pc", made["grad_shape"])
    oracle.compare("grad/log_scale", made["grad_log_scale"])
    _compare_ranks(oracle, "uni3d", of_ranks)
    assert not oracle.left


def test_oracle_duoduo(oracles, of_ranks):
    oracle = _Oracle(oracles / "loss_duoduo.npz")
    given = _given(oracle, "duoduo")
    made = _run(PRESETS["duoduo"], oracle.input("log_scale"), given)
    oracle.compare("out/total", made["loss"])
    for modality in ("image", "text"):
        oracle.compare(f"out/loss_{modality}", made[f"loss_{modality}"])
    oracle.compare("grad/shape", made["grad_shape"])
    oracle.compare("grad/log_scale", made["grad_log_scale"])
    poster = _run(PRESETS["duoduo as in the poster"], oracle.input("log_scale"), given)
    oracle.compare("out/paper_poster_formula", poster["loss"])
    _compare_ranks(oracle, "duoduo", of_ranks)
    assert not oracle.left


def test_oracle_gradients_of_ranks_average_to_the_single_processs(oracles, of_ranks):
    """What DistributedDataParallel divides by: with gradient, the ranks' rows together hold `world` times the gradient of one
    process on the same global batch. Uni3D's own way holds less."""
    for system in SYSTEMS:
        oracle = _Oracle(oracles / f"loss_{system}.npz")
        world = oracle.config["world"]
        whole = _run(PRESETS[PUBLISHED[system]], oracle.input("log_scale"), _given(oracle, system))["grad_shape"]
        together = torch.cat([results[system]["grad_shape"] for results in of_ranks[world]]) / world
        print(f"{system}: {together.norm() / whole.norm():.3f} of the gradient's norm")
        assert torch.allclose(together, whole, rtol=1e-4, atol=1e-6) == (system != "uni3d")
