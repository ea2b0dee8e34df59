"""Keys, tokens, sessions and what the gateways are told of them."""

import asyncio
import hashlib
import stat
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mooring.accounts.credentials import Caller
from mooring.accounts.disk import KeyFile, gateway_token, read_secret, write_secret
from mooring.accounts.keyring import AHEAD_S, SESSION_S, SIGNS_S, Keyring
from mooring.accounts.memory import MemoryAccounts, MemoryKeys
from mooring.accounts.ports import Role, Session, Token
from mooring.accounts.service import SHORT_SESSION_S, Accounts
from mooring.control.tasks import Tasks
from mooring.errors import Conflict, LimitExceeded, Misconfigured, Unavailable
from mooring.model.grants import Grants, SigningKey
from support.api import Hands

NOW = 1_732_170_000


class NoWorkspaces:
    """Nobody has any."""

    async def count(self, owner: str) -> int:
        assert owner
        return 0


class FullDisk(MemoryKeys):
    """Keys that cannot be kept."""

    def save(self, keys: tuple[SigningKey, ...]) -> None:
        raise Unavailable(f"no space left on device for {len(keys)} keys")


class FlakyStore(MemoryAccounts):
    """A store whose database is away while `away`."""

    away = False

    async def tokens(self, user: str | None) -> tuple[Token, ...]:
        if self.away:
            raise Unavailable("the database does not answer")
        return await super().tokens(user)


def accounts(store: MemoryAccounts | None = None, clock: Hands | None = None) -> Accounts:
    """Accounts in memory."""
    return Accounts(store or MemoryAccounts(), MemoryKeys(), clock or Hands(), NoWorkspaces())


def test_a_new_key_is_known_for_a_day_before_it_signs() -> None:
    """Rotation makes the next key a day ahead; until then the old one signs, and both verify."""
    ring = Keyring(MemoryKeys())
    assert ring.rotate(now=NOW)
    first = ring.signing(now=NOW)
    assert not ring.rotate(now=NOW + SIGNS_S - AHEAD_S - 1)
    assert ring.rotate(now=NOW + SIGNS_S - AHEAD_S)
    assert len(ring.keys) == 2
    assert ring.signing(now=NOW + SIGNS_S - 1) == first
    second = ring.signing(now=NOW + SIGNS_S)
    assert second != first
    assert ring.keys == (second, first)


def test_a_key_verifies_as_long_as_what_it_signed_lasts() -> None:
    """A cookie signed in the last second of a key is good for its whole week, and no key stays for longer."""
    ring = Keyring(MemoryKeys())
    ring.rotate(now=NOW)
    first = ring.signing(now=NOW + SIGNS_S - 1)
    ring.rotate(now=NOW + SIGNS_S + SESSION_S - 2)
    assert first in ring.keys
    ring.rotate(now=NOW + SIGNS_S + SESSION_S)
    assert first not in ring.keys


def test_after_a_long_sleep_a_fresh_key_signs() -> None:
    """A machine that slept for a year signs with a new key at once."""
    ring = Keyring(MemoryKeys())
    ring.rotate(now=NOW)
    assert ring.signing(now=NOW + 365 * 86400).not_after > NOW + 365 * 86400


def test_keys_that_cannot_be_kept_are_not_used() -> None:
    """With a full disk nothing is signed by a key that the next start would not know."""
    ring = Keyring(FullDisk())
    with pytest.raises(Unavailable):
        ring.rotate(now=NOW)
    assert ring.keys == ()


def test_keys_come_back_from_disk_and_nobody_else_reads_them(tmp_path: Path) -> None:
    """The file is 0600 in a 0700 folder, and the next start has the same keys."""
    ring = Keyring(KeyFile(tmp_path / "keys"))
    ring.rotate(now=NOW)
    file = tmp_path / "keys/signing.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert Keyring(KeyFile(tmp_path / "keys")).keys == ring.keys
    assert [path.name for path in file.parent.iterdir()] == ["signing.json"], "no temporary file is left"


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"id": "a"}]', '[{"id": "a", "secret": "?", "not_after": 1}]'])
def test_a_damaged_key_file_is_named(tmp_path: Path, text: str) -> None:
    """The operator is told which file to remove and what that costs."""
    write_secret(tmp_path / "signing.json", text)
    with pytest.raises(Misconfigured, match=r"signing\.json is damaged: remove it"):
        KeyFile(tmp_path).load()


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """A credential with open permissions is not used: the answer says what to type."""
    path = tmp_path / "gateway-token"
    path.write_text("x")
    path.chmod(0o644)
    with pytest.raises(Misconfigured, match="chmod 600"):
        gateway_token(tmp_path)


