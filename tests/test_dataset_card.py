"""The dataset card: a header that the hub's own library reads, and the report's figures in words."""

import pytest
import yaml
from huggingface_hub import DatasetCard, DatasetCardData

from pipeline.run import run
from pipeline.stage import Single
from reports.captions import captions
from reports.categories import categories
from reports.dataset_card import MIXED, dataset_card, languages_of, license_of, size_category
from reports.failures import failures
from reports.funnel import funnel
from reports.licences import licences
from reports.overview import overview
from reports.storage import storage
from schemas.check import to_table
from schemas.corpus import Reader
from schemas.tables import FAILURES, OBJECTS
from shout import Shout, object_row

SECTIONS = (overview, funnel, failures, licences, categories, captions, storage)


def card_of(corpus, name="Made things") -> DatasetCard:
    corpus.create(FAILURES)
    reader = Reader(corpus.root)
    return DatasetCard(dataset_card([make(reader) for make in SECTIONS], name=name, root=corpus.root))


@pytest.fixture
def shouted(corpus):
    run(corpus, Single(Shout(fails=("Thing 2",))))
    return corpus


def test_the_header_is_read_by_the_hubs_own_library(shouted):
    header = card_of(shouted).data
    assert isinstance(header, DatasetCardData)
    assert (header.license, header.size_categories, header.pretty_name) == ("cc0-1.0", "n<1K", "Made things")
    assert {"lance", "3d"} <= set(header.tags)
    plain = yaml.safe_load(header.to_yaml())
    assert plain["configs"][0] == {"config_name": "objects", "data_files": "objects.lance/**", "default": True}
    assert {one["config_name"] for one in plain["configs"]} == {"objects", "captions", "failures", "runs"}
    assert [one for one in plain["configs"] if one.get("default")] == plain["configs"][:1]


def test_the_body_has_the_figures_of_the_report(shouted):
    text = card_of(shouted).text
    assert text.startswith("\n# Made things\n") or text.startswith("# Made things\n")
    for words in (
        "| `objects` | 20 |",
        "| `captions` | 19 |",
        "| test | 20 | 0 | glb |",
        "| CC0-1.0 | 20 | yes | no | no |",
        "| shout | `captions` | 1 |",
        'lance.dataset(f"{root}/objects.lance")',
    ):
        assert words in text
    for title in ("Tables", "Loading", "Where the objects come from", "Licences", "Captions", "How it was made"):
        assert f"\n## {title}\n" in text


def test_the_card_does_not_say_where_the_corpus_was(corpus):
    assert corpus.root in captions(Reader(corpus.root)).lead  # where there are no captions, it is said what to type
    content = str(card_of(corpus))
    assert corpus.root not in content and "python -m jobs caption ROOT" in content


def test_what_the_loading_lines_do_works(shouted):
    code = str(card_of(shouted)).split("```python\n")[1].split("```")[0]
    names = {}
    exec(code.replace("hf://datasets/OWNER/NAME", shouted.root), names)
    assert names["objects"].count_rows() == 20


def test_mixed_licences_are_other_and_each_is_listed(corpus):
    row = object_row(50, license="CC-BY-NC-4.0", creator="Ann")
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, [row, object_row(51, license="unknown")])))
    card = card_of(corpus)
    assert (card.data.license, card.data.license_name) == ("other", MIXED)
    assert "| CC-BY-NC-4.0 | 1 | no | no | yes |" in card.text and "| unknown | 1 | not known |" in card.text
    assert "## Known gaps" in card.text


@pytest.mark.parametrize(
    ("spdx", "license", "name"),
    [
        ("CC-BY-SA-4.0", "cc-by-sa-4.0", None),
        ("GPL-3.0-only", "gpl-3.0", None),
        ("Apache-2.0", "apache-2.0", None),
        ("ODC-By-1.0", "odc-by", None),
        ("unknown", "unknown", None),
        ("LicenseRef-3D-FUTURE", "other", "3d-future"),
        ("CC-BY-ND-3.0", "other", "cc-by-nd-3.0"),  # the hub has no id for it
    ],
)
def test_one_licence_gets_the_hubs_id_or_its_name(spdx, license, name):
    assert license_of({spdx: {}}) == {"license": license} | ({"license_name": name} if name else {})


def test_no_licence_is_made_up():
    assert license_of({}) == {"license": "unknown"}


@pytest.mark.parametrize(
    ("objects", "told"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (46_205, "10K<n<100K"), (800_000, "100K<n<1M"), (10**6, "1M<n<10M")],
)
def test_sizes_are_the_hubs_classes(objects, told):
    assert size_category(objects) == told


def test_languages_are_those_of_many_captions_the_most_frequent_first():
    assert languages_of({"English": 500, "German": 600, "French": 3, "not told": 9000}) == ["de", "en"]
    assert languages_of({"English": 0, "not told": 7}) == languages_of({}) == []


def test_a_hostile_name_is_text_in_the_card(corpus):
    name = 'Things | <script>alert("x")</script>\n# [x](http://evil)\n---\nlicense: mit'
    card = card_of(corpus, name)
    assert card.data.license == "cc0-1.0" and card.data.pretty_name == name
    assert r"# Things \| \<script>" in card.text and "\n# \\[x" not in card.text and "[x](" not in card.text.replace("\\[x\\](", "")
