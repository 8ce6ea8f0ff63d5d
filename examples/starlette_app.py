"""Accounts over HTTP: an engine that lives as long as the application.

    uvicorn --app-dir examples starlette_app:app
    curl -X POST localhost:8000/accounts/ann/deposits -d '{"cents": 500}'
    curl localhost:8000/accounts/ann

One process owns a store. A second worker (`uvicorn --workers 2`, or the same command in another terminal) does not
start: its `StoreLockedError` names the process that has the store. Give each worker a store of its own, or run one.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import ego


class Deposit(ego.Command):
    cents: int


class Withdraw(ego.Command):
    cents: int


class Deposited(ego.Event):
    cents: int


class Withdrawn(ego.Event):
    cents: int


class Balance(ego.State):
    cents: int = 0


class OverdrawnError(Exception):
    def __init__(self, wanted: int, held: int) -> None:
        super().__init__(f"{wanted} cents wanted, {held} held")
        self.wanted = wanted
        self.held = held


class Account(ego.EventSourcedBehavior[Deposit | Withdraw, Deposited | Withdrawn, Balance]):
    kind = "account"

    def initial_state(self) -> Balance:
        return Balance()

    def handle_command(self, command: Deposit | Withdraw, state: Balance, /) -> Deposited | Withdrawn:
        match command:
            case Deposit(cents):
                return Deposited(cents)
            case Withdraw(cents):
                if cents > state.cents:
                    raise OverdrawnError(cents, state.cents)
                return Withdrawn(cents)

    def handle_event(self, event: Deposited | Withdrawn, state: Balance, /) -> Balance:
        change = event.cents if isinstance(event, Deposited) else -event.cents
        return Balance(state.cents + change)


class Amount(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request."""

    cents: Annotated[int, msgspec.Meta(gt=0)]


amount = msgspec.json.Decoder(Amount)


def account_of(request: Request) -> ego.EntityRef[Deposit | Withdraw, Balance]:
    engine: ego.Engine = request.state.engine
    return engine.get(Account, request.path_params["name"])


async def deposit(request: Request) -> Response:
    body = amount.decode(await request.body())
    return answer(*await account_of(request).send(Deposit(body.cents)))


async def withdraw(request: Request) -> Response:
    body = amount.decode(await request.body())
    return answer(*await account_of(request).send(Withdraw(body.cents)))


async def balance(request: Request) -> Response:
    return answer(*await account_of(request).state())


def answer(state: Balance, revision: int) -> Response:
    return JSONResponse({"cents": state.cents, "revision": revision})


async def bad_request(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)


async def overdrawn(_: Request, error: Exception) -> Response:
    """A handler's exception arrives as itself, so it can be mapped like any other."""
    assert isinstance(error, OverdrawnError)
    return JSONResponse({"error": str(error), "wanted": error.wanted, "held": error.held}, status_code=409)


async def unavailable(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=503)


def create_app(store: str | Path) -> Starlette:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[dict[str, ego.Engine], None]:
        async with ego.Engine("bank", ego.LogStore(store), behaviors=[Account]) as engine:
            yield {"engine": engine}

    return Starlette(
        routes=[
            Route("/accounts/{name}", balance),
            Route("/accounts/{name}/deposits", deposit, methods=["POST"]),
            Route("/accounts/{name}/withdrawals", withdraw, methods=["POST"]),
        ],
        exception_handlers={
            msgspec.MsgspecError: bad_request,
            ego.InvalidEntityIdError: bad_request,
            OverdrawnError: overdrawn,
            ego.StorageError: unavailable,
            ego.CommandTimeoutError: unavailable,
        },
        lifespan=lifespan,
    )


app = create_app(os.environ.get("BANK_STORE", "bank.ego"))
