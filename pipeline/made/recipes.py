"""How each kind of everyday object is put together: one function per kind, chance is an argument.

A recipe adds parts to a `Build` and returns phrases that are true of what it made ("with two handles"). Objects stand on y = 0,
face +z and are about two units tall or wide. A part's look is "main", "trim" (the object's own two) or the name of a plain colour.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pipeline.made.solids import Matrix, Surface, at, ball, box, cylinder, lathe, plate, ring, stretched, tube, turned

Rng = np.random.Generator
WORDS = ("no", "one", "two", "three", "four", "five", "six")


@dataclass
class Build:
    """The parts so far: (name, surface, look, places); the surface stands once at each place."""

    parts: list[tuple[str, Surface, str, tuple[Matrix, ...]]] = field(default_factory=list)

    def add(self, name: str, surface: Surface, look: str, *places: Matrix) -> None:
        self.parts.append((name, surface, look, places or (np.eye(4),)))


@dataclass(frozen=True)
class Kind:
    """One everyday category.

    `finishes` and `materials` are what its main look may be, `trims` the colours of its second look, `colors` its possible main
    colours (empty: any). `sketchfab` is its category there, `lvis` its LVIS category (None: LVIS has none), `also` other tags,
    `main_part` the part that alone carries the main look (None: the whole object is seen as that).
    """

    name: str
    recipe: Callable[[Build, Rng], tuple[str, ...]]
    sketchfab: str
    lvis: str | None
    also: tuple[str, ...]
    materials: tuple[str, ...]
    finishes: tuple[str, ...] = ("plain", "plain", "striped", "checkered", "dotted")
    trims: tuple[str, ...] = ("dark brown", "black", "white", "grey")
    colors: tuple[str, ...] = ()
    main_part: str | None = None


def _legs(build: Build, x: float, z: float, height: float, thick: float, look: str, rng: Rng) -> None:
    leg = cylinder(thick / 2, height, 12) if rng.random() < 0.5 else box(thick, height, thick)
    build.add("leg", leg, look, *(at(sx * x, height / 2, sz * z) for sx in (-1, 1) for sz in (-1, 1)))


def _chair(build: Build, rng: Rng) -> tuple[str, ...]:
    seat, width, back = rng.uniform(0.8, 1.0), rng.uniform(0.85, 1.1), rng.uniform(0.8, 1.3)
    _legs(build, width / 2 - 0.07, width / 2 - 0.07, seat, 0.1, "trim", rng)
    build.add("seat", box(width, 0.12, width), "main", at(0, seat, 0))
    lean = at(0, seat, -width / 2 + 0.05) @ turned(rng.uniform(-10, 0), "x")
    words = []
    if rng.random() < 0.5:
        build.add("back", box(width, back, 0.08), "main", lean @ at(0, back / 2, 0))
    else:
        slats = int(rng.integers(3, 6))
        build.add("post", box(0.09, back, 0.08), "trim", *(lean @ at(s * (width / 2 - 0.05), back / 2, 0) for s in (-1, 1)))
        build.add("slat", box(width, 0.1, 0.06), "main", *(lean @ at(0, back * (i + 1) / slats, 0) for i in range(slats)))
        words.append("with a slatted back")
    if rng.random() < 0.35:
        build.add("armrest", box(0.09, 0.08, width), "trim", *(at(s * (width / 2), seat + 0.4, 0) for s in (-1, 1)))
        build.add("arm post", box(0.08, 0.4, 0.08), "trim", *(at(s * width / 2, seat + 0.2, width / 2 - 0.1) for s in (-1, 1)))
        words.append("with armrests")
    return (*words, "with a tall back") if back > 1.15 else tuple(words)


def _stool(build: Build, rng: Rng) -> tuple[str, ...]:
    height, radius, legs = rng.uniform(0.9, 1.6), rng.uniform(0.4, 0.6), int(rng.choice((3, 4)))
    build.add("seat", cylinder(radius, 0.14), "main", at(0, height, 0))
    places = [turned(360 * (i + 0.5) / legs, "y") @ at(0, 0, radius * 0.8) @ turned(-8, "x") for i in range(legs)]
    build.add("leg", cylinder(0.05, height, 10), "trim", *(p @ at(0, height / 2, 0) for p in places))
    build.add("foot ring", ring(radius * 0.8, 0.03), "trim", at(0, height * 0.35, 0))
    return (f"with {WORDS[legs]} legs",)


def _table(build: Build, rng: Rng) -> tuple[str, ...]:
    height = rng.uniform(0.75, 1.05)
    if rng.random() < 0.4:
        radius = rng.uniform(0.7, 1.0)
        build.add("top", cylinder(radius, 0.1, 28), "main", at(0, height, 0))
        build.add("column", cylinder(0.09, height), "trim", at(0, height / 2, 0))
        build.add("foot", cylinder(0.45, 0.08, top=0.3), "trim", at(0, 0.04, 0))
        return ("with a round top",)
    x, z = rng.uniform(0.8, 1.2), rng.uniform(0.5, 0.7)
    build.add("top", box(2 * x, 0.1, 2 * z), "main", at(0, height, 0))
    _legs(build, x - 0.12, z - 0.12, height, 0.12, "trim", rng)
    return ("with a rectangular top", "with four legs")


def _sofa(build: Build, rng: Rng) -> tuple[str, ...]:
    seats = int(rng.choice((2, 3)))
    width, back = seats * 0.65, rng.uniform(0.5, 0.7)
    build.add("base", box(width, 0.3, 0.85), "main", at(0, 0.3, 0))
    spots = [(i + 0.5) * width / seats - width / 2 for i in range(seats)]
    build.add("cushion", box(width / seats - 0.03, 0.16, 0.75), "main", *(at(x, 0.52, 0.06) for x in spots))
    build.add("back", box(width, back, 0.2), "main", at(0, 0.45 + back / 2, -0.42))
    round_arms = rng.random() < 0.5
    arm = cylinder(0.14, 0.95) if round_arms else box(0.24, 0.24, 0.95)
    build.add("arm side", box(0.22, 0.6, 0.95), "main", *(at(s * (width / 2 + 0.11), 0.4, 0) for s in (-1, 1)))
    lie = turned(90, "x") if round_arms else np.eye(4)
    build.add("armrest", arm, "main", *(at(s * (width / 2 + 0.11), 0.72, 0) @ lie for s in (-1, 1)))
    _legs(build, width / 2, 0.32, 0.16, 0.09, "trim", rng)
    return (f"with {WORDS[seats]} seats", "with armrests")


def _bed(build: Build, rng: Rng) -> tuple[str, ...]:
    width, head = rng.choice((1.0, 1.5)), rng.uniform(0.6, 1.0)
    build.add("frame", box(width, 0.2, 2.0), "trim", at(0, 0.3, 0))
    _legs(build, width / 2 - 0.06, 0.94, 0.3, 0.12, "trim", rng)
    build.add("mattress", box(width * 0.96, 0.2, 1.92), "white", at(0, 0.48, 0))
    build.add("blanket", box(width, 0.18, 1.3), "main", at(0, 0.52, 0.36))
    build.add("headboard", box(width + 0.06, head, 0.08), "trim", at(0, 0.2 + head / 2, -1.0))
    pillows = 1 if width < 1.2 else 2
    pillow = ball(1.0, 14, 8)
    spots = [(i + 0.5) * width / pillows - width / 2 for i in range(pillows)]
    build.add("pillow", pillow, "white", *(at(x, 0.64, -0.7) @ stretched(0.32, 0.1, 0.2) for x in spots))
    return ("with a pillow" if pillows == 1 else "with two pillows",)


def _bookshelf(build: Build, rng: Rng) -> tuple[str, ...]:
    shelves, width, height = int(rng.integers(3, 6)), rng.uniform(0.9, 1.3), rng.uniform(1.6, 2.1)
    build.add("side", box(0.06, height, 0.4), "main", *(at(s * width / 2, height / 2, 0) for s in (-1, 1)))
    gap = (height - 0.1) / (shelves - 1)
    build.add("shelf", box(width, 0.05, 0.4), "main", *(at(0, 0.05 + i * gap, 0) for i in range(shelves)))
    for level in range(shelves - 1):
        x = -width / 2 + 0.08
        while x < width / 2 - 0.3 * rng.random() - 0.1:
            thick, tall = rng.uniform(0.05, 0.1), gap * rng.uniform(0.55, 0.8)
            color = str(rng.choice(("red", "blue", "green", "yellow", "purple", "orange", "white")))
            build.add("book", box(thick, tall, 0.28), color, at(x + thick / 2, 0.075 + level * gap + tall / 2, 0))
            x += thick + 0.01
    return ("with books", f"with {WORDS[shelves]} shelves")


def _bench(build: Build, rng: Rng) -> tuple[str, ...]:
    width, planks = rng.uniform(1.6, 2.2), 4
    build.add("plank", box(width, 0.07, 0.14), "main", *(at(0, 0.6, -0.24 + 0.16 * i) for i in range(planks)))
    build.add("foot", box(0.1, 0.6, 0.6), "trim", *(at(s * (width / 2 - 0.2), 0.3, 0) for s in (-1, 1)))
    if rng.random() < 0.35:
        return ("without a back",)
    lean = at(0, 0.62, -0.34) @ turned(-12, "x")
    build.add("back plank", box(width, 0.14, 0.06), "main", *(lean @ at(0, y, 0.04) for y in (0.2, 0.4, 0.6)))
    build.add("back post", box(0.1, 0.75, 0.06), "trim", *(lean @ at(s * (width / 2 - 0.2), 0.32, -0.02) for s in (-1, 1)))
    return ("with a back",)


def _lamp(build: Build, rng: Rng) -> tuple[str, ...]:
    height, top, bottom = rng.uniform(0.9, 1.3), rng.uniform(0.25, 0.4), rng.uniform(0.5, 0.7)
    build.add("foot", cylinder(0.4, 0.08, top=0.34), "trim", at(0, 0.04, 0))
    if rng.random() < 0.5:
        belly = rng.uniform(0.16, 0.28)
        profile = [(0.06, 0.08), (belly, 0.08 + height * 0.3), (0.07, 0.08 + height * 0.7), (0.04, height)]
        build.add("body", lathe(profile, 20, smooth=80), "trim")
    else:
        build.add("pole", cylinder(0.045, height, 12), "trim", at(0, height / 2, 0))
    shade = [(bottom, 0.0), (top, 0.65), (top - 0.02, 0.65), (bottom - 0.02, 0.0)]
    build.add("shade", lathe(shade, 28), "main", at(0, height - 0.25, 0))
    build.add("bulb", ball(0.12, 12, 8), "yellow", at(0, height + 0.05, 0))
    return ()


def _ladder(build: Build, rng: Rng) -> tuple[str, ...]:
    rungs, width = int(rng.integers(5, 9)), rng.uniform(0.5, 0.7)
    height = 2.0
    lean = turned(rng.uniform(-12, -6), "x")
    build.add("rail", box(0.08, height, 0.1), "main", *(lean @ at(s * width / 2, height / 2, 0) for s in (-1, 1)))
    spots = [height * (i + 0.7) / (rungs + 0.4) for i in range(rungs)]
    build.add("rung", cylinder(0.035, width, 10), "main", *(lean @ at(0, y, 0) @ turned(90, "z") for y in spots))
    if rng.random() < 0.4:
        other = at(0, height, -0.4) @ turned(14, "x") @ at(0, -height, 0)
        build.add("rear rail", box(0.07, height, 0.08), "trim", *(other @ at(s * width / 2, height / 2, 0) for s in (-1, 1)))
        return ("that stands on its own",)
    return ("with rungs",)


def _clock(build: Build, rng: Rng) -> tuple[str, ...]:
    radius = 0.8
    build.add("case", cylinder(radius, 0.35, 32), "main", at(0, 1.0, 0) @ turned(90, "x"))
    hour, minute = rng.uniform(0, 360), rng.uniform(0, 360)
    sides = [at(0, 1.0, 0) @ turned(degrees, "y") for degrees in (0, 180)]  # a dial on either side
    build.add("dial", cylinder(radius * 0.86, 0.02, 32), "white", *(side @ at(0, 0, 0.18) @ turned(90, "x") for side in sides))
    marks = [side @ turned(30 * i, "z") @ at(0, radius * 0.74, 0.2) for side in sides for i in range(12)]
    build.add("mark", box(0.05, 0.12, 0.02), "black", *marks)
    build.add("hour hand", box(0.07, 0.36, 0.02), "black", *(side @ turned(hour, "z") @ at(0, 0.16, 0.215) for side in sides))
    build.add("minute hand", box(0.05, 0.56, 0.02), "red", *(side @ turned(minute, "z") @ at(0, 0.26, 0.235) for side in sides))
    if rng.random() < 0.55:
        build.add("bell", ball(0.24, 16, 8), "trim", *(at(s * 0.45, 1.85, 0) for s in (-1, 1)))
        build.add("foot", cylinder(0.06, 0.3), "trim", *(at(s * 0.5, 0.2, 0) @ turned(s * 25, "z") for s in (-1, 1)))
        return ("with two bells", "with hands")
    build.add("foot", box(0.9, 0.2, 0.5), "trim", at(0, 0.12, 0))
    return ("with a round dial", "with hands")


def _mug(build: Build, rng: Rng) -> tuple[str, ...]:
    radius, height = rng.uniform(0.5, 0.7), rng.uniform(1.1, 1.6)
    wall = 0.07
    outside = [(0, 0), (radius, 0), (radius, height), (radius - wall, height), (radius - wall, wall), (0, wall)]
    build.add("cup", lathe(outside, 28), "main")
    angle = np.linspace(-np.pi / 2, np.pi / 2, 9)
    path = [(radius + 0.38 * np.cos(a) - 0.03, height / 2 + height * 0.32 * np.sin(a), 0) for a in angle]
    look = "trim" if rng.random() < 0.4 else "main"
    build.add("handle", tube(path, 0.075), look)
    if rng.random() < 0.4:
        build.add("coffee", cylinder(radius - wall, 0.02), "dark brown", at(0, height * 0.85, 0))
        return ("full of coffee", "with a handle")
    return ("with a handle",)


def _bottle(build: Build, rng: Rng) -> tuple[str, ...]:
    radius, shoulder, neck = rng.uniform(0.3, 0.42), rng.uniform(1.0, 1.3), rng.uniform(0.1, 0.15)
    profile = [(0, 0), (radius, 0), (radius, shoulder), (radius * 0.85, shoulder + 0.15), (neck, shoulder + 0.35)]
    build.add("body", lathe([*profile, (neck, shoulder + 0.75), (0, shoulder + 0.75)], 24, smooth=60), "main")
    build.add("cap", cylinder(neck * 1.25, 0.16), "trim", at(0, shoulder + 0.8, 0))
    if rng.random() < 0.5:
        build.add("label", cylinder(radius * 1.02, shoulder * 0.4), "white", at(0, shoulder * 0.5, 0))
        return ("with a white label", "with a cap")
    return ("with a cap",)


def _bowl(build: Build, rng: Rng) -> tuple[str, ...]:
    radius, depth = rng.uniform(0.85, 1.05), rng.uniform(0.5, 0.8)
    polar = np.linspace(0.3, np.pi / 2, 9)
    outside = [(radius * np.sin(p), depth * (1 - np.cos(p))) for p in polar]
    inside = [(r - 0.06, y + 0.03) for r, y in reversed(outside)]
    build.add("bowl", lathe([(0, outside[0][1]), *outside, *inside, (0, inside[-1][1])], 32, smooth=60), "main")
    build.add("foot", cylinder(0.4, 0.1, top=0.36), "trim", at(0, 0.02, 0))
    if rng.random() < 0.4:
        spots = [at(0.45 * np.sin(a), depth * 0.8, 0.45 * np.cos(a)) for a in np.arange(5) * 2 * np.pi / 5]
        color = str(rng.choice(("red", "orange", "green")))
        build.add("fruit", ball(0.27, 14, 8), color, at(0, depth * 1.05, 0), *spots)
        return (f"full of {color} fruit",)
    return ("that is empty",)


def _vase(build: Build, rng: Rng) -> tuple[str, ...]:
    belly, neck, lip = rng.uniform(0.4, 0.65), rng.uniform(0.15, 0.3), rng.uniform(0.25, 0.45)
    where, height = rng.uniform(0.3, 0.6), rng.uniform(1.2, 1.6)
    knots = np.array([0.0, where, 0.85, 1.0]) * height
    y = np.linspace(0, height, 16)
    r = np.interp(y, knots, (0.28, belly, neck, lip))
    r = np.convolve(np.pad(r, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    profile = [(0.0, 0.0), *zip(r, y, strict=True), (r[-1] - 0.05, height), (r[-2] - 0.05, y[-2]), (0.0, y[-4])]
    build.add("vase", lathe(profile, 28, smooth=60), "main")
    if rng.random() < 0.5:
        color = str(rng.choice(("red", "yellow", "pink", "purple")))
        for i in range(5):
            lean = at(0, height * 0.8, 0) @ turned(72 * i, "y") @ turned(rng.uniform(8, 24), "x")
            tall = rng.uniform(0.6, 0.9)
            build.add("stem", cylinder(0.02, tall, 9), "green", lean @ at(0, tall / 2, 0))
            build.add("flower", ball(0.15, 10, 6), color, lean @ at(0, tall, 0))
        return (f"with {color} flowers",)
    return ("with a wide lip" if lip > 0.35 else "with a narrow neck",)


def _teapot(build: Build, rng: Rng) -> tuple[str, ...]:
    squash = rng.uniform(0.75, 0.95)
    build.add("body", ball(0.75, 28, 14), "main", at(0, 0.75 * squash, 0) @ stretched(1, squash, 1))
    build.add("lid", cylinder(0.36, 0.08), "trim", at(0, 1.48 * squash, 0))
    build.add("knob", ball(0.11, 12, 8), "trim", at(0, 1.48 * squash + 0.13, 0))
    build.add("spout", tube([(0.6, 0.5, 0), (0.85, 0.65, 0), (1.0, 0.95, 0), (1.2, 1.2, 0)], 0.11), "main")
    angle = np.linspace(-np.pi / 2, np.pi / 2, 9)
    build.add("handle", tube([(-0.62 - 0.45 * np.cos(a), 0.75 * squash + 0.42 * np.sin(a), 0) for a in angle], 0.075), "trim")
    return ("with a spout", "with a lid", "with a handle")


def _wine_glass(build: Build, rng: Rng) -> tuple[str, ...]:
    bowl, stem, height = rng.uniform(0.38, 0.5), rng.uniform(0.7, 0.95), rng.uniform(0.7, 0.95)
    foot = [(0, 0), (0.42, 0), (0.38, 0.05), (0.05, 0.12), (0.04, stem)]
    cup = [(bowl * 0.7, stem + 0.15), (bowl, stem + height * 0.45), (bowl * 0.8, stem + height)]
    inside = [(bowl * 0.76, stem + height), (bowl * 0.94, stem + height * 0.45), (bowl * 0.6, stem + 0.2), (0, stem + 0.1)]
    build.add("glass", lathe(foot + cup + inside, 24, smooth=60), "main")
    if rng.random() < 0.5:
        build.add("wine", cylinder(bowl * 0.9, 0.03), "dark red", at(0, stem + height * 0.5, 0))
        return ("full of red wine",)
    return ("with a long stem",)


def _car(build: Build, rng: Rng) -> tuple[str, ...]:
    length, cabin = rng.uniform(1.8, 2.2), rng.uniform(0.38, 0.5)
    half = length / 2
    body = [(-half, 0.22), (half, 0.22), (half, 0.46), (half - 0.1, 0.56), (-half + 0.05, 0.6), (-half, 0.5)]
    side = turned(-90, "y")  # the outline's +x becomes the car's front, +z
    build.add("body", plate(body, 0.9), "main", side)
    rear = -half + (0.12 if rng.random() < 0.5 else 0.4)
    roof = [(rear, 0.58), (half - 0.5, 0.55), (half - 0.85, 0.58 + cabin), (rear + 0.22, 0.58 + cabin)]
    build.add("cabin", plate(roof, 0.8), "main", side)
    glass = [(rear + 0.15, 0.63), (half - 0.68, 0.63), (half - 0.92, 0.53 + cabin), (rear + 0.28, 0.53 + cabin)]
    build.add("window", plate(glass, 0.83), "light blue", side)
    screen = at(0, 0.58 + cabin / 2, half - 0.66) @ turned(np.degrees(np.arctan2(cabin, 0.35)), "x")
    build.add("windscreen", box(0.68, 0.02, cabin * 0.85), "light blue", screen)
    places = [at(sx * 0.42, 0.22, sz * half * 0.6) @ turned(90, "z") for sx in (-1, 1) for sz in (-1, 1)]
    build.add("wheel", cylinder(0.22, 0.16, 20), "black", *places)
    build.add("hub", cylinder(0.11, 0.18, 12), "grey", *places)
    build.add("headlight", ball(0.08, 12, 8), "yellow", *(at(s * 0.3, 0.42, half) for s in (-1, 1)))
    build.add("tail light", box(0.16, 0.08, 0.04), "red", *(at(s * 0.32, 0.45, -half) for s in (-1, 1)))
    if rng.random() < 0.3:
        build.add("rack", box(0.6, 0.06, 0.7), "trim", at(0, 0.63 + cabin, rear / 4))
        return ("with four wheels", "with a roof rack")
    return ("with four wheels",)


def _boat(build: Build, rng: Rng) -> tuple[str, ...]:
    hull = [(-0.8, 0.45), (-0.6, 0.0), (0.65, 0.0), (1.1, 0.5)]
    build.add("hull", plate(hull, 0.6), "main", turned(-90, "y"))
    build.add("deck", box(0.62, 0.05, 1.85), "brown", at(0, 0.48, 0.12))
    if rng.random() < 0.65:
        build.add("mast", cylinder(0.04, 1.7, 10), "brown", at(0, 1.3, 0.15))
        build.add("sail", plate([(-0.75, 0), (0, 0), (0, 1.35)], 0.03), "trim", at(0, 0.75, 0.1) @ turned(-90, "y"))
        build.add("jib", plate([(0.08, 0), (0.7, 0), (0.08, 1.1)], 0.03), "trim", at(0, 0.75, 0.15) @ turned(-90, "y"))
        return ("with sails", "with a mast")
    build.add("cabin", box(0.45, 0.4, 0.6), "white", at(0, 0.7, -0.25))
    build.add("funnel", cylinder(0.11, 0.5), "trim", at(0, 1.1, -0.35))
    return ("with a cabin", "with a funnel")


def _rocket(build: Build, rng: Rng) -> tuple[str, ...]:
    radius, height, fins = rng.uniform(0.25, 0.36), rng.uniform(1.0, 1.3), int(rng.choice((3, 4)))
    body = [(0, 0.2), (radius * 0.8, 0.2), (radius, 0.5), (radius, 0.2 + height), (0, 0.2 + height)]
    build.add("body", lathe(body, 24, smooth=40), "main")
    nose = [(radius, 0), (radius * 0.75, 0.3), (radius * 0.35, 0.55), (0, 0.7)]
    build.add("nose", lathe(nose, 24), "trim", at(0, 0.2 + height, 0))
    fin = plate([(0, 0.25), (0.4, 0.0), (0.4, 0.3), (0, 0.75)], 0.06)
    build.add("fin", fin, "trim", *(turned(360 * i / fins, "y") @ at(radius * 0.85, 0, 0) for i in range(fins)))
    build.add("porthole", ball(0.13, 14, 8), "light blue", at(0, 0.2 + height * 0.75, radius * 0.92))
    build.add("flame", lathe([(0, -0.25), (0.2, 0.2), (0, 0.2)], 14), "orange")
    return (f"with {WORDS[fins]} fins", "with a porthole")


def _airplane(build: Build, rng: Rng) -> tuple[str, ...]:
    span, radius = rng.uniform(1.8, 2.3), rng.uniform(0.16, 0.22)
    body = [(0, -1.0), (radius * 0.4, -0.95), (radius, -0.2), (radius, 0.6), (radius * 0.6, 0.9), (0, 1.0)]
    build.add("fuselage", lathe(body, 20, smooth=60), "main", at(0, 0.5, 0) @ turned(90, "x"))
    wing = at(0, 0.5, 0.15)
    build.add("wing", box(span, 0.05, 0.4), "trim", wing)
    build.add("tailplane", box(span * 0.36, 0.04, 0.22), "trim", at(0, 0.55, -0.85))
    build.add(
        "fin", plate([(-0.15, 0), (0.2, 0), (-0.05, 0.42), (-0.2, 0.42)], 0.05), "trim", at(0, 0.55, -0.85) @ turned(-90, "y")
    )
    build.add("cockpit", ball(0.15, 14, 8), "light blue", at(0, 0.5 + radius * 0.8, 0.5) @ stretched(0.9, 0.7, 1.4))
    if rng.random() < 0.5:
        build.add("propeller", box(0.7, 0.09, 0.03), "black", at(0, 0.5, 1.0) @ turned(rng.uniform(0, 90), "z"))
        build.add("hub", ball(0.07, 10, 6), "black", at(0, 0.5, 1.0))
        words = ("with a propeller",)
    else:
        engines = [at(s * span * 0.25, 0.4, 0.2) @ turned(90, "x") for s in (-1, 1)]
        build.add("engine", cylinder(0.1, 0.4), "grey", *engines)
        words = ("with two engines",)
    if rng.random() < 0.3:
        build.add("upper wing", box(span, 0.05, 0.4), "trim", at(0, 1.0, 0.15))
        build.add("strut", box(0.05, 0.5, 0.05), "black", *(at(s * span * 0.35, 0.75, 0.15) for s in (-1, 1)))
        return ("with double wings", *words)
    return ("with wings", *words)


def _tree(build: Build, rng: Rng) -> tuple[str, ...]:
    trunk = rng.uniform(0.5, 0.8)
    build.add("trunk", cylinder(0.14, trunk + 0.3, 12, top=0.1), "dark brown", at(0, trunk / 2, 0))
    if rng.random() < 0.5:
        for i, radius in enumerate((0.7, 0.55, 0.4)):
            build.add("branches", cylinder(radius, 0.65, 16, top=0), "main", at(0, trunk + 0.25 + 0.4 * i, 0))
        return ("with a pointed top",)
    build.add("crown", ball(0.6, 16, 10), "main", at(0, trunk + 0.6, 0))
    clumps = [turned(rng.uniform(0, 60) + 90 * i, "y") @ at(0.4, trunk + rng.uniform(0.35, 0.8), 0) for i in range(4)]
    build.add("clump", ball(0.36, 14, 8), "main", *clumps)
    if rng.random() < 0.5:
        color = str(rng.choice(("red", "orange", "yellow")))
        spots = []
        for _ in range(12):
            way = rng.normal(size=3)
            spots.append(at(0, trunk + 0.6, 0) @ at(*(0.68 * way / np.linalg.norm(way))))
        build.add("fruit", ball(0.09, 10, 6), color, *spots)
        return (f"with {color} fruit", "with a round crown")
    return ("with a round crown",)


def _cactus(build: Build, rng: Rng) -> tuple[str, ...]:
    height = rng.uniform(1.1, 1.5)
    build.add("pot", lathe([(0, 0), (0.36, 0), (0.5, 0.5), (0.42, 0.5), (0.4, 0.44), (0, 0.44)], 24), "trim")
    body = [(0.2, 0.4), (0.26, 0.6), (0.26, height + 0.2), (0.18, height + 0.37), (0, height + 0.43)]
    build.add("body", lathe(body, 20, smooth=70), "main")
    for side in (-1, 1) if rng.random() < 0.7 else (1,):
        y = rng.uniform(0.7, 0.95)
        path = [(0.2, y, 0), (0.45, y, 0), (0.55, y + 0.08, 0), (0.58, y + 0.2, 0), (0.58, y + 0.5, 0)]
        arm = tube([(side * px, py, pz) for px, py, pz in path], 0.12, 10)
        build.add("arm", arm, "main")
        build.add("arm tip", ball(0.12, 12, 8), "main", at(side * 0.58, y + 0.5, 0))
    if rng.random() < 0.5:
        build.add("flower", ball(0.13, 10, 6), "pink", at(0, height + 0.47, 0))
        return ("with a pink flower", "in a pot")
    return ("in a pot",)


def _mushroom(build: Build, rng: Rng) -> tuple[str, ...]:
    cap, height = rng.uniform(0.65, 0.9), rng.uniform(0.7, 1.0)
    build.add("stem", lathe([(0, 0), (0.28, 0), (0.2, height * 0.5), (0.22, height), (0, height)], 20, smooth=40), "beige")
    polar = np.linspace(np.pi / 2, 0, 8)
    dome = [(cap * np.sin(p), height - 0.1 + 0.7 * cap * np.cos(p)) for p in polar]
    build.add("cap", lathe([(0.15, height), (cap, height - 0.1), *dome[1:-1], (0, dome[-1][1])], 24, smooth=60), "main")
    return ("with a wide cap",) if cap > 0.78 else ("with a round cap",)


def _snowman(build: Build, rng: Rng) -> tuple[str, ...]:
    build.add("belly", ball(0.55), "white", at(0, 0.5, 0))
    build.add("chest", ball(0.4), "white", at(0, 1.2, 0))
    build.add("head", ball(0.28), "white", at(0, 1.72, 0))
    build.add("nose", cylinder(0.06, 0.3, 10, top=0), "orange", at(0, 1.72, 0.38) @ turned(90, "x"))
    coals = [at(-0.1, 1.8, 0.25), at(0.1, 1.8, 0.25), at(0, 1.35, 0.38), at(0, 1.15, 0.41)]
    build.add("coal", ball(0.04, 9, 6), "black", *coals)
    build.add("scarf", ring(0.25, 0.09), "main", at(0, 1.5, 0))
    build.add("scarf end", box(0.14, 0.45, 0.05), "main", at(0.15, 1.3, 0.38))
    build.add("arm", cylinder(0.03, 0.7, 9), "dark brown", *(at(s * 0.6, 1.4, 0) @ turned(-s * 60, "z") for s in (-1, 1)))
    if rng.random() < 0.6:
        build.add("brim", cylinder(0.32, 0.05), "black", at(0, 1.92, 0))
        build.add("hat", cylinder(0.22, 0.35), "black", at(0, 2.1, 0))
        return ("with a black hat",)
    return ()


def _hammer(build: Build, rng: Rng) -> tuple[str, ...]:
    length = rng.uniform(1.5, 1.9)
    build.add("handle", cylinder(0.09, length, 14, top=0.07), "main", at(0, length / 2, 0))
    if rng.random() < 0.5:
        build.add("head", box(0.85, 0.32, 0.32), "trim", at(0, length, 0))
        return ("with a square head",)
    build.add("neck", cylinder(0.12, 0.5, 14), "trim", at(0, length, 0) @ turned(90, "z"))
    build.add("face", cylinder(0.2, 0.2, 18), "trim", at(0.32, length, 0) @ turned(90, "z"))
    claw = tube([(-0.2, length, 0), (-0.45, length - 0.03, 0), (-0.65, length - 0.18, 0)], 0.07)
    build.add("claw", claw, "trim", at(0, 0, 0.07), at(0, 0, -0.07))
    return ("with a claw",)


def _pencil(build: Build, rng: Rng) -> tuple[str, ...]:
    length = rng.uniform(1.3, 1.8)
    lie = turned(rng.uniform(-20, 20), "z")
    build.add("shaft", cylinder(0.14, length, 6), "main", lie @ at(0, 0.35 + length / 2, 0))
    build.add("wood", lathe([(0.045, 0.12), (0.14, 0.35)], 18), "beige", lie)
    build.add("lead", lathe([(0, 0), (0.045, 0.12)], 12), "black", lie)
    if rng.random() < 0.6:
        build.add("ferrule", cylinder(0.145, 0.14), "grey", lie @ at(0, 0.42 + length, 0))
        build.add("eraser", cylinder(0.135, 0.16), "pink", lie @ at(0, 0.56 + length, 0))
        return ("with a pink eraser", "with a sharp tip")
    return ("with a sharp tip",)


def _umbrella(build: Build, rng: Rng) -> tuple[str, ...]:
    radius, height = rng.uniform(0.9, 1.1), rng.uniform(0.35, 0.55)
    polar = np.linspace(np.pi / 2, 0.02, 7)
    dome = [(radius * np.sin(p), 1.3 + height * np.cos(p)) for p in polar]
    inside = [(r * 0.98, y - 0.02) for r, y in reversed(dome)]
    build.add("canopy", lathe([*dome, *inside], 16, smooth=60), "main")
    build.add("pole", cylinder(0.03, 1.8, 10), "trim", at(0, 0.95, 0))
    hook = [(0.14 - 0.14 * np.cos(a), 0.05 - 0.14 * np.sin(a), 0) for a in np.linspace(0, np.pi, 8)]
    build.add("hook", tube(hook, 0.04), "trim")
    return ("with a curved handle", "that is open")


def _bucket(build: Build, rng: Rng) -> tuple[str, ...]:
    radius, height = rng.uniform(0.55, 0.7), rng.uniform(1.0, 1.25)
    low = radius * 0.75
    profile = [(0, 0), (low, 0), (radius, height), (radius - 0.05, height), (low - 0.05, 0.05), (0, 0.05)]
    build.add("pail", lathe(profile, 28), "main")
    build.add("rim", ring(radius, 0.045), "trim", at(0, height, 0))
    angle = np.linspace(0, np.pi, 13)
    rise, reach = (0.75 * radius, 0.0) if rng.random() < 0.6 else (0.0, radius + 0.08)
    arc = [(radius * np.cos(a), height + rise * np.sin(a), reach * np.sin(a)) for a in angle]
    build.add("bail", tube(arc, 0.035), "trim")
    return ("with a metal handle",)


def _ice_cream(build: Build, rng: Rng) -> tuple[str, ...]:
    scoops = int(rng.integers(1, 4))
    build.add("cone", lathe([(0, 0), (0.36, 1.0), (0, 1.0)], 20), "waffle")
    looks = ("main", "trim", "main")
    for i in range(scoops):
        build.add("scoop", ball(0.4 - 0.04 * i, 18, 10), looks[i], at(0, 1.15 + 0.48 * i, 0))
    if rng.random() < 0.4:
        build.add("cherry", ball(0.12, 12, 8), "red", at(0, 1.6 + 0.48 * (scoops - 1), 0))
        return (f"with {WORDS[scoops]} scoop{'s' * (scoops > 1)}", "with a cherry on top")
    return (f"with {WORDS[scoops]} scoop{'s' * (scoops > 1)}",)


def _donut(build: Build, rng: Rng) -> tuple[str, ...]:
    thick = rng.uniform(0.24, 0.32)
    tilt = at(0, 0.8, 0) @ turned(rng.uniform(25, 75), "x")  # so that the hole shows
    build.add("dough", ring(0.7, thick, 32, 14), "beige", tilt)
    build.add("icing", ring(0.7, thick * 0.98, 32, 14), "main", tilt @ at(0, 0.07, 0))
    if rng.random() < 0.7:
        colors = ("red", "yellow", "blue", "green", "white")
        spots: dict[str, list[Matrix]] = {color: [] for color in colors}
        for i in range(40):
            turn, side = rng.uniform(0, 360), rng.uniform(-40, 40)
            place = tilt @ at(0, 0.07, 0) @ turned(turn, "y") @ at(0.7, 0, 0) @ turned(side, "z") @ at(0, thick, 0)
            spots[colors[i % 5]].append(place @ turned(rng.uniform(0, 180), "y"))
        for color, places in spots.items():
            build.add("sprinkles", box(0.12, 0.04, 0.04), color, *places)
        return ("with sprinkles", "with icing")
    return ("with icing",)


def _house(build: Build, rng: Rng) -> tuple[str, ...]:
    width, depth, floors = rng.uniform(1.2, 1.6), rng.uniform(1.0, 1.3), int(rng.choice((1, 2)))
    wall = 0.75 * floors if floors == 1 else 1.25
    build.add("walls", box(width, wall, depth), "main", at(0, wall / 2, 0))
    rise, over = rng.uniform(0.45, 0.7), 0.12
    gable = [(-width / 2, 0), (width / 2, 0), (0, rise * width / (width + 2 * over))]
    build.add("gable", plate(gable, depth), "main", at(0, wall, 0))
    slope = np.degrees(np.arctan2(rise, width / 2 + over))
    length = float(np.hypot(rise, width / 2 + over))
    slab = box(length, 0.08, depth + 2 * over)
    roof = [at(0, wall + rise - 0.07, 0) @ turned(-s * slope, "z") @ at(s * length / 2, 0.04, 0) for s in (-1, 1)]
    build.add("roof", slab, "trim", *roof)
    build.add("door", box(0.26, 0.5, 0.05), "dark brown", at(0, 0.25, depth / 2))
    pane, frame = box(0.24, 0.26, 0.05), box(0.3, 0.32, 0.04)
    spots = [at(s * width * 0.32, 0.45 + 0.6 * f, depth / 2) for s in (-1, 1) for f in range(floors)]
    spots += [at(s * width / 2, 0.45 + 0.6 * f, 0) @ turned(90, "y") for s in (-1, 1) for f in range(floors)]
    spots += [at(0, 0.45 + 0.6 * f, -depth / 2) for f in range(floors)]
    build.add("window frame", frame, "white", *spots)
    build.add("window", pane, "light blue", *spots)
    words = [f"with {WORDS[floors]} floor{'s' * (floors > 1)}"]
    if rng.random() < 0.6:
        build.add("chimney", box(0.2, 0.6, 0.2), "dark red", at(width * 0.25, wall + rise * 0.75, 0))
        words.append("with a chimney")
    return tuple(words)


def _lighthouse(build: Build, rng: Rng) -> tuple[str, ...]:
    height = rng.uniform(1.3, 1.6)
    build.add("rock", cylinder(0.7, 0.2, 8, top=0.55), "grey", at(0, 0.1, 0))
    build.add("tower", cylinder(0.4, height, 24, top=0.26), "main", at(0, 0.2 + height / 2, 0))
    build.add("gallery", cylinder(0.38, 0.06), "black", at(0, 0.2 + height, 0))
    build.add("lantern", cylinder(0.2, 0.3), "yellow", at(0, 0.38 + height, 0))
    build.add("roof", cylinder(0.28, 0.25, top=0), "trim", at(0, 0.64 + height, 0))
    build.add("door", box(0.18, 0.32, 0.1), "dark brown", at(0, 0.36, 0.36))
    return ("on a rock", "with a lantern")


def _guitar(build: Build, rng: Rng) -> tuple[str, ...]:
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    waist = rng.uniform(0.28, 0.36)
    radius = 0.5 - 0.06 * np.cos(turn)
    width = radius * (1 - waist * np.exp(-(((np.sin(turn) - 0.25) / 0.28) ** 2)))
    outline = [(w * np.cos(a), 0.62 + 0.66 * np.sin(a) * (0.9 if np.sin(a) > 0 else 1.0)) for w, a in zip(width, turn, strict=True)]
    build.add("body", plate(outline, 0.24), "main")
    build.add("neck", box(0.13, 1.1, 0.08), "trim", at(0, 1.65, 0.1))
    build.add("head", box(0.22, 0.3, 0.07), "trim", at(0, 2.3, 0.09))
    build.add("sound hole", cylinder(0.17, 0.02), "black", at(0, 0.85, 0.125) @ turned(90, "x"))
    build.add("bridge", box(0.32, 0.07, 0.05), "black", at(0, 0.35, 0.13))
    build.add("string", box(0.008, 1.9, 0.008), "white", *(at(x, 1.28, 0.155) for x in (-0.045, -0.015, 0.015, 0.045)))
    pegs = [at(s * 0.14, 2.22 + 0.08 * i, 0.09) for s in (-1, 1) for i in range(3)]
    build.add("peg", box(0.08, 0.04, 0.04), "grey", *pegs)
    return ("with strings", "with a long neck")


def _drum(build: Build, rng: Rng) -> tuple[str, ...]:
    radius, height = rng.uniform(0.7, 0.9), rng.uniform(0.7, 1.1)
    build.add("shell", cylinder(radius, height, 32), "main", at(0, height / 2, 0))
    build.add("skin", cylinder(radius * 0.96, 0.03, 32), "white", at(0, height + 0.01, 0))
    build.add("hoop", ring(radius, 0.05), "trim", at(0, 0.05, 0), at(0, height - 0.02, 0))
    rods = [turned(45 * i, "y") @ at(0, height / 2, radius + 0.02) for i in range(8)]
    build.add("rod", cylinder(0.025, height, 9), "trim", *rods)
    if rng.random() < 0.5:
        for s in (-1, 1):
            lie = at(s * 0.15, height + 0.09, 0) @ turned(s * 20, "y") @ turned(90, "x")
            build.add("stick", cylinder(0.035, 1.5, 9), "brown", lie)
        return ("with two drumsticks",)
    return ("with a white skin",)


def _barrel(build: Build, rng: Rng) -> tuple[str, ...]:
    radius, height = rng.uniform(0.55, 0.7), rng.uniform(1.4, 1.7)
    y = np.linspace(0, height, 9)
    bulge = radius * (1 + 0.2 * np.sin(np.pi * y / height))
    build.add("staves", lathe([(0, 0), *zip(bulge, y, strict=True), (0, height)], 24), "main")
    spots = []
    for share in (0.08, 0.3, 0.7, 0.92):
        wide = radius * (1 + 0.2 * np.sin(np.pi * share)) + 0.005
        spots.append(at(0, height * share, 0) @ stretched(wide, 1, wide))
    build.add("hoop", lathe([(1.0, -0.05), (1.03, -0.05), (1.03, 0.05), (1.0, 0.05)], 24), "trim", *spots)
    return ("with four hoops",)


def _sword(build: Build, rng: Rng) -> tuple[str, ...]:
    length, width = rng.uniform(1.3, 1.7), rng.uniform(0.1, 0.15)
    blade = [(-width, 0), (width, 0), (width, length - 0.2), (0, length), (-width, length - 0.2)]
    build.add("blade", plate(blade, 0.05), "silver", at(0, 0.5, 0))
    build.add("guard", box(rng.uniform(0.6, 0.8), 0.1, 0.14), "trim", at(0, 0.48, 0))
    build.add("grip", cylinder(0.07, 0.4, 12), "main", at(0, 0.25, 0))
    build.add("pommel", ball(0.11, 14, 8), "trim", at(0, 0.03, 0))
    return ("with a silver blade",)


def _dumbbell(build: Build, rng: Rng) -> tuple[str, ...]:
    gap, radius = rng.uniform(0.35, 0.5), rng.uniform(0.4, 0.55)
    build.add("bar", cylinder(0.08, 2 * gap + 0.7), "silver", at(0, radius, 0) @ turned(90, "z"))
    if rng.random() < 0.5:
        build.add("weight", ball(radius), "main", *(at(s * (gap + 0.2), radius, 0) for s in (-1, 1)))
        return ("with round ends",)
    outer = stretched(0.8, 1, 0.8)
    disc = [at(s * gap, radius, 0) @ turned(90, "z") for s in (-1, 1)]
    disc += [at(s * (gap + 0.17), radius, 0) @ turned(90, "z") @ outer for s in (-1, 1)]
    build.add("weight", cylinder(radius, 0.15, 24), "main", *disc)
    return ("with discs",)


def _traffic_cone(build: Build, rng: Rng) -> tuple[str, ...]:
    height = rng.uniform(1.3, 1.7)
    build.add("foot", box(1.1, 0.1, 1.1), "main", at(0, 0.05, 0))
    build.add("cone", cylinder(0.42, height, 24, top=0.08), "main", at(0, 0.1 + height / 2, 0))
    bands = (0.35, 0.65) if rng.random() < 0.5 else (0.5,)
    for t in bands:
        low, high = (0.42 - 0.34 * u + 0.012 for u in (t - 0.07, t + 0.07))
        build.add("band", cylinder(low, height * 0.14, 24, top=high), "white", at(0, 0.1 + height * t, 0))
    return (f"with {WORDS[len(bands)]} white band{'s' * (len(bands) > 1)}",)


def _hat(build: Build, rng: Rng) -> tuple[str, ...]:
    height, crown = rng.uniform(0.7, 1.1), rng.uniform(0.5, 0.6)
    build.add("brim", lathe([(0, 0), (0.9, 0.02), (0.95, 0.08), (0.5, 0.05)], 32), "main")
    build.add("crown", cylinder(crown, height, 28, top=crown * rng.uniform(0.9, 1.15)), "main", at(0, 0.04 + height / 2, 0))
    build.add("ribbon", cylinder(crown * 1.03, 0.16, 28), "trim", at(0, 0.16, 0))
    return ("with a ribbon", "with a wide brim")


_WOOD = ("wooden", "wooden", "plain")
# fmt: off
_KINDS = (
    Kind("chair", _chair, "furniture-home", "chair", ("furniture", "seat"), ("plastic", "fabric"),
         finishes=("wooden", "plain", "plain", "striped")),
    Kind("stool", _stool, "furniture-home", "stool", ("furniture", "bar"), ("leather", "plastic"),
         finishes=("wooden", "plain", "striped", "checkered")),
    Kind("table", _table, "furniture-home", "table", ("furniture", "interior"), ("plastic", "stone"),
         finishes=("wooden", "wooden", "plain", "checkered")),
    Kind("sofa", _sofa, "furniture-home", "sofa", ("couch", "furniture"), ("fabric", "leather")),
    Kind("bed", _bed, "furniture-home", "bed", ("bedroom", "furniture"), ("fabric",),
         trims=("brown", "dark brown", "white"), main_part="blanket"),
    Kind("bookshelf", _bookshelf, "furniture-home", "bookcase", ("bookcase", "books"), ("metal",), finishes=_WOOD),
    Kind("bench", _bench, "furniture-home", "bench", ("park", "outdoor"), ("metal", "plastic"),
         finishes=_WOOD, trims=("black", "grey")),
    Kind("lamp", _lamp, "furniture-home", "table_lamp", ("light", "interior"), ("fabric", "paper"), main_part="lampshade"),
    Kind("ladder", _ladder, "science-technology", "ladder", ("tool", "steps"), ("metal",), finishes=("wooden", "plain")),
    Kind("clock", _clock, "electronics-gadgets", "clock", ("time", "watch"), ("plastic", "metal"),
         finishes=("plain", "plain", "wooden"), trims=("silver", "yellow")),
    Kind("mug", _mug, "food-drink", "mug", ("cup", "coffee"), ("ceramic", "metal"), trims=("white", "black")),
    Kind("bottle", _bottle, "food-drink", "bottle", ("drink", "container"), ("glass", "plastic"),
         finishes=("plain", "plain", "striped")),
    Kind("bowl", _bowl, "food-drink", "bowl", ("dish", "kitchen"), ("ceramic",), finishes=("plain", "striped", "dotted", "wooden")),
    Kind("vase", _vase, "art-abstract", "vase", ("pottery", "decoration"), ("ceramic", "glass")),
    Kind("teapot", _teapot, "food-drink", "teapot", ("tea", "kitchen"), ("ceramic", "metal")),
    Kind("wine glass", _wine_glass, "food-drink", "wineglass", ("glass", "drink"), ("glass",),
         finishes=("plain",), colors=("light blue", "turquoise", "pink", "green", "grey")),
    Kind("car", _car, "cars-vehicles", "car_(automobile)", ("vehicle", "automobile"), ("metal",),
         finishes=("plain", "plain", "striped")),
    Kind("boat", _boat, "cars-vehicles", "boat", ("ship", "vehicle"), ("plastic",),
         finishes=("plain", "wooden", "striped"), trims=("white", "red", "yellow")),
    Kind("rocket", _rocket, "science-technology", None, ("spaceship", "space"), ("metal",), trims=("red", "grey", "black")),
    Kind("airplane", _airplane, "cars-vehicles", "airplane", ("plane", "vehicle"), ("metal",),
         finishes=("plain", "plain", "striped"), trims=("grey", "white", "red")),
    Kind("tree", _tree, "nature-plants", None, ("plant", "nature"), (),
         finishes=("plain",), colors=("green", "green", "orange", "yellow", "pink")),
    Kind("cactus", _cactus, "nature-plants", None, ("plant", "desert"), (),
         finishes=("plain", "striped"), trims=("orange", "brown", "white"), colors=("green", "green", "turquoise")),
    Kind("mushroom", _mushroom, "nature-plants", "mushroom", ("fungus", "nature"), (),
         finishes=("dotted", "dotted", "plain"), colors=("red", "red", "brown", "purple", "orange")),
    Kind("snowman", _snowman, "characters-creatures", "snowman", ("winter", "snow"), ("fabric",), main_part="scarf"),
    Kind("hammer", _hammer, "science-technology", "hammer", ("tool", "workshop"), ("plastic",),
         finishes=_WOOD, trims=("grey", "silver", "black")),
    Kind("pencil", _pencil, "art-abstract", "pencil", ("school", "drawing"), (), finishes=("plain", "striped")),
    Kind("umbrella", _umbrella, "fashion-style", "umbrella", ("rain", "weather"), ("fabric",)),
    Kind("bucket", _bucket, "furniture-home", "bucket", ("pail", "garden"), ("plastic", "metal"), trims=("grey", "silver")),
    Kind("ice cream cone", _ice_cream, "food-drink", "icecream", ("dessert", "food"), (),
         finishes=("plain", "plain", "dotted"), trims=("white", "dark brown", "pink"),
         colors=("pink", "green", "yellow", "brown", "purple")),
    Kind("donut", _donut, "food-drink", "doughnut", ("dessert", "food"), (),
         finishes=("plain",), colors=("pink", "white", "dark brown", "turquoise", "purple")),
    Kind("house", _house, "architecture", None, ("building", "home"), (),
         finishes=("plain", "plain", "wooden"), trims=("red", "dark brown", "grey", "blue"),
         colors=("white", "yellow", "pink", "light blue", "orange", "green")),
    Kind("lighthouse", _lighthouse, "architecture", None, ("tower", "sea"), (),
         finishes=("striped", "striped", "plain"), trims=("red", "black"), colors=("red", "blue", "black", "green")),
    Kind("guitar", _guitar, "music", "guitar", ("instrument", "strings"), (),
         finishes=("wooden", "plain"), trims=("dark brown", "black")),
    Kind("drum", _drum, "music", "drum_(musical_instrument)", ("instrument", "percussion"), ()),
    Kind("barrel", _barrel, "furniture-home", "barrel", ("cask", "storage"), ("metal",), finishes=_WOOD, trims=("black", "grey")),
    Kind("sword", _sword, "weapons-military", "sword", ("weapon", "fantasy"), (),
         finishes=("plain",), trims=("yellow", "black", "brown"), main_part="grip"),
    Kind("dumbbell", _dumbbell, "sports-fitness", "dumbbell", ("gym", "weights"), ("metal",), finishes=("plain",)),
    Kind("traffic cone", _traffic_cone, "places-travel", "cone", ("road", "safety"), ("plastic",),
         finishes=("plain",), colors=("orange", "orange", "red", "yellow")),
    Kind("hat", _hat, "fashion-style", "hat", ("clothing", "accessory"), ("fabric", "leather"),
         finishes=("plain", "plain", "striped", "checkered")),
)
# fmt: on
KINDS = {kind.name: kind for kind in _KINDS}
