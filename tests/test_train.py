"""Training: it learns; it goes on after a kill as if nothing had been; two processes do what one does; parts do what the whole
does."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.store import Corpus
from schemas.tables import POINTS
from separable import TEACHER, separable
from trainer import checkpoints, curves
from trainer.card import ViewInput
from trainer.clouds import OPENSHAPE
from trainer.data import Batch
from trainer.encoders.duoduo import DuoduoConfig
from trainer.encoders.pointbert import PointBertConfig
from trainer.encoders.uni3d import Uni3dConfig
from trainer.learner import Learner, fed, seed_of
from trainer.losses.contrastive import PRESETS
from trainer.recipes import RECIPES, Optimiser, Recipe, Schedule
from trainer.train import Run, TrainingStopped, initial_weights, spawned, train

CPU = torch.device("cpu")
POINTBERT = PointBertConfig(dim=64, depth=1, heads=1, hidden=64, sa_dim=16, groups=16, radius=0.5, group_size=8, out=16)
UNI3D = Uni3dConfig(width=32, depth=2, heads=1, hidden=32, flavour="swiglu", groups=16, group_size=8, pc_encoder_dim=16, out=16)
DUODUO = DuoduoConfig(image_size=32, patch=8, width=32, layers=2, heads=1, layers_threshold=1, out=16, trainable="all")

POINTS_RECIPE = replace(
    RECIPES["pointbert-small"],
    encoder=POINTBERT,
    input=replace(RECIPES["pointbert-small"].input, points=128),
    batch=16,
    epochs=3,
    optimiser=Optimiser(lr=3e-3, eps=1e-4),  # a larger eps: parameters without any real gradient stay where they are
    schedule=Schedule(kind="cosine", warmup_steps=2),
)
VIEWS_RECIPE = replace(RECIPES["multiview-small"], encoder=DUODUO, input=ViewInput(size=32), batch=16, epochs=3)
VIEWS_RECIPE = replace(VIEWS_RECIPE, draws=replace(VIEWS_RECIPE.draws, views=(1, 3)), optimiser=POINTS_RECIPE.optimiser)
VIEWS_RECIPE = replace(VIEWS_RECIPE, schedule=POINTS_RECIPE.schedule)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Corpus:
    return separable(tmp_path_factory.mktemp("separable") / "corpus")


def silent(line: str) -> None:
    pass


def run_of(corpus: Corpus | str, out: Path, recipe: Recipe = POINTS_RECIPE, **settings) -> Run:
    root = corpus if isinstance(corpus, str) else corpus.root
    return Run(
        root=root,
        out=str(out),
        recipe=recipe,
        teacher=TEACHER,
        **({"held_out": 0.25, "device": "cpu", "draw_curves": False} | settings),
    )


def losses(out: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in curves.read_log(out)[0]}


def batch_of(objects: int, recipe: Recipe, seed: int = 0) -> Batch:
    """A batch as the loader would give it, of random numbers."""
    draw = torch.Generator().manual_seed(seed)
    points = recipe.sees_points
    return Batch(
        epoch=1,
        step=2,
        ids=[f"test/{number}" for number in range(objects)],
        seeds=torch.randint(1 << 40, (objects,), generator=draw),
        xyz=torch.rand(objects, 128, 3, generator=draw).half() if points else None,
        rgb=torch.randint(256, (objects, 128, 3), generator=draw, dtype=torch.uint8) if points else None,
        has_color=torch.rand(objects, generator=draw) < 0.8 if points else None,
        image=torch.randn(objects, 16, generator=draw),
        text=torch.randn(objects, 16, generator=draw),
        has_image=torch.ones(objects, dtype=torch.bool),
        has_text=torch.rand(objects, generator=draw) < 0.7,
        pictures=None if points else torch.randint(256, (objects, 2, 3, 32, 32), generator=draw, dtype=torch.uint8),
    )


def gradients(learner: Learner) -> dict[str, Tensor]:
    return {name: one.grad for module in (learner.encoder, learner.losses) for name, one in module.named_parameters()}


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], share: float) -> None:
    """Each tensor to within a share of its own largest number."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=share * max(value.abs().max().item(), 1e-3), msg=name)


