"""Which teachers there are, what their embeddings depend on, and where their weights are.

A teacher is a frozen CLIP model named ARCH:PRETRAINED; ARCH is an architecture of open_clip, PRETRAINED one of
  a tag of open_clip       its file is looked for in the Hugging Face hub's cache (HF_HUB_CACHE, HF_HOME) and in open_clip's own
  a weights file           its path; .safetensors, .pt, .pth, .bin
  a weights file's URI     s3://…, hf://…, https://…; fetched once per machine and kept (see `pipeline.fetch.cache`)
Nothing is fetched but what a URI names. `tricorpus-tiny:shapes-v1` comes with this project: it knows only the shapes of
`pipeline.made.made_objects` and serves to try things out.

A file whose name begins with a tag (TAG.safetensors, TAG.mine.safetensors), or that open_clip's URLs know by its SHA-256, is
treated as that tag's weights are: same activation, pictures prepared alike. Of any other file the architecture's name tells the
activation, as with open_clip: QuickGELU if it ends in -quickgelu.
"""

import difflib
import functools
import hashlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import open_clip
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.pretrained import get_pretrained_cfg
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from safetensors import SafetensorError, safe_open

from pipeline.fetch.cache import opened
from pipeline.hub_cache import in_hub_cache, place_in_hub_cache
from pipeline.stage import ObjectError
from pipeline.teacher_error import TeacherError, WeightsMissing
from schemas.corpus import EMBEDDINGS, Reader, quote

DEFAULT_TEACHER = "ViT-bigG-14:laion2b_s39b_b160k"
TINY_TEACHER = "tricorpus-tiny:shapes-v1"
TINY_FOLDER = Path(__file__).parent / "tiny_teacher"
TINY_WEIGHTS = TINY_FOLDER / "weights.safetensors"
WHITE = (255, 255, 255)

FILES = (".safetensors", ".pt", ".pth", ".bin")
LEGAL_STEM = r"[A-Za-z0-9][A-Za-z0-9._+=-]*"
OWN_CACHE = "~/.cache/clip"  # of open_clip.pretrained.download_pretrained_from_url
LFS_POINTER = b"version https://git-lfs"

open_clip.add_model_config(TINY_FOLDER / "tricorpus-tiny.json")


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
    quick_gelu: bool
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
    """ "ViT-B-32:OpenAI" -> ("ViT-B-32", "openai"); a path or URI stays as it is. Raises TeacherError for what open_clip does not
    know, and for a file whose name can be no table's."""
    arch, colon, pretrained = teacher.partition(":")
    if not colon or not pretrained:
        raise TeacherError(f"teacher {teacher!r}: a teacher is called ARCH:PRETRAINED, such as {DEFAULT_TEACHER} or {TINY_TEACHER}")
    if arch in ("hf-hub", "local-dir"):
        raise TeacherError(
            f"teacher {teacher!r}: a teacher is called ARCH:PRETRAINED; weights in a repository or folder are named by their file: "
            "ARCH:hf://ORG/NAME/open_clip_model.safetensors, or ARCH:/path/to/it"
        )
    if arch not in open_clip.list_models():
        raise TeacherError(f"teacher {teacher!r}: open_clip has no architecture {arch!r}.{_near(arch, open_clip.list_models())}")
    if _is_file(pretrained):
        if not re.fullmatch(LEGAL_STEM, stem := _file_name(pretrained).stem):
            raise TeacherError(
                f"teacher {teacher!r}: a weights file's name becomes the name of tables, so {stem!r} must be made of letters A-Z, "
                "digits and . _ - + = alone: rename the file, or make a link of such a name"
            )
        return arch, pretrained
    if teacher == TINY_TEACHER:
        return arch, pretrained
    if tag := _tag(arch, pretrained):
        return arch, tag
    tags = ["shapes-v1"] if arch == TINY_TEACHER.partition(":")[0] else open_clip.list_pretrained_tags_by_model(arch)
    raise TeacherError(
        f"teacher {teacher!r}: open_clip has no weights called {pretrained!r} for {arch}.{_near(pretrained, tags)} "
        f"A weights file is named by its path or URI, which ends in {', '.join(FILES)}."
    )


def name_in_tables(teacher: str) -> str:
    """The teacher's name in table names: the path of a weights file is cut down to its stem."""
    arch, pretrained = split_name(teacher)
    if not _is_file(pretrained):
        return f"{arch}:{pretrained}"
    stem = _file_name(pretrained).stem
    return f"{arch}:{_tag(arch, stem) or stem}"


def absolute_name(teacher: str) -> str:
    """The same teacher for processes that run in other folders: the path of a weights file made absolute, and ~ put out."""
    arch, pretrained = split_name(teacher)
    return (
        f"{arch}:{_path(pretrained).absolute()}" if _is_file(pretrained) and not _is_remote(pretrained) else f"{arch}:{pretrained}"
    )


