import json

import pytest
from photo_scene import make_object
from PIL import Image

from pipeline.assets.limits import Limits
from pipeline.photos.photo_folder import FEWEST, examine_cloud, examine_photos
from pipeline.sources.record import record
from pipeline.stage import ObjectError

PLY = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n1 2 3\n4 5 6\n"


def told(folder, **about):
    about = {"asset_format": "photos", "asset_stamp": "s"} | about
    return json.loads(json.dumps(record(source="m", source_id="0/a", asset_uri=str(folder), **about)))


def seen(folder, **about):
    return examine_photos(told(folder, **about), Limits())


def reason(folder, limits=None, **about):
    with pytest.raises(ObjectError) as raised:
        examine_photos(told(folder, **about), limits or Limits())
    return raised.value.reason


def test_a_folder_of_photos_is_one_asset(tmp_path):
    folder = make_object(tmp_path / "a")
    row = seen(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert row["asset_bytes"] == sum(path.stat().st_size for path in files)
    assert (row["traits"], row["warnings"]) == (["unposed_photos"], [])
    assert (row["companions"], row["companions_sha256"]) == ([], None)
    assert seen(make_object(tmp_path / "b", unposed=0, masks=True))["traits"] == ["masks"]


def test_its_hash_changes_with_the_name_and_the_contents_of_each_file_and_with_nothing_else(tmp_path):
    folder = make_object(tmp_path / "a", 5, masks=True)
    hashes = {seen(folder)["asset_sha256"]}
    (folder / "notes.txt").write_text("x")
    (folder / "sparse" / "0" / "rigs.bin").write_text("x")
    assert {seen(folder)["asset_sha256"]} == hashes
    for name in ("images/001.jpg", "masks/001.jpg.png"):
        Image.new("L", (240, 320), 9).save(folder / name)
        hashes.add(seen(folder)["asset_sha256"])
    with open(folder / "sparse" / "0" / "cameras.bin", "ab") as file:
        file.write(b"\0")
    hashes.add(seen(folder)["asset_sha256"])
    (folder / "images" / "006.jpg").rename(folder / "images" / "007.jpg")
    hashes.add(seen(folder)["asset_sha256"])
    assert len(hashes) == 5


def test_its_cloud_is_a_companion_with_a_hash_of_its_own(tmp_path):
    folder, cloud = make_object(tmp_path / "a"), tmp_path / "a.ply"
    cloud.write_text(PLY)
    row = seen(folder, cloud=str(cloud))
    assert row["companions"] == [{"role": "cloud", "name": "a.ply", "uri": str(cloud)}]
    assert row["traits"] == ["cloud", "unposed_photos"]
    cloud.write_text(PLY.replace("6", "7"))
    again = seen(folder, cloud=str(cloud))
    assert again["companions_sha256"] != row["companions_sha256"] and again["asset_sha256"] == row["asset_sha256"]
    cloud.write_text(PLY[:-20])
    broken = seen(folder, cloud=str(cloud), warnings=["metadata_missing"])
    assert (broken["companions"], broken["companions_sha256"]) == ([], None)
    assert broken["warnings"] == ["cloud_unreadable", "metadata_missing"]


def test_photos_that_are_cut_or_empty_are_warned_of(tmp_path):
    folder = make_object(tmp_path / "a")
    photo = folder / "images" / "003.jpg"
    for content in (photo.read_bytes()[:2000], b"", b"<html>"):
        photo.write_bytes(content)
        assert seen(folder)["warnings"] == ["unreadable_photo"]


def test_an_object_without_photos_or_poses_is_refused(tmp_path):
    folder = make_object(tmp_path / "a")
    images = (folder / "sparse" / "0" / "images.bin").read_bytes()
    (folder / "sparse" / "0" / "images.bin").write_bytes(images[:-1])
    assert reason(folder) == "model_unreadable"
    (folder / "sparse" / "0" / "images.bin").unlink()
    assert reason(folder) == "no_poses"
    for photo in sorted((folder / "images").iterdir())[FEWEST - 1 :]:
        photo.unlink()
    assert reason(folder) == "too_few_views"
    assert reason(make_object(tmp_path / "b", FEWEST - 1, unposed=9)) == "too_few_views"
    assert reason(tmp_path / "nowhere") == "too_few_views"


def test_what_an_object_may_cost_is_bounded(tmp_path):
    folder = make_object(tmp_path / "a")
    assert reason(folder, Limits(asset_mb=0)) == "asset_too_large"
    assert reason(folder, Limits(texture_mpx=0)) == "texture_too_large"


def test_a_cloud_alone_is_an_asset(tmp_path):
    (tmp_path / "a.ply").write_text(PLY)
    row = examine_cloud(told(tmp_path / "a.ply", asset_format="pcd"), Limits())
    assert (row["asset_bytes"], row["traits"], row["companions"]) == (len(PLY), [], [])
    with pytest.raises(ObjectError) as raised:
        examine_cloud(told(tmp_path / "a.ply", asset_format="pcd"), Limits(vertices=1))
    assert raised.value.reason == "too_many_vertices"


@pytest.mark.parametrize(
    "place, expected",
    [
        ("mvimgnet/218/0ca4e008", "no_poses"),
        ("malformed/110_datasets_mvimgnet_truncated_model/192/0a0ff1c0", "too_few_views"),
    ],
)
def test_real_objects_that_cannot_be_used_are_refused_for_what_they_lack(assets, place, expected):
    assert reason(assets / place) == expected


@pytest.mark.parametrize("linked", ["images/001.jpg", "images", "sparse/0"])
def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_followed(tmp_path, linked):
    folder = make_object(tmp_path / "a")
    (folder / linked).rename(tmp_path / "elsewhere")
    (folder / linked).symlink_to(tmp_path / "elsewhere")
    assert reason(folder) == "link_outside"
    (folder / linked).unlink()
    (tmp_path / "elsewhere").rename(folder / "kept")
    (folder / linked).symlink_to(folder / "kept")
    assert seen(folder)
