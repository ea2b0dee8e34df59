"""What every store of accounts promises: in memory, on SQLite and on PostgreSQL."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mooring.accounts.memory import MemoryAccounts
from mooring.accounts.ports import AccountStore, Role, Session, Ticket, Token, User
from mooring.accounts.sql import SqlAccounts
from mooring.errors import Conflict, LimitExceeded, NotFound
from support import databases
from support.postgres import Postgres

ADA = User("ada", Role.admin, 1732170000.25)
BOB = User("bob", Role.member, 1732170001.5)
TOKEN = Token("t1", "ada", "laptop 'äöü'; --", "a" * 64, 100.0)
TICKET = Ticket("b" * 64, "ada", "one--ada.localhost", "/?a='b'", "", 1000.0, 5000.0)
SESSION = Session("s1", "ada", "localhost", "", 100.0, 5000.0)


@pytest.fixture(params=("memory", *databases.KINDS))
async def store(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres) -> AsyncIterator[AccountStore]:
    """An empty store but for ada and bob."""
    if request.param == "memory":
        made: AccountStore = MemoryAccounts()
        await populated(made)
        yield made
        return
    with databases.url_of(request.param, tmp_path, postgres) as url:
        async with databases.opened(url) as database:
            made = SqlAccounts(database)
            await populated(made)
            yield made


async def populated(store: AccountStore) -> None:
    """Add the two people of the suite."""
    await store.add_user(BOB)
    await store.add_user(ADA)


async def outcomes(*work: Coroutine[Any, Any, Any]) -> list[object]:
    """What each came to, run at once: its result or its error."""
    found: list[object] = []

    async def one(job: Coroutine[Any, Any, Any]) -> None:
        try:
            found.append(await job)
        except (NotFound, Conflict, LimitExceeded) as error:
            found.append(error)

    async with asyncio.TaskGroup() as group:
        for job in work:
            group.create_task(one(job))
    return found


async def test_users_are_kept_and_paged_by_name(store: AccountStore) -> None:
    """A user comes back as it was; pages are in the order of names."""
    assert await store.user("ada") == ADA
    assert await store.users(after="", limit=1) == (ADA,)
    assert await store.users(after="ada", limit=5) == (BOB,)
    with pytest.raises(NotFound):
        await store.user("eve")


async def test_a_name_is_taken_once(store: AccountStore) -> None:
    """Of two accounts with one name made at once, one is made."""
    eve = User("eve", Role.member, 1.0)
    found = await outcomes(store.add_user(eve), store.add_user(eve), store.add_user(eve))
    assert sum(isinstance(item, Conflict) for item in found) == 2


async def test_a_token_is_found_by_its_hash_and_listed_by_its_owner(store: AccountStore) -> None:
    """Tokens come back as they were, oldest first."""
    newer = replace(TOKEN, id="t0", sha256="c" * 64, created_at=200.0, expires_at=300.0)
    await store.add_token(newer, most=9)
    await store.add_token(TOKEN, most=9)
    await store.add_token(replace(TOKEN, id="t2", user="bob", sha256="d" * 64), most=9)
    assert await store.token("a" * 64) == TOKEN
    assert await store.tokens("ada") == (TOKEN, newer)
    assert len(await store.tokens(None)) == 3
    with pytest.raises(NotFound):
        await store.token("e" * 64)


async def test_nothing_is_added_for_a_user_that_does_not_exist(store: AccountStore) -> None:
    """Tokens, tickets and sessions need their user."""
    for work in (
        store.add_token(replace(TOKEN, user="eve"), most=9),
        store.add_ticket(replace(TICKET, user="eve"), now=0.0, most=9),
        store.add_session(replace(SESSION, user="eve"), most=9),
    ):
        with pytest.raises(NotFound):
            await work


async def test_a_removed_token_leaves_nothing(store: AccountStore) -> None:
    """Who makes and removes tokens in a loop fills neither the database nor the gateways; another's is not found."""
    await store.add_token(TOKEN, most=9)
    with pytest.raises(NotFound):
        await store.remove_token("bob", "t1", now=100.0)
    await store.remove_token("ada", "t1", now=100.0)
    with pytest.raises(NotFound):
        await store.token("a" * 64)
    assert await store.revoked(now=101.0) == ()
    with pytest.raises(NotFound):
        await store.remove_token("ada", "t1", now=100.0)


async def test_a_ticket_is_taken_once(store: AccountStore) -> None:
    """Of twenty that take a ticket at the same moment one gets it, whole."""
    await store.add_ticket(TICKET, now=0.0, most=9)
    found = await outcomes(*(store.take_ticket(TICKET.sha256) for _ in range(20)))
    assert [item for item in found if not isinstance(item, NotFound)] == [TICKET]


