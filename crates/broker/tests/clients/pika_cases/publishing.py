"""What is published, and what the publisher hears."""
import datetime
import decimal

import pika
from pika.exceptions import NackError, UnroutableError

from broker import case, drain, eventually, put, refused, same, take


@case
def publishing_is_confirmed(b):
    channel = b.channel()
    queue = b.queue(channel, durable=True)
    channel.confirm_delivery()
    for number in range(100):
        channel.basic_publish("", queue, b"%d" % number, pika.BasicProperties(delivery_mode=2), mandatory=True)
    same(drain(channel, queue, 100), [b"%d" % number for number in range(100)])


@case
def what_finds_no_queue_is_confirmed_all_the_same(b):
    channel = b.channel()
    channel.confirm_delivery()
    channel.basic_publish("", b.fresh(), b"gone")


@case
def what_is_mandatory_comes_back(b):
    channel = b.channel()
    channel.confirm_delivery()
    name = b.fresh()
    try:
        channel.basic_publish("", name, b"back", pika.BasicProperties(message_id="m", headers={"h": 1}), mandatory=True)
    except UnroutableError as error:
        (back,) = error.messages
        same((back.method.reply_code, back.method.reply_text, back.method.exchange, back.method.routing_key),
             (312, "NO_ROUTE", "", name))
        same((back.body, back.properties.message_id, back.properties.headers), (b"back", "m", {"h": 1}))
        return
    raise AssertionError("it did not come back")


@case
def what_is_mandatory_comes_back_without_confirms_too(b):
    channel, back = b.channel(), []
    channel.add_on_return_callback(lambda _channel, method, _properties, body: back.append((method.reply_code, body)))
    channel.basic_publish("", b.fresh(), b"back", mandatory=True)
    eventually(lambda: back, channel, "the return")
    same(back, [(312, b"back")])


@case
def an_unknown_exchange_closes_the_channel(b):
    channel = b.channel()
    channel.confirm_delivery()
    refused(404, "NOT_FOUND - no exchange 'cases-nothing' in vhost '/'", channel.basic_publish, "cases-nothing", "k", b"x")


@case
def a_full_queue_refuses_with_a_nack(b):
    channel = b.channel()
    queue = b.queue(channel, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"1")
    try:
        channel.basic_publish("", queue, b"2")
    except NackError:
        same(drain(channel, queue, 1), [b"1"])
        channel.basic_publish("", queue, b"3")
        return
    raise AssertionError("it was taken")


@case
def every_property_comes_through(b):
    channel = b.channel()
    queue = b.queue(channel)
    sent = dict(content_type="text/plain", content_encoding="gzip", headers={"a": 1}, delivery_mode=2, priority=3,
                correlation_id="c", reply_to="r", expiration="100000", message_id="m", timestamp=1700000000, type="t",
                user_id="guest", app_id="app", cluster_id="old")
    put(channel, queue, b"x", **sent)
    properties = take(channel, queue)[2]
    same({name: getattr(properties, name) for name in sent}, sent)


@case
def properties_that_are_absent_stay_absent(b):
    channel = b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"x")
    properties = take(channel, queue)[2]
    same([name for name, value in vars(properties).items() if value is not None], [])


@case
def headers_of_every_type_come_through(b):
    channel = b.channel()
    queue = b.queue(channel)
    sent = {"text": "grüße", "empty": "", "yes": True, "no": False, "small": 5, "negative": -5, "large": 1 << 40,
            "least": -(1 << 63), "nothing": None, "list": [1, "two", [3], {"four": 4}], "table": {"in": {"deep": [None]}},
            "decimal": decimal.Decimal("3.14"), "bytes": b"\x00\xff", "when": datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
            "long": "l" * 70000}
    put(channel, queue, b"x", headers=sent)
    same(take(channel, queue)[2].headers, sent)


@case
def bodies_of_every_length_come_through(b):
    channel = b.channel()
    queue = b.queue(channel)
    whole = bytes(range(256)) * 20480
    for length in (0, 1, 131063, 131064, 131065, 131072, 262128, 262129, 5 << 20):
        put(channel, queue, whole[:length])
        same(take(channel, queue)[0] == whole[:length], True)


@case
def a_body_may_be_larger_than_what_a_socket_holds(b):
    channel = b.channel()
    queue = b.queue(channel)
    body = bytes(32 << 20)
    put(channel, queue, body)
    same(take(channel, queue)[0] == body, True)


@case
def another_users_id_is_refused(b):
    channel = b.channel()
    channel.confirm_delivery()
    refused(406, "user_id property set to 'reader' but authenticated user was 'guest'",
            channel.basic_publish, "", b.fresh(), b"x", pika.BasicProperties(user_id="reader"))


@case
def an_expiration_that_is_no_number_is_refused(b):
    for text in ("soon", "-1", "1.5"):
        channel = b.channel()
        channel.confirm_delivery()
        refused(406, "invalid expiration '%s'" % text, channel.basic_publish, "", b.fresh(), b"x",
                pika.BasicProperties(expiration=text))
