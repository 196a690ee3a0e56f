"""Which teachers there are, what their embeddings depend on, and where their weights are.

A teacher is a frozen CLIP model named ARCH:PRETRAINED as open_clip spells them. PRETRAINED is a tag of open_clip or the path of a
weights file (.safetensors, .pt, .bin). Weights are looked for where open_clip and the Hugging Face hub keep them (HF_HOME) and are
downloaded only when that is asked for. `tricorpus-tiny:shapes-v1` comes with this project: it knows only the shapes of
`pipeline.made.made_objects` and serves to try things out.
"""

import difflib
import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import try_to_load_from_cache
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

DEFAULT_TEACHER = "ViT-bigG-14:laion2b_s39b_b160k"
TINY_TEACHER = "tricorpus-tiny:shapes-v1"
TINY_FOLDER = Path(__file__).parent / "tiny_teacher"
TINY_WEIGHTS = TINY_FOLDER / "weights.safetensors"
WHITE = (255, 255, 255)

open_clip.add_model_config(TINY_FOLDER / "tricorpus-tiny.json")


class TeacherError(Exception):
    """There is no such teacher; the message says what there is."""


class WeightsMissing(TeacherError):
    """There is such a teacher, but what it needs is not on this machine; the message says which file to put where."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """All that a teacher's embeddings depend on besides what is embedded.

    `name` is the teacher's name in tables: ARCH:TAG, or ARCH:STEM for a weights file. `image_size` in pixels (square); `mean` and
    `std` per channel, of values 0..1; `background` is the sRGB colour 0..255 behind transparent pixels.
    """

    name: str
    arch: str
    pretrained: str
    weights_sha256: str
    dim: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str
    background: tuple[int, int, int] = WHITE

    def to_json(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


# Names


def split_name(teacher: str) -> tuple[str, str]:
    """ "ViT-B-32:openai" -> ("ViT-B-32", "openai"). Raises TeacherError for what open_clip does not know."""
    arch, colon, pretrained = teacher.partition(":")
    if not colon or not pretrained:
        raise TeacherError(f"teacher {teacher!r}: a teacher is called ARCH:PRETRAINED, such as {DEFAULT_TEACHER} or {TINY_TEACHER}")
    if arch not in open_clip.list_models():
        raise TeacherError(f"teacher {teacher!r}: open_clip has no architecture {arch!r}.{_near(arch, open_clip.list_models())}")
    if _is_file(pretrained) or teacher == TINY_TEACHER or get_pretrained_cfg(arch, pretrained):
        return arch, pretrained
    tags = ["shapes-v1"] if arch == TINY_TEACHER.partition(":")[0] else open_clip.list_pretrained_tags_by_model(arch)
    raise TeacherError(
        f"teacher {teacher!r}: open_clip has no weights called {pretrained!r} for {arch}.{_near(pretrained, tags)} "
        "A weights file is named by its path, which ends in .safetensors, .pt or .bin."
    )


def name_in_tables(teacher: str) -> str:
    """The teacher's name in table names: the path of a weights file is cut down to its stem."""
    arch, pretrained = split_name(teacher)
    return f"{arch}:{Path(pretrained).stem}" if _is_file(pretrained) else f"{arch}:{pretrained}"


def dim(teacher: str) -> int:
    """Numbers in one embedding; needs no weights."""
    return open_clip.get_model_config(split_name(teacher)[0])["embed_dim"]


def identity(teacher: str) -> Identity:
    """What the teacher's embeddings depend on; needs the weights file, but does not load it."""
    arch, pretrained = split_name(teacher)
    preprocess = preprocess_of(arch, pretrained)
    return Identity(
        name=name_in_tables(teacher),
        arch=arch,
        pretrained=Path(pretrained).stem if _is_file(pretrained) else pretrained,
        weights_sha256=_sha256(find_weights(teacher)),
        dim=dim(teacher),
        image_size=preprocess.size,
        mean=tuple(preprocess.mean),
        std=tuple(preprocess.std),
        interpolation=preprocess.interpolation,
        resize_mode=preprocess.resize_mode,
    )


