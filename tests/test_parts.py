"""Part segmentation: official files read, each benchmark's own rule, students and what is compared with them, the two jobs."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from lamps import FIRST, MUG, MUGS, write_lamps, write_units
from PIL import Image

from evaluate import result
from evaluate.part_segmentation import part_ious, part_segmentation
from evaluate.segmenters import of_predictions, of_units
from evaluate.sets import partnete as of_partnete
from evaluate.sets.partnete import partnete
from evaluate.sets.shapenetpart import read_shape, shapenetpart
from jobs.__main__ import main
from jobs.distill_parts import Job, asked
from pipeline.stage import ObjectError
from reports.part_sheet import COLORS, NONE, Segmented, drawn, part_sheet
from trainer.partdistill.distill import parts_of
from trainer.partdistill.taught import load, teach
from trainer.partdistill.units import integrated, read

LEFT_OUT = "absent is left out"

# The rule of PartNetE


def test_a_part_that_a_shape_lacks_is_left_out_and_none_is_no_part():
    truth = np.array([0, 0, -1, -1])
    ious = part_ious(np.array([0, 1, 0, -1]), truth, 3, LEFT_OUT)
    assert ious[0] == 1 / 3 and np.isnan(ious[1:]).all()  # one of three points that are either; part 1 is only predicted
    with pytest.raises(ValueError, match="the category has 3"):
        part_ious(truth, truth, 3)


def test_the_mean_is_of_parts_over_the_shapes_that_have_them():
    none = np.array([-1, -1, -1, -1])
    found = part_segmentation(
        [
            ("Box", np.array([0, 0, 0, 0]), np.array([0, 0, -1, -1])),  # part 0: 1/2
            ("Box", np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1])),  # part 0: 3/4, part 1: 0
            ("Box", np.array([0, 1, 2, 0]), none),  # has no part at all
            ("Pen", np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])),
        ],
        {"Box": 3, "Pen": 2},
        LEFT_OUT,
    )
    assert found.categories == {"Box": (1 / 2 + 3 / 4) / 2 / 2, "Pen": 1.0}  # part 2 of Box occurs in no shape
    assert found.overall == pytest.approx((0.3125 + 1) / 2)
    assert found.instances == pytest.approx((1 / 2 + 3 / 8 + 1) / 3)
    assert found.shapes == {"Box": 3, "Pen": 1}


@given(st.lists(st.tuples(*[arrays(np.int64, 10, elements=st.integers(-1, 2))] * 2), min_size=1, max_size=4))
def test_as_partslip_counts(shapes):
    of_parts = []
    for part in range(3):
        ious = []
        for predicted, truth in shapes:
            ours, theirs = set(np.flatnonzero(predicted == part)), set(np.flatnonzero(truth == part))
            if theirs:
                ious.append(len(ours & theirs) / len(ours | theirs))
        of_parts += [np.mean(ious)] if ious else []
    found = part_segmentation([("Box", *shape) for shape in shapes], {"Box": 3}, LEFT_OUT)
    assert found.overall == pytest.approx(np.mean(of_parts)) if of_parts else np.isnan(found.overall)


# The official files


@pytest.fixture(scope="module")
def lamps(tmp_path_factory) -> tuple[Path, Path]:
    """Made lamps in ShapeNetPart's form (which takes them for mugs), and their units."""
    folder = tmp_path_factory.mktemp("lamps")
    write_lamps(folder / "set", folder / "units", {"train": 12, "val": 2, "test": 4})
    return folder / "set", folder / "units"


def test_shapenetpart_is_read_in_the_order_of_its_list(lamps, tmp_path):
    benchmark = shapenetpart(str(lamps[0]))
    assert benchmark.shapes == tuple((f"{MUGS}/test{number:03d}", MUG) for number in range(4))
    table = np.loadtxt(lamps[0] / MUGS / "test002.txt")
    shape = benchmark.read(2)
    assert np.array_equal(shape.xyz, table[:, :3].astype(np.float32)) and np.array_equal(shape.part, table[:, 6] - FIRST)
    (tmp_path / "above").symlink_to(lamps[0])
    assert shapenetpart(str(tmp_path), part="val").shapes == tuple((f"{MUGS}/val{number:03d}", MUG) for number in range(2))


