"""`mooring console`: the page of one's workspaces, in a browser that is signed in."""

import webbrowser
from typing import Annotated

import typer

from mooring.api.http.schemas import ConsoleTicketCreate, Ticket
from mooring.cli.client import connect, document
from mooring.cli.language import _
from mooring.cli.output import Format, Output, note, value

JustPrint = Annotated[bool, typer.Option("--print", help=_("Print the link: it signs one browser in, once."))]


def console(*, just_print: JustPrint = False, output: Output = Format.table) -> None:
    """Open the console in the browser."""
    with connect() as api:
        link = api.post("me/ticket", Ticket, document(ConsoleTicketCreate)).url
    follow(link, output, just_print=just_print)


def follow(link: str, output: Format, *, just_print: bool) -> None:
    """Have a browser follow a one-time link, or print it where that is asked for or there is none."""
    if just_print or output is not Format.table:
        value("url", link, output)
    elif not webbrowser.open(link):
        note(_("There is no browser here. This link signs one in, once, within a minute:"))
        value("url", link, output)