def test_the_gateways_credential_is_made_once(tmp_path: Path) -> None:
    """The same credential at every start."""
    made = gateway_token(tmp_path / "keys")
    assert len(made) >= 43
    assert gateway_token(tmp_path / "keys") == made
    assert read_secret(tmp_path / "none") is None


def test_a_secret_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """A path below a file cannot be made: an error, and nothing else has changed."""
    write_secret(tmp_path / "a", "old")
    with pytest.raises(Unavailable, match="cannot be written"):
        write_secret(tmp_path / "a" / "b", "new")
    assert read_secret(tmp_path / "a") == "old"


async def test_stores_and_gateways_know_hashes_only() -> None:
    """What is kept and what travels is the SHA-256 of a token."""
    it = accounts()
    await it.create_user("ada", Role.admin)
    token, secret = await it.create_token("ada", label="x")
    digest = hashlib.sha256(secret.encode()).hexdigest()
    assert token.sha256 == digest
    grants = await it.grants()
    assert {(grant.subject, grant.sha256 == digest) for grant in grants.tokens} == {
        ("ada", True),
        ("mooring:probe", False),
    }
    assert secret not in repr(grants)


async def next_of(stream: AsyncIterator[Grants]) -> Grants:
    """The next grants, soon."""
    async with asyncio.timeout(5):
        return await anext(stream)


async def test_every_change_is_told_at_once() -> None:
    """Who follows the grants sees each token, revocation, sign-out and removal without asking."""
    it = accounts()
    await it.create_user("ada", Role.admin)
    await it.create_user("bob")
    async with aclosing(it.follow_grants()) as stream:
        assert len((await next_of(stream)).keys) == 1
        token, _ = await it.create_token("bob", label="x")
        assert token.id in {grant.session for grant in (await next_of(stream)).tokens}
        await it.revoke_token("bob", token.id)
        after = await next_of(stream)
        assert token.id not in {grant.session for grant in after.tokens}
        assert after.revoked == (), "an unknown token is refused anyway: nothing of it takes room"
        secret, _ = await it.issue_ticket("bob", host="localhost", path="/")
        session = (await it.redeem(secret, host="localhost")).cookie.split(".")[2]
        await it.remove_user("bob")
        assert session in dict((await next_of(stream)).revoked)


