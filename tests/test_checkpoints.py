import dataclasses
import json
import pickle
from collections import OrderedDict
from pathlib import Path

import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from trainer.card import Card, PointInput, ViewInput
from trainer.checkpoints import KINDS, OFFICIAL, built, convert, load, read_card, save
from trainer.encoders import duoduo, pointbert, uni3d

POINTBERT = pointbert.PointBertConfig(
    dim=32, depth=1, heads=2, hidden=16, sa_dim=8, groups=8, radius=0.4, group_size=4, head_width=16, out=12
)
UNI3D = uni3d.Uni3dConfig(width=32, depth=1, heads=2, hidden=16, flavour="swiglu", groups=8, group_size=4, pc_encoder_dim=8, out=12)
DUODUO = duoduo.DuoduoConfig(image_size=32, patch=16, width=32, layers=2, heads=2, out=12, layers_threshold=1)

CARDS = {
    "pointbert": Card(
        encoder="pointbert",
        config=dataclasses.asdict(POINTBERT),
        input=PointInput(frame="yz-swapped", normalisation="box", points=None, fill=100 / 255),
        teacher={"name": "ViT-bigG-14:laion2b_s39b_b160k", "dim": 1280, "mean": [0.5, 0.25, 0.125]},
        data={"root": "/data/corpus", "versions": {"points": 7}},
        made_by={"recipe": "openshape", "seed": 3, "nothing": None},
        steps=12,
        epochs=0.5,
    ),
    "uni3d": Card(encoder="uni3d", config=dataclasses.asdict(UNI3D), input=PointInput(), teacher=None, data=None, made_by={}),
    "duoduo": Card(
        encoder="duoduo",
        config=dataclasses.asdict(DUODUO),
        input=ViewInput(size=32, crop=2, background=(1, 2, 3), mean=(0.1, 0.2, 0.3)),
        teacher=None,
        data=None,
        made_by={},
    ),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def unlike_fresh(encoder):
    """Weights and running statistics that no initialisation gives."""
    with torch.no_grad():
        for value in encoder.state_dict().values():
            value.copy_(torch.rand(value.shape) if value.is_floating_point() else torch.full(value.shape, 5))
    return encoder


def same(one: torch.nn.Module, state: dict[str, torch.Tensor], *, tolerance: float = 0.0) -> bool:
    own = one.state_dict()
    return own.keys() == state.keys() and all((own[key] - state[key].to(own[key].dtype)).abs().max() <= tolerance for key in own)


# ---------------------------------------------------------------------------------------------------------------- our folders


@pytest.mark.parametrize("kind", CARDS)
def test_what_was_saved_comes_back(tmp_path, kind):
    card = CARDS[kind]
    encoder = unlike_fresh(built(card))
    save(tmp_path / "a" / "b", encoder, card)
    again, its_card = load(tmp_path / "a" / "b")
    assert its_card == card  # tuples are tuples again
    assert same(again, encoder.state_dict())
    assert not again.training and all(value.dtype != torch.float16 for value in again.state_dict().values())
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["config.json", "model.safetensors"]


def test_saving_again_puts_the_new_in_place_of_the_old(tmp_path):
    first, second = (unlike_fresh(built(CARDS["pointbert"])) for _ in range(2))
    save(tmp_path, first, CARDS["pointbert"])
    save(str(tmp_path), second, dataclasses.replace(CARDS["pointbert"], steps=99))
    again, card = load(str(tmp_path))
    assert card.steps == 99 and same(again, second.state_dict())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda told: told | {"format": 2}, "has format 2, and this version of tricorpus reads up to 1: update it"),
        (lambda told: told | {"mirrored": True}, "has mirrored, which this version of tricorpus does not know"),
        (lambda told: told | {"input": told["input"] | {"gamma": 2}}, "input has gamma, which this version"),
        (lambda told: told | {"config": told["config"] | {"rope": True}}, "config has rope, which this version"),
        (lambda told: {key: value for key, value in told.items() if key != "made_by"}, "lacks made_by"),
        (lambda told: told | {"config": {"dim": 3}}, "config lacks depth, heads"),
        (lambda told: told | {"encoder": "pointnet"}, "encoder 'pointnet' .* knows the encoders pointbert, uni3d, duoduo"),
        (lambda told: told | {"input": {"kind": "voxels"}}, "input of kind 'voxels'.* the kinds points, views"),
        (lambda told: {key: value for key, value in told.items() if key != "format"}, "no card of an encoder"),
        (lambda told: [told], "no card of an encoder"),
    ],
)
def test_a_card_that_is_not_understood_is_refused(tmp_path, change, sentence):
    save(tmp_path, built(CARDS["pointbert"]), CARDS["pointbert"])
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(change(told)))
    with pytest.raises(ValueError, match=sentence):
        load(tmp_path)


