"""The Uni3D encoder, beside a second one written from the paper's definition, and timm's own model."""

from dataclasses import asdict, replace

import pytest
import timm
import torch
from timm.models.eva import Eva
from torch import nn
from torch.nn import functional as F

from trainer.encoders import uni3d
from trainer.encoders.uni3d import FLAVOURS, SIZES, TIMM_MODELS, Uni3d, Uni3dConfig, initial_2d, official

TINY = Uni3dConfig(
    width=24, depth=2, heads=3, hidden=40, flavour="swiglu", groups=12, group_size=8, pc_encoder_dim=16, out=10, drop_path=0.0
)
KINDS = [replace(TINY, flavour=flavour) for flavour in FLAVOURS]
of_each_kind = pytest.mark.parametrize("config", KINDS, ids=list(FLAVOURS))


def clouds(count=3, points=100, seed=0):
    """Made clouds in a shell, with colours; every fifth point is near the origin, in the first cloud index 0 too."""
    chance = torch.Generator().manual_seed(seed)
    xyz = F.normalize(torch.randn(count, points, 3, generator=chance), dim=-1)
    xyz *= 0.6 + 0.4 * torch.rand(count, points, 1, generator=chance)
    xyz[:, 1::5] *= 0.02
    xyz[0, 0] *= 0.02
    return xyz, torch.rand(count, points, 3, generator=chance)


def made(config, seed=0):
    """An encoder with random weights, biases, norms and running statistics, none at its initial value."""
    torch.manual_seed(seed)
    encoder = Uni3d(config)
    with torch.no_grad():
        for name, value in encoder.state_dict().items():
            if value.is_floating_point():
                positive = name.endswith("running_var") or ("norm" in name or ".1." in name) and name.endswith("weight")
                value.copy_(torch.rand_like(value) + 0.5 if positive else torch.randn_like(value) / max(1, value[0].numel()) ** 0.5)
    return encoder.eval()