def test_listed_shapes_that_are_not_there_are_missing(tmp_path):
    write_lamps(tmp_path / "set", tmp_path / "units", {"test": 3})
    (tmp_path / "set" / MUGS / "test001.txt").unlink()
    benchmark = shapenetpart(str(tmp_path / "set"))
    assert [id for id, _ in benchmark.shapes] == [f"{MUGS}/test000", f"{MUGS}/test002"]
    assert benchmark.missing == (f"{MUGS}/test001",)
    with pytest.raises(ValueError, match="has no train_test_split/shuffled_train_file_list.json"):
        shapenetpart(str(tmp_path / "set"), part="train")
    with pytest.raises(ValueError, match="holds no ShapeNetPart"):
        shapenetpart(str(tmp_path / "units" / "train_test_split"))


@pytest.mark.parametrize(
    ("lines", "reason", "told"),
    [
        ("0 0 0 0 1 0\n", "parse_error", "1 lines of 6 columns, must have 7"),
        ("0 0 0 0 1 0 36\n0 0 0\n", "parse_error", "no table of numbers"),
        ("0 0 0 0 1 x 36\n", "parse_error", "no table of numbers"),
        ("", "parse_error", "no lines"),
        ("nan 0 0 0 1 0 99\n", "non_finite_geometry", "1 of 1 points have no place"),
        ("0 0 0 0 1 0 36\n0 0 0 0 1 0 99\n", "label_out_of_range", "1 points have parts such as 99; those of mug are 36 to 37"),
        ("0 0 0 0 1 0 36.5\n", "label_out_of_range", "such as 36.5"),
        ("0 0 0 0 1 0 12\n", "label_out_of_range", "such as 12"),
    ],
)
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_what_is_no_shape_is_refused(tmp_path, lines, reason, told):
    (tmp_path / "one.txt").write_text(lines)
    with pytest.raises(ObjectError, match=told) as refused:
        read_shape(tmp_path / "one.txt", MUG)
    assert refused.value.reason == reason


def test_the_pack_of_bad_shapes(assets):
    folder = assets / "malformed" / "111_datasets_shapenetpart_bad"
    for name, reason in (("bad_columns.txt", "parse_error"), ("nan_line.txt", "non_finite_geometry")):
        with pytest.raises(ObjectError) as refused:
            read_shape(folder / name, "chair")
        assert refused.value.reason == reason


PLY = "ply\nformat ascii 1.0\nelement vertex {}\nproperty double x\nproperty double y\nproperty double z\nend_header\n"


def write_partnete(root, shapes, listed=None):
    """PartSLIP's files: shapes as {"Category/id": (points, what label.npy holds)}."""
    meta = {"Box": ["lid"], "Chair": ["arm", "back", "leg"]}
    root.mkdir(exist_ok=True)
    (root / of_partnete.META).write_text(json.dumps(meta))
    for id, (xyz, label) in shapes.items():
        folder = root / "data" / "test" / id
        folder.mkdir(parents=True)
        (folder / "pc.ply").write_text(PLY.format(len(xyz)) + "".join(" ".join(map(str, point)) + "\n" for point in xyz))
        np.save(folder / "label.npy", label)
    if listed:
        (root / "split").mkdir()
        (root / "split" / "test.txt").write_text("\n".join(listed) + "\n")


def labelled(part):
    return {"semantic_seg": np.array(part), "instance_seg": np.array(part)}


def test_partnete_is_read(tmp_path):
    xyz = np.arange(9.0).reshape(3, 3)
    write_partnete(
        tmp_path,
        {"Chair/7": (xyz, labelled([-1, 2, 0])), "Box/3": (xyz, labelled([0, -1, -1])), "Box/4": (xyz, labelled([0, 0, 0]))},
        listed=["Chair/7", "Box/3", "Box/9"],
    )
    benchmark = partnete(str(tmp_path))
    assert benchmark.shapes == (("Chair/7", "Chair"), ("Box/3", "Box"))
    assert benchmark.missing == ("Box/9",)
    shape = benchmark.read(0)
    assert np.array_equal(shape.xyz, xyz) and shape.part.tolist() == [-1, 2, 0]
    (tmp_path / "split" / "test.txt").unlink()
    assert [id for id, _ in partnete(str(tmp_path)).shapes] == ["Box/3", "Box/4", "Chair/7"]


