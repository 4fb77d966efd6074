"""Calls the tasks: one by one, as a group, with a delay, and one that succeeds at its third try."""
from celery import chain, group
from celery_tasks import add, flaky

WAIT = 30
print("one", add.delay(2, 3).get(timeout=WAIT))
print("group", sum(group(add.s(n, n) for n in range(50))().get(timeout=WAIT)))
print("chain", chain(add.s(1, 2), add.s(3))().get(timeout=WAIT))
print("later", add.apply_async((1, 1), countdown=0.5).get(timeout=WAIT))
print("flaky", flaky.delay().get(timeout=WAIT))
