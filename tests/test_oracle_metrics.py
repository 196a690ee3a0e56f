"""Zero-shot classification and retrieval against an independent implementation: every array of eval_metrics.npz."""

import numpy as np
import pytest
import torch

from evaluate.retrieval import both_ways, cosines, ranked
from evaluate.zero_shot import class_embeddings, zero_shot

COSINE, PERCENT = 1e-6, 1e-4
RULES = {"norm_each_template": "unit templates", "raw_template_mean": "raw templates"}
WAYS = {"retrieval_text_to_3d": "text to 3d", "retrieval_3d_to_text": "3d to text"}


@pytest.fixture(scope="module")
def arrays(oracles):
    stored = np.load(oracles / "eval_metrics.npz", allow_pickle=False)
    return {name: torch.from_numpy(stored[name]) for name in stored.files if name != "config"}


def compare(what, ours, theirs, allowed):
    difference = (torch.as_tensor(ours).double() - theirs).abs()
    print(f"eval_metrics {what}: {difference.max():.1e}")
    assert (difference <= allowed).all()


@pytest.mark.parametrize("name", RULES)
def test_zero_shot(arrays, name):
    classes = class_embeddings(arrays["in/template_text"], RULES[name])
    compare(f"{name}/class_embedding", classes, arrays[f"out/{name}/class_embedding"], COSINE)
    compare(f"{name}/logits", cosines(arrays["in/shape"], classes), arrays[f"out/{name}/logits"], COSINE)
    found = zero_shot(arrays["in/shape"], classes, arrays["in/label"])
    compare(f"{name}/top135_percent", 100 * torch.tensor(found.top), arrays[f"out/{name}/top135_percent"], PERCENT)
    compare(f"{name}/mean_class_acc_percent", 100 * found.class_mean, arrays[f"out/{name}/mean_class_acc_percent"], PERCENT)


@pytest.mark.parametrize("name", WAYS)
def test_retrieval(arrays, name):
    shapes, captions = arrays["in/shape"], arrays["in/caption_text"]
    theirs = arrays[f"out/{name}/ranked5"].long()
    queries = (captions, shapes) if WAYS[name] == "text to 3d" else (shapes, captions)
    wrong = int((ranked(*queries, theirs.shape[1]) != theirs).sum())
    print(f"eval_metrics {name}/ranked5: {wrong} of {theirs.numel()} differ")
    assert wrong == 0
    found = both_ways(shapes, captions, arrays["in/label"])[WAYS[name]]
    compare(f"{name}/instance135_percent", 100 * torch.tensor(found.instance), arrays[f"out/{name}/instance135_percent"], PERCENT)
    compare(f"{name}/category135_percent", 100 * torch.tensor(found.category), arrays[f"out/{name}/category135_percent"], PERCENT)


def test_every_array_is_looked_at(arrays):
    metrics = {"class_embedding", "logits", "top135_percent", "mean_class_acc_percent"}
    ranks = {"ranked5", "instance135_percent", "category135_percent"}
    looked_at = {f"out/{rule}/{one}" for rule in RULES for one in metrics} | {f"out/{way}/{one}" for way in WAYS for one in ranks}
    assert {name for name in arrays if name.startswith(("out/", "mid/", "grad/"))} == looked_at
