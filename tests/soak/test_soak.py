"""The soak, for a few seconds; and that it would tell."""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.testing import History
from soak.books import flowing, judge, settled
from soak.chaos import Chaos
from soak.stage import Stage

pytestmark = pytest.mark.servers


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="glam-soak-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


async def test_nothing_is_lost_doubled_or_out_of_order_and_it_would_be_told(folder: Path) -> None:
    async with Stage(folder, rate=200, seed=5) as stage:
        await flowing(stage)
        with History(folder / "history-faults.jsonl", by="chaos") as history:
            await Chaos(stage, random.Random(5), history).run(10)
        await stage.quiet()
        assert await settled(stage, 120)
        effects, stream = await judge(stage)
        assert effects.ok, effects
        assert stream.ok, stream
        assert effects.acknowledged > 10
        assert effects.effects == stream.effects
        assert sum(effects.faults.values()) > 1

        await stage.fetch(
            "DELETE FROM consumer.effects WHERE id = (SELECT min(id) FROM consumer.effects)"
        )
        await stage.fetch(
            "INSERT INTO consumer.effects (event, key, number, applied_by)"
            " SELECT event, key, number, 'sabotage' FROM consumer.effects ORDER BY id LIMIT 1"
        )
        effects, stream = await judge(stage)
        assert (len(effects.lost), len(effects.doubled)) == (1, 1)
        assert "sabotage" in effects.doubled[0]
        assert stream.ok
