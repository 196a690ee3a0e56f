"""ShapeNetCore, version 2 or 1, as it is given out (https://shapenet.org):

taxonomy.json                  [{synsetId, name: "airplane,aeroplane,plane", children, numInstances}]; may be absent
all.csv                        id,synsetId,subSynsetId,modelId,split; may be absent
02691156.csv                   fullId,wnsynset,wnlemmas,up,front,name,tags; of version 1, counts for version 2 as well
02691156/<model>/models/model_normalized.obj    version 2, with .mtl and ../images/texture0.jpg beside it
02691156/<model>/model.obj                      version 1; also models/model.obj

A model may occur under several synsets, so its id is "02691156/<model>". A folder that has the OBJ of both versions counts as
version 2. Its categories are WordNet's words for the synset: the first of each synset it is in, then the others.

What lies there counts: all.csv lists the models of all synsets, and most people have some. Known of single models only by a folder
without an OBJ, which the release has, they are failures (asset_missing).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.sources.listing import folders_in, home_of, read_list, read_rows, stamp_with_parts, stamps_below
from pipeline.sources.record import record
from pipeline.stage import Row

LICENSE = "LicenseRef-ShapeNet"  # one text for all: research and education, not commercial

_ASSETS = ("models/model_normalized.obj", "model.obj", "models/model.obj")


@dataclass(frozen=True)
class ShapeNet:
    """A folder with ShapeNetCore or some of its synsets, or the folder above it."""

    name: str
    root: str

    def __post_init__(self) -> None:
        self._home()

    def records(self) -> Iterator[Row]:
        """Every folder of a model, synset by synset. Of a model's folder, what lies in it, in models/ and in images/ is listed."""
        home = self._home()
        names = _names(home)
        listed = {
            (_synset(row["synsetId"]), row["modelId"]): row
            for row in read_rows(f"{home}/all.csv", ("synsetId", "modelId", "split"))
        }
        for synset in filter(_is_synset, folders_in(home)):
            about = {row["fullId"].rpartition(".")[2]: row for row in read_rows(f"{home}/{synset}.csv", ("fullId",))}
            for model in folders_in(f"{home}/{synset}"):
                yield self._record(home, synset, model, names, listed.get((synset, model), {}), about.get(model, {}))

    def _home(self) -> str:
        home = home_of(self.root, _holds_models)
        if home is None:
            raise ValueError(
                f"{self.root} holds no ShapeNetCore: give the folder in which each synset has its folder of models, as in "
                "02691156/<model>/models/model_normalized.obj; zip files must be unpacked"
            )
        return home

    def _record(
        self, home: str, synset: str, model: str, names: dict[str, list[str]], listed: dict[str, str], about: dict[str, str]
    ) -> Row:
        folder = f"{home}/{synset}/{model}"
        stamps = stamps_below(folder, ("models", "images"))
        asset = next((path for path in _ASSETS if path in stamps), None)
        finer = _words(about.get("wnlemmas", "")) or names.get(_synset(listed.get("subSynsetId", "")), [])
        words = names.get(synset, [])
        no_asset = f"{folder} has neither {' nor '.join(_ASSETS)}: some folders of the release have no mesh; others unpack again"
        return record(
            source=self.name,
            source_id=f"{synset}/{model}",
            asset_uri=f"{folder}/{asset or _ASSETS[0]}",
            asset_stamp=stamp_with_parts(asset, stamps) if asset else None,
            name=about.get("name"),
            categories=list(dict.fromkeys([*words[:1], *finer[:1], *words, *finer])),
            tags=_words(about.get("tags", "")),
            license=LICENSE,
            split=listed.get("split") or None,
            home=folder,
            front="-z",
            unusable=None if asset else ("asset_missing", no_asset),
            warnings=[] if words else ["unknown_category"],
        )


def _holds_models(folder: str) -> bool:
    """Whether a folder of a synset in it holds folders; those of point clouds (ShapeNetPart) hold files."""
    return any(folders_in(f"{folder}/{name}") for name in folders_in(folder) if _is_synset(name))


def _is_synset(name: str) -> bool:
    return bool(re.fullmatch(r"\d{8}", name))


def _synset(text: str) -> str:
    """A synset's id with the zeros that a spreadsheet takes away."""
    return text.strip().zfill(8)


def _names(home: str) -> dict[str, list[str]]:
    """The words of each synset that has any: the taxonomy's, and those of ShapeNet's own synsets where it is silent."""
    listed = {str(item.get("synsetId")): _words(str(item.get("name") or "")) for item in read_list(f"{home}/taxonomy.json") or ()}
    known = {line[:8]: _words(line[9:]) for line in _SYNSETS.strip().splitlines()}
    return known | {synset: words for synset, words in listed.items() if words}


def _words(text: str) -> list[str]:
    """The words of a list with commas, in which each word may be quoted; a word that the taxonomy cuts short is left out."""
    found = (word.strip(" \t\\\"'") for word in text.split(","))
    return [word for word in found if word and word != "passenger vehi"]


# The synsets of version 2, and bicycle and boat of version 1, in WordNet 3.0's words.
_SYNSETS = """
02691156 airplane,aeroplane,plane
02747177 ashcan,trash can,garbage can,wastebin,ash bin,ash-bin,ashbin,dustbin,trash barrel,trash bin
02773838 bag,traveling bag,travelling bag,grip,suitcase
02801938 basket,handbasket
02808440 bathtub,bathing tub,bath,tub
02818832 bed
02828884 bench
02834778 bicycle,bike,wheel,cycle
02843684 birdhouse
02858304 boat
02871439 bookshelf
02876657 bottle
02880940 bowl
02924116 bus,autobus,coach,charabanc,double-decker,jitney,motorbus,motorcoach,omnibus,passenger vehicle
02933112 cabinet
02942699 camera,photographic camera
02946921 can,tin,tin can
02954340 cap
02958343 car,auto,automobile,machine,motorcar
02992529 cellular telephone,cellular phone,cellphone,cell,mobile phone
03001627 chair
03046257 clock
03085013 computer keyboard,keypad
03207941 dishwasher,dish washer,dishwashing machine
03211117 display,video display
03261776 earphone,earpiece,headphone,phone
03325088 faucet,spigot
03337140 file,file cabinet,filing cabinet
03467517 guitar
03513137 helmet
03593526 jar
03624134 knife
03636649 lamp
03642806 laptop,laptop computer
03691459 loudspeaker,speaker,speaker unit,loudspeaker system,speaker system
03710193 mailbox,letter box
03759954 microphone,mike
03761084 microwave,microwave oven
03790512 motorcycle,bike
03797390 mug
03928116 piano,pianoforte,forte-piano
03938244 pillow
03948459 pistol,handgun,side arm,shooting iron
03991062 pot,flowerpot
04004475 printer,printing machine
04074963 remote control,remote
04090263 rifle
04099429 rocket,projectile
04225987 skateboard
04256520 sofa,couch,lounge
04330267 stove
04379243 table
04401088 telephone,phone,telephone set
04460130 tower
04468005 train,railroad train
04530566 vessel,watercraft
04554684 washer,automatic washer,washing machine
"""
