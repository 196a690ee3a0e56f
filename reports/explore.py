"""Pages over a corpus for one person at their own machine: search by words, filter, look at objects and at failures.

    uvicorn.run(app(read(corpus), corpus.root), host="127.0.0.1")

A page asks for JSON, pictures and points by object id; nothing that it says is a path. Nothing is written. The pages may load
nothing from elsewhere, run no script but their own, and be asked by no other site: a name in DNS that leads here is refused by the
Host header.
"""

import io
import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reports.catalogue import Catalogue
from reports.contact_sheet import views_around
from reports.failures import retry
from schemas.tables import CAPTIONS, FAILURES, OBJECTS, POINTS, SPLITS, VIEWS

HOME = Path(__file__).parent
FILES = {
    "/": ("explore/explore.html", "text/html"),
    "/colors.css": ("page/colors.css", "text/css"),
    "/explore.css": ("explore/explore.css", "text/css"),
    "/explore.js": ("explore/explore.js", "text/javascript"),
}
HOSTS = ("127.0.0.1", "localhost")
AT_ONCE = 60  # objects, or failures, of one answer
AT_MOST = 500
VALUES_SHOWN = 300  # of a facet
SEARCHES_KEPT = 16
DRAWN = 192  # pixels: of the picture of an object that has points and no views
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",  # plotly sets styles
    "img-src": "'self' data: blob:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{what} {where}" for what, where in POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",  # the next corpus on this port is another one
}

# What is like an object: ids and scores, the likest first.
Alike = Callable[[str], Sequence[tuple[str, float]]]


def app(catalogue: Catalogue, root: str, *, alike: Alike | None = None) -> Starlette:
    """The pages of a corpus, to be served on the loopback interface.

    root   as it is to be typed in the commands that the pages name
    alike  tells what is like an object, where that is cheap to know
    """
    pages = _Pages(catalogue, root, alike)
    routes = {
        "/api/corpus": pages.corpus,
        "/api/objects": pages.objects,
        "/api/object": pages.object,
        "/api/alike": pages.alike,
        "/api/failures": pages.failures,
        "/picture": pages.picture,
        "/view": pages.view,
        "/thumbnail": pages.thumbnail,
        "/points": pages.points,
        "/plotly.js": lambda request: Response(_plotly(), media_type="text/javascript"),
    } | {path: _file(*file) for path, file in FILES.items()}
    return Starlette(
        routes=[Route(path, answer, methods=["GET"]) for path, answer in routes.items()],
        middleware=[Middleware(_Headers), Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False)],
        exception_handlers={HTTPException: _told},
    )


