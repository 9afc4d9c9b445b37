"""One turn of a conversation, sync and async."""

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_POST
from langchain_core.runnables import RunnableConfig

from chat import checkpoints


def config_of(user: AbstractBaseUser, name: str) -> RunnableConfig:
    """Return the config of the user's thread; no other user's thread can be named."""
    return {"configurable": {"thread_id": f"{user.pk}:{name}"}, "metadata": {"user_id": user.pk}}


@login_required
@require_POST
def take_turn(request: HttpRequest, name: str) -> JsonResponse:
    """Answer, with the conversation so far."""
    turn = {"messages": [("user", request.POST["text"])]}
    state = checkpoints.graph().invoke(turn, config_of(request.user, name))
    return JsonResponse({"answer": state["messages"][-1].content})


@login_required
@require_POST
async def take_turn_async(request: HttpRequest, name: str) -> JsonResponse:
    """Answer, with the conversation so far."""
    turn = {"messages": [("user", request.POST["text"])]}
    user = await request.auser()
    state = await checkpoints.graph().ainvoke(turn, config_of(user, name))
    return JsonResponse({"answer": state["messages"][-1].content})
