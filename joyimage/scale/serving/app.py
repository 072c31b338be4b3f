"""The endpoints: OpenAI's for pictures and chats, and those that locate and reason."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse

from ... import __version__
from ...errors import JoyImageError
from . import answers, site
from .bodies import parsed, spilt
from .errors import ApiError
from .fetching import fetched
from .fields import ChatFields, EditFields, Fields, GenerateFields, LocateFields, Made, ReasonFields
from .guard import SPARE, Guard, Rules, error_response
from .jobs import Job
from .pool import Pool, Ticket
from .requests import Reader, addresses, as_refusal

Given = TypeVar("Given", bound=Fields)
Asked = TypeVar("Asked", bound=Made)
Value = TypeVar("Value")

MODELS = (EditFields, GenerateFields, ChatFields, LocateFields, ReasonFields)
SCHEMAS = "#/components/schemas/{model}"
router = APIRouter()


class Service:
    """What the endpoints share: the pool and the name that the model goes by."""

    def __init__(self, pool: Pool, name: str):
        self.pool, self.name = pool, name

    async def fields(self, request: Request, model: type[Given]) -> Given:
        """A request's fields. Raises `ApiError`; before the body is kept where there is no place for it."""
        try:
            self.pool.check_place()
        except ApiError:
            await spilt(request, self.pool.serving.max_bytes)
            raise
        fields = await parsed(request, model, self.pool.serving)
        self.check_model(fields.model)
        return fields

    def check_model(self, name: str | None) -> None:
        if name not in (None, self.name):
            raise ApiError(
                404, f"there is no model {name!r:.60}; this server has {self.name}", param="model",
                code="model_not_found",
            )  # fmt: skip

    async def accept(self, way: Callable[[Reader, Given], Job], fields: Given) -> Ticket:
        """A place in the queue. Raises `ApiError` for fields that cannot be used."""
        serving = self.pool.serving
        reader = Reader(serving, self.pool.steps, await fetched(addresses(fields), serving))
        try:
            job = await asyncio.to_thread(way, reader, fields)
        except JoyImageError as error:
            raise as_refusal(error, type(fields).model_fields) from None
        return self.pool.submit(job)


def service(request: Request) -> Service:
    return request.app.state.service


async def unless_gone(request: Request, ticket: Ticket, work: Coroutine[Any, Any, Value]) -> Value:
    """What work comes to. The ticket is cancelled when the client goes before."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(499, "the client has gone")
        return working.result()
    except BaseException:
        ticket.cancel()
        raise
    finally:
        working.cancel()
        gone.cancel()


async def _first(texts: AsyncIterator[str]) -> str | None:
    return await anext(texts, None)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def takes(model: type[BaseModel], *kinds: str) -> dict[str, Any]:
    """A body for the OpenAPI page: it is read by `parsed`, of which FastAPI knows nothing."""
    schema = {"schema": {"$ref": SCHEMAS.format(model=model.__name__)}}
    return {"requestBody": {"required": True, "content": dict.fromkeys(kinds or ("application/json",), schema)}}


BOTH = ("multipart/form-data", "application/json")


@router.post("/v1/images/edits", openapi_extra=takes(EditFields, *BOTH))
async def edits(request: Request) -> Response:
    """Edit one to six pictures: by a prompt, or in space."""
    return await _pictures(request, EditFields, Reader.edit)


@router.post("/v1/images/generations", openapi_extra=takes(GenerateFields))
async def generations(request: Request) -> Response:
    """Make pictures from text."""
    return await _pictures(request, GenerateFields, Reader.generate)


async def _pictures(request: Request, model: type[Asked], read: Callable[[Reader, Asked], Job]) -> Response:
    fields = await service(request).fields(request, model)
    ticket = await service(request).accept(read, fields)
    result = await unless_gone(request, ticket, ticket.result())
    return JSONResponse(await asyncio.to_thread(answers.images, result, fields))


@router.post("/v1/chat/completions", openapi_extra=takes(ChatFields))
async def completions(request: Request) -> Response:
    """Answer a question about pictures, at once or word by word."""
    fields = await service(request).fields(request, ChatFields)
    ticket = await service(request).accept(Reader.chat, fields)
    name = service(request).name
    if not fields.stream:
        result = await unless_gone(request, ticket, ticket.result())
        return JSONResponse(answers.completion(result, name))
    texts = ticket.texts()
    first = await unless_gone(request, ticket, _first(texts))  # what cannot be answered still gets its status
    stream = answers.events(ticket, first, texts, name, fields.stream_options.include_usage)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.post("/v1/locate", openapi_extra=takes(LocateFields, *BOTH))
async def locate(request: Request) -> Response:
    """Boxes around an object, as left, top, right, bottom in pixels of the upright picture."""
    fields = await service(request).fields(request, LocateFields)
    ticket = await service(request).accept(Reader.locate, fields)
    result = await unless_gone(request, ticket, ticket.result())
    width, height = ticket.job.arguments["image"].size
    return JSONResponse({"boxes": result.boxes, "width": width, "height": height})


@router.post("/v1/reason", openapi_extra=takes(ReasonFields, *BOTH))
async def reason(request: Request) -> Response:
    """Answer a question from new views of a picture's scene, which the model asks for itself."""
    fields = await service(request).fields(request, ReasonFields)
    ticket = await service(request).accept(Reader.reason, fields)
    result = await unless_gone(request, ticket, ticket.result())
    return JSONResponse(await asyncio.to_thread(answers.reasoned, result))


