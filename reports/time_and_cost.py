"""What it took to make a corpus: time, cores and GPUs per pass, what that costs, and what is still to come. How times are told
apart stands in reports/passes.py."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from reports.passes import Hours, Pass, Prices, Stage, stages_of
from reports.section import Bar, Bars, Exhibit, Rows, Section, Tile, Tiles
from reports.spreads import number_of
from schemas.corpus import Reader
from schemas.tables import RUNS

RUNS_SHOWN = 50


def time_and_cost(
    corpus: Reader, *, cpu_hour: float | None = None, gpu_hour: float | None = None, currency: str = "USD"
) -> Section:
    """The section on time and money: per pass of stages what its runs did, took and cost, and what is still to come.

    `cpu_hour`, `gpu_hour`: what an hour of one core and of one GPU costs, in `currency`; without either, no money is told.
    """
    prices = Prices(cpu_hour, gpu_hour, currency)
    kept = corpus.open(RUNS.name)
    runs = [] if kept is None else kept.to_table().sort_by("began").to_pylist()
    stages = {name: stage for table in corpus.tables() for name, stage in stages_of(corpus, table).items()}
    passes: dict[tuple[str, ...], Pass] = {}
    latest: dict[str, tuple[str, ...]] = {}  # the pass that each stage was last done in: the next time it will be so again
    whole = Hours()
    for run in runs:
        names = tuple(one["stage"] for one in run["stages"])
        passes.setdefault(names, Pass(names)).add(run, stages)
        latest.update(dict.fromkeys(names, names))
        whole.add(run)
    timed = sum((one.done + one.failed for one in passes.values()), Counter())
    untimed = {name: max(0, stage.settled - timed[name]) for name, stage in stages.items()}
    settled = sum(stage.settled for stage in stages.values())
    of_passes = {}
    for names, one in passes.items():
        again = [stages[name] for name in names if name in stages and latest[name] == names]
        of_passes[one.name] = _figures(one, whole, prices) | {"to_come": one.to_come(again, prices)}
    sums = whole.figures(prices)
    figures = {
        "currency": currency,
        "cpu_hour": cpu_hour,
        "gpu_hour": gpu_hour,
        **{name: sums[name] if runs else None for name in sums if not name.startswith(("tasks", "cost_per"))},
        "runs": len(runs),
        "stopped_runs": sum(1 for run in runs if run["stopped_by"]),
        "began": runs[0]["began"].isoformat() if runs else None,
        "untimed": untimed,
        "untimed_share": sum(untimed.values()) / settled if settled else None,
        "passes": of_passes,
        "latest_runs": [_run(run) for run in reversed(runs[-RUNS_SHOWN:])],
    }
    return Section(
        key="time_and_cost",
        title="Time and cost",
        lead=_lead(figures, stages),
        figures=figures,
        gates={name: figures[name] for name in ("cpu_hours", "gpu_hours", "untimed_share")},
        exhibits=tuple(_exhibits(figures, passes.values(), stages, prices)),
    )


def _figures(one: Pass, whole: Hours, prices: Prices) -> dict[str, Any]:
    return {
        "unit": one.unit,
        **one.all.figures(prices),
        "wall_share": one.all.wall / whole.wall if whole.wall else None,
        "done": dict(one.done),
        "failed": dict(one.failed),
        "stopped_by": dict(one.stopped_by),
        "devices": sorted(one.devices),
    }


def _run(run: dict[str, Any]) -> dict[str, Any]:
    names = ("tasks", "wall_seconds", "work_seconds", "workers", "cpus", "gpus", "devices", "stopped_by")
    stages = " + ".join(one["stage"] for one in run["stages"])
    return {"began": run["began"].isoformat(timespec="seconds"), "pass": stages} | {name: run[name] for name in names}


def _lead(figures: dict[str, Any], stages: dict[str, Stage]) -> str:
    if not figures["runs"]:
        return "No run has left its time here: each was killed, or was before runs were kept, or nothing has been made."
    longest, share = max(((name, one["wall_share"] or 0) for name, one in figures["passes"].items()), key=lambda pair: pair[1])
    said = [f"{number_of(figures['runs'], 'run')} took {_time(figures['wall_hours'])} by the clock, {_hours_text(figures)}"]
    said[0] += "" if figures["cost"] is None else f", {_money(figures['cost'], figures['currency'])}"
    said.append(f"{longest} took {100 * share:.0f} % of the time" if len(figures["passes"]) > 1 else "")
    if figures["untimed_share"]:
        count, settled = sum(figures["untimed"].values()), sum(stage.settled for stage in stages.values())
        said.append(f"for at least {count:,} of {settled:,} results no time is known, as their run was killed or kept none")
    return "; ".join(filter(None, said)) + "."


def _exhibits(figures: dict[str, Any], passes: Iterable[Pass], stages: dict[str, Stage], prices: Prices) -> Iterable[Exhibit]:
    if figures["runs"]:
        yield _tiles(figures)
        yield Bars(
            title="Time worked, by pass",
            unit="worker seconds",
            bars=tuple(
                Bar(one.name, round(3600 * one.all.worked), _time(one.all.worked))
                for one in sorted(passes, key=lambda one: -one.all.worked)
            ),
            note="Stages that share their work, as views and points do, are one pass.",
        )
        yield _passes_table(figures["passes"], prices)
    if any(one["to_come"]["todo"] for one in figures["passes"].values()):
        yield _to_come_table(figures["passes"], prices)
    if any(figures["untimed"].values()):
        yield Rows(
            title="Without a known time",
            head=("stage", "results", "without a time, at least"),
            rows=tuple((name, stages[name].settled, count) for name, count in figures["untimed"].items() if count),
            note="A run that is killed, and one from before runs were kept, tells no time; results that were made more than once "
            "hide some of these.",
        )
    if figures["runs"]:
        yield _runs_table(figures)


def _tiles(figures: dict[str, Any]) -> Tiles:
    busy = (
        "" if figures["busy_share"] is None else f"workers had work {100 * figures['busy_share']:.0f} % of the time they were held"
    )
    tiles = [
        Tile("by the clock", _time(figures["wall_hours"]), number_of(figures["runs"], "run")),
        Tile("core hours", _number(figures["cpu_hours"]), busy),
        Tile("GPU hours", _number(figures["gpu_hours"])),
    ]
    if figures["cost"] is not None:
        held = "" if figures["cost_held"] is None else f"{_money(figures['cost_held'], figures['currency'])} if waiting is paid too"
        tiles.append(Tile("cost", _money(figures["cost"], figures["currency"]), held))
    if figures["untimed_share"]:
        tiles.append(Tile("without a time", f"{100 * figures['untimed_share']:.1f} %", "of what the tables hold, at least"))
    return Tiles(tuple(tiles))


def _passes_table(passes: dict[str, Any], prices: Prices) -> Rows:
    money = prices.of(0, 0) is not None
    head = ["pass", "runs", "worked on", "unit", "failed", "wall h", "% of wall", "worker h", "core h", "GPU h", "per worker hour"]
    return Rows(
        title="Passes",
        head=(*head, *((prices.currency, f"{prices.currency} per 1,000") if money else ())),
        rows=tuple(
            (
                name,
                one["runs"],
                one["tasks"],
                one["unit"],
                sum(one["failed"].values()),
                _rounded(one["wall_hours"]),
                one["wall_share"] and round(100 * one["wall_share"], 1),
                *(_rounded(one[hours]) for hours in ("worker_hours", "cpu_hours", "gpu_hours", "tasks_per_worker_hour")),
                *((_rounded(one["cost"]), _rounded(one["cost_per_1000"])) if money else ()),
            )
            for name, one in passes.items()
        ),
        note="Worker hours: a worker had something in hand; core and GPU hours: these times what each worker took. What was done "
        "more than once counts each time. Failed: over all stages of a pass.",
    )


def _to_come_table(passes: dict[str, Any], prices: Prices) -> Rows:
    money = prices.of(0, 0) is not None
    coming = {name: one["to_come"] | {"unit": one["unit"]} for name, one in passes.items() if one["to_come"]["todo"]}
    return Rows(
        title="Still to do",
        head=("pass", "to do", "unit", "worker h", "core h", "GPU h", "workers", "wall h", *((prices.currency,) if money else ())),
        rows=tuple(
            (
                name,
                one["todo"],
                one["unit"],
                *(_rounded(one[hours]) for hours in ("worker_hours", "cpu_hours", "gpu_hours")),
                one["workers"],
                _rounded(one["wall_hours"]),
                *((_rounded(one["cost"]),) if money else ()),
            )
            for name, one in coming.items()
        ),
        note="At the pace of the runs with the present settings, with as many workers as the last of them; empty where there was "
        "none. What a changed setting or asset will have done again is not in it: python -m jobs status counts that.",
    )


def _runs_table(figures: dict[str, Any]) -> Rows:
    shown = figures["latest_runs"]
    return Rows(
        title="Runs",
        head=("began (UTC)", "pass", "worked on", "seconds", "workers", "cores each", "GPUs each", "on", "ended"),
        rows=tuple(
            (
                run["began"].removesuffix("+00:00").replace("T", " "),
                run["pass"],
                run["tasks"],
                round(run["wall_seconds"], 1),
                run["workers"],
                run["cpus"],
                run["gpus"],
                ", ".join(run["devices"]),
                "by itself" if run["stopped_by"] is None else f"by {run['stopped_by']}",
            )
            for run in shown
        ),
        folded=True,
        note="" if len(shown) == figures["runs"] else f"The last {len(shown)} of {figures['runs']:,}.",
    )


def _hours_text(figures: dict[str, Any]) -> str:
    gpus = f" and {_number(figures['gpu_hours'])} GPU hours" if figures["gpu_hours"] else ""
    return f"{_number(figures['cpu_hours'])} core hours{gpus}"


def _rounded(number: float | None) -> float | None:
    """To three digits that mean something, four decimals at most, or to a whole number: 0.0123, 4.57, 12346."""
    if not number:
        return number
    digits = min(4, 2 - math.floor(math.log10(number)))
    return round(number, digits) if digits > 0 else round(number)


def _number(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 or not number else f"{_rounded(number):,}"


def _money(amount: float, currency: str) -> str:
    return f"{amount:,.2f} {currency}" if amount >= 1 or not amount else f"{_rounded(amount)} {currency}"


def _time(hours: float) -> str:
    """Hours for people: "40 s", "12 min", "3.5 h", "2.1 days"."""
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:,.1f} days"
