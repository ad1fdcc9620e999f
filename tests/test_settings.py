"""Settings from zoo entries become dataclasses, or errors that name what is wrong."""

from dataclasses import dataclass
from typing import Annotated

import pytest
from pydantic import Field

from sslrob.errors import SslrobError
from sslrob.settings import checked


@dataclass(frozen=True)
class Sizes:
    width: Annotated[int, Field(ge=8)] = 16
    levels: tuple[int, ...] = (1, 2)


def test_what_is_said_is_taken_and_the_rest_is_default():
    assert checked(Sizes, {}, "head 'x'") == Sizes()
    assert checked(Sizes, {"width": 32, "levels": [3]}, "head 'x'") == Sizes(32, (3,))


@pytest.mark.parametrize(
    ("given", "told", "hint"),
    [
        ({"wdth": 8}, "head 'x' has no setting 'wdth'", "did you mean 'width'?"),
        ({"colour": 8}, "head 'x' has no setting 'colour'", "its settings are width, levels"),
        ({"width": 4}, "setting 'width' of head 'x': input should be greater than or equal to 8, got 4", "settings: width, levels"),
        ({"levels": [1, "a"]}, "setting 'levels.1' of head 'x'", "correct it in the zoo entry"),
    ],
)
def test_what_is_wrong_is_told(given, told, hint):
    with pytest.raises(SslrobError) as error:
        checked(Sizes, given, "head 'x'")
    assert str(error.value).startswith(told)
    assert hint in error.value.hint
