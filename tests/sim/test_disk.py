"""`sim/disk.py`: in virtual time, too, a store does one write after the other."""

from pastryd.ids import Name
from pastryd.protocol.outbox import DeleteItem, ReadItem, WriteItem
from pastryd.sim.disk import VirtualDisk

NAME = Name(bytes(32))


def test_a_write_does_not_overtake_a_delete_that_a_slow_disk_works_on() -> None:
    """Seed 802012: the item was written again at once, and deleted eight seconds later."""
    disk = VirtualDisk(write_s=8.0)
    deleted_at = disk.done_at(DeleteItem(1, NAME), 100.0)
    disk.write_s = 0.001
    assert deleted_at == 108.0
    assert disk.done_at(WriteItem(2, NAME, b"x"), 103.0) == deleted_at
    assert disk.done_at(WriteItem(3, NAME, b"x"), 109.0) == 109.001


def test_reads_wait_for_nobody() -> None:
    disk = VirtualDisk(write_s=8.0)
    disk.done_at(WriteItem(1, NAME, b"x"), 100.0)
    assert disk.done_at(ReadItem(2, NAME, 0, -1), 100.0) == 100.0
