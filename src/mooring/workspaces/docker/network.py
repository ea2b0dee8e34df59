"""A network of its own for every workspace, and the guard that keeps a workspace away from the machine it is on.

The guard is a table of nftables on the host, the same for all workspaces, since their bridges are called `mrg…`. It
is set by a container in the host's network that lives for a fifth of a second: the server is not root, yet may use
the engine. Every start of a workspace sets it again first, and fails when that fails (docs/decisions/0004).
"""

import asyncio
import ipaddress
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from mooring.errors import Conflict, LimitExceeded, Misconfigured, NotFound
from mooring.workspaces.docker.container import INSTANCE, WORKSPACE, Names
from mooring.workspaces.docker.engine import DockerEngine, asking

IMAGE = "localhost/mooring-workspace:latest"
# 4,096 networks of 13 addresses. The engine's own pools end after about 30.
POOL = "10.213.0.0/16"
_PREFIX = 28
_TRIES = 8
_GUARD_WITHIN_S = 30

# A table of our own: a refusal in it is final whatever Docker, ufw or firewalld accept in theirs, and none of them
# flushes it. Made anew as one transaction, so that it is never missing nor half there.
#
# input: what a workspace sends to any address of the host, its bridge's included; only answers pass.
# forward, to a workspace: nobody but the host itself, so no neighbour.
# forward, from a workspace: no port that a container publishes on the host (dnat), no link-local address (the cloud's
# metadata), no other bridge of the host.
RULES = """
add table inet mooring
delete table inet mooring
table inet mooring {
  chain input {
    type filter hook input priority -10; policy accept;
    iifname != "mrg*" return
    ct state established,related return
    reject with icmpx type port-unreachable
  }
  chain forward {
    type filter hook forward priority -10; policy accept;
    iifname != "mrg*" oifname != "mrg*" return
    oifname "mrg*" ct state established,related return
    oifname "mrg*" reject with icmpx type port-unreachable
    ct status dnat reject with icmpx type port-unreachable
    ip daddr { 169.254.0.0/16, 127.0.0.0/8 } reject with icmpx type port-unreachable
    ip6 daddr { fe80::/10, fd00:ec2::254 } reject with icmpx type port-unreachable
    oifname { "docker*", "br-*", "virbr*", "cni*", "lxc*" } reject with icmpx type port-unreachable
  }
}
"""
# Inside a workspace's own network namespace.
LOOPBACK = """
add table ip mooring
delete table ip mooring
table ip mooring {
  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    iifname "eth0" meta l4proto tcp dnat to 127.0.0.1
  }
}
"""


class Guard:
    """Sets the rules on the engine's host. `image` holds `/usr/sbin/nft`: the workspaces' own."""

    def __init__(self, engine: DockerEngine, image: str = IMAGE) -> None:
        self._engine = engine
        self._image = image
        self._one = asyncio.Lock()
        self._begun = 0
        self._held = 0

    async def ensure(self) -> None:
        """Return only after the rules were set by a run that began after this call; callers at once share one.

        Raises:
            Misconfigured: they cannot be set, with the reason. No workspace may start then.
            Unavailable: the engine does not answer.
        """
        seen = self._begun
        async with self._one:
            if self._held > seen:
                return
            self._begun += 1
            await self._set()
            self._held = self._begun

    async def open_loopback(self, container: str) -> None:
        """Have what arrives at a container's own address answered by its 127.0.0.1.

        Most development servers listen there alone, and would be out of reach of their URL. It holds as long as the
        container runs. Raises what `ensure` raises.
        """
        status, said = await self._run(f"container:{container}", LOOPBACK)
        if status != 0:
            raise Misconfigured(f"nftables does not work in a workspace's network: {said or f'status {status}'}")

    async def _set(self) -> None:
        status, said = await self._run("host", RULES)
        if status != 0:
            raise Misconfigured(
                "workspaces are kept from the machine's own services by nftables, which does not work here, "
                f"so none is started: {said or f'status {status}'}"
            )

    async def _run(self, network: str, rules: str) -> tuple[int, str]:
        image = await self._engine.image(self._image)
        async with asking("the guard of the workspaces' networks"):
            container = await self._engine.docker.containers.create(_guard(image["Id"], network, rules))
        try:
            async with asking("the guard of the workspaces' networks", _GUARD_WITHIN_S):
                await container.start()
                status = int((await container.wait())["StatusCode"])
                said = "" if status == 0 else "".join(await container.log(stdout=True, stderr=True))
        finally:
            await self._engine.remove(container.id)
        return status, said.strip()[-500:]


