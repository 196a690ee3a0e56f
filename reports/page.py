"""The page of a report: sections in, one HTML file out that needs nothing but a browser.

    Path("report.html").write_text(page(sections, title="…", made="…"), encoding="utf-8")

reports/page/ holds the template (a macro per kind of exhibit), the style sheet and the script; plotly, in the file too, draws
histograms and maps. The file's own security policy lets it load nothing and run no script but these two: no network is needed, and
no hostile caption gets in. Without JavaScript all but the charts can be read, and of histograms the table below each.
"""

import base64
import functools
import hashlib
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image
from plotly.offline import get_plotlyjs

from reports.section import Bars, Exhibit, Histogram, Map, Rows, Section

HOME = Path(__file__).with_name("page")
SPRITE = ((600, 96), (6_000, 64), (40_000, 40))  # up to so many pictures of a map are so many pixels wide
SPRITE_QUALITY = 60  # WebP's
PALETTE = 10  # colours of series, --c0 … in colors.css
NAMED = {"red": "c5", "green": "c6", "blue": "c0"}  # those of them that a series' own name asks for
SHORT, LONG = 16, 30  # letters: cells of a column up to here are not broken; from here on they are not squeezed
SVG_AT_MOST = 4_000  # points of a map that are drawn as SVG, which prints sharply; more are drawn by WebGL where there is any


def page(sections: Sequence[Section], *, title: str, made: str) -> str:
    """The whole page as HTML, to be written as UTF-8. `title`: its heading; `made`: one line on when, from what and by what. The
    same sections give the same page. ValueError: two sections have one key, or a chart holds a number that is none (NaN)."""
    keys = [section.key for section in sections]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(f"two sections of a report have the key {twice[0]!r}, by which it is linked; give one of them another key")
    exhibits = [exhibit for section in sections for exhibit in section.exhibits]
    drawn = any(isinstance(exhibit, Histogram | Map) for exhibit in exhibits)
    scripts = [(HOME / "page.js").read_text("utf-8"), *([get_plotlyjs()] if drawn else [])]
    return _template().render(
        sections=sections,
        title=title,
        made=made,
        style="".join((HOME / name).read_text("utf-8") for name in ("colors.css", "page.css")),
        scripts=scripts,
        policy=_policy(scripts, webgl=any(isinstance(exhibit, Map) and _by_webgl(exhibit) for exhibit in exhibits)),
    )


def _policy(scripts: Sequence[str], *, webgl: bool) -> str:
    """A Content-Security-Policy under which these scripts alone run and nothing is loaded. Plotly sets styles, and for WebGL it
    compiles functions."""
    hashes = (f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    allowed = {
        "script-src": " ".join([*hashes, *(["'unsafe-eval'"] if webgl else [])]),
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
    }
    nothing = dict.fromkeys(("default-src", "base-uri", "form-action"), "'none'")
    return "; ".join(f"{what} {where}" for what, where in (nothing | allowed).items())


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HOME),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": _number,
        "kinds": _kinds,
        "picture": _picture,
        "chart": lambda exhibit: _histogram(exhibit) if isinstance(exhibit, Histogram) else _map(exhibit),
        "share": lambda part, whole: f"{100 * part / whole:.2f}" if whole else "0",
        "full": _full,
        "colors": _colors,
        "groups": _groups,
    }
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "ensure_ascii": False, "separators": (",", ":")}
    return environment.get_template("page.html")


def _groups(exhibits: Sequence[Exhibit]) -> Iterator[tuple[str, list[Exhibit]]]:
    """Neighbours of one kind together, with the kind's name: charts stand side by side where there is room."""
    for kind, several in itertools.groupby(exhibits, type):
        yield kind.__name__, list(several)