# It learns


@pytest.mark.parametrize("recipe", [replace(POINTS_RECIPE, epochs=16), replace(VIEWS_RECIPE, epochs=24)], ids=["points", "views"])
def test_the_loss_falls_and_held_out_objects_are_found(built, tmp_path, recipe):
    trained = train(run_of(built, tmp_path / "run", recipe), say=silent)
    told = list(losses(tmp_path / "run").values())
    assert len(told) == trained.steps == trained.total
    assert sum(told[-4:]) / 4 < 0.75 * sum(told[:4]) / 4
    assert trained.best_figures["held_out/zero_shot/top1"] > 0.8 > 2 * trained.best_figures["held_out/zero_shot/chance/top1"]
    encoder, card = checkpoints.load(trained.best)
    assert card.teacher == {"name": TEACHER} and card.input == recipe.input
    assert card.data["versions"][POINTS.name] == built.need(POINTS.name).version
    assert card.made_by["settings"]["recipe"] == json.loads(json.dumps(asdict(recipe)))
    assert not encoder.training and 0 < card.steps <= trained.total


def test_everything_is_written_down(built, tmp_path):
    recipe = replace(POINTS_RECIPE, relations=RECIPES["mrd-t"].relations, epochs=2)
    trained = train(run_of(built, tmp_path / "run", recipe, draw_curves=True), say=silent)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    step = next(line for line in lines if "loss" in line)
    assert {
        "step",
        "epoch",
        "lr",
        "grad_norm",
        "scale",
        "samples_per_second",
        "loss_image",
        "loss_text",
        "loss_intra",
    } <= step.keys()
    split = {name for name in step if name.startswith("seconds/")}
    assert split == {f"seconds/{name}" for name in ("wait", "prepare", "forward", "loss", "backward", "optimiser")}
    assert step["loss"] == pytest.approx(step["loss_contrastive"] + 3 * (step["loss_intra"] + step["loss_cross"]))
    assert any("held_out/zero_shot/untrained/top1" in line for line in lines)
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert Path(trained.curves).read_bytes().startswith(b"\x89PNG")
    assert Path(trained.last).is_dir() and Path(trained.best).is_dir()


# It goes on


def test_a_killed_run_goes_on_as_if_nothing_had_been(built, tmp_path):
    settings = {"save_every": 4, "look_every": 1000}
    recipe = replace(POINTS_RECIPE, epochs=12, encoder=replace(POINTBERT, patch_dropout=2), ema=0.9)
    train(run_of(built, tmp_path / "whole", recipe, **settings), say=silent)
    killed = tmp_path / "killed"
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_train as t; from dataclasses import replace;"
        f"t.torch.set_num_threads({torch.get_num_threads()});"  # sums differ in their last bits with another number
        "recipe = replace(t.POINTS_RECIPE, epochs=12, encoder=replace(t.POINTBERT, patch_dropout=2), ema=0.9);"
        f"t.train(t.run_of({built.root!r}, {str(killed)!r}, recipe, save_every=4, look_every=1000))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, stdout=subprocess.DEVNULL)
    log = killed / "log.jsonl"
    until = time.monotonic() + 60
    while (not log.exists() or log.read_text().count("\n") < 10) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = log.read_text()
    log.write_text(before + '{"step": 1000, "lo')  # as a kill may leave it
    train(run_of(built, killed, recipe, **settings), say=silent)
    assert losses(killed) == losses(tmp_path / "whole")  # to the last bit
    ends = [
        checkpoints.load(tmp_path / name / "checkpoints" / f"step-{len(losses(killed)):08d}")[0] for name in ("whole", "killed")
    ]
    assert all(torch.equal(*pair) for pair in zip(*(end.state_dict().values() for end in ends), strict=True))