def test_the_folder_of_a_run_is_told_where_its_checkpoints_are(tmp_path):
    for step in (100, 200):
        save(tmp_path / "run" / "checkpoints" / f"step-{step:08d}", built(CARDS["uni3d"]), CARDS["uni3d"])
    with pytest.raises(ValueError, match="run is no checkpoint: .* inside it are checkpoints, such as .*/step-00000200$"):
        load(tmp_path / "run")


def test_a_folder_that_is_no_whole_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no checkpoint: it has no config.json"):
        load(tmp_path)
    save(tmp_path, built(CARDS["uni3d"]), CARDS["uni3d"])
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="no file of weights, or a damaged one .*: fetch it again"):
        load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"there is no .*model.safetensors: the checkpoint is not whole"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is no JSON .*: the checkpoint is damaged"):
        read_card(tmp_path)


def test_weights_of_other_sizes_are_told_by_name_and_shape(tmp_path):
    save(
        tmp_path, built(CARDS["pointbert"]), dataclasses.replace(CARDS["pointbert"], config=CARDS["pointbert"].config | {"out": 16})
    )
    with pytest.raises(
        ValueError, match=r"weights of another encoder: 2 differ, such as proj.bias \(12,\) for \(16,\); proj.weight"
    ):
        load(tmp_path)


def test_what_is_neither_folder_nor_file_nor_name_is_told_the_names(tmp_path):
    with pytest.raises(
        ValueError, match="there is no .*uni3d-huge: .* the name of a published one: openshape-pointbert-vitg14-rgb, "
    ):
        load(tmp_path / "uni3d-huge")
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="is a file: say which published checkpoint it is"):
        load(tmp_path / "model.pt")
    with pytest.raises(ValueError, match="there is no published checkpoint called 'uni3d-huge'"):
        load(tmp_path / "model.pt", name="uni3d-huge")
    with pytest.raises(ValueError, match="is a folder: a name .* goes with the file"):
        load(tmp_path, name="uni3d-b")


# ---------------------------------------------------------------------------------------------------------------- published files


def test_every_published_checkpoint_can_be_built_and_embeds_into_its_teachers_space():
    for published in {published.size: published for published in OFFICIAL.values()}.values():
        with torch.device("meta"):
            assert built(published.card("")).config == KINDS[published.encoder][0].SIZES[published.size]
    for name, published in OFFICIAL.items():
        arch, _, tag = published.teacher.partition(":")
        assert published.card(name).config["out"] == open_clip.get_model_config(arch)["embed_dim"], name
        assert tag in open_clip.list_pretrained_tags_by_model(arch), name


