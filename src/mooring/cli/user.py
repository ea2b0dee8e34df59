"""`mooring user`: people, and the tokens that their clients use."""

from typing import Annotated
from urllib.parse import quote

import typer

from mooring.accounts.ports import Role
from mooring.api.http.schemas import Me, NewToken, Token, TokenCreate, User, UserCreate
from mooring.cli.application import noun
from mooring.cli.client import connect, document
from mooring.cli.completion import users
from mooring.cli.language import _
from mooring.cli.output import Column, Format, Output, ago, confirm, duration, moment, note, record, row, rows, value

app = noun(_("Manage users and their tokens."))
tokens = noun(_("Manage bearer tokens."))
app.add_typer(tokens, name="token")

UserName = Annotated[str, typer.Argument(metavar="USER", help=_("Name of a user."), autocompletion=users)]
MaybeUser = Annotated[
    str | None, typer.Argument(metavar="USER", help=_("Name of a user; oneself when absent."), autocompletion=users)
]


@app.command(help=_("Make a user; they get in with a token."))
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help=_("2 to 20 lower-case letters, digits and hyphens."))],
    *,
    admin: Annotated[bool, typer.Option("--admin", help=_("Sees everything and manages users and routes."))] = False,
    output: Output = Format.table,
) -> None:
    """Make one user."""
    body = document(UserCreate, name=name, role=Role.admin if admin else Role.member)
    with connect() as api:
        made = api.post("users", User, body)
    row(made, _USER, output)
    note(_("They get in with a token: mooring user token create {name}").format(name=made.name))


@app.command("list", help=_("List users."))
def list_(*, output: Output = Format.table) -> None:
    """List users."""
    with connect() as api:
        found = list(api.pages("users", User))
    rows(found, _USER, output, empty=_("No users."))


@app.command(help=_("Remove a user who has no workspaces."))
def remove(name: UserName, *, yes: Annotated[bool, typer.Option("--yes", "-y", help=_("Do not ask."))] = False) -> None:
    """Remove one user."""
    with connect() as api:
        found = api.get(f"users/{quote(name, safe='')}", User)
        if not yes:
            confirm(_("Remove the user {name}?").format(name=found.name))
        api.delete(f"users/{quote(found.name, safe='')}")
    note(_("{name} is removed.").format(name=found.name))


@tokens.command("create", help=_("Make a token and print it; it is shown this once."))
def create_token(
    user: MaybeUser = None,
    *,
    label: Annotated[str, typer.Option("--label", metavar="TEXT", help=_("What it is for."))] = "",
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help=_("Valid for so long, like 30d; else for good."))
    ] = None,
    output: Output = Format.table,
) -> None:
    """Make one token. Only the token goes to standard output, so that a script can take it."""
    seconds = None if expires is None else duration(expires, field="--expires", least="1m", most="3650d")
    body = document(TokenCreate, label=label, expires_in_s=seconds)
    with connect() as api:
        made = api.post(f"users/{_name(user or api.get('me', Me).name)}/tokens", NewToken, body)
    if output is not Format.table:
        record(made, {}, output)
        return
    note(_("Token {id} of {user}. Keep it: it is not shown again.").format(id=made.id, user=made.user))
    value("token", made.token, output)


@tokens.command("list", help=_("List tokens, without their secrets."))
def list_tokens(user: MaybeUser = None, *, output: Output = Format.table) -> None:
    """List the tokens of one user."""
    with connect() as api:
        found = list(api.pages(f"users/{_name(user or api.get('me', Me).name)}/tokens", Token))
    columns = [
        Column[Token](_("ID"), lambda item: item.id),
        Column[Token](_("USER"), lambda item: item.user),
        Column[Token](_("LABEL"), lambda item: item.label),
        Column[Token](_("AGE"), lambda item: ago(item.created_at), rank=2, right=True),
        Column[Token](_("EXPIRES"), lambda item: moment(item.expires_at) or _("never"), rank=1),
    ]
    rows(found, columns, output, empty=_("No tokens."))


@tokens.command(help=_("Revoke a token; what uses it ends within a second."))
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help=_("Id of a token."))],
    user: MaybeUser = None,
) -> None:
    """Revoke one token."""
    with connect() as api:
        owner = user or api.get("me", Me).name
        api.delete(f"users/{_name(owner)}/tokens/{quote(token, safe='')}")
    note(_("Token {id} of {user} is revoked.").format(id=token, user=owner))


def _name(user: str) -> str:
    return quote(user, safe="")


_USER = [
    Column[User](_("NAME"), lambda item: item.name),
    Column[User](_("ROLE"), lambda item: str(item.role)),
    Column[User](_("CREATED"), lambda item: moment(item.created_at), rank=1),
]
