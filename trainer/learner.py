"""An encoder while it learns: what it is fed, its losses, its optimiser, and one step of training with exact gradients.

A step's losses compare all objects of the global batch with one another, so that a batch cannot simply be cut into parts whose
gradients are added up. Cut it is, all the same, in two passes (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under
Memory Limited Setup", arXiv 2101.06983): all parts are embedded without keeping anything; the losses of all embeddings give the
gradient of each; then part by part is embedded again, and that gradient goes back through it. The sum is the gradient of the whole
batch, for one more forward pass. Only batch normalisation sees parts: its statistics are those of a part (of all ranks).
"""

import copy
import re
import time
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.batch_norm import over_all_ranks, statistics_kept
from trainer.checkpoints import KINDS
from trainer.clouds import augmented, prepared
from trainer.data import Batch
from trainer.losses.contrastive import Contrastive
from trainer.losses.gathering import rank_and_ranks
from trainer.losses.relations import Relations
from trainer.pictures import crop_offset, pixels
from trainer.recipes import Optimiser, Recipe

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Fed = tuple[tuple[Tensor, ...], dict[str, Tensor]]  # what an encoder is called with


def seed_of(*numbers: int) -> int:
    """A seed of 63 bits that mixes some non-negative numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def fed(batch: Batch, recipe: Recipe, device: torch.device, *, chance: tuple[int, ...] | None = None) -> Fed:
    """What the encoder is called with for a batch: as its card declares and, with `chance` (seed, epoch, step), as training changes
    it. On `device`; nothing waits for it."""
    if not recipe.sees_points:
        seed = None if chance is None else torch.tensor([seed_of(*chance)])
        offset = None if seed is None or not recipe.input.crop else crop_offset(seed, recipe.input)
        return (pixels(_moved(batch.pictures, device), recipe.input, offset),), {}
    rgb, has_color = (None if one is None else _moved(one, device) for one in (batch.rgb, batch.has_color))
    points = prepared(_moved(batch.xyz, device), rgb, has_color, recipe.input)
    if chance is None:
        return points, {}
    seeds = _moved(batch.seeds, device)
    points = augmented(*points, seeds, recipe.augment, recipe.input.fill)
    return points, {"seeds": seeds} if recipe.kind == "uni3d" else {}


def _moved(values: Tensor, device: torch.device) -> Tensor:
    return values.to(device, non_blocking=True)


class Losses(nn.Module):
    """A recipe's losses, with their own parameters: the contrastive one and, weighted, MRD's relations."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.contrastive = Contrastive(recipe.contrastive)
        self.relations = Relations(recipe.relations) if recipe.relations else None
        self.relation_weight = recipe.relation_weight

    def forward(
        self,
        shape: Float[Tensor, "b d"],
        image: Float[Tensor, "b d"],
        text: Float[Tensor, "b d"],
        has_image: Bool[Tensor, " b"],
        has_text: Bool[Tensor, " b"],
    ) -> dict[str, Tensor]:
        """Of this rank's rows: scalars of the global batch, `loss` and its parts by name."""
        told = self.contrastive(shape, image, text, has_image, has_text)
        if self.relations:
            found = self.relations(shape, image, text, has_text, self.contrastive.scale)
            told |= {"loss_contrastive": told["loss"], "loss_intra": found["intra"], "loss_cross": found["cross"]}
            told["loss"] = told["loss"] + self.relation_weight * found["loss"]
            for name, pair in zip(("points", "points_to_images", "points_to_texts"), found["weights"], strict=True):
                told[f"first_weight/{name}"] = pair[0]  # the second is what is left of 1
        return told


class Clock:
    """Where a step's time goes: on a GPU by its own events, so that nothing waits."""

    def __init__(self, device: torch.device):
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []
        self.mark("")

    def mark(self, name: str) -> None:
        """What was done since the last mark is called `name`."""
        if self._on_gpu:
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        else:
            now = time.perf_counter()
        self._marks.append((name, now))

    def seconds(self) -> dict[str, float]:
        """Seconds by name, summed; on a GPU, call it after a synchronisation."""
        spent: dict[str, float] = {}
        for (_, before), (name, after) in zip(self._marks, self._marks[1:], strict=False):
            took = before.elapsed_time(after) / 1000 if self._on_gpu else after - before
            spent[name] = spent.get(name, 0.0) + took
        return spent


