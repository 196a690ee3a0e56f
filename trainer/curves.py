"""A picture of what runs learnt: loss, held-out figures and learning rate over the steps, from their log.jsonl."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")  # no screen is needed

from matplotlib import pyplot  # noqa: E402

# Title of a panel, and what of the log it shows; a held-out figure has its reference lines beside it.
PANELS = (
    ("training loss", "loss"),
    ("held-out loss", "held_out/loss"),
    ("zero-shot top-1, held-out objects", "held_out/zero_shot/top1"),
    ("own text among the first, held-out objects", "held_out/text/top1"),
    ("learning rate", "lr"),
    ("temperature: what cosines are multiplied by", "scale"),
)
REFERENCES = {"untrained": ("mean of the views, untrained", "--"), "chance": ("chance", ":")}
SMOOTH = 50  # a training curve is drawn as means over so many stretches of the run


def read_log(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of a run's log.jsonl: those of steps, and those of held-out figures."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line], [line for line in lines if "held_out/loss" in line]


def draw(runs: Sequence[Path], picture: Path) -> None:
    """Draw the runs kept in these folders beside one another, each named for its folder, into a PNG."""
    figure, panels = pyplot.subplots(2, 3, figsize=(16, 8), layout="constrained")
    references = {}  # of each panel, in order, each once: runs on one corpus share them
    for number, folder in enumerate(runs):
        steps, held_out = read_log(folder)
        for panel, (_, what) in zip(panels.flat, PANELS, strict=True):
            lines = [line for line in (held_out if what.startswith("held_out/") else steps) if what in line]
            if not lines:
                continue
            at, values = [line["step"] for line in lines], [line[what] for line in lines]
            if what == "loss":
                at, values = _smoothed(at), _smoothed(values)
            panel.plot(at, values, color=f"C{number}", label=folder.name, marker="." if len(at) < 60 else None)
            stem, _, figure_name = what.rpartition("/")
            for reference in REFERENCES:
                if (name := f"{stem}/{reference}/{figure_name}") in lines[-1]:
                    references[panel, lines[-1][name]] = REFERENCES[reference]
    for (panel, value), (title, style) in references.items():
        panel.axhline(value, color="grey", linestyle=style, linewidth=1, label=title)
    for panel, (title, what) in zip(panels.flat, PANELS, strict=True):
        panel.set_title(title)
        if what.endswith("loss"):
            panel.set_yscale("log")  # MRD's relations are many times what the contrastive loss is
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(fontsize="small")
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


def _smoothed(values: list[float]) -> list[float]:
    """Means over equal stretches, at most SMOOTH of them."""
    size = -(-len(values) // SMOOTH)
    return [sum(part) / len(part) for part in (values[first : first + size] for first in range(0, len(values), size))]
