"""The soak, for a few seconds; and that it would tell."""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.testing import History
from soak.chaos import Chaos
from soak.deployment import Deployment
from soak.ledger_checks import flowing, judge, settled

pytestmark = pytest.mark.servers


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="glam-soak-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


async def test_nothing_is_lost_doubled_or_out_of_order_and_it_would_be_told(folder: Path) -> None:
    async with Deployment(folder, rate=200, seed=5) as deployment:
        await flowing(deployment)
        with History(folder / "history-faults.jsonl", by="chaos") as history:
            await Chaos(deployment, random.Random(5), history).run(10)
        await deployment.quiet()
        assert await settled(deployment, 120)
        effects, stream = await judge(deployment)
        assert effects.ok, effects
        assert stream.ok, stream
        assert effects.acknowledged > 10
        assert effects.effects == stream.effects
        assert sum(effects.faults.values()) > 1

        await deployment.fetch(
            "DELETE FROM consumer.effects WHERE id = (SELECT min(id) FROM consumer.effects)"
        )
        await deployment.fetch(
            "INSERT INTO consumer.effects (event, key, number, applied_by)"
            " SELECT event, key, number, 'sabotage' FROM consumer.effects ORDER BY id LIMIT 1"
        )
        effects, stream = await judge(deployment)
        assert (len(effects.lost), len(effects.doubled)) == (1, 1)
        assert "sabotage" in effects.doubled[0]
        assert stream.ok
