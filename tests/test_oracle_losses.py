"""The contrastive losses against the published systems' own: values, gradients, accuracies and masks, in one process and on
ranks."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from oracle import Oracle
from ranks import on_ranks
from trainer.losses.contrastive import PRESETS, Contrastive, ContrastiveSettings, kept_pairs

PUBLISHED = {"openshape": "openshape", "uni3d": "uni3d as published", "duoduo": "duoduo"}
SHAPE = {"openshape": "pc", "uni3d": "pc", "duoduo": "shape"}  # what the arrays call the shapes
LOSS, GRADIENT, ACCURACY = (1e-6, 1e-5), (1e-6, 1e-4), (0.0, 1e-6)  # allowed: so much, and so much of the value


def _given(oracle: Oracle, system: str) -> tuple[torch.Tensor, ...]:
    """Shapes, images, texts, who has an image, who has a text: of the whole batch, without a mask."""
    shape, image, text = (oracle.arrays[f"in/{name}"] for name in (SHAPE[system], "image", "text"))
    everyone = torch.ones(len(shape), dtype=torch.bool)
    return shape, image, text, oracle.arrays["in/use_image"] > 0 if system == "uni3d" else everyone, everyone


def _run(settings: ContrastiveSettings, oracle: Oracle, given: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    """The parts of the loss, and its gradients: by every name that an array of a system has for it."""
    loss = Contrastive(settings)
    loss.log_scale.data.copy_(oracle.arrays["in/log_scale"])
    shape = given[0].clone().requires_grad_()
    made = loss(shape, *given[1:])
    made["loss"].backward()
    named = {"total": made["loss"].detach()}
    for modality in ("image", "text"):
        accuracy = made[f"accuracy_{modality}"].detach()
        named |= {f"loss_{modality}": made[f"loss_{modality}"].detach()}
        named |= {f"acc_{modality}": accuracy, f"pc_{modality}_acc": 100 * accuracy}
    named |= dict.fromkeys(("shape", "pc", "grad_pc"), shape.grad)
    return named | dict.fromkeys(("log_scale", "grad_log_scale"), loss.log_scale.grad)


def _on_a_rank(folder: str) -> dict:
    results = {}
    for system, preset in PUBLISHED.items():
        oracle = Oracle.read(Path(folder), f"loss_{system}")
        mine = tuple(rows.chunk(dist.get_world_size())[dist.get_rank()] for rows in _given(oracle, system))
        results[system] = _run(PRESETS[preset], oracle, mine)
    return results


@pytest.fixture(scope="module")
def of_ranks(oracles, tmp_path_factory):
    worlds = {Oracle.read(oracles, f"loss_{system}").config["world"] for system in PUBLISHED}
    return {world: on_ranks(world, tmp_path_factory.mktemp("group"), _on_a_rank, str(oracles)) for world in worlds}


def _compare(oracle: Oracle, case: str, made: dict[str, torch.Tensor]) -> None:
    """Every array that the file has of the case."""
    for kind, allowed in (("out", LOSS), ("grad", GRADIENT)):
        for name in sorted(oracle.part(f"{kind}/{case}").keys() & made.keys()):
            oracle.compare(f"{kind}/{case}{name}", made[name], *(ACCURACY if "acc" in name else allowed))


def _compare_ranks(oracle: Oracle, system: str, of_ranks: dict) -> None:
    world = oracle.config["world"]
    for rank, results in enumerate(of_ranks[world]):
        _compare(oracle, f"world{world}_rank{rank}/", results[system])


def test_oracle_openshape(oracles, of_ranks):
    oracle = Oracle.read(oracles, "loss_openshape")
    shape, image, text, everyone, _ = _given(oracle, "openshape")
    nobody, some = torch.zeros_like(everyone), torch.zeros_like(everyone)
    some[oracle.arrays["in/has_text_idx"]] = True
    block, margin = oracle.config["K"], oracle.config["thr"]
    plain = PRESETS["openshape"]
    hard = replace(plain, block=block, margin=margin, dropped="zeroed")
    oracle.compare("mid/hardneg/mask", kept_pairs(image, text, everyone, block, margin))
    for case, settings, has_text in (("partial_text", plain, some), ("no_text", plain, nobody), ("hardneg", hard, everyone)):
        _compare(oracle, f"{case}/", _run(settings, oracle, (shape, image, text, everyone, has_text)))
    _compare_ranks(oracle, "openshape", of_ranks)
    assert not oracle.left()


@pytest.mark.parametrize("preset", ["uni3d", "uni3d as published"])
def test_oracle_uni3d(oracles, of_ranks, preset):
    oracle = Oracle.read(oracles, "loss_uni3d")
    _compare(oracle, "", _run(PRESETS[preset], oracle, _given(oracle, "uni3d")))
    _compare_ranks(oracle, "uni3d", of_ranks)
    assert not oracle.left()


def test_oracle_duoduo(oracles, of_ranks):
    oracle = Oracle.read(oracles, "loss_duoduo")
    given = _given(oracle, "duoduo")
    _compare(oracle, "", _run(PRESETS["duoduo"], oracle, given))
    poster = _run(PRESETS["duoduo as in the poster"], oracle, given)
    oracle.compare("out/paper_poster_formula", poster["total"], *LOSS)
    _compare_ranks(oracle, "duoduo", of_ranks)
    assert not oracle.left()


def test_oracle_gradients_of_ranks_average_to_the_single_processs(oracles, of_ranks):
    """What DistributedDataParallel divides by: with gradient, the ranks' rows together hold `world` times the gradient of one
    process on the same global batch. Uni3D's own way holds less."""
    for system, preset in PUBLISHED.items():
        oracle = Oracle.read(oracles, f"loss_{system}")
        world = oracle.config["world"]
        whole = _run(PRESETS[preset], oracle, _given(oracle, system))["shape"]
        together = torch.cat([results[system]["shape"] for results in of_ranks[world]]) / world
        print(f"{system}: {together.norm() / whole.norm():.3f} of the gradient's norm")
        assert torch.allclose(together, whole, rtol=1e-4, atol=1e-6) == (system != "uni3d")
