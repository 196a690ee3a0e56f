"""A teacher's model and its tokenizer, made from files of this machine alone: open_clip itself would go and get what is missing."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer

from pipeline.hub_cache import any_of, place_in_hub_cache, snapshots
from pipeline.weights import (
    TINY_TEACHER,
    Identity,
    TeacherError,
    WeightsMissing,
    identity_of_file,
    sha256_in,
    split_name,
    weights_file,
)

# What a tokenizer is made of besides its tokenizer_config.json: one of these.
VOCABULARIES = ("tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "vocab.txt", "vocab.json")


@dataclass(frozen=True)
class Loaded:
    """A teacher's model with its weights, in float32 on the CPU; its tokenizer, texts to (n, context) int64; and what it is."""

    identity: Identity
    model: torch.nn.Module
    tokenizer: Callable[[list[str]], torch.Tensor]


def load(teacher: str) -> Loaded:
    """A teacher by its name. Raises WeightsMissing; TeacherError for a file that cannot be read, holds more than tensors, or does
    not fit the architecture."""
    files = need_text_files(teacher)
    with weights_file(teacher) as path:
        known = identity_of_file(teacher, path)
        try:
            model = open_clip.create_model(
                known.arch,
                str(path),
                force_quick_gelu=known.quick_gelu,
                force_preprocess_cfg={name: getattr(known, name) for name in ("mean", "std", "interpolation", "resize_mode")},
                # OpenAI's own files are TorchScript archives, programs, which are let in when they are known to the last bit.
                weights_only=not _is_openais(known.weights_sha256),
                **_text_config(known.arch, files.model),
            )
        except MemoryError:
            raise
        except Exception as error:  # every format and every mismatch has its own way to say so
            raise TeacherError(f"teacher {teacher}: {_why(path, known.arch, error)}") from error
    return Loaded(known, model, _tokenizer(known.arch, files.tokenizer))


def _text_config(arch: str, folder: Path | None) -> dict[str, Any]:
    """What `create_model` must be told for it to read the text tower's layout from a folder."""
    if folder is None:
        return {}
    layout = {"hf_model_name": str(folder), "hf_model_pretrained": False}
    return {"text_cfg": open_clip.get_model_config(arch)["text_cfg"] | layout}


def _tokenizer(arch: str, folder: Path | None) -> Callable[[list[str]], torch.Tensor]:
    """As open_clip.get_tokenizer makes it, but read from a folder."""
    if folder is None:
        return open_clip.get_tokenizer(arch)
    text = open_clip.get_model_config(arch)["text_cfg"]
    return HFTokenizer(
        str(folder),
        context_length=text.get("context_length", DEFAULT_CONTEXT_LENGTH),
        tokenizer_mode=text.get("tokenizer_mode"),
        **text.get("tokenizer_kwargs", {}),
    )


@dataclass(frozen=True)
class TextFiles:
    """Folders with what a text tower reads besides its weights: a tokenizer's files, a model's config.json. None: nothing."""

    tokenizer: Path | None
    model: Path | None


def need_text_files(teacher: str) -> TextFiles:
    """The files of the hub that the teacher's text tower reads. Raises WeightsMissing, saying which to put where."""
    arch, _ = split_name(teacher)
    text = open_clip.get_model_config(arch)["text_cfg"]
    tokenizer, model = text.get("hf_tokenizer_name"), text.get("hf_model_name")
    return TextFiles(
        tokenizer=_folder_with(teacher, tokenizer, ("tokenizer_config.json",), VOCABULARIES) if tokenizer else None,
        model=_folder_with(teacher, model, ("config.json",)) if model else None,
    )


def _folder_with(teacher: str, repo: str, *wanted: tuple[str, ...]) -> Path:
    """The folder of a repository in the hub's cache that has one file of each of `wanted`."""
    for folder in snapshots(repo):
        if all(any_of(folder, names) for names in wanted):
            return folder
    files = " and ".join(" or ".join(names) for names in wanted)
    raise WeightsMissing(
        f"teacher {teacher} needs {files} of {repo} on the Hugging Face hub, for its texts: put them into "
        f"{place_in_hub_cache(repo)} (where there is network, `hf download {repo} --include '*.json' --include '*.model' --include "
        "'*.txt'` does). "
        f"To try things out without them, use {TINY_TEACHER}."
    )


def _is_openais(sha256: str) -> bool:
    """Whether a file is one of those that OpenAI gave out."""
    urls = (get_pretrained_cfg(arch, tag).get("url", "") for arch, tag in open_clip.list_pretrained())
    return sha256 in {sha256_in(url) for url in urls if "openaipublic" in url}


def _why(path: Path, arch: str, error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
        return (
            f"{path} holds more than tensors, and opening that could run a program: save its tensors as .safetensors (a file of "
            f"OpenAI's own is known by its SHA-256, and this is none). {_short(error)}"
        )
    return f"{path} ({path.stat().st_size:,} bytes) cannot be loaded into {arch}: {_short(error)}"


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"({type(error).__name__}: {text[:300]}{'…' if len(text) > 300 else ''})"
