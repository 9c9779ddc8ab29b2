"""Addresses of the Django example."""

from __future__ import annotations

from django.urls import path

from words import views

urlpatterns = [
    path("counts", views.create_count),
    path("tasks/<str:task_id>", views.task, name="task"),
    path("tasks/<str:task_id>/result", views.get_result),
]
