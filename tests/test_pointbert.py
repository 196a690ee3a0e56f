import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from trainer.encoders.pointbert import SIZES, PointBert, PointBertConfig, official

SMALL = PointBertConfig(dim=32, depth=2, heads=2, head_width=8, hidden=48, sa_dim=20, groups=12, radius=0.5, group_size=10, out=6)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def cloud(generator):
    """Three clouds of 150 points: places, colours."""
    xyz = torch.randn(3, 150, 3, generator=generator)
    return 0.8 * xyz / xyz.norm(dim=-1, keepdim=True), torch.rand(3, 150, 3, generator=generator)


def made(config=SMALL, *, seed=1):
    """A model whose every number is random: norms have weights, and running figures of BatchNorm too, all of the size of eps."""
    generator = torch.Generator().manual_seed(seed)
    model = PointBert(config)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(1e-5, 4e-5, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.3 if tensor.ndim < 2 else 1 / math.sqrt(tensor.shape[1]), generator=generator)
    for norm in (model.ppat.lift[2], *(module.norm for block in model.ppat.transformer.layers for module in block)):
        norm.weight.data += 1
    with torch.no_grad():
        model.ppat.lift[0].weight *= 1e-2  # so small that LayerNorm's eps shows
        model.ppat.lift[0].bias *= 1e-2
        for bn in model.ppat.sa.mlp_bns:
            bn.weight *= 1e-2
    return model.eval()


def by_definition(state, config, xyz, rgb, start=0):
    """One cloud's embedding by the published description, step by step in float64, with loops and no part of the encoder's code."""
    state = {name: tensor.double() for name, tensor in state.items()}
    xyz, rgb = xyz.double(), rgb.double()

    def linear(x, name):
        weight = state[f"{name}.weight"].flatten(1)
        return x @ weight.T + state.get(f"{name}.bias", 0)

    def layer_norm(x, name):
        centred = x - x.mean(dim=-1, keepdim=True)
        scaled = centred / torch.sqrt(centred.square().mean(dim=-1, keepdim=True) + 1e-5)
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    taken = [start]
    while len(taken) < config.groups:
        distance = torch.stack([(xyz - xyz[one]).square().sum(dim=1) for one in taken]).min(dim=0).values
        taken.append(int(distance.argmax()))

    tokens = [state["ppat.cls_token"]]
    for one in taken:
        within = [i for i in range(len(xyz)) if (xyz[i] - xyz[one]).square().sum() <= config.radius**2][: config.group_size]
        group = torch.cat([xyz[within] - xyz[one], xyz[within], rgb[within]], dim=1)
        for layer in range(3):
            x = linear(group, f"ppat.sa.mlp_convs.{layer}")
            bn = f"ppat.sa.mlp_bns.{layer}"
            x = (x - state[f"{bn}.running_mean"]) / torch.sqrt(state[f"{bn}.running_var"] + 1e-5)
            group = (x * state[f"{bn}.weight"] + state[f"{bn}.bias"]).clamp(min=0)
        lifted = linear(torch.cat([xyz[one], group.max(dim=0).values]), "ppat.lift.0")
        tokens.append(layer_norm(lifted, "ppat.lift.2"))

    x = torch.stack(tokens)
    for i in range(config.depth):
        layer = f"ppat.transformer.layers.{i}"
        queries, keys, values = linear(layer_norm(x, f"{layer}.0.norm"), f"{layer}.0.fn.to_qkv").chunk(3, dim=1)
        heads = []
        for head in range(config.heads):
            some = slice(head * config.head_width, (head + 1) * config.head_width)
            share = (queries[:, some] @ keys[:, some].T / math.sqrt(config.head_width)).softmax(dim=1)
            heads.append(share @ values[:, some])
        x = x + linear(torch.cat(heads, dim=1), f"{layer}.0.fn.to_out.0")
        hidden = linear(layer_norm(x, f"{layer}.1.norm"), f"{layer}.1.fn.net.0")
        x = x + linear(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2, f"{layer}.1.fn.net.3")
    return linear(x[0], "proj") if config.projection else x[0]


