"""Does each broken asset of a collection of them get the verdict that its manifest expects?

    python -m jobs build ROOT --source folder=MALFORMED
    python -m benchmarks.malformed MALFORMED ROOT

MALFORMED holds manifest.csv, with the columns path, verdict (ok, ok-with-warning, quarantine), reason and note, and the assets. One
line is printed for each line of it: whether what happened agrees, what was expected, and what happened. A second outcome that the
note accepts agrees too, and so does a reason that says the same more exactly (SAME).
"""

import argparse
import csv
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.assets.limits import RESOURCE_REASONS
from pipeline.store import Corpus

# Reasons of the manifest, and those of ours that say the same or name the case more exactly.
SAME = {
    "resource_limit": {*RESOURCE_REASONS, "out_of_memory", "timeout"},
    "decode_error": {"draco_corrupt"},
    "degenerate_geometry": {"no_area", "no_extent"},
    "invisible_render": {"invisible"},
}
ELSEWHERE = "_datasets_"  # parts of other collections, which their own sources read


@dataclass
class Outcome:
    """What happened to an asset: `failed` are (stage, reason), `told` its warnings and traits; `points`: it has points."""

    taken: bool = False
    points: bool = False
    failed: list[tuple[str, str]] = field(default_factory=list)
    told: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        if self.failed:
            return "quarantined: " + ", ".join(f"{reason} ({stage})" for stage, reason in sorted(self.failed))
        if not self.taken:
            return "no object"
        return " ".join(["ok" if self.points else "ok, no points yet", *sorted(self.told)])


def outcomes(corpus: Corpus) -> dict[str, Outcome]:
    """What happened to each object, by its path in the folder, which is its id without the source's name."""
    found: dict[str, Outcome] = defaultdict(Outcome)
    there = set(corpus.tables())

    def rows(table: str, *columns: str) -> list[dict]:
        return corpus.need(table).to_table(columns=["object_id", *columns]).to_pylist() if table in there else []

    for row in rows("objects", "warnings", "traits"):
        outcome = found[_path(row)]
        outcome.taken, outcome.told = True, outcome.told | {*row["warnings"], *row["traits"]}
    for row in rows("points", "warnings"):
        found[_path(row)].points = True
        found[_path(row)].told |= set(row["warnings"])
    for row in rows("failures", "stage", "reason"):
        found[_path(row)].failed.append((row["stage"], row["reason"]))
    return found


def _path(row: dict) -> str:
    return row["object_id"].partition("/")[2]


def agrees(line: dict[str, str], outcome: Outcome) -> bool:
    """Whether an outcome is the one that a line of the manifest expects, or a second one that its note accepts."""
    reasons = {reason for _, reason in outcome.failed}
    if line["reason"] == "not_a_file":
        return not outcome.taken  # no source takes a folder for an asset
    if reasons:
        wanted = {line["reason"]} if line["verdict"] == "quarantine" else set()
        wanted |= set(re.findall(r"quarantine with (\w+)", line["note"]))
        return bool(reasons & (wanted | {same for reason in wanted for same in SAME.get(reason, ())}))
    if not outcome.taken or line["verdict"] == "quarantine" and "ok-with-warning" not in line["note"]:
        return False
    return not line["reason"] or line["reason"] in outcome.told or line["verdict"] == "quarantine"


def main() -> None:
    """Prints the comparison; ends with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("malformed", type=Path)
    parser.add_argument("root", metavar="ROOT")
    asked = parser.parse_args()
    found, counts = outcomes(Corpus.at(asked.root)), Counter()
    with open(asked.malformed / "manifest.csv", newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            outcome = found.get(line["path"], Outcome())
            word = "other" if ELSEWHERE in line["path"] else "agree" if agrees(line, outcome) else "DIFFER"
            counts[word] += 1
            expected = " ".join(part for part in (line["verdict"], line["reason"]) if part)
            print(f"{word:6}  {line['path'][:44]:44}  {expected:40}  {outcome}")
    print(f"{counts['agree']} agree, {counts['DIFFER']} differ, {counts['other']} belong to other sources")
    raise SystemExit(1 if counts["DIFFER"] else 0)


if __name__ == "__main__":
    main()
