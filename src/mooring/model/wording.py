"""What is wrong with a document or an argument, in our words: pydantic's own name its types and its sources. Pure."""

import re
from collections.abc import Mapping
from typing import Any

_KINDS = {"missing": "is required", "extra_forbidden": "there is no such key"}
_SHOULD = re.compile(r"\b(?:Input|String|Tuple|List|Set|Dictionary|Value|Data|Bytes) should\b")
# "…, unable to parse string as an integer": the value is what was given, and repeats nothing that helps.
_PARSER = re.compile(r", (?:unable to parse|unable to interpret)\b.*$")
# Names of our classes and of Python's exceptions.
_INTERNAL = re.compile(r"\bValue error, | or instance of \w+| or object to extract fields from")
_TYPES = {
    "a valid tuple": "a list",
    "a valid dictionary": "a table of keys and values",
    "a valid list": "a list",
    "a valid string": "text",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
}
_NAMES = re.compile("|".join(_TYPES))


def said(item: Mapping[str, Any]) -> str:
    """The text of one of `ValidationError.errors()`."""
    return _KINDS.get(item["type"]) or plain(str(item["msg"]))


def plain(text: str) -> str:
    """A text of pydantic's, whoever wrote something around it."""
    text = _PARSER.sub("", _SHOULD.sub("must", _INTERNAL.sub("", text)))
    return _NAMES.sub(lambda found: _TYPES[found[0]], text)
