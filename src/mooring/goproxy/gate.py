"""Whether a request may go on: who asks, whether the module is theirs, and whether it may be used at all."""

import json
from collections.abc import Callable

from mooring.errors import Forbidden, NotFound
from mooring.goproxy.access import Access, Subject
from mooring.goproxy.names import Ask, Kind, SumdbAsk, parse_lookup
from mooring.goproxy.policy import Filter, Mark


class Gate:
    """Asked before every answer, hits included. Further gates (known vulnerabilities, licences) belong here."""

    def __init__(self, access: Access, rules: Filter, is_private: Callable[[str], bool]) -> None:
        self._access = access
        self._rules = rules
        self._is_private = is_private

    def subject(self, authorization: bytes, segment: str) -> Subject:
        """Who asks. Raises Unauthenticated."""
        return self._access.subject(authorization, segment)

    def admit(self, subject: Subject, ask: Ask) -> Mark:
        """How `subject` gets what is asked for.

        Raises:
            Forbidden: not at all; says why.
        """
        private = self._is_private(ask.module)
        if private:
            # Before the rules: what they say of it is for those who may have it.
            subject.check(ask.module)
        mark = self._rules.mark(ask.module, ask.version)
        # A client that is sent elsewhere would name the module there.
        return Mark.include if private else mark

    def admit_database(self, subject: Subject, ask: SumdbAsk) -> None:
        """Raise Forbidden for what would tell `subject` of private modules that are not theirs."""
        if ask.rest.startswith("tile/") and "/data/" in ask.rest and not subject.owns_all:
            raise Forbidden("tiles of records are for those who may have every private module")
        if ask.rest.startswith("lookup/"):
            module, _ = parse_lookup(ask.rest)
            if self._is_private(module):
                subject.check(module)

    def may(self, subject: Subject) -> Callable[[str], bool]:
        """Whether a module may be shown to `subject`."""
        return lambda module: not self._is_private(module) or subject.owns(module)

    @property
    def reads_answers(self) -> bool:
        """Whether `allowed` has to see what changes."""
        return self._rules.active

    def allowed(self, ask: Ask, data: bytes) -> bytes:
        """What is left of a list, latest or branch: of excluded versions nobody learns by asking for the newest.

        Raises:
            NotFound: latest is excluded, and the client should choose from the list.
            Forbidden: the branch stands for a version that is excluded.
        """
        if ask.kind is Kind.list:
            lines = data.decode().splitlines()
            return "".join(f"{line}\n" for line in lines if self._rules.allows(ask.module, line)).encode()
        version = str(json.loads(data)["Version"])
        if ask.kind is Kind.latest and not self._rules.allows(ask.module, version):
            raise NotFound(f"{ask.module}@{version}, the latest version, is not allowed here")
        self._rules.mark(ask.module, version)
        return data
