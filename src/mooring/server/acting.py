"""Root's own work on what belongs to the user that Mooring runs as."""

import os
import pwd

from mooring.settings import Home, take_environment


def act_as_owner(home: Home) -> None:
    """As root, become the user that the home belongs to, for good; anybody else stays who they are.

    What root made there, that user could neither change nor add to; git refuses another user's clones; and a link that
    was put there must not lead root elsewhere.
    """
    if os.geteuid() != 0:
        return
    try:
        who = pwd.getpwuid(home.root.stat().st_uid)
    except (FileNotFoundError, KeyError):
        # Not made yet; or a volume from another machine, which `mooring up` refuses.
        return
    if who.pw_uid != 0:
        os.setgroups(os.getgrouplist(who.pw_name, who.pw_gid))
        os.setgid(who.pw_gid)
        os.setuid(who.pw_uid)
        take_environment(who.pw_dir, who.pw_name)
