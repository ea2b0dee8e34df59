"""Whether a small file that a source sent is what it should be: sources answer 200 with a page of HTML, too."""

import json

from mooring.goproxy import semver
from mooring.goproxy.faults import BadUpstream
from mooring.goproxy.names import LONGEST_ELEMENT, Ask, Kind


def checked(ask: Ask, data: bytes) -> bytes:
    """A small file that is what it should be.

    Raises:
        BadUpstream: it is something else: a page of HTML, another version.
    """
    if ask.kind is Kind.list:
        return _checked_list(ask, data)
    if ask.kind is Kind.mod:
        if not data or data.lstrip()[:1] == b"<" or b"\0" in data:
            raise BadUpstream(f"{ask.label}: the source sends something that is no go.mod")
        return data
    return _checked_info(ask, data)


def _checked_list(ask: Ask, data: bytes) -> bytes:
    versions = set()
    for line in data.decode("ascii", errors="replace").splitlines():
        word = line.split(maxsplit=1)[0] if line.strip() else ""
        if len(word) > LONGEST_ELEMENT:
            # Nobody can ask for it, and Python refuses to read numbers of thousands of digits.
            continue
        if word and not semver.is_valid(word):
            raise BadUpstream(f"{ask.label}: the source sends {line[:60]!r} in a list of versions")
        if word and not semver.is_pseudo(word):
            versions.add(word)
    return "".join(f"{version}\n" for version in sorted(versions, key=semver.key)).encode()


def _checked_info(ask: Ask, data: bytes) -> bytes:
    try:
        version = json.loads(data)["Version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadUpstream(f"{ask.label}: the source sends something that is no version's info") from error
    if not isinstance(version, str) or not semver.is_canonical(version):
        raise BadUpstream(f"{ask.label}: the source names {version!r}, which is no canonical version")
    if ask.immutable and version != ask.version:
        raise BadUpstream(f"{ask.label}: the source answers with {version}")
    return data
