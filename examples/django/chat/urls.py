"""The two views."""

from django.urls import path

from chat import views

urlpatterns = [
    path("threads/<name>/turns", views.take_turn),
    path("threads/<name>/turns/async", views.take_turn_async),
]
