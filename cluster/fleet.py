"""The host actors of one model: starting them, watching them, replacing the dead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from cluster.faults import FaultKind, classify
from cluster.placement import close_group, in_group, open_group
from cluster.resources import HOST_CPUS, Layout
from cluster.session import ClusterError
from engine.errors import ModelError

LOAD_SECONDS = 1800.0
"""Longest time a model may take to load before it counts as failed."""
PLACE_SECONDS = 120.0
"""Longest wait for the cluster to find room for a host."""
PING_SECONDS = 60.0


@dataclass(slots=True, eq=False)
class HostHandle:
    """A host and what is queued at it.

    Attributes:
        group: The placement group of a host whose model is spread over GPUs, or None.
    """

    name: str
    actor: Any
    group: Any = None
    in_flight: int = 0
    tokens: int = 0
    adapters: list[str] = field(default_factory=list)
    """Adapters sent there, the last one last; about what it has in memory."""

    def send(self, adapter: str, kept: int) -> None:
        """Note what a request asks for; the host keeps so many adapters."""
        if adapter in self.adapters:
            self.adapters.remove(adapter)
        held = [*self.adapters, adapter]
        spare = sum(map(bool, held)) - kept  # the base takes no room
        for name in [a for a in held if a][: max(spare, 0)]:
            held.remove(name)
        self.adapters = held


def nearest(hosts: Sequence[HostHandle], adapter: str, detour: int) -> HostHandle:
    """Return the host for a request: the emptiest, but rather one that has the adapter.

    Args:
        hosts: At least one.
        adapter: Digest, "" for the base, which every host has.
        detour: Tokens by which the queue of one that has it may be longer.
    """

    def length(host: HostHandle) -> tuple[int, bool]:
        absent = bool(adapter) and adapter not in host.adapters
        return host.tokens + detour * absent, host.adapters[-1:] != [adapter]

    return min(hosts, key=length)


class Fleet:
    """All hosts of one model.

    Args:
        actor_class: From `ray.remote`, with the concurrency groups `score` and `control`.
        make_args: Returns the constructor's arguments.
        layout: How many, and their share.
        max_replacements: Deaths without a commit between them after which the fleet gives up.
    """

    def __init__(
        self,
        actor_class: Any,
        make_args: Callable[[], tuple[Any, ...]],
        layout: Layout,
        max_replacements: int = 10,
    ) -> None:
        self._class = actor_class
        self._make_args = make_args
        self._layout = layout
        self._most = self._replacements = max_replacements
        self.hosts: list[HostHandle] = []
        self.info: Any = None

    def start(self) -> Any:
        """Start all hosts, wait until their models are loaded, and return the first one's info.

        Raises:
            ModelError: The model can't be loaded.
            ClusterError: The cluster has no room for the hosts.
        """
        for index in range(self._layout.hosts):
            group = open_group(self._layout.spread) if self._layout.spread > 1 else None
            self.hosts.append(HostHandle(f"host-{index}", self._spawn(group), group))
        infos = [self._load(host) for host in self.hosts]
        self.info = infos[0]
        if len({info.numerics for info in infos}) > 1:
            raise ClusterError(
                "the hosts' devices differ, so that their results would not compare: "
                f"{sorted({info.numerics for info in infos})}; use nodes of one kind"
            )
        return self.info

    def _spawn(self, group: Any) -> Any:
        # Their small share would else put all CPU hosts on one node.
        strategy: Any = "DEFAULT" if self._layout.gpus else "SPREAD"
        return self._class.options(
            num_cpus=HOST_CPUS,
            # of a group's GPUs each is held by a worker that the host starts
            num_gpus=0 if group else self._layout.gpus,
            scheduling_strategy=in_group(group) if group else strategy,
            max_restarts=0,
            max_task_retries=0,
        ).remote(*self._make_args())

    def _load(self, host: HostHandle) -> Any:
        placed = host.actor.ready.options(concurrency_group="control").remote()
        done, _ = ray.wait([placed], timeout=PLACE_SECONDS)
        if not done:
            raise ClusterError(
                f"no room for {host.name} ({self._layout.gpus:g} GPU) in {PLACE_SECONDS:.0f} s; "
                f"the cluster has {ray.available_resources()} free"
            )
        try:
            ray.get(placed)
            return ray.get(host.actor.load.remote(), timeout=LOAD_SECONDS)
        except ray.exceptions.RayError as error:
            raise ModelError(classify(error).message) from None

    def replace(self, host: HostHandle) -> bool:
        """Start a host in place of a dead one; return whether the fleet goes on.

        False after too many deaths.
        """
        self._replacements -= 1
        if self._replacements < 0:
            return False
        ray.kill(host.actor)
        host.actor, host.in_flight, host.tokens = self._spawn(host.group), 0, 0
        host.adapters = []
        self._load(host)
        return True

    def forgive(self) -> None:
        """Forget past deaths: work is getting done."""
        self._replacements = self._most

    def is_responsive(self, host: HostHandle) -> bool:
        """Return whether a host answers on its control group."""
        reply = host.actor.stats.options(concurrency_group="control").remote()
        done, _ = ray.wait([reply], timeout=PING_SECONDS)
        if not done:
            return False
        try:
            ray.get(reply)
        except ray.exceptions.RayError as error:
            return classify(error).kind is not FaultKind.LOST
        return True

    def ask(self, method: str) -> list[Any]:
        """Return what a control method, such as `stats`, gives on the hosts that are alive."""
        refs = [
            getattr(h.actor, method).options(concurrency_group="control").remote()
            for h in self.hosts
        ]
        done, _ = ray.wait(refs, num_returns=len(refs), timeout=PING_SECONDS)
        found = []
        for ref in done:
            try:
                found.append(ray.get(ref))
            except ray.exceptions.RayError as error:
                if classify(error).kind is not FaultKind.LOST:
                    raise
        return found

    def stop(self) -> None:
        """End all hosts."""
        for host in self.hosts:
            ray.kill(host.actor)
            if host.group is not None:
                close_group(host.group)
        self.hosts = []
