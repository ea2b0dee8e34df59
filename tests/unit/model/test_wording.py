"""The words in which pydantic's findings reach a person."""

import pytest
from pydantic import BaseModel, Field, ValidationError

from mooring.model.wording import plain, said


class Inner(BaseModel):
    """A document in a document."""


class Document(BaseModel, extra="forbid"):
    """Some keys."""

    port: int = Field(ge=1, le=65535)
    share: float = 1.0
    names: tuple[str, ...] = ()
    text: str = Field(default="abc", min_length=3)
    on: bool = False
    by_name: dict[str, int] = Field(default_factory=dict)
    within: Inner = Inner()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "is required"),
        ({"port": 1, "prot": 2}, "there is no such key"),
        ({"port": "abc"}, "must be a whole number"),
        ({"port": 0}, "must be greater than or equal to 1"),
        ({"port": 1, "share": "much"}, "must be a number"),
        ({"port": 1, "names": "x"}, "must be a list"),
        ({"port": 1, "text": "x"}, "must have at least 3 characters"),
        ({"port": 1, "text": 7}, "must be text"),
        ({"port": 1, "on": "perhaps"}, "must be true or false"),
        ({"port": 1, "by_name": []}, "must be a table of keys and values"),
        ({"port": 1, "within": 7}, "must be a table of keys and values"),
    ],
)
def test_it_says_what_is_allowed(given: dict[str, object], text: str) -> None:
    """Each finding says what must be, without a word about Python's types or its parsers."""
    with pytest.raises(ValidationError) as raised:
        Document.model_validate(given)
    assert said(raised.value.errors()[0]) == text


def test_what_another_wrote_around_it_stays() -> None:
    """A text that holds one of pydantic's keeps its own beginning; one that holds none is left as it is."""
    found = "Invalid value for '--port': Input should be a valid integer, unable to parse string as an integer"
    assert plain(found) == "Invalid value for '--port': must be a whole number"
    assert plain("Invalid value for '-o': Value error, 'xml' is not one of these") == (
        "Invalid value for '-o': 'xml' is not one of these"
    )
    assert plain("No such option: --prot") == "No such option: --prot"
