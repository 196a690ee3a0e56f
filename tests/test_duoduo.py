"""The multi-view encoder, beside open_clip's own picture tower."""

from dataclasses import asdict, replace

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from torch.nn import functional as F

from trainer.encoders.duoduo import SIZES, Duoduo, DuoduoConfig, official, parts

TINY = DuoduoConfig(image_size=32, patch=16, width=32, layers=4, heads=2, mlp_ratio=2.0, out=12, layers_threshold=2)


def clip(config, seed=0):
    """open_clip's model with that picture tower and random weights."""
    torch.manual_seed(seed)
    tower = dict(image_size=config.image_size, patch_size=config.patch, width=config.width, layers=config.layers)
    tower |= dict(head_width=config.width // config.heads, mlp_ratio=config.mlp_ratio)
    text = dict(context_length=6, vocab_size=20, width=16, heads=2, layers=1)
    return CLIP(config.out, tower, text, quick_gelu=config.quick_gelu).eval()


def made(config, seed=0):
    """An encoder with the random weights of `clip`."""
    encoder = Duoduo(config)
    encoder.load_state_dict(official(clip(config, seed).state_dict()))
    return encoder.eval()


def views(config, objects=3, count=4, seed=5):
    size = config.image_size
    return torch.randn(objects, count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("config", [TINY, replace(TINY, quick_gelu=True), replace(TINY, layers_threshold=4)])
def test_one_view_is_embedded_as_open_clip_does(config):
    pictures = views(config, count=1)
    torch.testing.assert_close(made(config)(pictures), clip(config).encode_image(pictures[:, 0]))


def test_one_view_through_a_real_architecture_is_embedded_as_open_clip_does():
    torch.manual_seed(0)
    stock = open_clip.create_model("ViT-B-32", pretrained=None).eval()
    encoder = Duoduo(DuoduoConfig.of("ViT-B-32")).eval()
    encoder.load_state_dict(official(stock.state_dict()))
    pictures = views(encoder.config, objects=2, count=1)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pictures), stock.encode_image(pictures[:, 0]))


def test_views_see_each_other_from_the_threshold_on_and_not_before():
    """All views' tokens in one sequence through open_clip's blocks, with a mask that parts the views in the lower ones."""
    config, pictures = TINY, views(TINY)
    objects, count = pictures.shape[:2]
    visual = clip(config).visual
    tokens = visual._embeds(pictures.flatten(0, 1)).unflatten(0, (objects, count))
    each = tokens.shape[2]
    view = torch.arange(count).repeat_interleave(each)
    apart = torch.where(view[:, None] == view, 0.0, -torch.inf)
    tokens = tokens.flatten(1, 2)
    for index, block in enumerate(visual.transformer.resblocks):
        tokens = block(tokens, attn_mask=apart if index < config.layers_threshold else None)
    of_class = visual.ln_post(tokens)[:, torch.arange(count) * each]
    torch.testing.assert_close(made(config)(pictures), of_class.mean(dim=1) @ visual.proj)


def test_without_joint_blocks_the_embedding_is_the_mean_of_the_views_and_with_them_it_is_not():
    pictures = views(TINY)
    mean = clip(TINY).encode_image(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2]).mean(dim=1)
    torch.testing.assert_close(made(replace(TINY, layers_threshold=TINY.layers))(pictures), mean)
    assert (made(TINY)(pictures) - mean).abs().max() > 1e-3


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_there_may_be_any_number_of_views_in_any_order(count):
    encoder, pictures = made(TINY), views(TINY, count=count)
    expected = encoder(pictures)
    torch.testing.assert_close(encoder(pictures[:, torch.randperm(count)]), expected)
    torch.testing.assert_close(encoder(pictures[1:2]), expected[1:2])
    assert count == 1 or (encoder(pictures[:, :-1]) - expected).abs().max() > 1e-3


def test_the_views_are_averaged_before_the_projection():
    """Mathematically the same as after it, so what is asserted is each bit."""
    encoder, pictures, seen = made(TINY), views(TINY), []
    encoder.visual.ln_post.register_forward_hook(lambda module, given, found: seen.append(found))
    embedding = encoder(pictures)
    of_class = seen[0].reshape(*pictures.shape[:2], -1)
    assert embedding.equal(of_class.mean(dim=1) @ encoder.visual.proj)
    assert not embedding.equal((of_class @ encoder.visual.proj).mean(dim=1))


def test_of_vit_b_32_the_published_parameters_learn():
    with torch.device("meta"):
        encoder = Duoduo(SIZES["duoduo-lt6"])
    assert sum(one.numel() for one in encoder.parameters()) == 87_849_216
    assert sum(one.numel() for one in encoder.trainable_parameters()) == 14_174_208
    attention = ("attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias")
    assert {name for name, one in encoder.named_parameters() if one.requires_grad} == {
        f"visual.transformer.resblocks.{index}.{name}" for index in range(6, 12) for name in attention
    }


def test_all_parameters_learn_where_that_is_asked_for():
    encoder = made(replace(TINY, trainable="all")).train()
    encoder(views(TINY)).square().sum().backward()
    assert [name for name, one in encoder.named_parameters() if one.grad is None or not one.grad.any()] == []
    assert len(encoder.trainable_parameters()) == len(list(encoder.parameters()))


