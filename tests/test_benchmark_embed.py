"""The embedding benchmark: its rates, FLOPs and shares mean what it says."""

import json
import sys

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.embed import TimedTeacher, flops, kinds, made_rows, main, matmul_rate, measured, random_weights, told
from pipeline.weights import TINY_TEACHER


@pytest.fixture(scope="module")
def found():
    """Figures of the tiny teacher over six made pictures and seven texts."""
    teacher = TimedTeacher(TINY_TEACHER, device="cpu", images_per_forward=3, texts_per_forward=4)
    both = kinds(TINY_TEACHER, teacher, *made_rows(3, 2, 7))
    return {kind: measured(one, flops(teacher, one.encode, one.example), 1e12, 2) for kind, one in both.items()}


def test_flops_are_those_of_the_products(tmp_path):
    """ViT-B-32 as open_clip's own profile has it (docs/model_profile.csv, which counts a multiplication and its addition as one
    in the projections): 4.41 and 2.98 G for a picture and a text; checked here against the sum over the layers."""
    save_file({"seed": torch.tensor(0)}, tmp_path / "random.safetensors")
    name = f"ViT-B-32:{tmp_path}/random.safetensors"
    teacher = TimedTeacher(name, device="cpu", images_per_forward=2, load=random_weights)
    one = kinds(name, teacher, *made_rows(1, 1, 1))
    seen, said = (flops(teacher, one[kind].encode, one[kind].example) for kind in ("images", "texts"))

    def transformer(layers: int, width: int, tokens: int) -> int:
        return layers * (2 * tokens * width * 12 * width + 2 * 2 * tokens * tokens * width)

    assert seen == transformer(12, 768, 50) + 2 * 49 * 768 * 3 * 32 * 32 + 2 * 768 * 512
    assert said == transformer(12, 512, 77) + 2 * 512 * 512


def test_the_matmul_rate_is_above_that_of_any_model_and_below_what_no_machine_can():
    rate, size = matmul_rate(torch.device("cpu"), torch.float32, seconds=0.05)
    assert 1e9 < rate < 1e14 and size in (512, 1024, 2048)


def test_rates_and_shares_belong_together(found):
    for kind, count in (("images", 6), ("texts", 7)):
        one = found[kind]
        assert one["inputs"] == count
        for who, rate in one["per_second"].items():
            assert one["of_matmul"][who] == pytest.approx(rate * one["flops_each"] / 1e12)
            assert one["of_model"][who] == pytest.approx(rate / one["per_second"]["model"])
        assert all(share > 0 for share in one["shares"].values()) and sum(one["shares"].values()) < 1
    assert any("images" in line for line in told("images", found["images"]))


def test_random_weights_are_those_of_the_architecture_with_a_name_and_a_preprocessing(tmp_path):
    save_file({"seed": torch.tensor(0)}, tmp_path / "random.safetensors")
    loaded = random_weights(f"tricorpus-tiny:{tmp_path}/random.safetensors")
    assert loaded.identity.name == "tricorpus-tiny:random"
    assert {name: value.shape for name, value in loaded.model.state_dict().items()} == {
        name: value.shape for name, value in open_clip.create_model("tricorpus-tiny").state_dict().items()
    }


def test_a_run_prints_what_it_found_and_keeps_it_as_json(tmp_path, monkeypatch, capsys):
    given = ["--arch", "tricorpus-tiny", "--device", "cpu", "--objects", "2", "--views", "2", "--texts", "3", "--peers", "1"]
    monkeypatch.setattr(sys, "argv", ["embed", *given, "--images-per-forward", "2", "--json", str(tmp_path / "found.json")])
    main()
    said = capsys.readouterr().out
    assert said.startswith("load ") and "matmul" in said and "peak memory" in said
    kept = json.loads((tmp_path / "found.json").read_text())
    assert kept["eager"]["images"]["inputs"] == 4 and kept["teacher"]["arch"] == "tricorpus-tiny"