def test_published_checkpoints_are_fed_as_they_were_trained():
    frames = {name: published.input.frame for name, published in OFFICIAL.items() if published.encoder != "duoduo"}
    swapped = [name for name, frame in frames.items() if frame == "yz-swapped"]
    assert swapped == ["openshape-pointbert-vitg14-rgb", "openshape-pointbert-no-lvis", "openshape-pointbert-shapenet"]
    for name in frames:
        assert OFFICIAL[name].input == PointInput(frame=frames[name], normalisation="mean", points=10_000, fill=0.4)
    views = [published.input for published in OFFICIAL.values() if published.encoder == "duoduo"]
    assert views == [ViewInput(size=224, crop=16)] * 3
    assert OFFICIAL["uni3d-l-no-lvis"].file == "modelzoo/uni3d-l-no-lvis/model.pt"
    assert OFFICIAL["duoduo-four-mvimgnet-1to6f"].file == "Four_MVImgNet_1to6F_bs1600_LT6.ckpt"


def of_openshape_training(state):
    """A training file of one process per GPU, with all that stands beside the weights."""
    weights = OrderedDict((f"module.{key}", value) for key, value in state.items())
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
    beside = {"logit_scale": {"module.logit_scale": torch.tensor(2.66)}, "optimizer": optimizer.state_dict(), "epoch": 7}
    return {"state_dict": weights} | beside | {"step": 100, "best_modelnet40_overall_acc": 0.84, "text_proj": OrderedDict()}


def of_demo(state):
    return {f"pc_encoder.{key}": value for key, value in state.items()}


def of_demo_without_projection(state):
    return {f"pc_encoder.{key.removeprefix('ppat.')}": value for key, value in state.items()}


def of_deepspeed(state):
    """In half precision, with the parts of timm's model that Uni3D never uses."""
    unused = {"cls_token": (1, 1, 32), "pos_embed": (1, 5, 32), "patch_embed.proj.weight": (32, 3, 14, 14), "head.weight": (5, 32)}
    weights = {f"point_encoder.{key}": value for key, value in state.items()} | {"logit_scale": torch.tensor(4.6)}
    weights |= {f"point_encoder.visual.{key}": torch.ones(shape) for key, shape in unused.items()}
    return {"module": {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}}


def of_deepspeed_around_ddp(state):
    return {"module": {f"module.{key}": value for key, value in of_deepspeed(state)["module"].items()}}


def of_lightning(state):
    """With the text tower, and both log scales."""
    weights = {f"duoduoclip.{key}": value for key, value in state.items()}
    text = {"transformer.resblocks.0.ln_1.weight": (8,), "token_embedding.weight": (9, 8), "positional_embedding": (7, 8)}
    weights |= {f"duoduoclip.{key}": torch.ones(shape) for key, shape in text.items()}
    weights |= {"duoduoclip.logit_scale": torch.tensor(4.6), "contrastive_loss.logit_scale": torch.tensor(2.7)}
    return {"state_dict": weights, "hyper_parameters": {"lr": 5e-5, "views": [1, 6]}, "pytorch-lightning_version": "2.2.1"}


LAYOUTS = [
    ("openshape-pointbert-vitg14-rgb", of_openshape_training),
    ("openshape-pointbert-vitl14-rgb", of_demo),
    ("openshape-pointbert-vitb32-rgb", of_demo_without_projection),
    ("uni3d-b", of_deepspeed),
    ("uni3d-g-no-lvis", of_deepspeed_around_ddp),
    ("duoduo-four-1to6f", of_lightning),
]


@pytest.fixture
def small(monkeypatch):
    """The published sizes made small, so that files of their layouts are."""
    for size in ("openshape-4", "openshape-vitl14"):
        monkeypatch.setitem(pointbert.SIZES, size, POINTBERT)
    monkeypatch.setitem(pointbert.SIZES, "openshape-vitb32", dataclasses.replace(POINTBERT, projection=False, out=32))
    for size in ("uni3d-b", "uni3d-g"):
        monkeypatch.setitem(uni3d.SIZES, size, UNI3D)
    monkeypatch.setitem(duoduo.SIZES, "duoduo-lt6", DUODUO)