def dim(teacher: str) -> int:
    """Numbers in one embedding; needs no weights."""
    return open_clip.get_model_config(split_name(teacher)[0])["embed_dim"]


def _tag(arch: str, text: str) -> str | None:
    """The tag of open_clip that a text spells: case, - and _ make no difference."""
    published = get_pretrained_cfg(arch, text)
    return next((tag for tag in open_clip.list_pretrained_tags_by_model(arch) if get_pretrained_cfg(arch, tag) is published), None)


def _is_file(pretrained: str) -> bool:
    return _file_name(pretrained).suffix in FILES


def _file_name(pretrained: str) -> PurePosixPath:
    return PurePosixPath(pretrained.partition("?")[0] if "://" in pretrained else pretrained)


def _is_remote(pretrained: str) -> bool:
    return "://" in pretrained and not pretrained.startswith("file://")


def _path(pretrained: str) -> Path:
    return Path(pretrained.removeprefix("file://")).expanduser()


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=5, cutoff=0.4)
    return f" Near it: {', '.join(near)}." if near else f" Known: {', '.join(known)}." if known else ""


# Identity


def identity(teacher: str) -> Identity:
    """What the teacher's embeddings depend on; needs the weights file, but does not load it. Raises TeacherError."""
    with weights_file(teacher) as path:
        return identity_of_file(teacher, path)


def identity_of_file(teacher: str, path: Path) -> Identity:
    """What the teacher's embeddings depend on, its weights being this very file."""
    arch, pretrained = split_name(teacher)
    sha256 = _sha256(path)
    config, published = open_clip.get_model_config(arch), _published(arch, pretrained, sha256)
    promised = "" if _is_file(pretrained) else sha256_in(published.get("url", ""))
    if path.parent == Path(OWN_CACHE).expanduser() and not sha256.startswith(promised):
        raise TeacherError(
            f"teacher {teacher}: {path} is damaged, or another file: its SHA-256 is {sha256} and must begin with {promised}. "
            f"Fetch it anew from {published['url']}"
        )
    prepared = _preprocess(teacher, published)
    return Identity(
        name=name_in_tables(teacher),
        arch=arch,
        pretrained=name_in_tables(teacher).partition(":")[2],
        weights_sha256=sha256,
        dim=config["embed_dim"],
        # OpenAI's, DFN's and MetaCLIP's weights want it, whichever architecture name asks for them; open_clip only warns.
        quick_gelu=config.get("quick_gelu", False) or published.get("quick_gelu", False),
        image_size=config["vision_cfg"]["image_size"],
        mean=tuple(prepared.mean),
        std=tuple(prepared.std),
        interpolation=prepared.interpolation,
        resize_mode=prepared.resize_mode,
    )


def refuse_other_weights(corpus: Reader, teacher: str) -> None:
    """Raise TeacherError when the corpus has rows of this teacher's name that were made with other weights, or with pictures
    prepared otherwise: they would be redone one by one, and meanwhile stand among the new ones. (Imported rows, whose files know no
    weights, may stay.)"""
    said = identity(teacher).to_json()
    for table in (f"{kind}/{said['name']}" for kind in EMBEDDINGS):
        for stage, stored in corpus.identities(table).items():
            differing = [key for key in said.keys() & stored.keys() if said[key] != stored[key]]
            rows = corpus.need(table).count_rows(f"stage = {quote(stage)}") if differing else 0
            if rows:
                values = "; ".join(f"{key} {stored[key]}, now {said[key]}" for key in sorted(differing))
                raise TeacherError(
                    f"{corpus.root}: {table} holds {rows:,} rows of another teacher that is called {said['name']}, too ({values}), "
                    "and two never share a table. If these are the same weights in another format, name the file that made the "
                    f"table; if not, give yours another name (--teacher {said['arch']}:/path/OTHER-NAME.safetensors makes tables "
                    f"of its own), or remove the old table: {corpus.uri(table)}"
                )


def _published(arch: str, pretrained: str, sha256: str) -> dict[str, Any]:
    """What open_clip says of the tag's weights, or of the tag that a file comes from; empty where none is known."""
    if not _is_file(pretrained):
        return get_pretrained_cfg(arch, pretrained)
    if by_name := get_pretrained_cfg(arch, _file_name(pretrained).name.partition(".")[0]):
        return by_name
    tags = [get_pretrained_cfg(arch, tag) for tag in open_clip.list_pretrained_tags_by_model(arch)]
    return next((one for one in tags if (promised := sha256_in(one.get("url", ""))) and sha256.startswith(promised)), {})