@router.get("/v1/models")
async def models(request: Request) -> Response:
    """The one model that this server has."""
    return JSONResponse({"object": "list", "data": [answers.model(service(request).name)]})


@router.get("/v1/models/{name}")
async def one_model(request: Request, name: str) -> Response:
    """The same by its name."""
    service(request).check_model(name)
    return JSONResponse(answers.model(name))


@router.get("/health")
async def health(request: Request) -> Response:
    """200 while requests are taken, and else 503; how many wait and are at work, and for how long the model loads."""
    pool = service(request).pool
    loading = [member.seconds for member in pool.members if member.loading_it]
    told = {"status": _state(pool), "ready": pool.ready, "workers": len(pool.members)}
    told |= {"loading": len(loading), "loading_seconds": round(max(loading, default=0.0))}
    counts = {"waiting": len(pool.waiting), "running": pool.running}
    return JSONResponse(told | counts, 200 if pool.ready and not pool.draining else 503)


def _state(pool: Pool) -> str:
    if pool.draining:
        return "draining"
    if pool.ready == len(pool.members):
        return "ok"
    return "degraded" if pool.loaded_once else "loading"


router.add_route("/health", health, methods=["HEAD"], include_in_schema=False)  # how many balancers ask


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Counters in Prometheus's text format."""
    return Response(service(request).pool.meters.text(), media_type="text/plain; version=0.0.4")


def create_app(pool: Pool, name: str, *, key: str | None = None, local: bool = False) -> FastAPI:
    """The application over a pool, which it starts unless that was done, and stops at its end.

    Clients must send `key` where there is one; `local` refuses names that are not this machine's.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if not pool.started:
            await pool.start()
        yield
        await pool.stop()

    app = FastAPI(
        title="joyimage", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="JoyAI-Image behind OpenAI's protocol, with edits in space.",
    )  # fmt: skip
    app.state.service = Service(pool, name)
    app.include_router(router)
    app.router.routes.extend(site.routes())
    handlers = {ApiError: _on_error, HTTPException: _on_http, Exception: _on_fault}
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    paths = frozenset(route.path for route in router.routes if hasattr(route, "path"))  # pyright: ignore
    rules = Rules(key, local, pool.serving.queue + len(pool.members) * pool.serving.batch + SPARE, paths)
    app.add_middleware(Guard, rules=rules, meters=pool.meters)
    app.openapi = lambda: _described(app)
    return app


async def _on_error(_request: Request, error: Any) -> Response:
    return error_response(error)


async def _on_http(_request: Request, error: Any) -> Response:
    message = {404: "there is no such endpoint; /docs lists them", 405: "this endpoint takes another method"}
    answer = error_response(ApiError(error.status_code, message.get(error.status_code, str(error.detail))))
    answer.headers.update(error.headers or {})  # Allow, of 405
    return answer


async def _on_fault(_request: Request, error: Exception) -> Response:
    traceback.print_exception(error)
    return error_response(ApiError(500, "the server failed with this request; its log says how"))


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, with the bodies of requests."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, bodies = models_json_schema([(model, "validation") for model in MODELS], ref_template=SCHEMAS)
        schema.setdefault("components", {}).setdefault("schemas", {}).update(bodies["$defs"])
        app.openapi_schema = schema
    return app.openapi_schema
