"""Handles with chosen ids, and the mix of ids that finds small-ring and tie bugs.

A real handle's id is a hash of its key, so nobody can choose it; `handle_at` puts one in its place.
Uniform ids alone never meet an edge, a tie or a near neighbour (TESTING.md).
"""

from hypothesis import strategies as st

from pastryd.ids import ID_BYTES, RING, RING_MASK, Name, NodeId, Position
from pastryd.state.handle import Handle

HALF = RING // 2
EDGES = (0, 1, HALF - 1, HALF, HALF + 1, RING_MASK)


def handle_at(
    node_id: int, incarnation: int = 1, host: str = "127.0.0.1", port: int = 4160
) -> Handle:
    """Return a handle with this very id (its key is made up and does not hash to it)."""
    handle = Handle(node_id.to_bytes(32, "big"), host, port, incarnation)
    object.__setattr__(handle, "id", Position(node_id))
    return handle


def handles_at(*node_ids: int) -> list[Handle]:
    """Return a handle for each id."""
    return [handle_at(node_id) for node_id in node_ids]


def name_at(position: int, tail: int = 0) -> Name:
    """Return a 32-byte name at this position."""
    return Name(position.to_bytes(ID_BYTES, "big") + tail.to_bytes(ID_BYTES, "big"))


def positions(around: int = 0) -> st.SearchStrategy[NodeId]:
    """Edges, small integers, neighbours of `around` within 40, and uniform ones."""
    return st.one_of(
        st.sampled_from(EDGES),
        st.integers(0, 64),
        st.integers(-40, 40).map(lambda d: (around + d) & RING_MASK),
        st.integers(0, RING_MASK),
    ).map(Position)


@st.composite
def rings(draw: st.DrawFn, nodes_min: int = 0, nodes_max: int = 40) -> tuple[NodeId, list[NodeId]]:
    """An owner and distinct other ids, in no particular order."""
    owner = draw(positions())
    others = draw(
        st.lists(
            positions(owner).filter(lambda node_id: node_id != owner),
            min_size=nodes_min,
            max_size=nodes_max,
            unique=True,
        )
    )
    return owner, others