def written(path: Path, name: str, layout) -> dict[str, torch.Tensor]:
    """A file of a published layout, and the weights that must come out of it."""
    state = unlike_fresh(built(OFFICIAL[name].card(name))).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(layout(state), path)
    return state


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_each_published_layout_loads_whole(tmp_path, small, name, layout):
    state = written(tmp_path / "model.pt", name, layout)
    encoder, card = load(tmp_path / "model.pt", name=name)
    assert same(encoder, state, tolerance=5e-4 if "uni3d" in name else 0.0)  # of half precision
    assert not encoder.training and all(value.dtype in (torch.float32, torch.int64) for value in encoder.state_dict().values())
    assert card == OFFICIAL[name].card(name)
    assert card.made_by["published"] == name and card.teacher == {"name": OFFICIAL[name].teacher} and card.data is None


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_a_published_file_is_converted_to_a_folder_without_pickle(tmp_path, small, name, layout):
    written(tmp_path / "model.pt", name, layout)
    convert(tmp_path / "model.pt", tmp_path / "converted", name=name)
    (encoder, card), (before, its_card) = load(tmp_path / "converted"), load(tmp_path / "model.pt", name=name)
    assert card == its_card and same(encoder, before.state_dict())
    assert load_file(tmp_path / "converted" / "model.safetensors").keys() == before.state_dict().keys()


def test_a_published_checkpoint_is_found_in_the_hubs_cache(hub, small):
    name = "uni3d-b"
    with pytest.raises(ValueError) as refused:
        load(name)
    place = hub / "models--BAAI--Uni3D" / "snapshots" / "main" / "modelzoo" / "uni3d-b" / "model.pt"
    assert f"Put here modelzoo/uni3d-b/model.pt of BAAI/Uni3D on the Hugging Face hub, as {place} " in str(refused.value)
    assert "`hf download BAAI/Uni3D modelzoo/uni3d-b/model.pt`" in str(refused.value)
    state = written(place, name, of_deepspeed)
    assert same(load(name)[0], state, tolerance=5e-4)


def test_the_revision_called_main_is_taken(hub, small):
    repository = hub / "models--OpenShape--openshape-pointbert-no-lvis"
    layout = of_openshape_training
    written(repository / "snapshots" / "older" / "model.pt", "openshape-pointbert-no-lvis", layout)
    state = written(repository / "snapshots" / "newer" / "model.pt", "openshape-pointbert-no-lvis", layout)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("newer")
    assert same(load("openshape-pointbert-no-lvis")[0], state)


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_that_needs_unpickling_is_refused_and_not_run(tmp_path, small):
    state = built(OFFICIAL["duoduo-four-1to6f"].card("")).state_dict()
    torch.save(of_lightning(state) | {"callbacks": Runs(tmp_path / "ran")}, tmp_path / "model.ckpt")
    with pytest.raises(
        ValueError, match="holds more than tensors and plain values, and reading it would run code .*: it is refused"
    ):
        load(tmp_path / "model.ckpt", name="duoduo-four-1to6f")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    with pytest.raises(ValueError, match="bare.pt"):
        load(tmp_path / "bare.pt", name="uni3d-b")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"<!doctype html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"PK\x03\x04 and then nothing"],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_no_file_of_weights_is_told(tmp_path, content, suffix):
    (tmp_path / f"model{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match="is no file of weights, or a damaged one"):
        load(tmp_path / f"model{suffix}", name="uni3d-b")


def test_a_file_of_another_system_is_told(tmp_path, small):
    written(tmp_path / "model.pt", "uni3d-b", of_deepspeed)
    with pytest.raises(ValueError, match=r"model.pt, taken for openshape-pointbert-shapenet: these are not the weights"):
        load(tmp_path / "model.pt", name="openshape-pointbert-shapenet")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="list.pt holds a list, and no weights by name"):
        load(tmp_path / "list.pt", name="uni3d-b")