def test_told_to_stop_it_keeps_what_it_has_and_goes_on(built, tmp_path):
    recipe = replace(POINTS_RECIPE, epochs=6)
    whole = train(run_of(built, tmp_path / "whole", recipe), say=silent)

    class Watched:
        """Sends the signal after the seventh step."""

        def __init__(self, title, total, unit):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, done):
            if done == 7:
                os.kill(os.getpid(), signal.SIGTERM)

    stopped = train(run_of(built, tmp_path / "run", recipe, look_every=1000), Watched, say=silent)
    assert stopped.stopped and stopped.steps == 8 < stopped.total
    assert Path(stopped.last).name == "step-00000008"
    went_on = train(run_of(built, tmp_path / "run", recipe, look_every=1000), say=silent)
    assert not went_on.stopped and went_on.steps == whole.total
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_rows_that_are_added_meanwhile_change_nothing(tmp_path):
    corpus = separable(tmp_path / "corpus", objects=40)
    recipe = replace(POINTS_RECIPE, batch=8)
    train(run_of(corpus, tmp_path / "whole", recipe), say=silent)
    train(run_of(corpus, tmp_path / "run", recipe, save_every=5), say=silent)
    for path in (tmp_path / "run" / "checkpoints").glob("step-*"):
        if path.name != "step-00000005":
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    separable(tmp_path / "corpus", objects=24, first=40)
    train(run_of(corpus, tmp_path / "run", recipe, save_every=5), say=silent)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_only_the_last_checkpoints_and_the_best_are_kept(built, tmp_path):
    run = run_of(built, tmp_path / "run", replace(POINTS_RECIPE, epochs=4), look_every=3, save_every=1, keep=2)
    trained = train(run, say=silent)
    best = json.loads((tmp_path / "run" / "best.json").read_text())["step"]
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert names == {f"step-{step:08d}" for step in (trained.total - 1, trained.total, best)}
    looked = curves.read_log(tmp_path / "run")[1]
    assert max(line["held_out/zero_shot/top1"] for line in looked) == trained.best_figures["held_out/zero_shot/top1"]


def test_a_run_can_be_kept_behind_a_uri(built, tmp_path):
    whole = train(run_of(built, tmp_path / "whole", save_every=3), say=silent)
    uri = f"local://{tmp_path}/kept"
    first = replace(POINTS_RECIPE)
    run = replace(run_of(built, tmp_path, first, save_every=3), out=uri)
    trained = train(run, say=silent)
    assert trained.best.startswith(uri) and trained.last.startswith(uri)
    there = Path(trained.last.removeprefix("local://"))
    assert {path.name for path in there.iterdir()} == {"model.safetensors", "config.json", "state.pt"}
    steps = sorted(path.name for path in there.parent.iterdir())
    again = train(run, say=silent)  # from another temporary folder, as another machine would
    assert (again.steps, again.figures) == (whole.steps, whole.figures)
    assert sorted(path.name for path in there.parent.iterdir()) == steps
    assert losses(tmp_path / "kept") == losses(tmp_path / "whole")


# Two processes are one


def test_two_processes_are_one_on_the_same_global_batch(built, tmp_path):
    recipe = replace(POINTS_RECIPE, relations=RECIPES["mrd-t"].relations, epochs=2)
    one = train(run_of(built, tmp_path / "one", recipe), say=silent)
    two = spawned(run_of(built, tmp_path / "two", recipe), 2, say=silent)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-5)
    assert two.figures.keys() == one.figures.keys()
    assert two.held_out == one.held_out
    assert two.figures["held_out/loss"] == pytest.approx(one.figures["held_out/loss"], rel=0.05)  # of other drawn views
    mine, theirs = (checkpoints.load(of.last)[0].state_dict() for of in (one, two))
    apart = [abs(losses(tmp_path / "two")[step] / loss - 1) for step, loss in losses(tmp_path / "one").items()]
    print(f"two processes against one, {len(apart)} steps: losses differ by {max(apart):.1e} of themselves at most")
    assert_near(theirs, mine, 1e-3)