def _guard(image: str, network: str, rules: str) -> dict[str, Any]:
    return {
        "Image": image,
        "User": "0:0",
        "Entrypoint": ["/usr/sbin/nft", rules],
        "Cmd": [],
        "Labels": {"mooring.guard": "1"},
        "HostConfig": {
            "NetworkMode": network,
            "UsernsMode": "host",
            "CapDrop": ["ALL"],
            "CapAdd": ["NET_ADMIN"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
        },
    }


class Networks:
    """One network a workspace, out of `pool`. Without IPv6: the engines of today give it no address translation."""

    def __init__(self, engine: DockerEngine, instance: str, pool: str = POOL) -> None:
        self._engine = engine
        self._instance = instance
        self._pool = ipaddress.IPv4Network(pool)

    async def ensure(self, workspace_id: str) -> str:
        """Make it if it does not exist; the address that its one container has, at every start the same.

        Raises:
            LimitExceeded: the pool is used up.
        """
        name = Names(workspace_id).all
        for _ in range(_TRIES):
            async with asking("the list of networks"):
                existing = await self._engine.docker.networks.list()
            for network in existing:
                if network["Name"] == name:
                    return _address(ipaddress.IPv4Network(network["IPAM"]["Config"][0]["Subnet"]))
            subnet = self._free(existing)
            try:
                async with asking(f"network {name}"):
                    await self._engine.docker.networks.create(self._document(workspace_id, subnet))
            except Conflict:
                continue  # somebody took that part of the pool since the list was read
            return _address(subnet)
        raise LimitExceeded(f"no free network of {self._pool} was found in {_TRIES} tries")

    async def remove(self, workspace_id: str) -> None:
        """Remove it. Absence is no error."""
        name = Names(workspace_id).all
        try:
            async with asking(f"removing the network {name}"):
                await (await self._engine.docker.networks.get(name)).delete()
        except NotFound:
            return

    def _free(self, existing: Iterable[Mapping[str, Any]]) -> ipaddress.IPv4Network:
        taken = [
            ipaddress.ip_network(config["Subnet"])
            for network in existing
            for config in network["IPAM"]["Config"] or ()
            if "Subnet" in config
        ]
        used = [subnet for subnet in taken if isinstance(subnet, ipaddress.IPv4Network)]
        subnets = list(self._pool.subnets(new_prefix=_PREFIX))
        # From a random place: two servers that start workspaces at once would choose the same otherwise.
        begin = secrets.randbelow(len(subnets))
        for subnet in subnets[begin:] + subnets[:begin]:
            if not any(subnet.overlaps(other) for other in used):
                return subnet
        raise LimitExceeded(f"every network of {self._pool} is in use")

    def _document(self, workspace_id: str, subnet: ipaddress.IPv4Network) -> dict[str, Any]:
        names = Names(workspace_id)
        return {
            "Name": names.all,
            "Driver": "bridge",
            "CheckDuplicate": True,
            "EnableIPv6": False,
            "IPAM": {"Config": [{"Subnet": str(subnet)}]},
            "Options": {"com.docker.network.bridge.name": names.bridge},
            "Labels": {INSTANCE: self._instance, WORKSPACE: workspace_id},
        }


def _address(subnet: ipaddress.IPv4Network) -> str:
    # The first one is the bridge's own.
    return str(subnet.network_address + 2)