def _is_file(pretrained: str) -> bool:
    return Path(pretrained).suffix in (".safetensors", ".pt", ".bin")


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=5, cutoff=0.4)
    return f" Near it: {', '.join(near)}." if near else f" Known: {', '.join(known)}." if known else ""


def preprocess_of(arch: str, pretrained: str) -> PreprocessCfg:
    """How pictures are prepared for the model. A weights file is treated as the architecture's own published weights are."""
    tag = get_pretrained_cfg(arch, pretrained)
    if not tag and (tags := open_clip.list_pretrained_tags_by_model(arch)):
        tag = get_pretrained_cfg(arch, tags[0])
    size = open_clip.get_model_config(arch)["vision_cfg"].get("image_size", PreprocessCfg.size)
    return PreprocessCfg(**merge_preprocess_dict(asdict(PreprocessCfg(size=size)), tag))


# Weights


def find_weights(teacher: str, *, download: bool = False) -> Path:
    """The teacher's weights file on this machine. Raises WeightsMissing, saying which file to put where, when it is not here.

    download: fetch it from the Hugging Face hub into the hub's cache, with all else the teacher needs.
    """
    arch, pretrained = split_name(teacher)
    if teacher == TINY_TEACHER:
        return TINY_WEIGHTS
    if _is_file(pretrained):
        path = Path(pretrained)
        if not path.is_file():
            raise TeacherError(f"teacher {teacher!r}: there is no file {path}")
        return path
    published = get_pretrained_cfg(arch, pretrained)
    if download:
        return Path(download_pretrained(published))
    repo, names = _published_files(published["hf_hub"])
    for name in names:
        if isinstance(path := try_to_load_from_cache(repo, name), str):
            return Path(path)
    raise WeightsMissing(
        f"the weights of teacher {teacher} are not on this machine: {' or '.join(names)} of {repo} on the Hugging Face hub. "
        f"Fetch them on a machine with network (hf download {repo} {names[0]}) and copy the cache folder (HF_HOME, or "
        f"~/.cache/huggingface) here, or name a file: --teacher {arch}:PATH. To try things out without weights, use {TINY_TEACHER}."
    )


def _published_files(hf_hub: str) -> tuple[str, list[str]]:
    """Repository on the hub and the file names its weights may have, in open_clip's own order."""
    repo, _, name = hf_hub.rpartition("/")
    name = name or HF_WEIGHTS_NAME
    safe = HF_SAFE_WEIGHTS_NAME if name == HF_WEIGHTS_NAME else f"{Path(name).stem}.safetensors"
    return repo, [safe, name]


def need_text_files(teacher: str, arch: str) -> None:
    """Some text towers read their tokenizer and layout from the hub; without them open_clip would go and get them.

    Raises WeightsMissing.
    """
    text = open_clip.get_model_config(arch)["text_cfg"]
    for key, file in (("hf_tokenizer_name", "tokenizer_config.json"), ("hf_model_name", "config.json")):
        repo = text.get(key)
        if repo and not isinstance(try_to_load_from_cache(repo, file), str):
            raise WeightsMissing(
                f"teacher {teacher} needs {file} (and what belongs to it) of {repo} on the Hugging Face hub, which is not on this "
                f"machine: fetch it where there is network (hf download {repo} --include '*.json' --include '*.model') and copy "
                f"the cache folder (HF_HOME, or ~/.cache/huggingface) here. To try things out without it, use {TINY_TEACHER}."
            )


def _sha256(path: Path) -> str:
    """The hub's cache names a blob by its SHA-256; any other file is read."""
    blob = path.resolve()
    if blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name):
        return blob.name
    stat = blob.stat()
    return _sha256_of_file(blob, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _sha256_of_file(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