def reference(state, config, xyz, rgb):
    """Uni3D in float64, cloud by cloud and layer by layer, from the published definition."""
    state = {key: value.double() for key, value in state.items()}
    linear = lambda x, name: F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))  # noqa: E731
    norm = lambda x, name: F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)  # noqa: E731

    def two_layers(x, name):
        x = F.conv1d(x, state[f"{name}.0.weight"], state[f"{name}.0.bias"])
        of = [state[f"{name}.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.conv1d(F.batch_norm(x, *of, eps=1e-5).relu(), state[f"{name}.3.weight"], state[f"{name}.3.bias"])

    def token(points, center, colors):
        near = (points - center).norm(dim=-1).argsort()[: config.group_size]
        local = two_layers(torch.cat([points[near] - center, colors[near]], dim=-1).T[None], "encoder.first_conv")
        whole = local.amax(dim=-1, keepdim=True).expand_as(local)
        return two_layers(torch.cat([whole, local], dim=1), "encoder.second_conv").amax(dim=-1)[0]

    def attention(x, name):
        if f"{name}.qkv.weight" in state:
            bias = torch.cat([state[f"{name}.q_bias"], torch.zeros(config.width, dtype=x.dtype), state[f"{name}.v_bias"]])
            q, k, v = F.linear(x, state[f"{name}.qkv.weight"], bias).chunk(3, dim=-1)
        else:
            assert f"{name}.k_proj.bias" not in state
            q, k, v = (linear(x, f"{name}.{one}_proj") for one in "qkv")
        q, k, v = (one.unflatten(-1, (config.heads, -1)).transpose(0, 1) for one in (q, k, v))
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
        return linear((weights @ v).transpose(0, 1).flatten(1), f"{name}.proj")

    def mlp(x, name):
        if config.flavour == "gelu":
            return linear(F.gelu(linear(x, f"{name}.fc1")), f"{name}.fc2")
        if config.flavour == "swiglu":
            gate, value = linear(x, f"{name}.fc1").chunk(2, dim=-1)
            return linear(F.silu(gate) * value, f"{name}.fc2")
        inner = F.silu(linear(x, f"{name}.fc1_g")) * linear(x, f"{name}.fc1_x")
        return linear(norm(inner, f"{name}.norm"), f"{name}.fc2")

    embeddings = []
    for points, colors in zip(xyz.double(), rgb.double(), strict=True):
        centers, allowed = [0], points.square().sum(dim=-1) > 1e-3
        while len(centers) < config.groups:
            away = torch.cdist(points, points[centers]).amin(dim=-1)
            centers.append(int(away.masked_fill(~allowed, -1).argmax()))
        tokens = torch.stack([token(points, points[one], colors) for one in centers])
        tokens = torch.cat([state["cls_token"][0], linear(tokens, "encoder2trans")])
        places = linear(F.gelu(linear(points[centers], "pos_embed.0")), "pos_embed.2")
        x = tokens + torch.cat([state["cls_pos"][0], places])
        for number in range(config.depth):
            name = f"visual.blocks.{number}"
            x = x + attention(norm(x, f"{name}.norm1"), f"{name}.attn")
            x = x + mlp(norm(x, f"{name}.norm2"), f"{name}.mlp")
        embeddings.append(linear(norm(x[0], "visual.fc_norm"), "trans2embed"))
    return torch.stack(embeddings)


@of_each_kind
def test_the_encoder_is_what_the_paper_defines(config):
    encoder, (xyz, rgb) = made(config), clouds()
    torch.testing.assert_close(encoder(xyz, rgb).double(), reference(encoder.state_dict(), config, xyz, rgb), rtol=1e-5, atol=1e-5)


def test_norms_have_the_published_epsilon():
    encoder = Uni3d(KINDS[1])
    epsilons = {one.eps for one in encoder.modules() if isinstance(one, nn.LayerNorm)}
    assert (epsilons, {one.eps for one in encoder.modules() if isinstance(one, nn.BatchNorm1d)}) == ({1e-6}, {1e-5})


@pytest.mark.parametrize(
    ("name", "millions"), [("uni3d-ti", 6.22), ("uni3d-s", 22.50), ("uni3d-b", 86.95), ("uni3d-l", 304.67), ("uni3d-g", 1012.86)]
)
def test_parameters_are_counted_as_published_and_blocks_are_those_of_timms_model(name, millions):
    with torch.device("meta"):
        encoder = Uni3d(SIZES[name])
        picture_model = timm.create_model(TIMM_MODELS[name])
    assert round(sum(one.numel() for one in encoder.parameters()) / 1e6, 2) == millions
    taken = initial_2d(picture_model.state_dict(), SIZES[name])
    own = {key: value.shape for key, value in encoder.state_dict().items() if key.startswith("visual.")}
    assert {key: value.shape for key, value in taken.items()} == own


@of_each_kind
def test_weights_of_a_picture_model_give_its_blocks_without_rotary_positions(config):
    torch.manual_seed(1)
    sizes = dict(embed_dim=config.width, depth=config.depth, num_heads=config.heads, mlp_ratio=(config.hidden + 0.5) / config.width)
    picture_model = Eva(img_size=28, patch_size=14, num_classes=3, use_rot_pos_emb=True, **sizes, **FLAVOURS[config.flavour]).eval()
    encoder = Uni3d(config).eval()
    taken = initial_2d(picture_model.state_dict(), config)
    assert encoder.load_state_dict(taken, strict=False).unexpected_keys == []
    x = theirs = torch.randn(2, 5, config.width)
    for block, their_block in zip(encoder.visual["blocks"], picture_model.blocks, strict=True):
        x, theirs = block(x), their_block(theirs, rope=None)
    torch.testing.assert_close(encoder.visual["fc_norm"](x), picture_model.fc_norm(theirs), rtol=0, atol=0)


def test_weights_of_another_picture_model_are_refused():
    with torch.device("meta"):
        state = timm.create_model("eva02_tiny_patch14_224").state_dict()
    with pytest.raises(ValueError, match=r"other blocks than this encoder, e.g. blocks.0.attn.k_proj.weight: absent there, \[768"):
        initial_2d(state, SIZES["uni3d-b"])


def published(encoder, prefix=""):
    """The encoder's weights as the published files have them, with the parts of timm's model that nothing uses."""
    state = {f"point_encoder.{key}": value for key, value in encoder.state_dict().items()}
    unused = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "head.weight", "head.bias")
    state |= {f"point_encoder.visual.{key}": torch.full((3,), 7.0) for key in unused} | {"logit_scale": torch.tensor(2.66)}
    return {prefix + key: value for key, value in state.items()}


@of_each_kind
def test_published_checkpoints_load_strictly(config, tmp_path):
    encoder, (xyz, rgb) = made(config), clouds()
    for content in ({"module": published(encoder)}, {"module": published(encoder, "module.")}, published(encoder, "module.")):
        torch.save(content, tmp_path / "model.pt")
        other = Uni3d(config).eval()
        other.load_state_dict(official(torch.load(tmp_path / "model.pt", weights_only=True)))
        torch.testing.assert_close(other(xyz, rgb), encoder(xyz, rgb), rtol=0, atol=0)


def test_the_layout_of_keys_and_shapes_is_the_published_one():
    shapes = {key: list(value.shape) for key, value in official(published(Uni3d(TINY))).items()}
    first = {"0.weight": [128, 6, 1], "3.weight": [256, 128, 1], "1.running_var": [128], "1.num_batches_tracked": []}
    assert shapes.items() >= {f"encoder.first_conv.{key}": shape for key, shape in first.items()}.items()
    assert shapes["encoder.second_conv.0.weight"] == [512, 512, 1]
    assert shapes["cls_token"] == shapes["cls_pos"] == [1, 1, 24]
    assert shapes["pos_embed.0.weight"] == [128, 3] and shapes["trans2embed.weight"] == [10, 24]
    block = {key.removeprefix("visual.blocks.1.") for key in shapes if key.startswith("visual.blocks.1.")}
    attention = {"attn.qkv.weight", "attn.q_bias", "attn.v_bias", "attn.proj.weight", "attn.proj.bias"}
    layers = {f"{layer}.{part}" for layer in ("norm1", "norm2", "mlp.fc1", "mlp.fc2") for part in ("weight", "bias")}
    assert block == attention | layers


def test_checkpoints_of_something_else_are_refused():
    state = published(Uni3d(TINY))
    with pytest.raises(RuntimeError, match="strange"):
        Uni3d(TINY).load_state_dict(official(state | {"point_encoder.strange": torch.zeros(1)}))
    with pytest.raises(RuntimeError, match="visual.fc_norm.bias"):
        Uni3d(TINY).load_state_dict(official({key: value for key, value in state.items() if "fc_norm.bias" not in key}))
    with pytest.raises(ValueError, match="not a checkpoint of Uni3D: .* here are proj.bias, proj.weight"):
        official(state | {"proj.weight": torch.zeros(1), "proj.bias": torch.zeros(1)})
    with pytest.raises(ValueError, match="here are none"):
        official({})


def test_points_near_the_origin_are_centres_only_where_that_is_asked_for():
    xyz, rgb = clouds()
    skipped, taken = (Uni3d(replace(TINY, skip_origin=skip)).grouped(xyz, rgb)[0].norm(dim=-1) < 0.03 for skip in (True, False))
    assert skipped.sum(dim=1).tolist() == [1, 0, 0]  # the first cloud's start, index 0
    assert taken.any(dim=1).all()


def test_the_embedding_does_not_depend_on_the_points_order_but_on_the_start():
    encoder, (xyz, rgb) = made(TINY), clouds()
    order = torch.randperm(xyz.shape[1], generator=torch.Generator().manual_seed(2))
    start = (order == 0).nonzero()[0].expand(3)
    expected = encoder(xyz, rgb)
    torch.testing.assert_close(encoder(xyz[:, order], rgb[:, order], start=start), expected)
    assert (encoder(xyz, rgb, start=start + 3) - expected).abs().max() > 1e-3


def test_clouds_are_embedded_each_alone_and_in_blocks_of_any_size(monkeypatch):
    encoder, (xyz, rgb) = made(TINY), clouds()
    expected = encoder(xyz, rgb)
    torch.testing.assert_close(encoder(xyz[1:2], rgb[1:2]), expected[1:2])
    for points in (1, 5 * TINY.group_size):
        monkeypatch.setattr(uni3d, "POINTS_AT_ONCE", points)
        torch.testing.assert_close(encoder(xyz, rgb), expected)


def seen_tokens(encoder, *inputs):
    """What the first block is given."""
    seen = []
    hook = encoder.visual["blocks"][0].register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    encoder(*inputs)
    hook.remove()
    return seen[0]


def test_groups_are_left_out_in_training_alone_and_by_the_clouds_own_seeds():
    xyz, rgb = clouds()
    seeds = torch.tensor([5, 6, 7])
    encoder = made(replace(TINY, patch_dropout=0.5))
    torch.testing.assert_close(encoder(xyz, rgb), made(TINY)(xyz, rgb), rtol=0, atol=0)  # in evaluation: nothing
    every = seen_tokens(encoder, xyz, rgb)
    encoder.train()
    encoder.encoder.eval()  # tokens that do not depend on the batch
    some = seen_tokens(encoder, xyz, rgb, None, seeds)
    assert some.shape == (3, 1 + 6, 24)
    torch.testing.assert_close(some[:, 0], every[:, 0])
    which = torch.cdist(some, every).argmin(dim=-1)
    assert torch.cdist(some, every).amin(dim=-1).max() < 1e-5
    assert [len(set(row)) for row in which.tolist()] == [7, 7, 7]
    assert len({frozenset(row) for row in which.tolist()}) == 3
    torch.testing.assert_close(seen_tokens(encoder, xyz[1:], rgb[1:], None, seeds[1:]), some[1:])
    with pytest.raises(ValueError, match="needs `seeds`"):
        encoder(xyz, rgb)


@of_each_kind
def test_checkpointing_changes_no_gradient_and_no_running_statistic(config):
    xyz, rgb = clouds()
    states = []
    for checkpointing in (False, True):
        encoder = made(replace(config, checkpointing=checkpointing)).train()
        encoder(xyz, rgb).square().sum().backward()
        states.append({name: one.grad for name, one in encoder.named_parameters()} | dict(encoder.named_buffers()))
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, msg=lambda text, name=name: f"{name}: {text}")
    assert states[1]["encoder.first_conv.1.num_batches_tracked"] == 1


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_compiled_encoder_learns_the_same(checkpointing):
    (xyz, rgb), states = clouds(), []
    for compiled in (False, True):
        encoder = made(replace(TINY, checkpointing=checkpointing)).train()
        run = torch.compile(encoder, backend="eager") if compiled else encoder
        run(xyz, rgb).square().sum().backward()
        states.append({name: one.grad for name, one in encoder.named_parameters()} | dict(encoder.named_buffers()))
    torch.testing.assert_close(states[1], states[0])