def _number(value: str | int | float | None) -> str:
    """A cell as it is to be read: 12,345; 0.1234; – where nothing is known."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:,.4g}"


def _kinds(table: Rows) -> list[str]:
    """Of each column of a table: "number" where it holds numbers and nothing else, at least one; "short" where no text
    need be broken, "long" where one needs room."""
    kinds = []
    for column in range(len(table.head)):
        told = [row[column] for row in table.rows if row[column] is not None]
        if told and not any(isinstance(value, str) for value in told):
            kinds.append("number")
        else:
            longest = max((len(_number(value)) for value in told), default=0)
            kinds.append("short" if longest <= SHORT else "long" if longest > LONG else "")
    return kinds


def _full(exhibit: Bars) -> int:
    """What a bar of full length counts."""
    return exhibit.of or max((bar.count for bar in exhibit.bars), default=0)


def _picture(image: bytes) -> dict[str, Any]:
    """Source and size of an encoded picture, as an `img` wants them."""
    with Image.open(io.BytesIO(image)) as opened:
        mime, (width, height) = opened.get_format_mimetype(), opened.size
    return {"src": _uri(mime, image), "width": width, "height": height}


def _uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _colors(exhibit: Histogram) -> list[str]:
    """The colour of each series, as colors.css calls it."""
    return [NAMED.get(name, f"c{number % PALETTE}") for number, name in enumerate(exhibit.series)]


def _histogram(exhibit: Histogram) -> dict[str, Any]:
    """What page.js draws a histogram from."""
    return {
        "unit": exhibit.unit,
        "edges": [float(edge) for edge in exhibit.edges],
        "series": [
            {"name": name, "color": color, "counts": [int(count) for count in counts]}
            for (name, counts), color in zip(exhibit.series.items(), _colors(exhibit), strict=True)
        ],
        "log": exhibit.log,
        "shares": exhibit.shares,
        "marks": {name: float(value) for name, value in exhibit.marks.items()},
    }


def _map(exhibit: Map) -> dict[str, Any]:
    """What page.js draws a map from. `cells`: number of each object's picture in the sprite, row by row; -1: none."""
    numbers = itertools.count()
    return {
        "x": [round(float(x), 4) for x in exhibit.x],
        "y": [round(float(y), 4) for y in exhibit.y],
        "labels": exhibit.labels,
        "colors": [
            {
                "name": name,
                "groups": any(isinstance(value, str) for value in values),
                "values": [_rounded(value) for value in values],
            }
            for name, values in exhibit.colors.items()
        ],
        "cells": [-1 if picture is None else next(numbers) for picture in exhibit.pictures],
        "sprite": _sprite([picture for picture in exhibit.pictures if picture is not None]),
        "webgl": _by_webgl(exhibit),
    }


def _by_webgl(exhibit: Map) -> bool:
    return len(exhibit.x) > SVG_AT_MOST


def _rounded(value: str | float | None) -> str | float | None:
    return value if value is None or isinstance(value, str) else float(f"{value:.4g}")


def _sprite(pictures: Sequence[bytes]) -> dict[str, Any] | None:
    """All pictures in one, side by side from left to right and top to bottom in squares of `tile` pixels. None: there are none."""
    if not pictures:
        return None
    tile = next(size for most, size in SPRITE if len(pictures) <= most)
    columns = math.ceil(math.sqrt(len(pictures)))
    sheet = Image.new("RGBA", (columns * tile, math.ceil(len(pictures) / columns) * tile))
    for number, picture in enumerate(pictures):
        with Image.open(io.BytesIO(picture)) as opened:
            small = opened.convert("RGBA")
        small.thumbnail((tile, tile), Image.Resampling.LANCZOS)
        row, column = divmod(number, columns)
        sheet.paste(small, (column * tile + (tile - small.width) // 2, row * tile + (tile - small.height) // 2))
    encoded = io.BytesIO()
    sheet.save(encoded, "WEBP", quality=SPRITE_QUALITY)
    return {"src": _uri("image/webp", encoded.getvalue()), "tile": tile, "columns": columns}
