"""Views of the Django example."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import redis
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from relier import (
    AdmissionRejectedError,
    ResultMissing,
    ResultTimeout,
    StoreUnavailableError,
    TaskFailedError,
    TaskReceipt,
)
from words.tasks import count_words

#: Longest time (s) for which a request waits for a result: it occupies a thread of the server.
LONGEST_WAIT = 10.0


class RelierErrors:
    """Middleware that turns what Relier raises in any view into a response."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if isinstance(error, AdmissionRejectedError):  # Whole seconds, and never too early.
            retry_after = max(1, math.ceil(error.retry_after))
            return JsonResponse({"detail": "Too many tasks."}, status=429, headers={"Retry-After": str(retry_after)})
        # What a push raises is the broker's: the task may have been accepted or not; an `idempotency_key` would make
        # another try harmless.
        if isinstance(error, StoreUnavailableError | redis.ConnectionError | redis.TimeoutError):
            return JsonResponse({"detail": "Try again later."}, status=503, headers={"Retry-After": "1"})
        if isinstance(error, BadRequest):
            return JsonResponse({"detail": str(error)}, status=400)
        return None


def task_of_caller(request: HttpRequest, task_id: str) -> TaskReceipt:
    """Return the receipt for an id from a URL.

    Here an application looks the id up among the tasks of `request.user`, and raises `Http404` when it is not there:
    else whoever knows an id reads and cancels, and ids that somebody made up fill the store with marks.
    """
    return TaskReceipt.from_id(task_id)


def text_of(request: HttpRequest) -> str:
    """Return the text that a request brings."""
    try:
        text = json.loads(request.body)["text"]
    except (ValueError, TypeError, KeyError):
        text = None
    if not isinstance(text, str):
        raise BadRequest("The body is a JSON object with a text.")
    return text


def wait_of(request: HttpRequest) -> float:
    """Return how long (s) a request waits for a result."""
    try:
        return min(max(0.0, float(request.GET.get("wait", 0))), LONGEST_WAIT)
    except ValueError:
        raise BadRequest("wait is a number of seconds.") from None


@csrf_exempt
@require_POST
def create_count(request: HttpRequest) -> HttpResponse:
    receipt = count_words.push(text_of(request))
    location = request.build_absolute_uri(reverse("task", args=[receipt.id]))
    return JsonResponse({"id": receipt.id}, status=202, headers={"Location": location})


@csrf_exempt
@require_http_methods(["GET", "DELETE"])
def task(request: HttpRequest, task_id: str) -> HttpResponse:
    """Tell the task's status, or cancel it."""
    receipt = task_of_caller(request, task_id)
    if request.method == "DELETE":
        return JsonResponse({"id": task_id, "outcome": receipt.cancel()})
    return JsonResponse({"id": task_id, "status": receipt.status()})


@require_GET
def get_result(request: HttpRequest, task_id: str) -> HttpResponse:
    """Return the result; a client may `wait` some seconds for it."""
    wait = wait_of(request)
    try:
        return JsonResponse({"id": task_id, "result": task_of_caller(request, task_id).result(timeout=wait)})
    except ResultTimeout:
        return JsonResponse({"id": task_id, "detail": "Not yet."}, status=202)
    except TaskFailedError as error:
        return JsonResponse({"id": task_id, "reason": error.reason}, status=409)
    except ResultMissing:
        return JsonResponse({"id": task_id, "detail": "No result is kept."}, status=410)
