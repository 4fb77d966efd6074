"""Time, death and length."""
import datetime

from pika.exceptions import ChannelClosedByBroker

from broker import case, Consumer, drain, eventually, put, same, take, waits


@case
def a_message_lives_as_long_as_its_queue_says(b):
    channel = b.channel()
    queue = b.queue(channel, arguments={"x-message-ttl": 200})
    put(channel, queue, b"x")
    waits(channel, queue, 1)
    waits(channel, queue, 0)


@case
def a_message_lives_as_long_as_it_says_itself(b):
    channel = b.channel()
    queue = b.queue(channel)
    channel.confirm_delivery()
    put(channel, queue, b"short", expiration="200")
    put(channel, queue, b"long", expiration="60000")
    waits(channel, queue, 1)
    same(drain(channel, queue, 1), [b"long"])


@case
def the_shorter_life_counts(b):
    channel = b.channel()
    queue = b.queue(channel, arguments={"x-message-ttl": 60000})
    put(channel, queue, b"x", expiration="100")
    waits(channel, queue, 0)
    other = b.queue(channel, arguments={"x-message-ttl": 100})
    put(channel, other, b"x", expiration="60000")
    waits(channel, other, 0)


@case
def a_life_of_nothing_is_enough_for_who_waits(b):
    channel = b.channel()
    queue = b.queue(channel, arguments={"x-message-ttl": 0})
    put(channel, queue, b"gone")
    waits(channel, queue, 0)
    consumer = Consumer(channel, queue, auto_ack=True)
    put(channel, queue, b"seen")
    same(consumer.bodies(1), [b"seen"])


@case
def a_queue_that_nobody_uses_expires(b):
    channel = b.channel()
    queue = b.queue(channel, arguments={"x-expires": 300})
    consumer = Consumer(channel, queue)
    channel.connection.process_data_events(0.5)
    channel.basic_cancel(consumer.tag)

    def is_gone():
        # A look by `declare` would be a use of it.
        other = b.connection().channel()
        try:
            other.queue_bind(queue, "amq.direct", queue)
        except ChannelClosedByBroker as closed:
            return closed.reply_code == 404
        other.connection.close()
    eventually(is_gone, what="the end of the queue")


def with_dead_letters(b, channel, **arguments):
    """A queue, and the one where its dead messages go."""
    dead, exchange = b.queue(channel), b.exchange(channel)
    channel.queue_bind(dead, exchange)
    arguments = {name.replace("_", "-"): value for name, value in arguments.items()}
    return b.queue(channel, arguments={"x-dead-letter-exchange": exchange, **arguments}), dead


def death(properties):
    (death,) = properties.headers["x-death"]
    same(type(death.pop("time")), datetime.datetime)
    return death


@case
def what_is_rejected_becomes_a_dead_letter(b):
    channel = b.channel()
    queue, dead = with_dead_letters(b, channel)
    put(channel, queue, b"x", headers={"mine": 1}, message_id="m")
    channel.basic_reject(take(channel, queue, False)[1].delivery_tag, requeue=False)
    body, method, properties = take(channel, dead)
    same((body, method.routing_key, properties.message_id, properties.headers["mine"]), (b"x", queue, "m", 1))
    same(death(properties), {"count": 1, "reason": "rejected", "queue": queue, "exchange": "", "routing-keys": [queue]})
    headers = properties.headers
    same([headers["x-first-death-" + name] for name in ("reason", "queue", "exchange")], ["rejected", queue, ""])


@case
def what_expires_becomes_a_dead_letter(b):
    channel = b.channel()
    queue, dead = with_dead_letters(b, channel, x_message_ttl=100)
    put(channel, queue, b"x")
    same(death(take(channel, dead)[2])["reason"], "expired")


@case
def a_dead_letter_has_its_expiration_put_aside(b):
    channel = b.channel()
    queue, dead = with_dead_letters(b, channel)
    put(channel, queue, b"x", expiration="100")
    properties = take(channel, dead)[2]
    same(properties.expiration, None)
    same(death(properties)["original-expiration"], "100")


@case
def what_is_pushed_out_becomes_a_dead_letter(b):
    channel = b.channel()
    queue, dead = with_dead_letters(b, channel, x_max_length=1)
    put(channel, queue, b"1", b"2")
    body, _, properties = take(channel, dead)
    same((body, death(properties)["reason"]), (b"1", "maxlen"))
    same(drain(channel, queue, 1), [b"2"])


@case
def a_dead_letter_may_get_another_key(b):
    channel = b.channel()
    dead = b.queue(channel)
    queue = b.queue(channel, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    put(channel, queue, b"x")
    channel.basic_nack(take(channel, queue, False)[1].delivery_tag, requeue=False)
    same(take(channel, dead)[1].routing_key, dead)


@case
def deaths_are_counted(b):
    channel = b.channel()
    work, wait = b.fresh(), b.fresh()
    for name, other in ((work, wait), (wait, work)):
        b.queue(channel, name, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": other})
    put(channel, work, b"x")
    for queue in (work, wait, work, wait):
        channel.basic_reject(take(channel, queue, False)[1].delivery_tag, requeue=False)
    deaths = take(channel, work)[2].headers["x-death"]
    same([(one["queue"], one["count"]) for one in deaths], [(wait, 2), (work, 2)])


@case
def a_circle_of_expirations_ends(b):
    channel = b.channel()
    name = b.fresh()
    b.queue(channel, name, {"x-message-ttl": 50, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": name})
    put(channel, name, b"x")
    waits(channel, name, 0)


@case
def a_dead_letter_exchange_that_is_not_there_is_no_error(b):
    channel = b.channel()
    queue = b.queue(channel, arguments={"x-dead-letter-exchange": "cases-nothing"})
    put(channel, queue, b"x")
    channel.basic_reject(take(channel, queue, False)[1].delivery_tag, requeue=False)
    same(drain(channel, queue, 0), [])


@case
def a_quorum_queue_gives_a_message_up_at_its_limit(b):
    channel = b.channel()
    dead = b.queue(channel)
    queue = b.queue(channel, durable=True, arguments={
        "x-queue-type": "quorum", "x-delivery-limit": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    put(channel, queue, b"x", delivery_mode=2)
    for tries in (0, 1, 2):
        _, method, properties = take(channel, queue, False)
        same(properties.headers["x-delivery-count"], tries)
        channel.basic_nack(method.delivery_tag, requeue=True)
    same(death(take(channel, dead)[2])["reason"], "delivery_limit")


@case
def a_full_queue_drops_its_oldest(b):
    channel = b.channel()
    queue = b.queue(channel, arguments={"x-max-length": 3})
    put(channel, queue, *[b"%d" % number for number in range(10)])
    waits(channel, queue, 3)
    same(drain(channel, queue, 3), [b"7", b"8", b"9"])


@case
def a_queue_is_limited_in_bytes(b):
    channel = b.channel()
    queue = b.queue(channel, arguments={"x-max-length-bytes": 100})
    put(channel, queue, b"a" * 60, b"b" * 60, b"c" * 30)
    waits(channel, queue, 2)
    same(drain(channel, queue, 2), [b"b" * 60, b"c" * 30])


@case
def messages_come_by_priority(b):
    channel = b.channel()
    queue = b.queue(channel, arguments={"x-max-priority": 5})
    for body, priority in ((b"low", 1), (b"none", None), (b"high", 5), (b"above", 200), (b"low too", 1)):
        put(channel, queue, body, priority=priority)
    waits(channel, queue, 5)
    same(drain(channel, queue, 5), [b"high", b"above", b"low", b"low too", b"none"])