def _preprocess(teacher: str, published: dict[str, Any]) -> PreprocessCfg:
    """How pictures are prepared for the model."""
    arch, _ = split_name(teacher)
    ways = {} if published else {tag: get_pretrained_cfg(arch, tag) for tag in open_clip.list_pretrained_tags_by_model(arch)}
    distinct = [PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), way)) for way in ways.values() or [published]]
    if any(one != distinct[0] for one in distinct):
        raise TeacherError(
            f"teacher {teacher}: published weights of {arch} want pictures prepared in different ways, and this file does not say "
            f"in which: let its name begin with the tag of the weights it comes from, TAG.NAME.safetensors, where TAG is one of "
            f"{', '.join(ways)}"
        )
    return distinct[0]


def sha256_in(url: str) -> str:
    """The beginning of the SHA-256 that a URL of open_clip holds (as open_clip.pretrained reads it); empty where it holds none."""
    if "openaipublic" in url:
        return url.split("/")[-2]
    return PurePosixPath(url).stem.split("-")[-1] if "mlfoundations" in url else ""


def _sha256(path: Path) -> str:
    """The hub's cache names a blob by its SHA-256; any other file is read."""
    blob = path.resolve()
    if blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name):
        return blob.name
    about = blob.stat()
    # A file of `pipeline.fetch.cache` is named for its state, and each use gives it a new time.
    named_for_state = re.match("[0-9a-f]{64}", blob.name)
    return _sha256_of_file(blob, about.st_ino, about.st_size, 0 if named_for_state else about.st_mtime_ns)


@functools.cache
def _sha256_of_file(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Weights


@contextmanager
def weights_file(teacher: str) -> Iterator[Path]:
    """The teacher's weights as a file on this machine, for as long as the context lasts; what a URI names is fetched, once per
    machine. Raises WeightsMissing, and TeacherError for a file that holds no weights, or only a part of them."""
    place = find_weights(teacher)
    with ExitStack() as stack:
        try:
            path = stack.enter_context(opened(place))
        except (OSError, ObjectError, ImportError, ValueError) as error:  # fsspec names the package that a kind of place needs
            why = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
            raise WeightsMissing(f"teacher {teacher}: its weights cannot be fetched: {why}") from error
        if fault := _fault(path):
            raise TeacherError(f"teacher {teacher}: {place if _is_remote(place) else path} {fault}")
        yield path


def find_weights(teacher: str) -> str:
    """Where the teacher's weights are: a path of this machine, or the URI that names them. Raises WeightsMissing, saying which file
    to put where, when they are not here."""
    arch, pretrained = split_name(teacher)
    if teacher == TINY_TEACHER:
        return str(TINY_WEIGHTS)
    if _is_file(pretrained):
        if _is_remote(pretrained):
            return pretrained
        path = _path(pretrained).absolute()
        if not path.is_file():
            raise TeacherError(f"teacher {teacher!r}: there is no file {path}")
        return str(path)
    published = get_pretrained_cfg(arch, pretrained)
    ways = []
    if published["hf_hub"]:
        repo, names = _published_files(published["hf_hub"])
        if found := in_hub_cache(repo, *names):
            return str(found)
        ways.append(
            f"{' or '.join(names)} of {repo} on the Hugging Face hub, as {place_in_hub_cache(repo) / names[0]} "
            f"(where there is network, `hf download {repo} {names[0]}` puts it there)"
        )
    if published["url"]:
        own = Path(OWN_CACHE).expanduser() / PurePosixPath(published["url"]).name
        if own.is_file():
            return str(own)
        ways.append(f"{published['url']} as {own}")
    raise WeightsMissing(
        f"the weights of teacher {teacher} are not on this machine. Put here {', or '.join(ways)}; or put the file wherever you "
        f"like, named for its tag: --teacher {arch}:/path/{pretrained}.safetensors makes the same tables. "
        f"To try things out without weights, use {TINY_TEACHER}."
    )


def _fault(path: Path) -> str | None:
    """What is wrong with a weights file, as far as its beginning and end show: `is …`, or None."""
    with path.open("rb") as file:
        begin = file.read(64)
    size = path.stat().st_size
    if not size:
        return "is empty"
    if begin.lstrip()[:1] == b"<":
        return "is a web page, not weights: fetch it again, by the link of the file itself"
    if begin.startswith(LFS_POINTER):
        return "is a pointer of git-lfs, not the weights: `git lfs pull` fetches them"
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt"):
                return None
        except SafetensorError as error:
            return f"({size:,} bytes) is no whole safetensors file ({error}): fetch it again"
    if begin.startswith(b"PK") and not zipfile.is_zipfile(path):
        return f"({size:,} bytes) is only a part of a weights file: fetch it again"
    return None


def _published_files(hf_hub: str) -> tuple[str, list[str]]:
    """Repository on the hub and the file names its weights may have, in open_clip's own order."""
    repo, _, name = hf_hub.rpartition("/")
    name = name or HF_WEIGHTS_NAME
    safe = HF_SAFE_WEIGHTS_NAME if name == HF_WEIGHTS_NAME else f"{Path(name).stem}.safetensors"
    return repo, [safe, name]
