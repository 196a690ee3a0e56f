"""A look at an asset's files before anything else opens them: what it is made of, what is wrong with it, whether it can be used."""

from contextlib import ExitStack
from pathlib import Path

from pipeline.assets.asset import sha256_of
from pipeline.assets.companions import Companions, companions
from pipeline.assets.gltf import read
from pipeline.assets.limits import Limits
from pipeline.assets.mesh_file import MeshFile
from pipeline.assets.picture import picture_warnings
from pipeline.assets.preflight_gltf import examine_gltf
from pipeline.assets.preflight_obj import examine_obj
from pipeline.assets.preflight_others import EXAMINERS
from pipeline.assets.signature import HEAD_BYTES, what_it_is
from pipeline.fetch.cache import opened
from pipeline.stage import ObjectError, Row

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tga", ".tif", ".tiff", ".webp", ".gif", ".dds", ".exr", ".hdr", ".psd", ".ktx2")


def examine(record: Row, limits: Limits) -> Row:
    """The columns of OBJECTS that need a look into the asset: asset_sha256, asset_bytes, companions, companions_sha256, traits,
    warnings (those of the record included).

    Raises ObjectError: not_a_file, empty_file, not_a_mesh_file, unsupported_format, asset_too_large, and those of the format's own
    examiner and of `pipeline.assets.companions`. FileNotFoundError (the asset is not there), PermissionError.
    """
    with opened(record["asset_uri"]) as path:
        _check_file(path, record["asset_uri"])
        size = path.stat().st_size
        if size > limits.asset_mb << 20:
            large = f"{record['asset_uri']} has {size >> 20} MB; {limits.asset_mb} MB are let in (limits.asset_mb)"
            raise ObjectError("asset_too_large", large)
        found, traits, warnings = _look_into(path, record, limits)
        return {
            "asset_sha256": sha256_of(path),
            "asset_bytes": size,
            "companions": found.files,
            "companions_sha256": found.sha256,
            "traits": sorted(traits),
            "warnings": sorted(found.warnings | warnings | set(record["warnings"])),
        }


def _check_file(path: Path, place: str) -> None:
    """Raises ObjectError for what is no file with something in it, or says itself that it is no asset yet."""
    if path.is_dir():
        raise ObjectError("not_a_file", f"{place} is a folder: give the asset in it")
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise ObjectError("empty_file", f"{place} has no bytes: download it again")
    kind = what_it_is(head)
    if kind and "Git LFS" in kind:  # whatever the format: it could pass for a text
        raise ObjectError("not_a_mesh_file", f"{place} is {kind}")


def _look_into(path: Path, record: Row, limits: Limits) -> tuple[Companions, set[str], set[str]]:
    """Companions, traits and warnings."""
    format, most_mb = record["asset_format"], limits.asset_mb
    if format in ("glb", "gltf"):
        gltf = read(path, most_json_mb=limits.json_mb)
        found = companions(path, record, most_mb=most_mb, document=gltf.document)
        places = {file["name"]: file["uri"] for file in found.files}
        with ExitStack() as files:
            traits, warnings = examine_gltf(
                gltf, limits, lambda uri: files.enter_context(opened(places[uri])) if uri in places else None
            )
        return found, traits, warnings
    if format == "obj":
        traits, warnings = examine_obj(path, limits)
    elif format in EXAMINERS:
        EXAMINERS[format](MeshFile(path, limits))
        traits, warnings = set(), set()
    else:
        raise ObjectError("unsupported_format", f"{record['asset_uri']}: assets of format {format!r} cannot be read")
    found = companions(path, record, most_mb=most_mb)
    for file in found.files:
        if file["role"] != "cloud" and file["uri"].lower().endswith(_PICTURES):
            traits = traits | {"external_pictures"}
            with opened(file["uri"]) as picture:
                warnings = warnings | picture_warnings(file["name"], picture, limits)
    if format == "obj" and not (found.files or found.warnings or "vertex_colors" in traits):
        warnings = warnings | {"no_material"}  # it says nothing of colour: views are grey, and its points have none
    return found, traits, warnings