@pytest.mark.slow
def test_two_processes_that_accumulate_are_one(built, tmp_path):
    recipe = replace(VIEWS_RECIPE, epochs=2)
    train(run_of(built, tmp_path / "one", recipe), say=silent)
    spawned(run_of(built, tmp_path / "two", recipe, accumulate=2), 2, say=silent)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-5)


@pytest.mark.slow
def test_what_one_of_several_processes_stumbles_over_is_told(built, tmp_path):
    with pytest.raises(TrainingStopped, match="(loss|grad_norm) is (nan|inf)"):
        spawned(run_of(built, tmp_path / "run", replace(POINTS_RECIPE, optimiser=Optimiser(lr=1e35))), 2, say=silent)


# Parts are the whole


def test_a_batch_in_parts_has_the_gradient_of_the_whole():
    recipe = replace(VIEWS_RECIPE, relations=RECIPES["mrd-t"].relations, clip=None)
    batch = batch_of(12, recipe)
    whole, parts = (Learner(recipe, CPU, accumulate=accumulate) for accumulate in (1, 4))
    for _ in range(3):
        told, told_in_parts = whole.step(batch, 1.0)[0], parts.step(batch, 1.0)[0]
        assert {name: value.item() for name, value in told_in_parts.items()} == pytest.approx(
            {name: value.item() for name, value in told.items()}, rel=1e-5, abs=1e-7
        )
        assert_near(gradients(parts), gradients(whole), 2e-5)


@pytest.mark.parametrize("encoder", [POINTBERT, replace(UNI3D, drop_path=0.5, patch_dropout=0.5)], ids=["pointbert", "uni3d"])
def test_with_batch_normalisation_parts_have_the_gradient_of_their_embeddings_put_together(encoder):
    recipe = replace(POINTS_RECIPE, encoder=encoder, clip=None)
    batch = batch_of(12, recipe)
    parts, plain = (Learner(recipe, CPU, accumulate=3) for _ in range(2))
    told, _ = parts.step(batch, 1.0)

    chance = (recipe.seed, batch.epoch, batch.step)
    arguments, named = fed(batch, recipe, CPU, chance=chance)
    embedded = []
    for number in range(3):
        torch.manual_seed(seed_of(*chance, 0, number))
        part = slice(4 * number, 4 * number + 4)
        embedded.append(plain.encoder(*(one[part] for one in arguments), **{name: one[part] for name, one in named.items()}))
    loss = plain.losses(torch.cat(embedded), batch.image.float(), batch.text.float(), batch.has_image, batch.has_text)["loss"]
    loss.backward()
    assert told["loss"].item() == pytest.approx(loss.item(), rel=1e-6)
    assert_near(gradients(parts), gradients(plain), 2e-5)
    for name, buffer in plain.encoder.named_buffers():  # running statistics: once a part, not twice
        torch.testing.assert_close(dict(parts.encoder.named_buffers())[name], buffer, msg=name)


# What a step is made of


def test_chance_is_the_batchs_own():
    recipe = replace(POINTS_RECIPE, augment=OPENSHAPE)
    batch = batch_of(4, recipe)
    torch.manual_seed(1)
    first = fed(batch, recipe, CPU, chance=(0, 1, 2))[0]
    torch.manual_seed(2)
    assert all(torch.equal(*pair) for pair in zip(first, fed(batch, recipe, CPU, chance=(0, 1, 2))[0], strict=True))
    plain = fed(batch, recipe, CPU)[0]
    assert not torch.equal(plain[0], first[0])
    other = replace(batch, seeds=batch.seeds + 1)
    assert torch.equal(fed(other, recipe, CPU)[0][0], plain[0])  # without chance no seed matters


def test_duoduos_crop_is_drawn_in_training_and_in_the_middle_otherwise():
    """Trap 6: the published code crops at random in evaluation as well."""
    recipe = replace(VIEWS_RECIPE, input=ViewInput(size=32, crop=8))
    batch = batch_of(2, recipe)
    drawn = [fed(batch, recipe, CPU, chance=(0, 0, step))[0][0] for step in range(5)]
    assert len({one.sum().item() for one in drawn}) > 1
    assert torch.equal(drawn[0], fed(batch, recipe, CPU, chance=(0, 0, 0))[0][0])
    assert torch.equal(fed(batch, recipe, CPU)[0][0], fed(batch, recipe, CPU)[0][0])