@pytest.mark.parametrize(
    ("label", "reason", "told"),
    [
        (labelled([0, 0]), "unreadable", r"an array \(2,\) of int64, must be 3 whole numbers"),
        (labelled([0.0, 1.0, 2.0]), "unreadable", "of float64"),
        ({"instance_seg": np.zeros(3, int)}, "unreadable", "its semantic_seg is none"),
        (labelled([0, 1, 3]), "label_out_of_range", r"such as 3; there are 0 to 2 \(arm, back, leg\)"),
        (labelled([0, 1, -2]), "label_out_of_range", "such as -2"),
        ({"semantic_seg": pytest.raises}, "unsafe_pickle", "it is a program"),
        (np.zeros(3), "not_npy", "not one pickled dictionary"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path, label, reason, told):
    write_partnete(tmp_path, {"Chair/7": (np.eye(3), label)})
    with pytest.raises(ObjectError, match=told) as refused:
        partnete(str(tmp_path)).read(0)
    assert refused.value.reason == reason


def test_points_without_a_place_are_refused(tmp_path):
    write_partnete(tmp_path, {"Chair/7": (np.array([[0, 0, 0], [0, np.nan, 0], [1, 1, 1]]), labelled([0, 1, 2]))})
    with pytest.raises(ObjectError, match="1 of 3 points have no place"):
        partnete(str(tmp_path)).read(0)


@pytest.mark.parametrize(("read", "folder", "shapes", "up"), [(shapenetpart, "shapenetpart", 3, 1), (partnete, "partnete", 4, 2)])
def test_the_packs_official_files(assets, read, folder, shapes, up):
    """Parts were cut by height, one above the other; of the refrigerator only the door is a part."""
    benchmark = read(str(assets / "eval" / folder))
    assert len(benchmark.shapes) == shapes and not benchmark.missing
    for number, (_, category) in enumerate(benchmark.shapes):
        shape, parts = benchmark.read(number), len(benchmark.parts[category])
        there = np.unique(shape.part[shape.part >= 0])
        assert len(there) == (1 if category == "Refrigerator" else 3 if category == "Chair" else 2) and there.max() < parts
        heights = [shape.xyz[shape.part == part, up] for part in there]
        spans = sorted((height.min(), height.max()) for height in heights)
        assert all(below[1] <= above[0] for below, above in zip(spans, spans[1:], strict=False))
        assert part_segmentation([(category, shape.part, shape.part)], {category: parts}, benchmark.rule).overall == 1


# What segments shapes


def test_predictions_are_numbered_as_the_files_number_them(lamps, tmp_path):
    benchmark = shapenetpart(str(lamps[0]))
    told = {id: FIRST + benchmark.read(number).part for number, (id, _) in enumerate(benchmark.shapes)}
    told[f"{MUGS}/test001"] = 36 + 37 - told[f"{MUGS}/test001"]
    told[f"{MUGS}/test002"] = told[f"{MUGS}/test002"][1:]
    np.savez(tmp_path / "mine.npz", **told)
    method = of_predictions(tmp_path / "mine.npz", benchmark)
    assert (method.name, method.categories) == ("mine", {MUG})
    ious = []
    for number in (0, 1):
        shape = benchmark.read(number)
        ious.append(part_ious(method.ask(*benchmark.shapes[number], shape), shape.part, 2).tolist())
    assert ious == [[1, 1], [0, 0]]
    with pytest.raises(ObjectError, match=r"test002 is \(399,\) of int64, must be \(400,\) whole numbers"):
        method.ask(*benchmark.shapes[2], benchmark.read(2))
    np.savez(tmp_path / "other.npz", **{"02691156/abc": np.zeros(3, int)})
    with pytest.raises(ValueError, match=f"has no shape 02691156/abc .1 such.; its shapes are called like {MUGS}/test000"):
        of_predictions(tmp_path / "other.npz", benchmark)


def test_units_alone_say_what_most_of_them_say(lamps, tmp_path):
    root, units = lamps
    benchmark = shapenetpart(str(root))
    method, shape = of_units(units, benchmark), benchmark.read(0)
    said = method.ask(*benchmark.shapes[0], shape)
    votes = integrated(read(units / MUGS / "test000" / "extracted" / "preprocess.h5"), 2)
    assert np.array_equal(said, np.where(votes.any(axis=1), votes.argmax(axis=1), -1)) and (said == -1).any()
    write_units(tmp_path / MUGS / "test000" / "extracted" / "preprocess.h5", [0], np.ones((50, 1, 2)), np.zeros(50))  # on a line
    elsewhere = of_units(tmp_path, benchmark)
    with pytest.raises(ObjectError, match="its points are not those of the shape") as refused:
        elsewhere.ask(*benchmark.shapes[0], shape)
    assert refused.value.reason == "units_elsewhere"
    assert elsewhere.ask(*benchmark.shapes[1], benchmark.read(1)) is None


# The jobs

SMALL = ["--size", "small", "--encoder", "none", "--points", "192", "--batch", "4", "--rate", "0.006", "--device", "cpu"]


def distill(units, out, *more, epochs=6, category=MUG):
    return main(["distill-parts", str(units), "--category", category, "--out", str(out), "--epochs", str(epochs), *SMALL, *more])


def job_of(units, out, **more):
    """The job that `distill` asks for."""
    small = {"encoder": "none", "size": "small", "points": 192, "batch": 4, "rate": 0.006, "device": "cpu"}
    return Job(units=units, category=MUG, out=out, **small, **more)


def told(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture(scope="module")
def student(lamps, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "lamps"
    assert distill(lamps[1], out, "--teacher", "a made detector") == 0
    return out


def test_a_student_is_evaluated_beside_its_units(lamps, student, tmp_path, capsys):
    root, units = lamps
    words = ["evaluate", "parts", f"shapenetpart={root}", "--student", str(student), "--units", str(units), "--align"]
    words += ["--align-steps", "10", "10", "--device", "cpu", "-o", str(tmp_path / "table"), "--json"]
    assert main(words) == 0
    found = told(capsys)
    alone, pupil, aligned = result.load(tmp_path / "table")
    print(f"mIoU: units {alone.figures['mIoU'].mean:.3f}, student {pupil.figures['mIoU'].mean:.3f}, "
          f"aligned {aligned.figures['mIoU'].mean:.3f}")  # fmt: skip
    assert pupil.figures["mIoU"].mean > alone.figures["mIoU"].mean + 0.15
    assert aligned.figures["mIoU"].mean > alone.figures["mIoU"].mean + 0.15
    assert [one.method for one in (alone, pupil, aligned)] == [
        "units alone",
        "PartDistill student (lamps)",
        "PartDistill student (lamps), aligned at the test",
    ]
    for one in (pupil, aligned):
        assert (one.task, one.benchmark, one.objects, one.missing) == ("part segmentation", "shapenetpart", 4, 0)
        assert (one.teacher, one.trained_on, one.leaks) == ("a made detector", f"units of 12 shapes of {MUG}", {"id": 0})
        assert one.per_class == {MUG: (pytest.approx(one.figures["mIoU"].mean), 4)}
    assert "63.9" in (tmp_path / "table" / "table.md").read_text()  # PartDistill's own
    assert len(found["pictures"]) == 3
    for picture in found["pictures"]:
        colors = {color for _, color in Image.open(picture).convert("RGB").getcolors(1 << 20)}
        assert {COLORS[0], COLORS[1]} <= colors


def test_a_student_remembers_what_it_is(student, lamps):
    taught, card = load(student)
    assert (card.benchmark, card.category, card.epochs, card.settled_by, card.encoder) == ("shapenetpart", MUG, 6, "nothing", None)
    assert card.shapes == tuple(f"{MUGS}/train{number:03d}" for number in range(12))
    assert card.settings.points == 192 and taught.config.parts == 2 and not taught.training


def test_shapes_that_taught_it_are_told(lamps, student, tmp_path, capsys):
    (tmp_path / MUGS).symlink_to(lamps[0] / MUGS)
    (tmp_path / "train_test_split").mkdir()
    listed = [f"shape_data/{MUGS}/{id}" for id in ("test000", "train003", "train007")]
    (tmp_path / "train_test_split" / "shuffled_test_file_list.json").write_text(json.dumps(listed))
    words = ["evaluate", "parts", f"shapenetpart={tmp_path}", "--student", str(student), "--device", "cpu"]
    assert main([*words, "-o", str(tmp_path / "table")]) == 0
    assert f"leak check: 2 of the shapes taught it, by id: {MUGS}/train003, {MUGS}/train007" in capsys.readouterr().out
    assert result.load(tmp_path / "table")[0].leaks == {"id": 2}


class Killed(Exception):
    """Of a run, from outside."""


@contextmanager
def killing(title, total, unit):
    """A progress that ends the run once two epochs are done."""
    yield Killer() if title == "teach" else None


class Killer:
    def update(self, done):
        if done == 2:
            raise Killed


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(lamps, tmp_path, capsys):
    job = job_of(lamps[1], tmp_path / "killed", epochs=3)
    with pytest.raises(Killed):
        teach(asked(job), killing)
    with pytest.raises(ValueError, match="a run that is not done: the same command goes on"):
        load(job.out)
    for out in (job.out, tmp_path / "whole"):
        assert distill(lamps[1], out, epochs=3) == 0
    said = capsys.readouterr().out
    assert said.count("goes on after epoch 2 of 3") == 1
    killed, whole = ((folder / "model.safetensors").read_bytes() for folder in (job.out, tmp_path / "whole"))
    assert killed == whole
    lines = [(folder / "log.jsonl").read_text().splitlines() for folder in (job.out, tmp_path / "whole")]
    losses = [[json.loads(line)["loss"] for line in some] for some in lines]
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_another_setting_is_another_run(lamps, tmp_path, capsys):
    assert distill(lamps[1], tmp_path / "run", epochs=1) == 0
    assert distill(lamps[1], tmp_path / "run", epochs=2) == 1
    assert "holds a run with other settings (settings; see run.json)" in capsys.readouterr().err


def test_the_released_way_of_choosing_leaks_and_says_so(lamps, tmp_path, capsys):
    assert distill(lamps[1], tmp_path / "run", "--settled-by", "test", epochs=2) == 0
    said = capsys.readouterr().out
    assert "its figures on the test set are no measure" in said
    figures = [json.loads(line)["figure"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    words = ["evaluate", "parts", f"shapenetpart={lamps[0]}", "--student", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*words, "-o", str(tmp_path / "table")]) == 0
    [found] = result.load(tmp_path / "table")
    assert found.method == "PartDistill student (run), chosen by the test set"
    assert found.settings["settled by"] == "test"
    assert found.figures["mIoU"].mean == pytest.approx(max(figures))


def test_the_best_is_kept_and_not_the_last(lamps, tmp_path):
    """The judge's figure falls, so the first epoch's student is the one."""
    seen, run = [], asked(job_of(lamps[1], tmp_path / "run", epochs=2, settled_by="val"))
    assert [xyz.shape for xyz, _ in run.judge.shapes] == [(400, 3)] * 2

    def falling(predicted, truth):
        seen.append(predicted)
        return -len(seen)

    teach(replace(run, judge=replace(run.judge, shapes=run.judge.shapes[:1], figure=falling)))
    student, card = load(tmp_path / "run")
    kept = parts_of(student, run.judge.shapes[0][0], 192, run.seed)
    assert np.array_equal(kept, seen[0]) and not np.array_equal(kept, seen[1])
    assert card.settled_by == "val"


def test_a_student_of_partnete(tmp_path, rng):
    """Units below <category>/<id>, lists of lines, parts by their names; points of no part."""
    root, units = tmp_path / "set", tmp_path / "units"
    xyz = rng.uniform(-1, 1, (300, 3)).astype(np.float32)
    part = np.where(xyz[:, 1] > 0.3, 1, np.where(xyz[:, 1] < -0.3, 2, -1))
    write_partnete(root, {"Chair/1": (xyz, labelled(part)), "Box/2": (xyz, labelled(np.minimum(part, 0)))})
    probability = np.zeros((300, 2, 3), np.float32)
    probability[part == 1, 0, 1] = probability[part == 2, 1, 2] = 0.9
    for number in range(3):
        write_units(units / "Chair" / f"a{number}" / "extracted" / "preprocess.h5", [1, 2], probability, part, xyz)
    (units / "split").mkdir()
    (units / "split" / "train.txt").write_text("Chair/a0\nChair/a1\nChair/a2\n")
    meta = ["--meta", str(root / of_partnete.META)]
    assert distill(units, tmp_path / "run", *meta, epochs=4, category="Chair") == 0
    words = ["evaluate", "parts", f"partnete={root}", "--student", str(tmp_path / "run"), "--device", "cpu", "--up", "+z"]
    assert main([*words, "-o", str(tmp_path / "table")]) == 0
    [found] = result.load(tmp_path / "table")
    assert found.per_class == {"Chair": (found.figures["mIoU"].mean, 1)} and found.figures["mIoU"].mean > 0.5
    assert (found.objects, found.settings["rule"]) == (1, LEFT_OUT)


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (["--category", "sofa"], 2, "ShapeNetPart has airplane, bag"),
        (["--category", "chair"], 1, "lists no shapes of chair (03001627)"),
        (["--rate", "0"], 2, "--rate 0.0: must be more than 0"),
        (["--encoder", "no/such.pth"], 1, "no/such.pth"),
        (["--lists", "no/such"], 2, "there is no no/such/shuffled_train_file_list.json"),
    ],
)
def test_what_cannot_be_taught_is_refused(lamps, tmp_path, capsys, change, code, told):
    words = ["distill-parts", str(lamps[1]), "--category", MUG, "--out", str(tmp_path / "run"), "--encoder", "none"]
    assert main([*words, *SMALL[:2], *change]) == code
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ([], 2, "say what to evaluate"),
        (["--align"], 2, "say what to evaluate"),
        (["--student", "no/such"], 1, "no/such holds no student"),
        (["--units", "no/such"], 1, "no/such has no folder of a category of shapenetpart"),
        (["--predictions", __file__], 1, "is no .npz of arrays"),
        (["--limit", "0"], 2, "must be 1 or more"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(lamps, tmp_path, capsys, change, code, told):
    assert main(["evaluate", "parts", f"shapenetpart={lamps[0]}", "-o", str(tmp_path / "table"), *change]) == code
    assert told in capsys.readouterr().err
    assert not (tmp_path / "table").exists()


def test_shapes_that_cannot_be_read_are_left_out_and_counted(lamps, student, tmp_path, capsys):
    write_lamps(tmp_path / "set", tmp_path / "units", {"test": 3})
    (tmp_path / "set" / MUGS / "test001.txt").write_text("0 0 0 0 1 0\n")
    words = ["evaluate", "parts", f"shapenetpart={tmp_path / 'set'}", "--student", str(student), "--device", "cpu"]
    assert main([*words, "-o", str(tmp_path / "table")]) == 0
    assert f"left out: 1 shapes: {MUGS}/test001: parse_error" in capsys.readouterr().out
    [found] = result.load(tmp_path / "table")
    assert (found.objects, found.missing) == (2, 1)


# The picture


def test_what_is_nearer_covers_what_is_farther():
    xyz = np.array([[0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0]], np.float32)
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 255]], np.uint8)
    for order in ([0, 1, 2, 3], [1, 0, 2, 3]):
        front, back = (drawn(xyz[order], colors[order], 64, (around, 0.0), "+y") for around in (0.0, 180.0))
        assert front[32, 32].argmax() == 0 and back[32, 32].argmax() == 1
    standing = drawn(xyz[:, [0, 2, 1]], colors, 64, (0.0, 0.0), "+y")  # now the first is above
    top = standing[:20][(standing[:20] < 255).any(axis=2)]
    assert len(top) and (top.argmax(axis=1) == 0).all()
    assert np.array_equal(standing, drawn(xyz[:, [0, 2, 1]] @ [[1, 0, 0], [0, 0, 1], [0, -1, 0]], colors, 64, (0.0, 0.0), "+z"))


def test_a_sheet_shows_prediction_and_truth():
    xyz = np.random.default_rng(0).uniform(-1, 1, (200, 3)).astype(np.float32)
    shape = Segmented(
        id="1", category="Box", xyz=xyz, predicted=np.zeros(200, int), truth=np.full(200, -1), parts=("lid",), iou=0.5
    )
    sheet = np.asarray(part_sheet([("worst", [shape, replace(shape, truth=np.zeros(200, int))])]))
    left, right = sheet[100:300, :220], sheet[120:300, 235:420]
    assert (left == COLORS[0]).all(axis=2).any() and not (right == COLORS[0]).all(axis=2).any()
    assert (np.abs(right.astype(int) - NONE).sum(axis=2) < 20).any()
