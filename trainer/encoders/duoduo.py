"""Duoduo CLIP: a CLIP picture encoder that sees several views of an object at once (Lee et al. 2024, "Duoduo CLIP: Efficient 3D
Understanding with Multi-View Images", arXiv 2406.11579).

The transformer is open_clip's own, with its weights. From one block on, the tokens of all views of an object attend to each other;
everything else works on each token alone. Views have no order, and there may be any number. Module names are those of open_clip's
picture tower, so that stock weights load unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import torch
from jaxtyping import Float
from open_clip import get_model_config
from open_clip.model import CLIPVisionCfg
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# The settings of open_clip's picture towers that `DuoduoConfig` has; any other must be as open_clip has it by default.
OF_CONFIG = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size"}


@dataclass(frozen=True, kw_only=True)
class DuoduoConfig:
    """Sizes of a multi-view encoder; by default those of ViT-B-32, and the published settings.

    Pictures of `image_size` pixels square in patches of `patch`; `layers` blocks of `width` in `heads`, MLPs `mlp_ratio` times as
    wide; embeddings of `out`. `quick_gelu`: as OpenAI's weights want it. `layers_threshold`: blocks of at least this index attend
    over all views, those before inside each. `trainable`: "attention" (the published way: only the attention of those blocks
    learns, and no activation of the blocks before is kept) or "all". `checkpointing`: the blocks are computed again in the backward
    pass instead of kept.
    """

    image_size: int = 224
    patch: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    out: int = 512
    quick_gelu: bool = False
    layers_threshold: int = 6
    trainable: Literal["attention", "all"] = "attention"
    checkpointing: bool = False

    @classmethod
    def of(cls, arch: str, *, layers_threshold: int | None = None) -> Self:
        """The configuration whose picture tower is that of open_clip's `arch`; the upper half of its blocks see all views unless
        `layers_threshold` says otherwise. Raises ValueError for an unknown name and for towers that are built otherwise.
        """
        model = get_model_config(arch)
        if model is None:
            raise ValueError(f"open_clip knows no model {arch!r}: open_clip.list_models() names them")
        tower = model["vision_cfg"]
        usual = vars(CLIPVisionCfg())
        other = sorted(name for name, value in tower.items() if name not in OF_CONFIG and value != usual[name])
        if other or not isinstance(tower["layers"], int):
            raise ValueError(
                f"{arch}'s picture tower is not a plain ViT with a class token ({', '.join(other) or 'layers'}): take another"
            )
        sizes = usual | tower
        return cls(
            image_size=sizes["image_size"],
            patch=sizes["patch_size"],
            width=sizes["width"],
            layers=sizes["layers"],
            heads=sizes["width"] // sizes["head_width"],
            mlp_ratio=sizes["mlp_ratio"],
            out=model["embed_dim"],
            quick_gelu=model.get("quick_gelu", False),
            layers_threshold=sizes["layers"] // 2 if layers_threshold is None else layers_threshold,
        )


# Named for the first block that sees all views, as the published checkpoints are; 9 and 0 are of the paper's ablation.
SIZES = {f"duoduo-lt{threshold}": DuoduoConfig(layers_threshold=threshold) for threshold in (0, 6, 9)}


class Duoduo(nn.Module):
    """The encoder of a `DuoduoConfig`, its parameters frozen as the configuration says (requires_grad)."""

    def __init__(self, config: DuoduoConfig):
        super().__init__()
        self.config = config
        self.visual = VisionTransformer(
            image_size=config.image_size,
            patch_size=config.patch,
            width=config.width,
            layers=config.layers,
            heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            output_dim=config.out,
            act_layer=QuickGELU if config.quick_gelu else nn.GELU,
        )
        if config.trainable == "attention":
            self.visual.requires_grad_(False)
            for block in self.visual.transformer.resblocks[config.layers_threshold :]:
                block.attn.requires_grad_(True)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Those that the configuration lets learn."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(self, pictures: Float[Tensor, "b f 3 s s"]) -> Float[Tensor, "b out"]:
        """Embeddings, not normalised, of objects seen in `f` views: normalised pixels (trainer/pictures.py)."""
        objects, views = pictures.shape[:2]
        blocks, threshold = self.visual.transformer.resblocks, self.config.layers_threshold
        tokens = self._run(blocks[:threshold], self._patches(pictures.flatten(0, 1)))
        # All but attention works on each token alone: joining the views' tokens is all that it takes to see them together.
        tokens = self._run(blocks[threshold:], tokens.unflatten(0, (objects, views)).flatten(1, 2))
        of_class = tokens.unflatten(1, (views, -1))[:, :, 0]
        return self.visual.ln_post(of_class).mean(dim=1) @ self.visual.proj  # the mean first, then the projection

    def _patches(self, pictures: Float[Tensor, "m 3 s s"]) -> Float[Tensor, "m t w"]:
        visual = self.visual
        patches = visual.conv1(pictures).flatten(2).transpose(1, 2)
        of_class = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        return visual.ln_pre(torch.cat([of_class, patches], dim=1) + visual.positional_embedding.to(patches.dtype))

    def _run(self, blocks: nn.ModuleList, tokens: Float[Tensor, "m t w"]) -> Float[Tensor, "m t w"]:
        again = self.config.checkpointing and torch.is_grad_enabled()
        for block in blocks:  # without dropout: no random numbers to draw again
            tokens = checkpoint(block, tokens, use_reentrant=False, preserve_rng_state=False) if again else block(tokens)
        return tokens


class Parts(NamedTuple):
    """What a checkpoint holds: weights of `Duoduo`, of CLIP's text tower (open_clip's keys), and log scales by their full name."""

    encoder: dict[str, Tensor]
    text: dict[str, Tensor]
    log_scales: dict[str, Tensor]


def parts(state: Mapping[str, Any]) -> Parts:
    """The parts of a published checkpoint of Duoduo CLIP (Lightning's: "state_dict" and hyper-parameters) or of stock open_clip.

    In the published ones `contrastive_loss.logit_scale` is the trained log scale; `duoduoclip.logit_scale`, CLIP's, is unused.
    Raises ValueError for a file without a picture tower of CLIP.
    """
    weights = state.get("state_dict", state)
    log_scales = {key: value for key, value in weights.items() if key.endswith("logit_scale")}
    clip = {key.removeprefix("duoduoclip."): value for key, value in weights.items() if key not in log_scales}
    encoder = {key: value for key, value in clip.items() if key.startswith("visual.")}
    if "visual.conv1.weight" not in encoder:
        raise ValueError(
            f"no picture tower of CLIP (visual.conv1.weight) among the keys: {', '.join(sorted(weights)[:3]) or 'none'}"
        )
    return Parts(encoder, {key: value for key, value in clip.items() if key not in encoder}, log_scales)


def official(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of `Duoduo` in a published checkpoint, or in stock open_clip weights (see `parts`)."""
    return parts(state).encoder