# ---------------------------------------------------------------------------------------------------------- architecture


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, out=32, projection=False), replace(SMALL, heads=1, head_width=64)])
def test_embeddings_are_those_of_the_published_description(cloud, config):
    model = made(config)
    xyz, rgb = cloud
    with torch.no_grad():
        for start in (None, torch.tensor([5, 149, 77])):
            ours = model(xyz, rgb, start)
            assert ours.shape == (3, config.out)
            starts = [0, 0, 0] if start is None else start.tolist()
            theirs = [by_definition(model.state_dict(), config, *one) for one in zip(xyz, rgb, starts, strict=True)]
            torch.testing.assert_close(ours.double(), torch.stack(theirs), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(
    ("name", "millions", "digits"),
    [
        *(("openshape-1", 5.101, 3), ("openshape-2", 13.347, 3), ("openshape-3", 25.954, 3)),
        *(("openshape-4", 32.326, 3), ("openshape-5", 72.070, 3), ("openshape-6", 171.262, 3)),
        *(("mrd-t", 5.1, 1), ("mrd-m", 32.3, 1)),
    ],
)
def test_sizes_have_the_published_number_of_parameters(name, millions, digits):
    assert round(parameters(SIZES[name]) / 1e6, digits) == millions


@pytest.mark.parametrize(("name", "least", "most"), [("mrd-s", 21.8, 21.9), ("mrd-b", 86.1, 86.2), ("mrd-l", 303.7, 303.8)])
def test_sizes_that_are_our_reading_of_mrd(name, least, most):
    assert least <= round(parameters(SIZES[name]) / 1e6, 1) <= most


def parameters(config):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in PointBert(config).parameters())


def test_a_configuration_is_json_and_back():
    for config in SIZES.values():
        assert PointBertConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_configurations_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="without projection gives 32 values, its width, not out=6"):
        replace(SMALL, projection=False)
    with pytest.raises(ValueError, match="patch_dropout=12 leaves none of 12 groups"):
        replace(SMALL, patch_dropout=12)


def test_a_cloud_smaller_than_the_number_of_groups_is_refused(cloud):
    xyz, rgb = cloud
    with pytest.raises(ValueError, match="12 farthest points of clouds of 9 points"):
        made()(xyz[:, :9], rgb[:, :9])


# ------------------------------------------------------------------------------------------------------------- behaviour


def test_evaluation_is_repeatable_and_each_cloud_alone(cloud):
    model = made()
    xyz, rgb = cloud
    with torch.no_grad():
        all_at_once = model(xyz, rgb)
        assert torch.equal(model(xyz, rgb), all_at_once)
        for i in range(3):
            torch.testing.assert_close(model(xyz[i : i + 1], rgb[i : i + 1]), all_at_once[i : i + 1], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(model(xyz, rgb, torch.tensor([1, 1, 1])), all_at_once, atol=1e-3)


def test_the_order_of_points_counts_only_where_balls_overflow(cloud, generator):
    """A ball takes its first points by index, whatever their distance: published behaviour that the weights depend on."""
    xyz, rgb = cloud
    order = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(149, generator=generator)])  # the start stays
    for group_size, same in ((150, True), (4, False)):
        model = made(replace(SMALL, group_size=group_size))
        with torch.no_grad():
            assert torch.allclose(model(xyz, rgb), model(xyz[:, order], rgb[:, order]), atol=1e-5) == same


def test_where_an_object_is_reaches_the_embedding(cloud):
    """The absolute place is among a point's features: the encoder wants normalised clouds."""
    xyz, rgb = cloud
    model = made()
    with torch.no_grad():
        assert not torch.allclose(model(xyz + 0.1, rgb), model(xyz, rgb), atol=1e-3)


def test_patch_dropout_leaves_groups_out_in_training_alone(cloud):
    counts = []
    model = made(replace(SMALL, patch_dropout=5))
    model.ppat.lift.register_forward_hook(lambda module, inputs, output: counts.append(output.shape[1]))
    model.train()(*cloud)
    model.eval()(*cloud)
    assert counts == [7, 12]


def test_computing_activations_anew_changes_neither_embedding_nor_gradient(cloud):
    xyz, rgb = cloud
    gradients = []
    for checkpointing in (False, True):
        model = made(replace(SMALL, checkpointing=checkpointing)).train()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, kept=kept: kept.append(tensor.numel()) or tensor, lambda x: x):
            embedding = model(xyz, rgb)
        embedding.square().sum().backward()
        gradients.append(([embedding] + [parameter.grad for parameter in model.parameters()], sum(kept)))
    (plain, most), (anew, least) = gradients
    for one, other in zip(plain, anew, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    assert least < most


def test_every_parameter_has_a_gradient(cloud):
    model = made().train()
    model(*cloud).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []


def test_bfloat16_comes_close(cloud):
    torch.manual_seed(0)
    model = PointBert(replace(SMALL, depth=4)).eval()
    with torch.no_grad():
        exact = model(*cloud)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(*cloud).float()
    assert ((rounded - exact).norm(dim=1) < 0.01 * exact.norm(dim=1)).all()
    assert not torch.equal(rounded, exact)
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        model(*cloud).float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_batch_norms_can_be_made_to_share_their_figures_among_ranks(cloud):
    model = made()
    state = model.state_dict()
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(made())
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in converted.modules()) == 3
    converted.load_state_dict(state, strict=True)
    with torch.no_grad():
        torch.testing.assert_close(converted.eval()(*cloud), model(*cloud))