@of_each_kind
def test_every_parameter_learns(config):
    encoder, (xyz, rgb) = made(config).train(), clouds()
    encoder(xyz, rgb).square().sum().backward()
    assert [name for name, one in encoder.named_parameters() if one.grad is None or not one.grad.any()] == []


@of_each_kind
def test_half_precision_and_norms_across_ranks_keep_the_embedding(config):
    encoder, (xyz, rgb) = made(config), clouds()
    expected = encoder(xyz, rgb)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(xyz, rgb)
        encoder.train()(xyz, rgb).float().sum().backward()
    assert F.cosine_similarity(half.float(), expected).min() > 0.995
    assert all(one.grad.isfinite().all() for one in encoder.parameters())
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(made(config))
    assert synced.state_dict().keys() == encoder.state_dict().keys()
    torch.testing.assert_close(synced(xyz, rgb), expected)


def test_branches_drop_more_often_with_depth_and_start_smaller():
    torch.manual_seed(0)
    encoder = Uni3d(Uni3dConfig(width=128, depth=3, heads=2, hidden=128, flavour="gelu", drop_path=0.2))
    blocks = encoder.visual["blocks"]
    assert [getattr(one.drop_path2, "drop_prob", 0) for one in blocks] == pytest.approx([0, 0.1, 0.2])
    spread = torch.stack([one.mlp.fc2.weight.detach().std() for one in blocks]) * torch.tensor([2.0, 4.0, 6.0]).sqrt()
    torch.testing.assert_close(spread, torch.full((3,), 0.02), rtol=0.03, atol=0)
    assert not encoder.cls_token.any() and encoder.cls_pos.std() > 0.5


def test_a_configuration_is_plain_data():
    assert Uni3dConfig(**asdict(SIZES["uni3d-g"])) == SIZES["uni3d-g"]


def test_clouds_with_too_few_points_are_refused():
    xyz, rgb = clouds(points=11)
    with pytest.raises(ValueError, match="12 farthest points of clouds of 11"):
        made(TINY)(xyz, rgb)
