"""Several servers on one database: what one of them changed holds at the others within a second."""

from mooring.accounts.service import Accounts
from mooring.accounts.sql import TOPIC as ACCOUNTS
from mooring.control.patience import until_available
from mooring.routes.published import Publisher
from mooring.routes.sql import TOPIC as SECTIONS
from mooring.store.changes import Changes


async def hear(changes: Changes, accounts: Accounts, publisher: Publisher) -> None:
    """Look again at what another server changed, for ever."""
    async for topic in changes.watch():
        if topic == ACCOUNTS:
            accounts.refresh()
        elif topic == SECTIONS:
            await until_available("published sections", publisher.restore)
