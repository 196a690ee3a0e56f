"""Zero-shot classification and retrieval against an independent implementation: every array of eval_metrics.npz."""

import torch

from evaluate.retrieval import both_ways, cosines, ranked
from evaluate.zero_shot import class_embeddings, zero_shot
from oracle import Oracle

COSINE, PERCENT = 1e-6, 1e-4
RULES = {"norm_each_template": "unit templates", "raw_template_mean": "raw templates"}


def test_metrics_equal_the_oracle(oracles):
    oracle = Oracle.read(oracles, "eval_metrics")
    shapes, captions, labels = (oracle.arrays[f"in/{name}"] for name in ("shape", "caption_text", "label"))
    for name, rule in RULES.items():
        classes = class_embeddings(oracle.arrays["in/template_text"], rule)
        oracle.compare(f"out/{name}/class_embedding", classes, COSINE)
        oracle.compare(f"out/{name}/logits", cosines(shapes, classes), COSINE)
        found = zero_shot(shapes, classes, labels)
        oracle.compare(f"out/{name}/top135_percent", 100 * torch.tensor(found.top), PERCENT)
        oracle.compare(f"out/{name}/mean_class_acc_percent", 100 * found.class_mean, PERCENT)
    for way, queries in (("text to 3d", (captions, shapes)), ("3d to text", (shapes, captions))):
        name = f"out/retrieval_{way.replace(' ', '_')}"
        oracle.compare(f"{name}/ranked5", ranked(*queries, oracle.arrays[f"{name}/ranked5"].shape[1]))
        found = both_ways(shapes, captions, labels)[way]
        oracle.compare(f"{name}/instance135_percent", 100 * torch.tensor(found.instance), PERCENT)
        oracle.compare(f"{name}/category135_percent", 100 * torch.tensor(found.category), PERCENT)
    assert not oracle.left()
