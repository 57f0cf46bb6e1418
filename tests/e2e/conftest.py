"""Shared by the tests on real processes: how they are started, and what they measured."""

import signal
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.support.running_node import Running

Measured = Callable[[str, object], None]
_FIGURES: list[str] = []


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_arrives() -> None:
    """Do not hand down that Ctrl-C is ignored, as in what a shell runs in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Iterator[Measured]:
    """Note a figure; all are printed at the end, whatever the verbosity."""

    def note(what: str, value: object) -> None:
        shown = f"{value:.2f}" if isinstance(value, float) else str(value)
        _FIGURES.append(f"{request.node.name}: {what}: {shown}")

    yield note


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """Run an access node on a port of its own."""
    made = Running()
    yield made
    made.driver.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
    for figure in _FIGURES:
        terminalreporter.write_line(figure)