class _Pages:
    def __init__(self, catalogue: Catalogue, root: str, alike: Alike | None):
        self.catalogue, self.root, self.likest = catalogue, root, alike
        self.saying = lru_cache(SEARCHES_KEPT)(catalogue.saying)

    def corpus(self, request: Request) -> Response:
        """What it is, and what its columns mean."""
        columns = {name: {field.name: _doc(field) for field in table.schema} for name, table in self.catalogue.tables.items()}
        about = {"root": self.root, "objects": len(self.catalogue.ids), "failures": len(self.catalogue.why)}
        return JSONResponse(about | {"alike": self.likest is not None, "columns": columns})

    def objects(self, request: Request) -> Response:
        """Those that were searched for, a page of them, and how many there are of what."""
        asked = request.query_params
        wanted = {name: asked[name] for name in self.catalogue.facets if asked.get(name)}
        numbers, counts = self.catalogue.found(self.saying(asked.get("q", "")), wanted)
        if "shuffle" in asked:
            np.random.default_rng(_whole(asked["shuffle"], "shuffle")).shuffle(numbers)
        page = _page(request, len(numbers))
        facets = {
            name: {"values": found[:VALUES_SHOWN], "more": max(0, len(found) - VALUES_SHOWN)} for name, found in counts.items()
        }
        return JSONResponse({"total": len(numbers), "objects": self._cards(numbers[page].tolist()), "facets": facets})

    def object(self, request: Request) -> Response:
        """All that is known of one object."""
        number = self._number(request)
        views = self.catalogue.rows(VIEWS.name, number, [name for name in VIEWS.schema.names if name not in _NOT_TOLD])
        points = self.catalogue.rows(POINTS.name, number, ["vertices", "faces", "area", "warnings"])
        captions = self.catalogue.rows(CAPTIONS.name, number)
        return JSONResponse(
            self._cards([number])[0]
            | {
                "about": next(iter(self.catalogue.rows(OBJECTS.name, number)), None),
                "views": sorted(views, key=lambda view: view["view"]),
                "points": next(iter(points), None),
                "captions": sorted(captions, key=lambda caption: (not caption["kept"], caption["origin"], caption["caption"])),
                "splits": self.catalogue.rows(SPLITS.name, number, ["split", "label"]),
                "failures": [self._failure(row) for row in self.catalogue.rows(FAILURES.name, number)],
            }
        )

    def alike(self, request: Request) -> Response:
        """What is like an object; nothing where that is not known."""
        number = self._number(request)
        found = self.likest(self.catalogue.ids[number].as_py()) if self.likest else ()
        cards = self._cards([self.catalogue.number(id) for id, _ in found])
        return JSONResponse([card | {"score": score} for card, (_, score) in zip(cards, found, strict=True)])

    def failures(self, request: Request) -> Response:
        """Kinds of failures and how many there are of each; of one kind, a page of them."""
        counts = np.bincount(self.catalogue.why, minlength=len(self.catalogue.reasons)).tolist()
        kinds = [
            {"stage": stage, "reason": reason, "count": count, "command": retry(self.root, stage, reason)}
            for (stage, reason), count in zip(self.catalogue.reasons, counts, strict=True)
        ]
        kind = (request.query_params.get("stage"), request.query_params.get("reason"))
        if kind == (None, None):
            return JSONResponse({"kinds": kinds})
        if kind not in self.catalogue.reasons:
            raise HTTPException(404, f"there is no failure of {kind[0]} for {kind[1]}")
        rows = np.flatnonzero(self.catalogue.why == self.catalogue.reasons.index(kind))
        shown = self.catalogue.taken(FAILURES.name, rows[_page(request, len(rows))].tolist())
        return JSONResponse({"total": len(rows), "failures": [self._failure(row) for row in shown]})

    def picture(self, request: Request) -> Response:
        """One picture of an object: its first view; of one without views what was not let in, or its points."""
        number = self._number(request)
        views = self.catalogue.rows(VIEWS.name, number, ["view"])
        if views:
            first = min(range(len(views)), key=lambda place: views[place]["view"])
            places = self.catalogue.places[VIEWS.name].of(number)[first : first + 1]
            return _webp(self.catalogue.taken(VIEWS.name, places, ["image"])[0]["image"])
        for row in self.catalogue.rows(FAILURES.name, number, ["thumbnail"]):
            if row.get("thumbnail"):
                return _webp(row["thumbnail"])
        for row in self.catalogue.rows(POINTS.name, number, ["xyz", "rgb", "area"]):
            file = io.BytesIO()
            views_around(row, 1, DRAWN)[0].save(file, "WEBP", lossless=True)
            return _webp(file.getvalue())
        raise HTTPException(404, "there is no picture of this object")

    def view(self, request: Request) -> Response:
        """One of its views, as it is stored."""
        number, view = self._number(request), _whole(request.query_params.get("view", ""), "view")
        rows = self.catalogue.rows(VIEWS.name, number, ["view"])
        for place, row in zip(self.catalogue.places[VIEWS.name].of(number) if rows else [], rows, strict=True):
            if row["view"] == view:
                return _webp(self.catalogue.taken(VIEWS.name, [place], ["image"])[0]["image"])
        raise HTTPException(404, f"this object has no view {view}")

    def thumbnail(self, request: Request) -> Response:
        """The picture of what a stage made of an object and did not let in."""
        stage = request.query_params.get("stage")
        for row in self.catalogue.rows(FAILURES.name, self._number(request), ["stage", "thumbnail"]):
            if row["stage"] == stage and row.get("thumbnail"):
                return _webp(row["thumbnail"])
        raise HTTPException(404, "there is no picture of this failure")

    def points(self, request: Request) -> Response:
        """The points: how many (uint32), x, y, z of each (float32, canonical frame), and where they have colours r, g, b of each
        (uint8); little-endian."""
        rows = self.catalogue.rows(POINTS.name, self._number(request), ["xyz", "rgb"])
        if not rows:
            raise HTTPException(404, "this object has no points")
        xyz, rgb = np.asarray(rows[0]["xyz"], "<f4"), rows[0]["rgb"]
        parts = (np.asarray([len(xyz) // 3], "<u4"), xyz, np.asarray([] if rgb is None else rgb, np.uint8))
        return Response(b"".join(part.tobytes() for part in parts), media_type="application/octet-stream")

    def _number(self, request: Request) -> int:
        number = self.catalogue.number(request.query_params.get("id", ""))
        if number is None:
            raise HTTPException(404, "there is no object of this id")
        return number

    def _cards(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """What is shown of objects among others."""
        held = self.catalogue
        places = {number: held.places[OBJECTS.name].of(number)[0] for number in numbers if held.has[OBJECTS.name][number]}
        rows = held.taken(OBJECTS.name, list(places.values()), _ON_CARDS)
        about = dict(zip(places, rows, strict=True))
        return [
            {
                "id": held.ids[number].as_py(),
                "failed": bool(held.has[FAILURES.name][number]),
                "pictured": bool(held.pictured[number]),
            }
            | about.get(number, dict.fromkeys(_ON_CARDS))
            for number in numbers
        ]

    def _failure(self, row: dict[str, Any]) -> dict[str, Any]:
        number = self.catalogue.number(row["object_id"])
        told = {name: row[name] for name in ("object_id", "stage", "reason", "message", "log_tail", "attempts")}
        return told | {
            "thumbnail": row.get("thumbnail") is not None,
            "known": number is not None,
            "pictured": number is not None and bool(self.catalogue.pictured[number]),
            "command": retry(self.root, row["stage"], row["reason"]),
        }


_ON_CARDS = ("name", "source", "license", "categories")
_NOT_TOLD = ("object_id", "image", "stage_key", "camera_to_world", "intrinsics")


class _Headers:
    """Puts HEADERS on every answer, errors and refusals too."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, sent)


def _told(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    return lambda request: Response((HOME / name).read_bytes(), media_type=kind)


@cache
def _plotly() -> bytes:
    return get_plotlyjs().encode()


def _webp(image: bytes) -> Response:
    return Response(image, media_type="image/webp")


def _page(request: Request, total: int) -> slice:
    first = _whole(request.query_params.get("offset", "0"), "offset")
    count = min(_whole(request.query_params.get("count", str(AT_ONCE)), "count"), AT_MOST)
    return slice(min(first, total), min(first + count, total))


def _whole(text: str, name: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise HTTPException(400, f"{name} must be a whole number from 0 on")
    return int(text)


def _doc(field: Any) -> str:
    return (field.metadata or {}).get(b"doc", b"").decode()
