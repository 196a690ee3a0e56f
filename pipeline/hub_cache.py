"""What the Hugging Face hub's cache on this machine has: files of any revision, looked up without asking the hub."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name


def in_hub_cache(repo: str, *names: str) -> Path | None:
    """The first of these files that is there; of several revisions that `main` is, or else the newest."""
    return next((found for folder in snapshots(repo) if (found := any_of(folder, names))), None)


def any_of(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of these files that a folder has."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def snapshots(repo: str) -> list[Path]:
    """Folders of the revisions of a repository that are there: `main` first, then the newest."""
    main = _folder(repo) / "refs" / "main"
    revision = main.read_text().strip() if main.is_file() else "main"
    folders = (_folder(repo) / "snapshots").glob("*")
    return sorted(folders, key=lambda folder: (folder.name != revision, -folder.stat().st_mtime))


def place_in_hub_cache(repo: str) -> Path:
    """Where files may be put by hand for `snapshots` to see them."""
    return _folder(repo) / "snapshots" / "main"


def _folder(repo: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")
