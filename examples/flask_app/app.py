"""A Flask application that has its work done by Relier. See README.md for how to run it."""

from __future__ import annotations

import math
from typing import Any

import redis
from flask import Flask, abort, jsonify, request, url_for
from tasks import count_words

from relier import (
    AdmissionRejectedError,
    ResultMissing,
    ResultTimeout,
    StoreUnavailableError,
    TaskFailedError,
    TaskReceipt,
)

app = Flask(__name__)

#: Longest time (s) for which a request waits for a result: it occupies a thread of the server.
LONGEST_WAIT = 10.0


def task_of_caller(task_id: str) -> TaskReceipt:
    """Return the receipt for an id from a URL.

    Here an application looks the id up among the tasks of the user who asks, and answers 404 when it is not there: else
    whoever knows an id reads and cancels, and ids that somebody made up fill the store with marks.
    """
    return TaskReceipt.from_id(task_id)


@app.errorhandler(AdmissionRejectedError)
def too_many_tasks(error: AdmissionRejectedError) -> Any:
    """Tell every client that was refused when to come again: whole seconds, and never too early."""
    return {"detail": "Too many tasks."}, 429, {"Retry-After": str(max(1, math.ceil(error.retry_after)))}


@app.errorhandler(StoreUnavailableError)
@app.errorhandler(redis.ConnectionError)  # What a push raises is the broker's.
@app.errorhandler(redis.TimeoutError)
def redis_is_away(error: Exception) -> Any:
    """The task may have been accepted or not; an `idempotency_key` would make another try harmless."""
    return {"detail": "Try again later."}, 503, {"Retry-After": "1"}


@app.post("/counts")
def create_count() -> Any:
    body = request.get_json()
    if not isinstance(body, dict) or not isinstance(body.get("text"), str):
        abort(400, "The body is a JSON object with a text.")
    receipt = count_words.push(body["text"])
    return {"id": receipt.id}, 202, {"Location": url_for("get_status", task_id=receipt.id, _external=True)}


@app.get("/tasks/<task_id>")
def get_status(task_id: str) -> Any:
    return {"id": task_id, "status": task_of_caller(task_id).status()}


@app.get("/tasks/<task_id>/result")
def get_result(task_id: str) -> Any:
    """Return the result; a client may `wait` some seconds for it."""
    wait = min(request.args.get("wait", 0.0, type=float), LONGEST_WAIT)
    try:
        return jsonify(id=task_id, result=task_of_caller(task_id).result(timeout=wait))
    except ResultTimeout:
        return {"id": task_id, "detail": "Not yet."}, 202
    except TaskFailedError as error:
        return {"id": task_id, "reason": error.reason}, 409
    except ResultMissing:
        return {"id": task_id, "detail": "No result is kept."}, 410


@app.delete("/tasks/<task_id>")
def cancel_task(task_id: str) -> Any:
    return {"id": task_id, "outcome": task_of_caller(task_id).cancel()}
