"""The example programs do what they say."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from starlette_app import create_app

import ego

EXAMPLES = Path(__file__).parents[2] / "examples"

SECOND_WORKER = """
import asyncio, sys
import ego, starlette_app

async def main():
    app = starlette_app.create_app(sys.argv[1])
    try:
        async with app.router.lifespan_context(app):
            print("started")
    except ego.StoreLockedError as error:
        print("refused:", error)

asyncio.run(main())
"""


@asynccontextmanager
async def served(store: Path) -> AsyncGenerator[httpx.AsyncClient, None]:
    """The application as a server runs it: its lifespan around the requests, the lifespan's state in each of them."""
    app = create_app(store)
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        transport = httpx.ASGITransport(app=with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://bank") as client:
            yield client


def test_money_goes_in_and_out_over_http_and_survives_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path / "bank") as bank:
            paid_in = await bank.post("/accounts/ann/deposits", json={"cents": 500})
            assert paid_in.json() == {"cents": 500, "revision": 1}
            paid_out = await bank.post("/accounts/ann/withdrawals", json={"cents": 200})
            assert paid_out.json() == {"cents": 300, "revision": 2}
            assert (await bank.get("/accounts/bob")).json() == {"cents": 0, "revision": 0}
        async with served(tmp_path / "bank") as bank:
            assert (await bank.get("/accounts/ann")).json() == {"cents": 300, "revision": 2}

    asyncio.run(run())


def test_a_refusal_of_the_handler_and_a_bad_request_have_their_status(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path / "bank") as bank:
            await bank.post("/accounts/ann/deposits", json={"cents": 100})
            refused = await bank.post("/accounts/ann/withdrawals", json={"cents": 101})
            assert refused.status_code == 409
            assert refused.json() == {"error": "101 cents wanted, 100 held", "wanted": 101, "held": 100}
            assert (await bank.post("/accounts/ann/deposits", json={"cents": -1})).status_code == 400
            assert (await bank.post("/accounts/ann/deposits", content=b"no json")).status_code == 400
            assert (await bank.get("/accounts/" + "x" * 256)).status_code == 400
            assert (await bank.get("/accounts/ann")).json() == {"cents": 100, "revision": 1}

    asyncio.run(run())


def test_a_second_worker_process_does_not_start_and_is_told_who_has_the_store(tmp_path: Path) -> None:
    store = tmp_path / "bank"

    def second_worker() -> str:
        command = [sys.executable, "-c", SECOND_WORKER, str(store)]
        return subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, check=True, timeout=60).stdout

    async def run() -> None:
        async with served(store) as bank:
            said = await asyncio.to_thread(second_worker)
            assert said.startswith("refused:")
            assert f"process {os.getpid()}" in said
            assert (await bank.get("/accounts/ann")).status_code == 200

    asyncio.run(run())


def test_a_second_application_in_the_same_process_is_refused_too(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path / "bank"):
            with pytest.raises(ego.StoreLockedError) as refusal:
                async with served(tmp_path / "bank"):
                    pass
            assert refusal.value.pid == os.getpid()

    asyncio.run(run())


def test_every_purchase_of_the_record_shop_survives_the_kill_in_the_middle() -> None:
    demo = [sys.executable, str(EXAMPLES / "cdnow.py"), "demo", "--seed", "7"]
    done = subprocess.run(demo, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2,500,315.63" in done.stdout
    assert "23,570" in done.stdout