def test_patches_are_dropped_in_training_alone():
    """Trap 12: the published code drops them in evaluation as well."""
    recipe = replace(POINTS_RECIPE, encoder=replace(UNI3D, patch_dropout=0.5))
    learner, batch = Learner(recipe, CPU), batch_of(4, recipe)
    tokens = []
    learner.encoder.visual["fc_norm"].register_forward_hook(lambda *_: tokens.append(0))
    learner.encoder.visual["blocks"][0].register_forward_hook(lambda _, given, __: tokens.append(given[0].shape[1]))
    learner.step(batch, 1.0)
    learner.encoder.eval()
    learner.encoder(*fed(batch, recipe, CPU)[0])
    assert [count for count in tokens if count] == [1 + 8, 1 + 16]


def test_the_running_mean_of_the_weights_is_what_is_evaluated():
    recipe = replace(POINTS_RECIPE, ema=0.75)
    learner = Learner(recipe, CPU)
    name, parameter = next(iter(learner.encoder.named_parameters()))
    expected = parameter.detach().clone()
    for step in range(3):
        learner.step(batch_of(8, recipe, seed=step), 1.0)
        expected = 0.75 * expected + 0.25 * parameter.detach()
    assert learner.evaluated is not learner.encoder and not learner.evaluated.training
    torch.testing.assert_close(dict(learner.evaluated.named_parameters())[name].data, expected)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_near_full_precision(precision):
    batch = batch_of(8, POINTS_RECIPE)
    full = Learner(POINTS_RECIPE, CPU).step(batch, 1.0)[0]
    learner = Learner(replace(POINTS_RECIPE, precision=precision), CPU)
    half = learner.step(batch, 1.0)[0]
    while not half["grad_norm"].isfinite():  # float16 overflowed: the step was left out, and the next one is scaled by less
        half = learner.step(batch, 1.0)[0]
    assert half["loss"].item() == pytest.approx(full["loss"].item(), rel=0.02)
    assert half["grad_norm"].item() == pytest.approx(full["grad_norm"].item(), rel=0.2)
    assert half["loss"] != full["loss"]
    assert learner.scaler.is_enabled() == (precision == "float16")


def test_the_gradient_is_cut_to_its_length_and_told_at_its_own():
    recipe = replace(POINTS_RECIPE, clip=1e-3)
    learner = Learner(recipe, CPU)
    told, _ = learner.step(batch_of(8, recipe), 1.0)
    assert told["grad_norm"] > 0.01
    assert math.sqrt(sum(one.square().sum().item() for one in gradients(learner).values())) == pytest.approx(1e-3, rel=1e-3)


def test_the_scale_stays_where_uni3d_keeps_it():
    """Trap 9."""
    recipe = replace(POINTS_RECIPE, contrastive=PRESETS["uni3d"], optimiser=Optimiser(lr=10.0))
    learner = Learner(recipe, CPU)
    for step in range(3):
        learner.step(batch_of(8, recipe, seed=step), 1.0)
        assert 1 <= learner.losses.contrastive.scale <= 100 + 1e-3


def test_activations_computed_again_give_the_same_step():
    batch = batch_of(6, POINTS_RECIPE)
    plain, again = (
        Learner(replace(POINTS_RECIPE, encoder=replace(UNI3D, drop_path=0.3, checkpointing=checkpointing)), CPU)
        for checkpointing in (False, True)
    )
    assert plain.step(batch, 1.0)[0]["loss"] == again.step(batch, 1.0)[0]["loss"]
    assert_near(gradients(again), gradients(plain), 1e-6)


# What it starts from, and what it refuses


