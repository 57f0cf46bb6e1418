"""Addresses to join through: bounded, seeds first, our own never."""

from pastryd.state.remembered import DEPARTED_MAX, SEEDS_MAX, Remembered


def test_seeds_come_first_and_the_oldest_that_was_met_goes_first() -> None:
    remembered = Remembered()
    assert not remembered
    for port in range(SEEDS_MAX + 5):
        remembered.add_seeds([("10.0.0.1", port)])
    for port in range(DEPARTED_MAX + 5):
        remembered.add(("10.0.0.2", port))
    seeds = [("10.0.0.1", port) for port in range(SEEDS_MAX)]
    met = [("10.0.0.2", port) for port in range(5, DEPARTED_MAX + 5)]
    assert remembered.endpoints == [*seeds, *met]
    assert remembered.seed_count == SEEDS_MAX
    remembered.discard(seeds[0])
    remembered.note_found(met[0])
    remembered.note_found(seeds[1])
    assert remembered.endpoints == [*seeds[1:], *met[1:]]
    assert remembered.is_seed(seeds[1]) and not remembered.is_seed(met[1])