def test_nothing_is_kept_of_the_frozen_blocks():
    kept, at_threshold = [], []
    encoder = made(replace(TINY, layers_threshold=2)).train()
    encoder.visual.transformer.resblocks[2].register_forward_pre_hook(lambda module, given: at_threshold.append(len(kept)))
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        encoder(views(TINY)).square().sum().backward()
    assert at_threshold == [0] and kept
    assert {name for name, one in encoder.named_parameters() if one.grad is not None} == {
        name for name, one in encoder.named_parameters() if one.requires_grad
    }


@pytest.mark.parametrize("trainable", ["attention", "all"])
def test_the_frozen_part_and_checkpointing_change_no_gradient(trainable):
    pictures = views(TINY)
    whole = clip(TINY).train()
    wanted = Duoduo(replace(TINY, trainable="all")).train()
    wanted.load_state_dict(official(whole.state_dict()))
    wanted(pictures).square().sum().backward()
    gradients = {name: one.grad for name, one in wanted.named_parameters()}
    for checkpointing in (False, True):
        encoder = made(replace(TINY, trainable=trainable, checkpointing=checkpointing)).train()
        encoder(pictures).square().sum().backward()
        found = {name: one.grad for name, one in encoder.named_parameters() if one.requires_grad}
        assert len(found) == len(encoder.trainable_parameters()) > 0
        for name, value in found.items():
            torch.testing.assert_close(value, gradients[name], msg=lambda text, name=name: f"{name}: {text}")


def test_a_lightning_checkpoint_is_read_and_taken_apart(tmp_path):
    whole = clip(TINY)
    state = {f"duoduoclip.{key}": value for key, value in whole.state_dict().items()} | {
        "contrastive_loss.logit_scale": torch.tensor(3.0)
    }
    settings = {"model": {"layers_threshold": 2, "lr": 5e-5}, "data": {"num_views": [1, 6]}, "trainer": {"precision": "16-mixed"}}
    file = {"epoch": 79, "pytorch-lightning_version": "2.1.0", "state_dict": state, "hyper_parameters": settings}
    torch.save(file, tmp_path / "lightning.ckpt")
    read = torch.load(tmp_path / "lightning.ckpt", weights_only=True)

    found = parts(read)
    assert {key: float(value) for key, value in found.log_scales.items()} == {
        "contrastive_loss.logit_scale": 3.0,
        "duoduoclip.logit_scale": whole.logit_scale.item(),
    }
    assert {f"visual.{key}" for key in whole.visual.state_dict()} == found.encoder.keys()
    assert found.text.keys() == {key for key in whole.state_dict() if not key.startswith("visual.") and key != "logit_scale"}
    encoder = Duoduo(TINY).eval()
    encoder.load_state_dict(official(read))
    torch.testing.assert_close(encoder(views(TINY)), made(TINY)(views(TINY)), rtol=0, atol=0)


def test_files_without_a_picture_tower_and_towers_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="no picture tower of CLIP .*: point_encoder.cls_pos"):
        official({"point_encoder.cls_pos": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="resblocks.4"):
        Duoduo(TINY).load_state_dict(official(clip(replace(TINY, layers=5)).state_dict()))


@pytest.mark.parametrize("arch", ["ViT-bigG-14", "ViT-L-14-336-quickgelu", "ViT-B-16"])
def test_a_configuration_of_an_architecture_builds_its_picture_tower(arch):
    config = DuoduoConfig.of(arch)
    with torch.device("meta"):
        encoder, stock = Duoduo(config), CLIP(**open_clip.get_model_config(arch))
    assert {key: value.shape for key, value in encoder.state_dict().items()} == {
        key: value.shape for key, value in stock.state_dict().items() if key.startswith("visual.")
    }
    block, theirs = encoder.visual.transformer.resblocks[0], stock.visual.transformer.resblocks[0]
    assert block.attn.num_heads == theirs.attn.num_heads and type(block.mlp.gelu) is type(theirs.mlp.gelu)
    assert config.layers_threshold == config.layers // 2
    assert DuoduoConfig.of(arch, layers_threshold=1) == replace(config, layers_threshold=1)


def test_the_published_sizes_are_those_of_vit_b_32():
    assert SIZES["duoduo-lt6"] == DuoduoConfig.of("ViT-B-32", layers_threshold=6)
    assert {name: config.layers_threshold for name, config in SIZES.items()} == {"duoduo-lt0": 0, "duoduo-lt6": 6, "duoduo-lt9": 9}
    assert DuoduoConfig(**asdict(TINY)) == TINY


@pytest.mark.parametrize(
    ("arch", "why"),
    [
        ("RN50", "layers"),
        ("coca_ViT-B-32", "attentional_pool"),
        ("ViT-SO400M-14-SigLIP", "timm_model_name"),
        ("nothing", "knows no model"),
    ],
)
def test_architectures_with_another_layout_are_refused(arch, why):
    with pytest.raises(ValueError, match=why):
        DuoduoConfig.of(arch)


@pytest.mark.parametrize("trainable", ["attention", "all"])
def test_half_precision_keeps_the_embedding_and_trains(trainable):
    encoder, pictures = made(replace(TINY, trainable=trainable)), views(TINY)
    expected = encoder(pictures)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(pictures)
        encoder.train()(pictures).float().square().sum().backward()
    assert F.cosine_similarity(half.float(), expected).min() > 0.995
    assert all(one.grad.isfinite().all() and one.grad.any() for one in encoder.trainable_parameters())