def test_it_starts_from_a_checkpoint_and_from_a_teachers_picture_tower(built, tmp_path):
    first = train(run_of(built, tmp_path / "first"), say=silent)
    run = run_of(built, tmp_path / "second", initial=first.last)
    assert_near(initial_weights(run.recipe, run.initial), checkpoints.load(first.last)[0].state_dict(), 0)
    tower = Learner(VIEWS_RECIPE, CPU).encoder.state_dict()
    torch.save({**tower, "logit_scale": torch.tensor(1.0), "token_embedding.weight": torch.zeros(3, 3)}, tmp_path / "clip.pt")
    taken = initial_weights(VIEWS_RECIPE, str(tmp_path / "clip.pt"))
    learner = Learner(replace(VIEWS_RECIPE, seed=5), CPU, initial=taken)
    assert all(torch.equal(value, tower[name]) for name, value in learner.encoder.state_dict().items())
    with pytest.raises(TrainingStopped, match="cannot start from .*clip.pt"):
        initial_weights(POINTS_RECIPE, str(tmp_path / "clip.pt"))
    with pytest.raises(TrainingStopped, match="there is no .*nowhere.pt to start from"):
        initial_weights(POINTS_RECIPE, str(tmp_path / "nowhere.pt"))


def test_frozen_parameters_stay(built):
    recipe = replace(VIEWS_RECIPE, encoder=replace(DUODUO, trainable="attention"))
    learner = Learner(recipe, CPU)
    before = {name: one.clone() for name, one in learner.encoder.named_parameters()}
    learner.step(batch_of(8, recipe), 1.0)
    moved = {name for name, one in learner.encoder.named_parameters() if not torch.equal(one, before[name])}
    assert moved == {name for name in before if name.startswith("visual.transformer.resblocks.1.attn.")}


def test_other_settings_than_the_runs_are_named(built, tmp_path):
    train(run_of(built, tmp_path / "run"), say=silent)
    other = replace(POINTS_RECIPE, optimiser=replace(POINTS_RECIPE.optimiser, lr=1e-4), seed=3)
    with pytest.raises(TrainingStopped) as refused:
        train(run_of(built, tmp_path / "run", other, held_out=0.1), say=silent)
    told = str(refused.value)
    assert "recipe.optimiser.lr: 0.003 then, 0.0001 now" in told and "recipe.seed: 0 then, 3 now" in told
    assert "held_out: 0.25 then, 0.1 now" in told and "recipe.batch" not in told and "another --out" in told


@pytest.mark.parametrize(
    ("change", "settings", "told"),
    [
        ({"batch": 90}, {}, "fewer than a batch of 90"),
        ({}, {"accumulate": 3}, "make --batch a multiple of 3"),
        ({"schedule": Schedule(kind="cosine", warmup_steps=10_000)}, {}, "would rise for 10,000 steps, and the run has 12"),
        ({}, {"device": "cuda"}, "there is no GPU"),
    ],
)
def test_what_would_not_train_is_refused(built, tmp_path, change, settings, told):
    if settings.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingStopped, match=told):
        train(run_of(built, tmp_path / "run", replace(POINTS_RECIPE, **change), **settings), say=silent)


def test_a_loss_that_is_no_number_names_step_and_objects_and_leaves_the_last_checkpoint(built, tmp_path):
    recipe = replace(POINTS_RECIPE, optimiser=Optimiser(lr=1e35))
    with pytest.raises(
        TrainingStopped, match=r"step \d+ \(epoch 0\): (loss|grad_norm) is (nan|inf). Its objects: test/\d+, .* …. Look at"
    ) as stopped:
        train(run_of(built, tmp_path / "run", recipe, save_every=1), say=silent)
    saved = int(str(stopped.value).partition("checkpoint, of step ")[2].split(",")[0])
    assert checkpoints.load(tmp_path / "run" / "checkpoints" / f"step-{saved:08d}")[1].steps == saved


def test_wandb_is_asked_for_by_name_alone(built, tmp_path):
    try:
        import wandb  # noqa: F401
    except ImportError:
        with pytest.raises(TrainingStopped, match="pip install wandb"):
            train(run_of(built, tmp_path / "run", wandb="project"), say=silent)