async def test_a_session_ends_with_what_it_came_from(store: AccountStore) -> None:
    """Revoking a session revokes its children and theirs, and nobody else's."""
    await store.add_session(SESSION, most=9)
    await store.add_session(replace(SESSION, id="s2", parent="s1", audience="one--ada.localhost"), most=9)
    await store.add_session(replace(SESSION, id="s3", parent="s2"), most=9)
    await store.add_session(replace(SESSION, id="s4"), most=9)
    await store.revoke_session("s1", now=150.0)
    assert {session.id for session in await store.revoked(now=151.0)} == {"s1", "s2", "s3"}
    assert (await store.session("s3")).revoked_at == 150.0
    assert await store.session("s4") == replace(SESSION, id="s4")
    await store.revoke_session("s1", now=170.0)
    assert (await store.session("s1")).revoked_at == 150.0, "the first time counts"
    with pytest.raises(NotFound):
        await store.revoke_session("s9", now=1.0)


async def test_what_came_from_a_token_ends_with_it(store: AccountStore) -> None:
    """A browser that a token signed in is signed out when the token is removed."""
    await store.add_token(TOKEN, most=9)
    await store.add_session(replace(SESSION, parent="t1"), most=9)
    await store.add_session(replace(SESSION, id="s2", parent="s1"), most=9)
    await store.remove_token("ada", "t1", now=150.0)
    assert {session.id for session in await store.revoked(now=151.0)} == {"s1", "s2"}


async def test_nothing_comes_from_what_has_ended(store: AccountStore) -> None:
    """A session whose parent is unknown or revoked is not made."""
    await store.add_session(SESSION, most=9)
    await store.revoke_session("s1", now=150.0)
    for parent in ("s1", "unknown"):
        with pytest.raises(NotFound):
            await store.add_session(replace(SESSION, id="s2", parent=parent), most=9)


async def test_a_child_made_while_its_parent_is_revoked_is_refused_or_revoked(store: AccountStore) -> None:
    """Whichever comes first, no session outlives the revocation of what it came from."""
    for number in range(10):
        parent, child = f"p{number}", f"c{number}"
        await store.add_session(replace(SESSION, id=parent), most=99)
        await outcomes(
            store.add_session(replace(SESSION, id=child, parent=parent), most=99),
            store.revoke_session(parent, now=150.0),
            store.add_session(replace(SESSION, id=child + "x", parent=parent), most=99),
        )
        for made in (child, child + "x"):
            with contextlib.suppress(NotFound):
                assert (await store.session(made)).revoked_at


async def test_a_removed_user_leaves_only_revocations(store: AccountStore) -> None:
    """Removing a user takes its tokens and tickets, ends its sessions, and leaves other people's alone."""
    await store.add_token(TOKEN, most=9)
    await store.add_ticket(TICKET, now=0.0, most=9)
    await store.add_session(SESSION, most=9)
    await store.add_session(replace(SESSION, id="s2", user="bob"), most=9)
    await store.remove_user("ada", now=150.0)
    assert {session.id for session in await store.revoked(now=151.0)} == {"s1"}
    assert await store.tokens(None) == ()
    with pytest.raises(NotFound):
        await store.take_ticket(TICKET.sha256)
    with pytest.raises(NotFound):
        await store.remove_user("ada", now=150.0)
    await store.add_user(ADA)
    assert (await store.session("s1")).revoked_at, "a new user of the old name gets no old session"


async def test_a_session_made_while_its_user_is_removed_is_refused_or_revoked(store: AccountStore) -> None:
    """Removal and sign-in at the same moment leave no valid session."""
    for number in range(10):
        name, session = f"u{number}", f"s{number}"
        await store.add_user(User(name, Role.member, 1.0))
        await outcomes(
            store.add_session(replace(SESSION, id=session, user=name), most=9),
            store.remove_user(name, now=150.0),
            store.add_token(replace(TOKEN, id=f"t{number}", user=name, sha256=f"{number:064d}"), most=9),
        )
        with pytest.raises(NotFound):
            await store.token(f"{number:064d}")
        with contextlib.suppress(NotFound):
            assert (await store.session(session)).revoked_at


async def test_every_session_of_a_user_ends_at_once(store: AccountStore) -> None:
    """Signing out everywhere is one call."""
    await store.add_session(SESSION, most=9)
    await store.add_session(replace(SESSION, id="s2"), most=9)
    await store.add_session(replace(SESSION, id="s3", user="bob"), most=9)
    await store.revoke_sessions("ada", now=150.0)
    assert {session.id for session in await store.revoked(now=151.0)} == {"s1", "s2"}


