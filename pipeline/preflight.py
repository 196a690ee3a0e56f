"""A look at an asset's files before anything else opens them: what it is made of, what is wrong with it, whether it can be used."""

from dataclasses import dataclass

from pipeline.asset import companions_sha256, local_copy, sha256_of
from pipeline.stage import ObjectError, Row

_GIT_LFS = b"version https://git-lfs"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an asset may cost; beyond, it is refused, each with a reason of its own."""

    asset_mb: int = 2048  # asset_too_large: the asset with all its companions


def examine(record: Row, limits: Limits) -> Row:
    """The columns of OBJECTS that need a look into the asset: asset_sha256, asset_bytes, companions, companions_sha256, traits,
    warnings (those of the record included).

    Raises ObjectError, FileNotFoundError (the asset is not there), PermissionError.
    """
    place = record["asset_uri"]
    with local_copy(place) as path:
        size = path.stat().st_size
        if size == 0:
            raise ObjectError("asset_empty", f"{place} has no bytes: download it again")
        with open(path, "rb") as file:
            if file.read(len(_GIT_LFS)) == _GIT_LFS:
                raise ObjectError("git_lfs_pointer", f"{place} only points to the asset: fetch it with `git lfs pull`")
        return {
            "asset_sha256": sha256_of(path),
            "asset_bytes": size,
            "companions": [],
            "companions_sha256": companions_sha256(path, record["asset_format"]),
            "traits": [],
            "warnings": record["warnings"],
        }
