"""A daemon loads nothing that it does not use, and gives memory back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pastryd.cli.footprint import give_back, without


def test_a_package_is_hidden_for_a_while_only() -> None:
    assert "wave" not in sys.modules
    with without("wave"), pytest.raises(ImportError):
        import wave  # noqa: PLC0415
    import wave  # noqa: PLC0415

    with without("wave"):
        assert sys.modules["wave"] is wave


def test_logs_come_without_rich_which_others_can_still_have() -> None:
    program = (
        "import sys, pastryd.cli.logs\n"
        "assert 'rich' not in sys.modules\n"
        "import rich.console\n"
        "pastryd.cli.logs.configure('console', 'info')\n"
        "pastryd.cli.logs.structlog.get_logger().info('event', what=1)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert b"event" in done.stderr and b"what=1" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and needs glibc")
def test_freed_memory_goes_back() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    blocks = [bytes(60_000) for _ in range(1000)]
    keep = bytes(60_000)  # above them: the heap cannot shrink at its end
    assert len(blocks) == 1000
    before = resident()
    del blocks
    give_back()
    assert resident() < before - (30 << 20)
    assert len(keep) == 60_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_code_that_was_run_before_goes_back_and_runs_again() -> None:
    program = (
        "import hashlib, re, ssl\n"
        "from pathlib import Path\n"
        "from pastryd.cli.footprint import give_back\n"
        "def file_kb():\n"
        "    status = Path('/proc/self/status').read_text()\n"
        "    return int(re.search(r'RssFile:\\s+(\\d+)', status)[1])\n"
        "first = hashlib.sha256(b'value').digest()\n"
        "before = file_kb()\n"
        "give_back()\n"
        "assert file_kb() < before * 0.8, (before, file_kb())\n"
        "assert hashlib.sha256(b'value').digest() == first\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