@pytest.mark.gpu
def test_a_gpu_gives_the_same_embedding(cloud):
    model = made()
    with torch.no_grad():
        here = model(*cloud)
        there = model.cuda()(*(tensor.cuda() for tensor in cloud))
    torch.testing.assert_close(there.cpu(), here, atol=1e-3, rtol=1e-3)


# ------------------------------------------------------------------------------------------------------------ checkpoints


def behind(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


LAYOUTS = {
    "a training file of several processes": lambda state: {
        "state_dict": behind("module.", state),
        "logit_scale": {"module.logit_scale": torch.tensor(2.0)},
        "text_proj": {"module.weight": torch.zeros(2, 2)},
        "epoch": 7,
    },
    "a training file of one process": lambda state: {"state_dict": state, "logit_scale": {"logit_scale": torch.tensor(2.0)}},
    "a flat file": lambda state: behind("pc_encoder.", state) | {"logit_scale": torch.tensor(2.0)},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_published_layouts_load(tmp_path, cloud, layout):
    model, other = made(), made(seed=2)
    torch.save(layout(model.state_dict()), tmp_path / "model.pt")
    other.load_state_dict(official(torch.load(tmp_path / "model.pt", weights_only=True)), strict=True)
    with torch.no_grad():
        assert torch.equal(other(*cloud), model(*cloud))


def test_the_published_layout_without_projection_loads(cloud):
    config = replace(SMALL, out=32, projection=False)
    model, other = made(config), made(config, seed=2)
    state = {name.removeprefix("ppat."): tensor for name, tensor in model.state_dict().items()}
    other.load_state_dict(official(behind("pc_encoder.", state)), strict=True)
    with torch.no_grad():
        assert torch.equal(other(*cloud), model(*cloud))


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("openshape-4", "ppat.cls_token", (512,)),
        ("openshape-4", "ppat.sa.mlp_convs.0.weight", (64, 9, 1, 1)),
        ("openshape-4", "ppat.sa.mlp_convs.2.weight", (256, 64, 1, 1)),
        ("openshape-4", "ppat.sa.mlp_bns.2.num_batches_tracked", ()),
        ("openshape-4", "ppat.lift.0.weight", (512, 259, 1)),
        ("openshape-4", "ppat.lift.2.bias", (512,)),
        ("openshape-4", "ppat.transformer.layers.11.0.norm.weight", (512,)),
        ("openshape-4", "ppat.transformer.layers.11.0.fn.to_qkv.weight", (1536, 512)),
        ("openshape-4", "ppat.transformer.layers.11.0.fn.to_out.0.bias", (512,)),
        ("openshape-4", "ppat.transformer.layers.11.1.fn.net.0.weight", (1536, 512)),
        ("openshape-4", "ppat.transformer.layers.11.1.fn.net.3.weight", (512, 1536)),
        ("openshape-4", "proj.weight", (1280, 512)),
        ("openshape-vitl14", "ppat.transformer.layers.0.1.fn.net.0.weight", (1024, 512)),
        ("openshape-vitl14", "proj.weight", (768, 512)),
    ],
)
def test_keys_and_shapes_are_the_published_ones(name, key, shape):
    with torch.device("meta"):
        assert PointBert(SIZES[name]).state_dict()[key].shape == shape


def test_there_are_no_other_keys_than_the_published():
    with torch.device("meta"):
        keys = set(PointBert(SIZES["openshape-4"]).state_dict())
    expected = {"ppat.cls_token", "proj.weight", "proj.bias"}
    for layer in range(3):
        expected |= {f"ppat.sa.mlp_convs.{layer}.{part}" for part in ("weight", "bias")}
        figures = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        expected |= {f"ppat.sa.mlp_bns.{layer}.{part}" for part in figures}
    expected |= {f"ppat.lift.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")}
    for block in range(12):
        parts = ("0.norm.weight", "0.norm.bias", "0.fn.to_qkv.weight", "0.fn.to_out.0.weight", "0.fn.to_out.0.bias")
        parts += ("1.norm.weight", "1.norm.bias", "1.fn.net.0.weight", "1.fn.net.0.bias", "1.fn.net.3.weight", "1.fn.net.3.bias")
        expected |= {f"ppat.transformer.layers.{block}.{part}" for part in parts}
    assert keys == expected


def test_weights_of_another_model_are_refused():
    with pytest.raises(ValueError, match="not the weights of an OpenShape PointBERT, but point_encoder.cls_pos"):
        official({"point_encoder.cls_pos": torch.zeros(1)})
