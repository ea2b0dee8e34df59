"""What a start would fail with, tried before anything is ended or begun: `python -m mooring.server.rehearsal FD [all]`.

A process of its own, as the user that Mooring's parts run as: what root may read says nothing about them. The settings
come in the open file FD, as a role's. What is wrong is on standard output, and the exit status is 1.

Tried is only what ends a start, or leaves it waiting. A template with a mistake, an engine or a Redis that is away keep
none: Mooring says so itself when it runs.
"""

import asyncio
import os
import sys

from mooring.accounts.disk import KeyFile, read_secret
from mooring.errors import MooringError
from mooring.gateway.authority import certificates
from mooring.server.files import gateway_credential, make_folders, modules_key
from mooring.settings import Home, Installation, load


def main(settings: int, *, replacing: bool) -> None:
    """Try it; with `replacing` also what a start would wait for, or what the Mooring that runs has found good."""
    with os.fdopen(settings, "rb") as file:
        file.seek(0)
        installation = load(file.read())
    try:
        _certificate(installation)
        if replacing:
            _home(installation.home)
            asyncio.run(_database(installation))
    except MooringError as error:
        sys.stdout.write(f"{error.detail}\n")
        sys.exit(1)


def _certificate(installation: Installation) -> None:
    # Nothing is made of the local authority: with another domain it would be anew below the gateway that runs.
    if installation.listen.tls:
        certificates(installation.listen, installation.home.tls).check()


def _home(home: Home) -> None:
    make_folders(home)
    gateway_credential(home)
    modules_key(home)
    KeyFile(home.keys).load()
    read_secret(home.admin_token)


async def _database(installation: Installation) -> None:
    if installation.database_url is None and not installation.home.database.exists():
        # Asking would make it.
        return
    # A plain start need not wait for its libraries.
    from mooring.store.database import Database, database_url  # noqa: PLC0415
    from mooring.store.migrate import check  # noqa: PLC0415

    database = Database(database_url(installation.database_url, installation.home.database))
    try:
        await check(database)
    finally:
        await database.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), replacing="all" in sys.argv[2:])