class Learner:
    """An encoder, its losses and its optimiser, on this rank's device.

    Every rank makes its own, of the same recipe, and with the same `initial` weights: the parameters' first values come from the
    recipe's seed. `accumulate`: parts that a rank's batch is cut into. `compiled`: the encoder goes through torch.compile.
    """

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device,
        *,
        initial: dict[str, Tensor] | None = None,
        accumulate: int = 1,
        compiled: bool = False,
    ):
        self.recipe, self.device, self.accumulate = recipe, device, accumulate
        self.rank, self.ranks = rank_and_ranks()
        torch.manual_seed(recipe.seed)
        self.encoder = KINDS[recipe.kind][1](recipe.encoder)
        if initial is not None:
            _start_from(self.encoder, initial)
        self.losses = Losses(recipe).to(device)
        if self.ranks > 1:
            self.encoder = over_all_ranks(self.encoder, device)
        self.encoder = self.encoder.to(device).train()
        self.mean = copy.deepcopy(self.encoder).eval() if recipe.ema else None
        forward: nn.Module = self.encoder
        if self.ranks > 1:
            # Buffers are the same on all ranks as they are: statistics of batches come from all of them.
            places = [device.index] if device.type == "cuda" else None
            forward = self._spread = DistributedDataParallel(forward, device_ids=places, forward_sync_buffers=False)
        self._forward = torch.compile(forward) if compiled else forward
        self.optimiser = _adamw(self.encoder, self.losses, recipe.optimiser)
        self.parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")

    @property
    def evaluated(self) -> nn.Module:
        """The encoder that is evaluated and saved: the running mean of the weights, where the recipe has one."""
        return self.mean or self.encoder

    def step(self, batch: Batch, factor: float) -> tuple[dict[str, Tensor], Clock]:
        """One update with this rank's rows of a batch, at `factor` times the recipe's learning rate.

        Returns scalars on the device (nothing waits for them), among them `loss`, `lr` and `grad_norm` (before clipping), and the
        time's split. All chance comes from the batch's seeds and (seed, epoch, step, rank).
        """
        clock = Clock(self.device)
        chance = (self.recipe.seed, batch.epoch, batch.step)
        arguments, named = fed(batch, self.recipe, self.device, chance=chance)
        parts = [
            (list(part[: len(arguments)]), dict(zip(named, part[len(arguments) :], strict=True)))
            for part in zip(*(one.chunk(self.accumulate) for one in (*arguments, *named.values())), strict=True)
        ]
        targets = [_moved(one, self.device).float() for one in (batch.image, batch.text)]
        targets += [_moved(one, self.device) for one in (batch.has_image, batch.has_text)]
        seeds = [seed_of(*chance, self.rank, number) for number in range(len(parts))]
        clock.mark("prepare")
        self.optimiser.zero_grad(set_to_none=True)
        if len(parts) == 1:
            embedded = self._embed(*parts[0], seeds[0])
            clock.mark("forward")
            told = self.losses(embedded, *targets)
            clock.mark("loss")
            self.scaler.scale(told["loss"]).backward()
        else:
            with torch.no_grad(), statistics_kept(self.encoder):
                embedded = torch.cat([self._embed(*part, seed) for part, seed in zip(parts, seeds, strict=True)])
            clock.mark("forward")
            embedded.requires_grad_()
            told = self.losses(embedded, *targets)
            clock.mark("loss")
            self.scaler.scale(told["loss"]).backward()
            gradients = embedded.grad.split([len(part[0][0]) for part in parts])
            for number, (part, seed, gradient) in enumerate(zip(parts, seeds, gradients, strict=True)):
                last = number == len(parts) - 1
                with nullcontext() if last or self.ranks == 1 else self._spread.no_sync():
                    again = self._embed(*part, seed)
                    clock.mark("forward")
                    again.backward(gradient)
                    clock.mark("backward")
        self._average_losses_gradients()
        clock.mark("backward")
        told |= self._update(factor)
        clock.mark("optimiser")
        return {name: value.detach() for name, value in told.items()}, clock

    def _embed(self, arguments: list[Tensor], named: dict[str, Tensor], seed: int) -> Float[Tensor, "b d"]:
        torch.manual_seed(seed)  # drop path and its like, in both passes the same
        with self.arithmetic():
            return self._forward(*arguments, **named).float()

    def arithmetic(self) -> torch.autocast:
        """What the encoder's passes run in."""
        return torch.autocast(self.device.type, DTYPES[self.recipe.precision], enabled=self.recipe.precision != "float32")

    def _average_losses_gradients(self) -> None:
        """As DistributedDataParallel does with the encoder's."""
        if self.ranks == 1:
            return
        gradients = [one.grad for one in self.losses.parameters() if one.grad is not None]
        together = torch.cat([one.flatten() for one in gradients])
        dist.all_reduce(together)
        for gradient, mean in zip(gradients, together.split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient) / self.ranks)

    def _update(self, factor: float) -> dict[str, Tensor]:
        lr = self.recipe.optimiser.lr * factor
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["share"]
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip or float("inf"))
        self.scaler.step(self.optimiser)  # leaves the step out where a float16 gradient overflowed
        self.scaler.update()
        self.losses.contrastive.after_step()
        if self.mean is not None:
            _follow(self.mean, self.encoder, self.recipe.ema)
        return {"grad_norm": norm, "lr": torch.tensor(lr, dtype=torch.float64, device=self.device)}

    def state(self) -> dict[str, Any]:
        """What a later process needs besides the evaluated encoder's weights: tensors, numbers, lists and dicts alone."""
        return {
            "losses": self.losses.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "encoder": self.encoder.state_dict() if self.mean is not None else None,
        }

    def load(self, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from `weights` of the evaluated encoder, and `state`."""
        self.evaluated.load_state_dict(weights)
        if self.mean is not None:
            self.encoder.load_state_dict(state["encoder"])
        self.losses.load_state_dict(state["losses"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])


def _start_from(encoder: nn.Module, initial: dict[str, Tensor]) -> None:
    """Put the weights there are in their places. Raises ValueError for weights of something else."""
    own = encoder.state_dict()
    other = [key for key, value in initial.items() if key not in own or own[key].shape != value.shape]
    if other or not initial:
        raise ValueError(f"the initial weights do not fit this encoder, e.g. {other[0] if other else 'there are none'}")
    encoder.load_state_dict(initial, strict=False)


def _adamw(encoder: nn.Module, losses: nn.Module, settings: Optimiser) -> torch.optim.AdamW:
    """AdamW over what learns, in groups of equal weight decay and equal `share` of the learning rate.

    The losses' log-scale counts among "all"; the weights of relations are never decayed: that would draw them together.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    depth = len(encoder.visual["blocks"]) if settings.layer_decay != 1 else 0
    named = [*encoder.named_parameters(), *((f"losses.{name}", one) for name, one in losses.named_parameters())]
    for name, parameter in named:
        if parameter.requires_grad:
            small = parameter.ndim <= 1 or name.endswith(".bias")
            decayed = not name.startswith("losses.relations.") and (settings.decayed == "all" or not small)
            block = re.match(r"visual\.blocks\.(\d+)\.", name)
            share = settings.layer_decay ** (depth - int(block[1])) if block and depth else 1.0
            groups.setdefault((decayed, share), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": settings.weight_decay if decayed else 0.0, "share": share}
            for (decayed, share), parameters in groups.items()
        ],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
    )


@torch.no_grad()
def _follow(mean: nn.Module, encoder: nn.Module, decay: float) -> None:
    """The running mean of the weights takes a step towards them; buffers are taken over."""
    torch._foreach_lerp_(list(mean.parameters()), list(encoder.parameters()), 1 - decay)
    for kept, now in zip(mean.buffers(), encoder.buffers(), strict=True):
        kept.copy_(now)
