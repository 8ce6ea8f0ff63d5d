"""Every purchase of a record shop becomes a durable event, through a kill -9 in the middle.

    python examples/cdnow.py demo           a fresh store, one kill, and a check of every figure
    python examples/cdnow.py work STORE     the worker alone: sends what STORE does not hold yet

The worker keeps no notes of its own. A customer's revision says how many purchases the store holds, so that many are
skipped: rows of the file may be identical, which means that their values identify nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

import ego

DATA = Path(__file__).parent / "data" / "cdnow_master.txt.gz"
FIRST_YEAR = 1997
MONTHS = 18
CLIENTS = 1_000


class Buy(ego.Command):
    day: date
    cds: int
    cents: int


class Bought(ego.Event):
    day: date
    cds: int
    cents: int


class Account(ego.State):
    purchases: int = 0
    cds: int = 0
    cents: int = 0
    by_month: tuple[int, ...] = (0,) * MONTHS


class Customer(ego.EventSourcedBehavior[Buy, Bought, Account]):
    def initial_state(self) -> Account:
        return Account()

    def handle_command(self, command: Buy, state: Account, /) -> Bought:
        return Bought(command.day, command.cds, command.cents)

    def handle_event(self, event: Bought, state: Account, /) -> Account:
        month = month_index(event.day)
        months = state.by_month
        return Account(
            purchases=state.purchases + 1,
            cds=state.cds + event.cds,
            cents=state.cents + event.cents,
            by_month=(*months[:month], months[month] + event.cents, *months[month + 1 :]),
        )


class Purchase(NamedTuple):
    customer: str
    day: date
    cds: int
    cents: int


class Report(msgspec.Struct):
    """What a worker that came to its end tells the demo."""

    held: dict[str, int]
    recover_seconds: float
    sent: int
    send_seconds: float
    p50_seconds: float
    p99_seconds: float


def month_index(day: date) -> int:
    return (day.year - FIRST_YEAR) * 12 + day.month - 1


def read_purchases() -> list[Purchase]:
    """The file in order of date; what one customer bought on one day stays in the order of the file."""
    purchases: list[Purchase] = []
    with gzip.open(DATA, "rt", encoding="ascii") as lines:
        next(lines)
        for line in lines:
            customer, day, cds, dollars = line.split()
            cents = Decimal(dollars) * 100
            if cents != int(cents):
                raise ValueError(f"{DATA}: {dollars} dollars are no whole number of cents")
            when = date(int(day[:4]), int(day[4:6]), int(day[6:]))
            purchases.append(Purchase(customer, when, int(cds), int(cents)))
    purchases.sort(key=lambda purchase: purchase.day)
    return purchases


async def work(store: Path, acks: BinaryIO | None = None) -> Report:
    """The worker: finds out what the store holds and sends the rest, many at a time."""
    purchases = read_purchases()
    started = time.perf_counter()
    async with ego.Engine("cdnow", ego.LogStore(store), behaviors=[Customer]) as engine:
        customers = {name: engine.get(Customer, name) for name in sorted({p.customer for p in purchases})}
        held = {name: (await ref.state())[1] for name, ref in customers.items()}
        recover_seconds = time.perf_counter() - started

        missing = list(not_held(purchases, held))
        recovered = len(purchases) - len(missing)
        print(f"worker: the store holds {recovered:,} purchases (found in {recover_seconds:.3f} s),", end=" ")
        print(f"{len(missing):,} to send, {CLIENTS:,} at a time", flush=True)

        progress = Progress(recovered, len(purchases), acks)
        queue = iter(missing)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(client(queue, customers, progress))
        send_seconds = time.perf_counter() - started

    answers = sorted(progress.seconds) or [0.0]
    return Report(
        held=held,
        recover_seconds=recover_seconds,
        sent=len(missing),
        send_seconds=send_seconds,
        p50_seconds=answers[len(answers) // 2],
        p99_seconds=answers[len(answers) * 99 // 100],
    )


def not_held(purchases: Iterable[Purchase], held: Mapping[str, int]) -> Iterator[Purchase]:
    seen: Counter[str] = Counter()
    for purchase in purchases:
        seen[purchase.customer] += 1
        if seen[purchase.customer] > held[purchase.customer]:
            yield purchase


async def client(
    queue: Iterator[Purchase], customers: Mapping[str, ego.EntityRef[Buy, Account]], progress: Progress
) -> None:
    """One of many callers. They share the queue, and a command is accepted when `send` is called: order is kept."""
    for purchase in queue:
        sent = time.perf_counter()
        await customers[purchase.customer].send(Buy(purchase.day, purchase.cds, purchase.cents), timeout=None)
        progress.acknowledged(purchase.customer, time.perf_counter() - sent)


class Progress:
    def __init__(self, done: int, total: int, acks: BinaryIO | None) -> None:
        self.seconds: list[float] = []
        self._acks = acks
        self._total = total
        self._done = done

    def acknowledged(self, customer: str, seconds: float) -> None:
        if self._acks is not None:
            self._acks.write(f"{customer}\n".encode())
        self.seconds.append(seconds)
        self._done += 1
        if self._done * 10 % self._total < 10:
            print(f"worker: {self._done * 100 // self._total:3} %  {self._done:,} purchases on disk", flush=True)


def demo(seed: int) -> int:
    """Starts a worker, kills it, starts another, and checks what came out. Returns the exit code."""
    purchases = read_purchases()
    expected = plain_sums(purchases)
    share = random.Random(seed).uniform(0.30, 0.70)
    print(f"demo: {len(purchases):,} purchases of {len(expected):,} customers; seed {seed}: kill at {share:.1%}")

    with tempfile.TemporaryDirectory(prefix="ego-cdnow-") as folder:
        store, acks, report_file = Path(folder, "store"), Path(folder, "acks"), Path(folder, "report")
        kill_at(spawn_worker(store, acks, report_file), acks, int(len(purchases) * share))
        told = Counter(acks.read_text("ascii").split("\n")[:-1])
        if spawn_worker(store, acks, report_file).wait() != 0:
            raise SystemExit("demo: the second worker failed")
        report = msgspec.json.decode(report_file.read_bytes(), type=Report)
        found = asyncio.run(read_back(store, expected))

    recovered = sum(report.held.values())
    in_flight = min(CLIENTS, len(purchases) - told.total())
    sent_again = told.total() + in_flight - recovered
    print(f"\nacknowledged at the kill  {told.total():>9,}")
    print(f"recovered                 {recovered:>9,}   in {report.recover_seconds:.3f} s")
    print(f"sent again                {sent_again:>9,}   in flight at the kill and not stored")
    print(f"sent for the first time   {report.sent - sent_again:>9,}   by the second worker")
    print(f"commands per second       {report.sent / report.send_seconds:>9,.0f}   with {CLIENTS:,} callers")
    print(f"durable answer            {report.p50_seconds * 1e3:>9.2f} ms p50, {report.p99_seconds * 1e3:.2f} ms p99")
    print_figures(found)

    errors = list(differences(expected, found))
    if recovered > told.total() + in_flight:
        errors.append(f"{told.total()} acknowledged and {in_flight} in flight, but {recovered} recovered")
    errors += [f"customer {name}: acknowledged and not recovered" for name in told if told[name] > report.held[name]]
    for error in errors:
        print(f"WRONG: {error}")
    print("\ndemo: FAILED" if errors else "\ndemo: every figure equals the plain sum of the file")
    return 1 if errors else 0


def spawn_worker(store: Path, acks: Path, report: Path) -> subprocess.Popen[bytes]:
    acks.write_bytes(b"")
    return subprocess.Popen([sys.executable, __file__, "work", store, "--acks", acks, "--report", report])


def kill_at(worker: subprocess.Popen[bytes], acks: Path, count: int) -> None:
    """SIGKILL once `count` answers have reached the worker's callers. Each left a line of six bytes."""
    while acks.stat().st_size < count * 6:
        if worker.poll() is not None:
            raise SystemExit("demo: the worker ended before it could be killed")
        time.sleep(0.002)
    worker.kill()
    worker.wait()
    print("demo: worker killed with SIGKILL, starting another")


