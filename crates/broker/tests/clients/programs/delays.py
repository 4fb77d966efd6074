"""Messages that are delayed, published and collected by pika.

    delays.py URL FILE declare
    delays.py URL FILE publish [[BODY, DELAY], ...]
    delays.py URL FILE collect
    delays.py URL FILE delete

FILE has what was sent and has not come yet. `collect` judges what comes, and waits for all but what stays for weeks.
"""
import json
import sys
import time

import pika

URL, FILE, DEED = sys.argv[1:4]
LONGEST = 2 ** 32 - 1  # Erlang's longest timer, in ms: what is longer is no delay
EARLY = 2              # ms: the hour is kept in whole ones
QUIET = 0.4            # seconds, in which what must not come would have come

connection = pika.BlockingConnection(pika.URLParameters(URL))
channel = connection.channel()


def now():
    return time.time() * 1000


def of(delay):
    """What the plugin makes of a header: the delay in ms, 0 if it is none."""
    ms = int(delay) if delay is not None else 0
    return ms if 0 < ms <= LONGEST else 0


def sent():
    with open(FILE) as file:
        return json.load(file)


def keep(messages):
    with open(FILE, "w") as file:
        json.dump(messages, file)


def declare():
    channel.exchange_declare("later", "x-delayed-message", durable=True, arguments={"x-delayed-type": "direct"})
    channel.queue_declare("work", durable=True)
    channel.queue_bind("work", "later", "key")
    keep([])


def publish():
    messages = sent()
    channel.confirm_delivery()
    for body, delay in json.loads(sys.argv[4]):
        headers = {} if delay is None else {"x-delay": delay}
        begin = now()
        channel.basic_publish("later", "key", body, pika.BasicProperties(delivery_mode=2, headers=headers))
        messages.append({"body": body, "delay": delay, "from": begin + of(delay), "until": now() + of(delay)})
    keep(messages)


def judge(came, message, properties):
    assert came >= message["from"] - EARLY, "%s came %.1f ms early" % (message["body"], message["from"] - came)
    header = (properties.headers or {}).get("x-delay")
    ms = of(message["delay"])
    wanted = -ms if ms else message["delay"]
    assert header == wanted, "%s has x-delay %r, not %r" % (message["body"], header, wanted)


def collect():
    waits = {message["body"]: message for message in sent()}
    order = []
    while any(of(message["delay"]) < LONGEST for message in waits.values()):
        for method, properties, body in channel.consume("work", inactivity_timeout=60):
            assert method is not None, "these did not come: %s" % list(waits)
            message = waits.pop(body.decode())  # each but once
            judge(now(), message, properties)
            channel.basic_ack(method.delivery_tag)
            order.append(message)
            break
    for first, second in zip(order, order[1:]):
        assert second["until"] >= first["from"], "%s came before %s" % (first["body"], second["body"])
    channel.cancel()
    end = time.monotonic() + QUIET
    while time.monotonic() < end:
        method, _, body = channel.basic_get("work")
        assert method is None, "%r came, too" % body
        connection.process_data_events(0.02)
    keep(list(waits.values()))
    print("came: " + " ".join(message["body"] for message in order))


def delete():
    channel.exchange_delete("later")


{"declare": declare, "publish": publish, "collect": collect, "delete": delete}[DEED]()
connection.close()