async def test_a_database_that_is_away_does_not_end_the_grants(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last grants hold, and the next come once the database is back."""
    monkeypatch.setattr("mooring.accounts.standing.RETRY_S", 0.02)
    store = FlakyStore()
    it = accounts(store)
    await it.create_user("ada", Role.admin)
    async with aclosing(it.follow_grants()) as stream:
        await next_of(stream)
        store.away = True
        await it.create_user("bob")
        waiting = asyncio.get_running_loop().create_task(next_of(stream))
        await it.sign_out_everywhere("bob")
        await asyncio.sleep(0.05)
        assert not waiting.done()
        store.away = False
        assert (await waiting).keys


class CountingStore(MemoryAccounts):
    """Counts the looks at all that is revoked."""

    looks = 0

    async def revoked(self, *, now: float) -> tuple[Session, ...]:
        self.looks += 1
        await asyncio.sleep(0)
        return await super().revoked(now=now)


async def test_a_change_is_looked_at_once_for_all_streams() -> None:
    """However many streams are open, each ends with its own credential, and a change costs one look at the store."""
    clock, store = Hands(), CountingStore()
    it = accounts(store, clock)
    await it.create_user("ada", Role.admin)
    await it.create_user("bob")
    signed_in: list[Caller] = []
    tokens: list[Token] = []
    for user in ("ada", "bob"):
        token, secret = await it.create_token(user, label="x")
        tokens.append(token)
        signed_in.append(await it.authenticate_token(secret))
        ticket, _ = await it.issue_ticket(user, host="localhost", path="/")
        cookie = (await it.redeem(ticket, host="localhost")).cookie
        signed_in.append(await it.authenticate_cookie(cookie, audience="localhost"))
    async with asyncio.timeout(30), Tasks("streams") as tasks:
        streams = [[tasks.spawn("stream", it.until_invalid(caller)) for _ in range(100)] for caller in signed_in]
        await it.create_token("ada", label="another")
        await it.revoke_token("bob", tokens[1].id)
        await asyncio.wait(streams[2])
        await it.sign_out(signed_in[1].id)
        await asyncio.wait(streams[1])
        assert not any(stream.done() for stream in streams[0] + streams[3])
        await it.remove_user("bob")
        await asyncio.wait(streams[3])
        assert not any(stream.done() for stream in streams[0])
    # One for each change, and one for a change that comes while somebody looks.
    assert store.looks < 20


async def test_a_token_of_another_server_opens_streams_before_it_is_heard_of() -> None:
    """What another server made a moment ago is valid here at once, and what it ended ends here when it is heard of."""
    store = MemoryAccounts()
    here, there = accounts(store), accounts(store)
    await here.create_user("ada", Role.admin)
    await here.grants()
    token, secret = await there.create_token("ada", label="x")
    caller = await here.authenticate_token(secret)
    async with asyncio.timeout(30), Tasks("streams") as tasks:
        stream = tasks.spawn("stream", here.until_invalid(caller))
        await asyncio.sleep(0.05)
        assert not stream.done()
        await there.revoke_token("ada", token.id)
        here.refresh()
        await stream


async def test_the_machines_token_is_kept_while_it_works_and_replaced_when_lost() -> None:
    """The administrator's token of this machine is one: a new one ends the one that was lost."""
    it = accounts()
    first = await it.ensure_admin("ada", None)
    assert await it.ensure_admin("ada", first) == first
    second = await it.ensure_admin("ada", "mrg_" + "x" * 43)
    assert second != first
    assert await it.ensure_admin("ada", first) != first
    assert len(await it.tokens("ada")) == 1
    await it.create_user("bob")
    with pytest.raises(Conflict, match="no administrator"):
        await it.ensure_admin("bob", None)


async def test_a_person_has_a_limited_number_of_tokens() -> None:
    """A program that makes a token at each run is stopped before the gateways are full; Mooring starts all the same."""
    it = accounts()
    await it.create_user("ada", Role.admin)
    for _ in range(100):
        await it.create_token("ada", label="x")
    with pytest.raises(LimitExceeded, match="revoke one first"):
        await it.create_token("ada", label="x")
    first = await it.ensure_admin("ada", None)
    assert await it.ensure_admin("ada", "mrg_" + "x" * 43) != first
    assert len(await it.tokens("ada")) == 101


async def test_who_signs_in_without_end_takes_little_of_the_gateways_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended sessions are told to them for as long as a cookie could last: many are short, and more are refused."""
    monkeypatch.setattr("mooring.accounts.service.MANY_SESSIONS", 3)
    monkeypatch.setattr("mooring.accounts.service.MOST_SESSIONS", 5)
    clock = Hands()
    it = accounts(clock=clock)
    await it.create_user("ada", Role.admin)
    await it.create_user("bob")

    async def lasts_long(user: str) -> bool:
        ticket, _ = await it.issue_ticket(user, host="localhost", path="/")
        redeemed = await it.redeem(ticket, host="localhost")
        await it.sign_out(redeemed.cookie.split(".")[2])
        return redeemed.lasts_s > SHORT_SESSION_S

    assert [await lasts_long("bob") for _ in range(5)] == [True] * 3 + [False] * 2
    with pytest.raises(LimitExceeded, match="bob has signed in 5 times: wait an hour"):
        await lasts_long("bob")
    assert len((await it.grants()).revoked) == 5
    assert await lasts_long("ada")
    clock.ahead += SHORT_SESSION_S
    assert not await lasts_long("bob")
    assert len((await it.grants()).revoked) == 5


async def test_a_session_does_not_outlive_the_token_that_asked_for_it() -> None:
    """A token for an hour gives a browser an hour."""
    clock = Hands()
    it = accounts(clock=clock)
    await it.create_user("ada", Role.admin)
    _, secret = await it.create_token("ada", label="x", expires_in_s=3600)
    caller = await it.authenticate_token(secret)
    ticket, _ = await it.issue_ticket("ada", host="localhost", path="/", caller=caller)
    redeemed = await it.redeem(ticket, host="localhost")
    assert redeemed.lasts_s <= 3600
    assert await it.authenticate_cookie(redeemed.cookie, audience="localhost")
