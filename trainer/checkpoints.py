"""Encoders on disk: a folder with `model.safetensors` and `config.json`, the encoder's card; and the files that others published.

encoder, card = load("runs/mine/checkpoints/step-00010000")               # a folder that `save` wrote
encoder, card = load("openshape-pointbert-vitg14-rgb")                    # a published one, from the Hugging Face hub's cache
encoder, card = load("/downloads/model.pt", name="uni3d-g-no-lvis")       # the same, from wherever its file is

Weights are never unpickled: a file that needs that is refused.
"""

import json
import os
import pickle
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainer.card import Card, PointInput, ViewInput
from trainer.encoders import duoduo, pointbert, uni3d

FORMAT = 1  # of config.json; a reader refuses a later one
WEIGHTS, CONFIG = "model.safetensors", "config.json"

KINDS = {
    "pointbert": (pointbert, pointbert.PointBert, pointbert.PointBertConfig),
    "uni3d": (uni3d, uni3d.Uni3d, uni3d.Uni3dConfig),
    "duoduo": (duoduo, duoduo.Duoduo, duoduo.DuoduoConfig),
}
INPUTS = {"points": PointInput, "views": ViewInput}

BIGG, EVA02_E_PLUS, B32 = "ViT-bigG-14:laion2b_s39b_b160k", "EVA02-E-14-plus:laion2b_s9b_b144k", "ViT-B-32:laion2b_s34b_b79k"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published checkpoint: its repository on the Hugging Face hub and the file there, the encoder and which of the SIZES in its
    file, what it is fed, and the teacher into whose space it embeds, as open_clip spells it."""

    repository: str
    file: str
    encoder: str
    size: str
    input: PointInput | ViewInput
    teacher: str

    def card(self, name: str) -> Card:
        """What is known of the encoder; `name` is its name in OFFICIAL."""
        return Card(
            encoder=self.encoder,
            config=asdict(KINDS[self.encoder][0].SIZES[self.size]),
            input=self.input,
            teacher={"name": self.teacher},
            data=None,
            made_by={"published": name, "repository": self.repository, "file": self.file},
        )


def _openshape(size: str, frame: str, teacher: str, name: str) -> Published:
    return Published(
        repository=f"OpenShape/{name}",
        file="model.pt",
        encoder="pointbert",
        size=size,
        input=PointInput(frame=frame),
        teacher=teacher,
    )


# OpenShape's table of checkpoints says "gravity axis z" of those with ViT-bigG-14 (columns swapped: trainer/card.py) and "y" of the
# two older ones, which stand in the spaces of OpenAI's own models. Uni3D and Duoduo CLIP: one repository each.
OFFICIAL = {
    name: _openshape(size, frame, teacher, name)
    for name, size, frame, teacher in (
        ("openshape-pointbert-vitg14-rgb", "openshape-4", "yz-swapped", BIGG),
        ("openshape-pointbert-no-lvis", "openshape-4", "yz-swapped", BIGG),
        ("openshape-pointbert-shapenet", "openshape-4", "yz-swapped", BIGG),
        ("openshape-pointbert-vitl14-rgb", "openshape-vitl14", "canonical", "ViT-L-14:openai"),
        ("openshape-pointbert-vitb32-rgb", "openshape-vitb32", "canonical", "ViT-B-32:openai"),
    )
}
OFFICIAL |= {
    name: Published(
        repository="BAAI/Uni3D",
        file=f"modelzoo/{name}/model.pt",
        encoder="uni3d",
        size=name.removesuffix("-no-lvis"),
        input=PointInput(),
        teacher=EVA02_E_PLUS,
    )
    for size in ("ti", "s", "b", "l", "g")
    for name in (f"uni3d-{size}", f"uni3d-{size}-no-lvis")
}
OFFICIAL |= {
    f"duoduo-{data.lower().replace('_', '-')}-1to6f": Published(
        repository="3dlg-hcvc/DuoduoCLIP",
        file=f"{data}_1to6F_bs1600_LT6.ckpt",
        encoder="duoduo",
        size="duoduo-lt6",
        input=ViewInput(crop=16),
        teacher=B32,
    )
    for data in ("Four", "Four_MVPNet", "Four_MVImgNet")
}


def save(folder: str | Path, encoder: nn.Module, card: Card) -> None:
    """Write the encoder's weights and its card into a folder, which is made if it is not there. Each file appears whole or not at
    all, the card last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}, folder / f"{WEIGHTS}.part")
    os.replace(folder / f"{WEIGHTS}.part", folder / WEIGHTS)
    (folder / f"{CONFIG}.part").write_text(json.dumps(to_json(card), indent=2, allow_nan=False) + "\n")
    os.replace(folder / f"{CONFIG}.part", folder / CONFIG)


def load(place: str | Path, *, name: str | None = None) -> tuple[nn.Module, Card]:
    """An encoder, on the CPU, in float32 and in evaluation mode, and its card.

    `place`: a folder that `save` wrote; a name of OFFICIAL, whose file is then looked for in the hub's cache on this machine
    (nothing is fetched); or, with `name`, that published file itself, or one of the same layout. Raises ValueError, with a
    sentence, for what is not there, is damaged, needs unpickling, or is of another encoder.
    """
    if name is not None and name not in OFFICIAL:
        raise ValueError(f"there is no published checkpoint called {name!r}: the names are {', '.join(OFFICIAL)}")
    path = Path(place).expanduser()
    if name is None and str(place) in OFFICIAL:
        return _loaded_official(_in_hub_cache(str(place)), str(place))
    if path.is_file():
        if name is None:
            raise ValueError(
                f"{path} is a file: say which published checkpoint it is or is laid out like, by name: {', '.join(OFFICIAL)}"
            )
        return _loaded_official(path, name)
    if not path.is_dir():
        raise ValueError(f"there is no {path}: give a checkpoint's folder, or the name of a published one: {', '.join(OFFICIAL)}")
    if name is not None:
        raise ValueError(f"{path} is a folder: a name ({name}) goes with the file of a published checkpoint")
    card = read_card(path)
    return _filled(built(card), tensors(path / WEIGHTS), path), card


