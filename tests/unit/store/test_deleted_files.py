"""Files that are deleted under a node: the system takes, and syncs, what is written to them."""

import shutil
from pathlib import Path

import pytest

from pastryd.errors import StoreError
from pastryd.protocol.outbox import WriteStatus
from pastryd.store import data_directory, journal, lmdb_tree
from pastryd.store.lmdb_store import LmdbStore
from tests.unit.store.test_lmdb_store import MIB, OK, name_of, value_in, write


@pytest.mark.parametrize("file", ["", "store/data.mdb", "store/journal", "pastryd.lock"])
def test_what_would_be_gone_after_a_restart_is_not_acknowledged(tmp_path: Path, file: str) -> None:
    path = tmp_path / "data"
    store = LmdbStore(path, MIB)
    before, small, large = write(1, 100), write(2, 100), write(3, 100_000)
    assert store.apply([before]) == [OK]
    if file:
        (path / file).unlink()
    else:
        shutil.rmtree(path)
    for request in (small, large):
        assert store.apply([request]) == [WriteStatus.FAILED]
    with pytest.raises(StoreError, match=r"was deleted; stop this node"):
        store.put_meta("identity", b"key")
    assert value_in(store, 1) == before.value, "others may still want it"
    assert list(store.names(on_damage=pytest.fail)) == [name_of(1)], "so does the scrubber"
    store.close()


def test_a_file_system_that_counts_no_names_is_believed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (journal, lmdb_tree, data_directory):
        monkeypatch.setattr(module, "is_deleted", lambda fd: True)
    store = LmdbStore(tmp_path, MIB)
    assert store.apply([write(1, 100)]) == [OK]
    store.close()
