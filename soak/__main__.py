"""`python -m soak`: ends with 0 when nothing was lost, doubled or out of order, else with 1."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.testing import History
from soak.chaos import Chaos
from soak.deployment import Deployment
from soak.ledger_checks import flowing, judge, replay_dead_letters, settled

if TYPE_CHECKING:
    from shared.testing import Verdict


def main(
    minutes: Annotated[float, typer.Option(min=0.05, help="How long there are faults.")] = 10,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same faults.")] = None,
    rate: Annotated[float, typer.Option(min=1, help="Events a second, while all is well.")] = 600,
    settle_seconds: Annotated[
        float, typer.Option(help="How long nothing may come through once the faults are over.")
    ] = 60,
    keep: Annotated[bool, typer.Option("--keep", help="Keep history, logs and data.")] = False,
) -> None:
    """Let real faults loose on real services for a while, and check what came of it."""
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    folder = Path(tempfile.mkdtemp(prefix="glam-soak-"))
    folder.chmod(0o755)  # under root, PostgreSQL runs as another user
    print(f"soak: {minutes:g} minutes, seed {seed}, {rate:g} events a second", flush=True)
    kept = False
    try:
        kept = asyncio.run(_run(folder, minutes * 60, seed, rate, settle_seconds))
    finally:
        if kept and not keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"history, logs and data stay in {folder}")
    raise typer.Exit(0 if kept else 1)


async def _run(folder: Path, seconds: float, seed: int, rate: float, settle_seconds: float) -> bool:
    history = History(folder / "history-faults.jsonl", by="chaos")
    began = time.monotonic()
    async with Deployment(folder, rate=rate, seed=seed) as deployment:
        await flowing(deployment)
        chance = random.Random(seed)  # noqa: S311 - no secret
        await Chaos(deployment, chance, history).run(seconds)
        await deployment.quiet()
        done = await settled(deployment, settle_seconds)
        dead = await replay_dead_letters(deployment) if done else 0
        if dead:
            done = await settled(deployment, settle_seconds)
        effects, stream = await judge(deployment)
    _report(effects, stream, seconds=time.monotonic() - began, dead=dead, settled=done)
    return done and effects.ok and stream.ok and effects.effects > 0


def _report(effects: Verdict, stream: Verdict, *, seconds: float, dead: int, settled: bool) -> None:
    print(f"\nfaults: {sum(effects.faults.values())}")
    for kind, count in sorted(Counter(effects.faults).items()):
        print(f"  {count:4} {kind}")
    rate = effects.acknowledged / seconds
    print(f"events: {effects.acknowledged} in {seconds:.0f} s ({rate:.0f} a second)")
    print(f"in doubt: {effects.unknown} (their producer never heard of their commit)")
    print(f"dead letters: {dead}, replayed")
    for name, verdict in (("effects", effects), ("stream", stream)):
        print(f"{name}: {verdict.effects}")
        print(f"  losses: {len(verdict.lost)}")
        print(f"  doubles: {len(verdict.doubled)}")
        print(f"  never committed: {len(verdict.invented)}")
        print(f"  order violations: {len(verdict.misordered)}")
        if not verdict.ok:
            print(verdict)
    if not settled:
        print("not all came through in time: what is still on its way is counted as lost")


if __name__ == "__main__":
    typer.run(main)
