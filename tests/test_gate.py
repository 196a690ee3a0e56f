"""Conditions on a report's figures: what holds, what is not known, and what is said of a name that is not there."""

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.gate import COMPARE, Gate, figures, holds, parsed, value
from reports.section import Section

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def section(key: str, figures: dict, **gates) -> Section:
    return Section(key=key, title=key, lead="", figures=figures, gates=gates)


FUNNEL = section("funnel", {"failed_share": 0.03, "sources": {"abo": {"objects": 7}}, "stages": ["a"]}, failed_share=0.03)
LICENCES = section("licences", {"mix": {"CC-BY-4.0": 5, "unknown": None}, "told": "words"}, unknown_license_share=None)
FIGURES = figures([FUNNEL, LICENCES])


def test_every_number_has_a_path_and_gates_a_name_of_their_own():
    assert FIGURES == {
        "failed_share": 0.03,
        "unknown_license_share": None,
        "funnel.failed_share": 0.03,
        "funnel.sources.abo.objects": 7,
        "licences.mix.CC-BY-4.0": 5,
        "licences.mix.unknown": None,
    }


@given(NUMBERS, NUMBERS, st.sampled_from(sorted(COMPARE)), st.sampled_from(["", " "]))
def test_a_condition_says_what_python_says(number, limit, compare, space):
    expression = f"{space}share{space}{compare}{space}{limit!r}{space}"
    word = {">": "gt", "<": "lt", ">=": "ge", "<=": "le", "==": "eq", "!=": "ne"}[compare]
    assert holds(expression, {"share": number}) is getattr(operator, word)(number, limit)


def test_a_name_may_hold_dots_signs_and_spaces():
    assert parsed("licences.mix.CC-BY-4.0 >= 5") == Gate("licences.mix.CC-BY-4.0", ">=", 5)
    assert parsed("failures.by_reason.render: gate_blank<1e-3") == Gate("failures.by_reason.render: gate_blank", "<", 1e-3)
    assert holds("licences.mix.CC-BY-4.0>=5", FIGURES) is True


def test_what_is_not_known_neither_holds_nor_fails():
    assert holds("unknown_license_share>0.5", FIGURES) is None
    assert holds("unknown_license_share<=0.5", FIGURES) is None


@pytest.mark.parametrize("wrong", ["failed_share", "failed_share>", ">0.02", "failed_share=0.02", "failed_share>2%", "a>b", ""])
def test_what_is_no_condition_is_told_with_an_example(wrong):
    with pytest.raises(ValueError, match="is no condition: give a figure.*'failed_share>0.02'"):
        parsed(wrong)


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("faild_share", "failed_share"),
        ("unknown_licence_share", "unknown_license_share"),
        ("funnel.sources.abo.object", "funnel.sources.abo.objects"),
        ("objects", "funnel.sources.abo.objects"),  # by its last word
    ],
)
def test_a_name_that_is_not_there_gets_those_most_like_it(name, offered):
    with pytest.raises(ValueError, match=f"no figure '{name}'; there is: .*{offered}"):
        value(name, FIGURES)


def test_a_name_like_none_is_sent_to_where_all_are():
    with pytest.raises(ValueError, match="no figure 'zzz'; --json prints all"):
        holds("zzz>1", FIGURES)


def test_two_gates_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two sections of a report have a gate 'failed_share'; one of them is points"):
        figures([FUNNEL, section("points", {}, failed_share=1.0)])
