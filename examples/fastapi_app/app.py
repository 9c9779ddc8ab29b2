"""A FastAPI application that has its work done by Relier. See README.md for how to run it."""

from __future__ import annotations

import math
from typing import Annotated, Any

import redis
from fastapi import Depends, FastAPI, Query, Request, Response, status
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from tasks import count_words

from relier import (
    AdmissionRejectedError,
    ResultMissing,
    ResultTimeout,
    StoreUnavailableError,
    TaskFailedError,
    TaskReceipt,
)

app = FastAPI(title="Words")


class Text(BaseModel):
    text: str


def task_of_caller(task_id: str) -> TaskReceipt:
    """Return the receipt for an id from a URL.

    Here an application looks the id up among the tasks of the user who asks, and answers 404 when it is not there: else
    whoever knows an id reads and cancels, and ids that somebody made up fill the store with marks.
    """
    return TaskReceipt.from_id(task_id)


Task = Annotated[TaskReceipt, Depends(task_of_caller)]


@app.exception_handler(AdmissionRejectedError)
async def too_many_tasks(request: Request, error: AdmissionRejectedError) -> JSONResponse:
    """Tell every client that was refused when to come again: whole seconds, and never too early."""
    retry_after = max(1, math.ceil(error.retry_after))
    return JSONResponse(
        {"detail": "Too many tasks."}, status.HTTP_429_TOO_MANY_REQUESTS, {"Retry-After": f"{retry_after}"}
    )


@app.exception_handler(StoreUnavailableError)
@app.exception_handler(redis.ConnectionError)  # What a push raises is the broker's.
@app.exception_handler(redis.TimeoutError)
async def redis_is_away(request: Request, error: Exception) -> JSONResponse:
    """The task may have been accepted or not; an `idempotency_key` would make another try harmless."""
    return JSONResponse({"detail": "Try again later."}, status.HTTP_503_SERVICE_UNAVAILABLE, {"Retry-After": "1"})


@app.post("/counts", status_code=status.HTTP_202_ACCEPTED)
async def create_count(body: Text, request: Request, response: Response) -> dict[str, str]:
    receipt = await count_words.apush(body.text)
    response.headers["Location"] = str(request.url_for("get_status", task_id=receipt.id))
    return {"id": receipt.id}


@app.get("/tasks/{task_id}")
async def get_status(task: Task) -> dict[str, str]:
    return {"id": task.id, "status": await task.astatus()}


@app.get("/tasks/{task_id}/result")
async def get_result(task: Task, wait: Annotated[float, Query(ge=0, le=30)] = 0.0) -> Any:
    """Return the result; a client may `wait` some seconds for it, which blocks nobody else."""
    try:
        return {"id": task.id, "result": await task.aresult(timeout=wait)}
    except ResultTimeout:
        return JSONResponse({"id": task.id, "detail": "Not yet."}, status.HTTP_202_ACCEPTED)
    except TaskFailedError as error:
        return JSONResponse({"id": task.id, "reason": error.reason}, status.HTTP_409_CONFLICT)
    except ResultMissing:
        return JSONResponse({"id": task.id, "detail": "No result is kept."}, status.HTTP_410_GONE)


@app.delete("/tasks/{task_id}")
async def cancel_task(task: Task) -> dict[str, str]:
    return {"id": task.id, "outcome": await task.acancel()}
