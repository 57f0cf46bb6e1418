"""Many files at a time, told in the order in which they were named."""

import asyncio

import pytest

from pastryd.cli.in_order import AT_ONCE, in_order

SMALL = [f"small {i}" for i in range(100)]


class Puts:
    """What is put when; each ends when it is told to, or after some turns of the loop."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.under_way: set[str] = set()
        self.most = 0
        self.cancelled: list[str] = []
        self.turns: dict[str, int] = {}
        self.failing: set[str] = set()

    async def put(self, file: str) -> str:
        self.begun.append(file)
        self.under_way.add(file)
        self.most = max(self.most, len(self.under_way))
        if not file.startswith("small"):
            assert self.under_way == {file}, "it is alone"
        try:
            for _ in range(self.turns.get(file, 1)):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled.append(file)
            raise
        finally:
            self.under_way.remove(file)
        if file in self.failing:
            raise OSError(file)
        return file.upper()

    async def all(self, files: list[str]) -> list[tuple[str, str]]:
        return [
            outcome
            async for outcome in in_order(files, self.put, lambda name: name.startswith("small"))
        ]


async def test_small_ones_go_together_and_all_are_told_in_their_order() -> None:
    puts = Puts()
    puts.turns = {name: 50 - i % 50 for i, name in enumerate(SMALL)}
    files = [*SMALL[:40], "large", "large too", *SMALL[40:]]
    assert await puts.all(files) == [(name, name.upper()) for name in files]
    assert puts.most == AT_ONCE
    assert puts.begun == files


async def test_after_a_failure_what_is_done_is_told_and_the_rest_given_up() -> None:
    puts = Puts()
    puts.failing = {SMALL[3]}
    puts.turns = {SMALL[3]: 10, **dict.fromkeys(SMALL[8:], 1000)}
    told: list[str] = []
    with pytest.raises(OSError, match=SMALL[3]):
        async for file, _ in in_order(SMALL, puts.put, lambda name: True):
            told.append(file)
    assert told == [*SMALL[:3], *SMALL[4:8]]
    assert puts.begun == SMALL[: 3 + AT_ONCE]
    assert puts.cancelled == puts.begun[8:]


async def test_who_stops_listening_gives_up_what_is_under_way() -> None:
    puts = Puts()
    puts.turns = dict.fromkeys(SMALL[1:], 1000)
    outcomes = in_order(SMALL, puts.put, lambda name: True)
    assert await anext(outcomes) == (SMALL[0], SMALL[0].upper())
    await outcomes.aclose()
    assert not puts.under_way
    assert puts.cancelled == puts.begun[1:]