def convert(place: str | Path, folder: str | Path, *, name: str | None = None) -> None:
    """Bring a published checkpoint (`place` and `name` as for `load`) into a folder as `save` writes it."""
    save(folder, *load(place, name=name))


def built(card: Card) -> nn.Module:
    """The encoder that a card describes, with fresh weights. Raises ValueError for a configuration it does not have."""
    _, module, config = KINDS[card.encoder]
    return module(_made(config, card.config, f"the configuration of {card.encoder}"))


def read_card(folder: str | Path) -> Card:
    """The card in a checkpoint's folder. Raises ValueError when there is none, or one that this version does not understand."""
    path = Path(folder) / CONFIG
    try:
        told = json.loads(path.read_text())
    except FileNotFoundError:
        inside = sorted(path.parent.glob(f"*/*/{CONFIG}"))
        told = f"; inside it are checkpoints, such as {inside[-1].parent}" if inside else ""
        raise ValueError(f"{folder} is no checkpoint: it has no {CONFIG}{told}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): the checkpoint is damaged") from error
    if not isinstance(told, dict) or not isinstance(told.get("format"), int):
        raise ValueError(f"{path} is no card of an encoder: it has no format number")
    if told["format"] > FORMAT:
        raise ValueError(f"{path} has format {told['format']}, and this version of tricorpus reads up to {FORMAT}: update it")
    values = {key: value for key, value in told.items() if key != "format"}
    input = dict(values.pop("input", {}))
    kind = input.pop("kind", None)
    if kind not in INPUTS or values.get("encoder") not in KINDS:
        raise ValueError(
            f"{path}: encoder {values.get('encoder')!r} with input of kind {kind!r}: this version of tricorpus knows the encoders "
            f"{', '.join(KINDS)} and the kinds {', '.join(INPUTS)}"
        )
    input = {key: tuple(value) if isinstance(value, list) else value for key, value in input.items()}
    card = _made(Card, values | {"input": _made(INPUTS[kind], input, f"{path}: input")}, str(path))
    _made(KINDS[card.encoder][2], card.config, f"{path}: config")
    return card


def to_json(card: Card) -> dict[str, Any]:
    """A card as config.json has it."""
    kind = next(kind for kind, of in INPUTS.items() if isinstance(card.input, of))
    return {"format": FORMAT} | asdict(card) | {"input": {"kind": kind} | asdict(card.input)}


def _made(kind: type, values: dict[str, Any], where: str) -> Any:
    """A dataclass of these values. Raises ValueError for fields it does not have, and for missing ones that have no default."""
    known = {field.name: field.default is MISSING for field in fields(kind)}
    if unknown := sorted(values.keys() - known.keys()):
        raise ValueError(
            f"{where} has {', '.join(unknown)}, which this version of tricorpus does not know: a later one wrote it; update"
        )
    if missing := [name for name, needed in known.items() if needed and name not in values]:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    return kind(**values)


# ---------------------------------------------------------------------------------------------------------------- published files


def _in_hub_cache(name: str) -> Path:
    published = OFFICIAL[name]
    found = try_to_load_from_cache(published.repository, published.file)
    if isinstance(found, str):
        return Path(found)
    repository, file = published.repository, published.file
    place = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model") / "snapshots" / "main" / file
    raise ValueError(
        f"the weights of {name} are not on this machine. Put here {file} of {repository} on the Hugging Face hub, as {place} "
        f"(where there is network, `hf download {repository} {file}` puts it there); or put the file wherever you like, and give "
        f"its path together with the name {name}"
    )


def _loaded_official(path: Path, name: str) -> tuple[nn.Module, Card]:
    published = OFFICIAL[name]
    try:
        state = KINDS[published.encoder][0].official(tensors(path))
    except ValueError as error:
        raise ValueError(f"{path}, taken for {name}: {error}") from error
    card = published.card(name)
    return _filled(built(card), state, path), card


def tensors(path: Path) -> dict[str, Any]:
    """What a weights file holds: safetensors, or what torch.save wrote of tensors and plain values."""
    if not path.is_file():
        raise ValueError(f"there is no {path}: the checkpoint is not whole")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "global" in str(error):
            raise ValueError(
                f"{path} holds more than tensors and plain values, and reading it would run code from the file: it is refused. "
                "Where you trust it, load it with torch, and save its tensors alone as .safetensors"
            ) from error
        raise ValueError(f"{path} is no file of weights, or a damaged one: fetch it again") from error
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is no file of weights, or a damaged one ({str(error).partition(chr(10))[0] or 'empty'}): fetch it again"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, and no weights by name")
    return state


def _filled(encoder: nn.Module, state: dict[str, Tensor], path: Path) -> nn.Module:
    """The encoder with these weights, all of them and no others."""
    wanted, given = ({name: tuple(value.shape) for name, value in of.items()} for of in (encoder.state_dict(), state))
    if different := [name for name in wanted | given if wanted.get(name) != given.get(name)]:
        told = [f"{name} {given.get(name, 'absent')} for {wanted.get(name, 'none')}" for name in sorted(different)[:3]]
        raise ValueError(f"{path} has the weights of another encoder: {len(different)} differ, such as {'; '.join(told)}")
    encoder.load_state_dict(state)
    return encoder.eval()