def plain_sums(purchases: Iterable[Purchase]) -> dict[str, Account]:
    """What the engine should come to, without the engine."""
    sums: dict[str, list[int]] = {}
    for purchase in purchases:
        row = sums.setdefault(purchase.customer, [0] * (3 + MONTHS))
        row[0] += 1
        row[1] += purchase.cds
        row[2] += purchase.cents
        row[3 + month_index(purchase.day)] += purchase.cents
    return {name: Account(row[0], row[1], row[2], tuple(row[3:])) for name, row in sums.items()}


async def read_back(store: Path, customers: Iterable[str]) -> dict[str, Account]:
    async with ego.Engine("cdnow", ego.LogStore(store), behaviors=[Customer]) as engine:
        return {name: (await engine.get(Customer, name).state())[0] for name in customers}


def differences(expected: Mapping[str, Account], found: Mapping[str, Account]) -> Iterator[str]:
    for name in expected:
        if expected[name] != found[name]:
            yield f"customer {name}: {found[name]}, but the file says {expected[name]}"


def print_figures(accounts: Mapping[str, Account]) -> None:
    states = accounts.values()
    print(f"\npurchases  {sum(state.purchases for state in states):>14,}")
    print(f"customers  {sum(state.purchases > 0 for state in states):>14,}")
    print(f"dollars    {dollars(sum(state.cents for state in states)):>14}")

    print("\nbest customers")
    for name, state in sorted(accounts.items(), key=lambda item: (-item[1].cents, item[0]))[:5]:
        print(f"  {name}  {dollars(state.cents):>10}  in {state.purchases} purchases")

    print("\ndollars per month")
    months = [sum(column) for column in zip(*(state.by_month for state in states), strict=True)]
    block = "█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"
    for index, cents in enumerate(months):
        bar = block * max(1, round(cents * 50 / max(months)))
        print(f"  {FIRST_YEAR + index // 12}-{index % 12 + 1:02}  {dollars(cents):>10}  {bar}")


def dollars(cents: int) -> str:
    return f"{Decimal(cents) / 100:,.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Every purchase of a record shop, as durable events.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("demo", help="a fresh store, one kill, and a check of every figure")
    run.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="decides when the worker is killed")
    worker = commands.add_parser("work", help="send what the store does not hold yet")
    worker.add_argument("store", type=Path)
    worker.add_argument("--acks", type=Path, help="file that takes a line per answer, outside the store")
    worker.add_argument("--report", type=Path, help="file that takes the worker's figures at its end")
    arguments = parser.parse_args()

    if arguments.command == "demo":
        return demo(arguments.seed)
    if arguments.acks is None:
        report = asyncio.run(work(arguments.store))
    else:
        with open(arguments.acks, "ab", buffering=0) as acks:
            report = asyncio.run(work(arguments.store, acks))
    if arguments.report is not None:
        arguments.report.write_bytes(msgspec.json.encode(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
