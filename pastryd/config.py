"""Protocol parameters: one frozen value, two presets.

Each parameter's formula and trade-off is in `docs/parameters.md`. Times are seconds, sizes bytes.
Where the daemon listens and keeps its data is not the protocol's business (`cli/settings.py`).
"""

from dataclasses import dataclass, replace

from pastryd.errors import ConfigError

OBJECT_BYTES_MAX = 1 << 20
"""The largest item; larger blobs are chunked."""


@dataclass(frozen=True, slots=True)
class Config:
    """Parameters of one node; `lan()` is the default."""

    bits_per_digit: int = 4
    leaf_set_size: int = 16
    neighborhood_size: int = 16
    replicas: int = 3
    hops_max: int = 32

    # Per-hop acks: how fast a lookup goes around a silent hop.
    rto_initial_s: float = 0.05
    rto_min_s: float = 0.03
    rto_max_s: float = 0.5
    route_attempts: int = 12

    # Liveness: heartbeat, silence, direct probes, indirect probes, suspicion, death.
    heartbeat_s: float = 0.65
    heartbeat_grace_s: float = 0.25
    probe_timeout_s: float = 0.15
    probe_attempts: int = 2
    indirect_helpers: int = 3
    indirect_timeout_s: float = 0.25
    suspicion_min_s: float = 0.15
    suspicion_max_s: float = 0.45
    tombstone_s: float = 8.0
    stall_s: float = 0.25

    # Periodic repair of the overlay.
    leaf_set_exchange_s: float = 5.0
    table_probe_min_s: float = 10.0
    table_probe_max_s: float = 300.0
    table_repair_s: float = 30.0
    lookup_loss_target: float = 0.05
    merge_s: float = 10.0
    join_retry_s: float = 0.5
    join_retry_max_s: float = 10.0

    # Items.
    reconcile_s: float = 10.0
    repair_bytes_per_s: int = 64 << 20
    repair_pulls: int = 8
    put_timeout_s: float = 15.0
    get_timeout_s: float = 15.0
    leave_timeout_s: float = 15.0
    cache_bytes: int = 32 << 20

    # Datagrams.
    payload_bytes_max: int = 1135
    """1,200 less the header (49) and the seal's tag (16)."""
    datagram_bytes_max: int = 1200
    """The longest datagram that paths are probed for; a socket that forbids fragmentation: 65,000.
    """
    receive_window_bytes: int = 192 << 10
    """How much all pulls of a node together may have asked for and not received."""

    def __post_init__(self) -> None:
        if self.bits_per_digit not in (1, 2, 4, 8):
            raise ConfigError("bits_per_digit must be 1, 2, 4 or 8")
        if self.leaf_set_size < 4 or self.leaf_set_size % 2 or self.leaf_set_size > 16:
            raise ConfigError("leaf_set_size must be even and between 4 and 16")
        if not 1 <= self.replicas <= self.leaf_set_size // 2:
            raise ConfigError(
                f"replicas must be between 1 and {self.leaf_set_size // 2}, half the leaf set"
            )

    @classmethod
    def lan(cls, replicas: int = 3) -> "Config":
        """Machines in one room: a dead neighbour is declared within 2 s for at most 4 packets/s."""
        return cls(replicas=replicas)

    @classmethod
    def wan(cls, replicas: int = 3) -> "Config":
        """Machines anywhere: declared within 15 s for some 0.15 packets/s."""
        return replace(
            cls(replicas=replicas),
            rto_initial_s=0.5,
            rto_min_s=0.05,
            rto_max_s=3.0,
            heartbeat_s=10.0,
            heartbeat_grace_s=0.5,
            probe_timeout_s=1.0,
            indirect_timeout_s=1.5,
            suspicion_min_s=1.0,
            suspicion_max_s=2.0,
            tombstone_s=60.0,
            stall_s=1.0,
            leaf_set_exchange_s=300.0,
            table_probe_min_s=30.0,
            table_probe_max_s=1800.0,
            table_repair_s=300.0,
            merge_s=120.0,
            join_retry_s=1.0,
            join_retry_max_s=30.0,
            reconcile_s=60.0,
            repair_bytes_per_s=8 << 20,
            put_timeout_s=60.0,
            get_timeout_s=60.0,
            leave_timeout_s=60.0,
        )
