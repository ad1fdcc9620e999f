from __future__ import annotations

from fractions import Fraction

import pytest

from sslrob.epsilon import parse_epsilon, parse_text, write
from sslrob.errors import SslrobError


@pytest.mark.parametrize(
    ("text", "norm", "epsilon"),
    [
        ("linf:4/255", "linf", Fraction(4, 255)),
        ("linf:0.5/255", "linf", Fraction(1, 510)),
        ("linf:0.0157", "linf", Fraction(157, 10000)),
        ("linf:1", "linf", Fraction(1)),
        ("linf:1e-3", "linf", Fraction(1, 1000)),
        ("linf:255/255", "linf", Fraction(1)),
        ("linf: 4 / 255", "linf", Fraction(4, 255)),
        ("l2:0.5", "l2", Fraction(1, 2)),
        ("l2:128/255", "l2", Fraction(128, 255)),
        ("l2:3", "l2", Fraction(3)),
        ("l1:12", "l1", Fraction(12)),
    ],
)
def test_texts_are_read_exactly(text: str, norm: str, epsilon: Fraction) -> None:
    assert parse_text(text) == (norm, epsilon)
    assert parse_epsilon(text.partition(":")[2], norm) == epsilon


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("linf:4", "epsilon 4 of 'linf:4' is not on the [0, 1] scale", "did you mean linf:4/255?"),
        ("linf:1.5", "epsilon 1.5 of 'linf:1.5' is not on the [0, 1] scale", "did you mean linf:1.5/255?"),
        ("linf:300", "epsilon 300 of 'linf:300' is not on the [0, 1] scale", "such as 4/255"),
        ("linf:256/255", "is not on the [0, 1] scale", "such as 4/255"),
        ("linf:0", "epsilon 0 of 'linf:0' is not above 0", "such as 4/255"),
        ("l2:-1", "epsilon -1 of 'l2:-1' is not above 0", "such as 4/255"),
        ("l1:1e-999999999", "is not above 0", "such as 4/255"),
        ("linf:1e999999999", "epsilon '1e999999999' of 'linf:1e999999999' is not a number", "such as 4/255"),
        ("linf:nan", "is not a number", "such as 4/255"),
        ("linf:4/0", "is not a number", "such as 4/255"),
        ("linf:4/255/2", "is not a number", "such as 4/255"),
        ("linf:", "epsilon '' of 'linf:' is not a number", "such as 4/255"),
        ("linf:vier", "epsilon 'vier' of 'linf:vier' is not a number", "such as 4/255"),
        ("4/255", "threat model '4/255' has no epsilon", "such as linf:4/255"),
        ("Linf:4/255", "no norm is named 'Linf'", "did you mean 'linf'"),
        ("l3:1", "no norm is named 'l3'", "l2"),
    ],
)
def test_wrong_texts(text: str, message: str, hint: str) -> None:
    with pytest.raises(SslrobError) as caught:
        parse_text(text)
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_a_bare_epsilon_is_complained_about_as_it_was_written() -> None:
    with pytest.raises(SslrobError, match=r"^epsilon 4 is not on the \[0, 1\] scale$") as caught:
        parse_epsilon("4", "linf")
    assert caught.value.hint == "did you mean 4/255?"
    with pytest.raises(SslrobError, match="no norm is named 'l7'"):
        parse_epsilon("4/255", "l7")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("linf:8/510", "linf:4/255"),
        ("linf:4/255", "linf:4/255"),
        ("linf:0.5/255", "linf:0.5/255"),
        ("linf:0.25/255", "linf:0.25/255"),
        ("linf:0.0157", "linf:0.0157"),
        ("l2:0.50", "l2:0.5"),
        ("l2:3.0", "l2:3"),
        ("linf:1/7", "linf:1/7"),
    ],
)
def test_equal_threat_models_have_one_text(text: str, written: str) -> None:
    assert write(*parse_text(text)) == written
    assert parse_text(written) == parse_text(text)