async def test_what_has_expired_is_forgotten(store: AccountStore) -> None:
    """Tidying removes what is past its time and keeps the rest; an expired revocation is told no longer."""
    await store.add_token(replace(TOKEN, expires_at=200.0), most=9)
    await store.add_token(replace(TOKEN, id="t2", sha256="f" * 64), most=9)
    await store.add_ticket(TICKET, now=0.0, most=9)
    await store.add_session(SESSION, most=9)
    await store.revoke_session("s1", now=150.0)
    await store.prune(now=999.0)
    assert [token.id for token in await store.tokens(None)] == ["t2"]
    assert len(await store.revoked(now=4999.0)) == 1
    assert await store.revoked(now=5000.0) == ()
    await store.prune(now=5000.0)
    with pytest.raises(NotFound):
        await store.session("s1")
    with pytest.raises(NotFound):
        await store.take_ticket(TICKET.sha256)


async def test_tokens_of_a_user_are_limited(store: AccountStore) -> None:
    """One more than allowed is refused to that user alone, until one is removed or has expired."""
    soon = replace(TOKEN, id="t0", sha256="0" * 64, expires_at=200.0)
    await store.add_token(soon, most=2)
    await store.add_token(TOKEN, most=2)
    third = replace(TOKEN, id="t2", sha256="c" * 64)
    with pytest.raises(LimitExceeded, match="ada has 2 tokens: revoke one first"):
        await store.add_token(third, most=2)
    await store.add_token(replace(TOKEN, id="t3", user="bob", sha256="d" * 64), most=2)
    await store.add_token(replace(third, created_at=200.0), most=2)
    assert [token.id for token in await store.tokens("ada")] == ["t1", "t2"]
    await store.remove_token("ada", "t1", now=201.0)
    await store.add_token(replace(TOKEN, id="t4", sha256="e" * 64), most=2)


async def test_many_at_once_do_not_pass_a_limit(store: AccountStore) -> None:
    """Of thirty tokens, links and sessions that are asked for at the same moment as many are made as are allowed."""
    hashes = [f"{number:064d}" for number in range(30)]
    tokens = (replace(TOKEN, id=f"t{sha256[-2:]}", sha256=sha256) for sha256 in hashes)
    found = await outcomes(*(store.add_token(token, most=7) for token in tokens))
    assert sum(isinstance(item, LimitExceeded) for item in found) == 23
    assert len(await store.tokens("ada")) == 7
    tickets = (replace(TICKET, sha256=sha256) for sha256 in hashes)
    found = await outcomes(*(store.add_ticket(ticket, now=0.0, most=7) for ticket in tickets))
    assert sum(isinstance(item, LimitExceeded) for item in found) == 23
    sessions = (replace(SESSION, id=sha256[-9:]) for sha256 in hashes)
    found = await outcomes(*(store.add_session(session, most=7) for session in sessions))
    assert sum(isinstance(item, LimitExceeded) for item in found) == 23


async def test_sessions_of_a_user_are_limited(store: AccountStore) -> None:
    """One more than allowed is refused to that user alone until one has expired; to end one makes no room."""
    await store.add_session(SESSION, most=2)
    await store.add_session(replace(SESSION, id="s2", expires_at=200.0), most=2)
    await store.revoke_session("s1", now=150.0)
    third = replace(SESSION, id="s3", created_at=199.0)
    with pytest.raises(LimitExceeded, match="ada has signed in 2 times"):
        await store.add_session(third, most=2)
    await store.add_session(replace(third, user="bob"), most=2)
    await store.add_session(replace(third, id="s4", created_at=200.0), most=2)


async def test_unused_tickets_of_a_user_are_limited(store: AccountStore) -> None:
    """One more than allowed is refused to that user alone, until one was used or has expired."""
    for number in range(2):
        await store.add_ticket(replace(TICKET, sha256=f"{number}" * 64), now=0.0, most=2)
    with pytest.raises(LimitExceeded, match="ada has 2 unused sign-in links"):
        await store.add_ticket(TICKET, now=0.0, most=2)
    await store.add_ticket(replace(TICKET, sha256="c" * 64, user="bob"), now=0.0, most=2)
    await store.take_ticket("0" * 64)
    await store.add_ticket(TICKET, now=0.0, most=2)
    await store.add_ticket(replace(TICKET, sha256="d" * 64, expires_at=9000.0), now=2000.0, most=1)
    with pytest.raises(NotFound):
        await store.take_ticket(TICKET.sha256)
