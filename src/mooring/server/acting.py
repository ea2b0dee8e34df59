"""Root's own work on what belongs to the user that Mooring runs as."""

import os
import pwd
import shlex

from mooring.errors import Misconfigured
from mooring.settings import Home, take_environment


def act_as_owner(home: Home) -> None:
    """As root, become the user that the home belongs to, for good; anybody else stays who they are.

    What root made there, that user could neither change nor add to; git refuses another user's clones; and a link that
    was put there must not lead root elsewhere.

    Raises:
        Misconfigured: that user is none of this machine, as on a volume from another one.
    """
    if os.geteuid() != 0 or not home.root.exists():
        return
    owner = home.root.stat().st_uid
    try:
        who = pwd.getpwuid(owner)
    except KeyError:
        remedy = f"chown -R USER: {shlex.quote(str(home.root))}"
        text = f"{home.root} belongs to {owner}, which is no user of this machine: {remedy}"
        raise Misconfigured(text, field="MOORING_HOME") from None
    if who.pw_uid != 0:
        os.setgroups(os.getgrouplist(who.pw_name, who.pw_gid))
        os.setgid(who.pw_gid)
        os.setuid(who.pw_uid)
        take_environment(who.pw_dir, who.pw_name)
