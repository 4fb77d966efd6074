"""Exchanges, and where they lead."""
from broker import case, drain, ended, put, refused, same, take, TARGET


@case
def an_exchange_is_declared_found_and_deleted(b):
    channel = b.channel()
    exchange = b.exchange(channel)
    channel.exchange_declare(exchange, passive=True)
    channel.exchange_delete(exchange)
    refused(404, "NOT_FOUND - no exchange '%s' in vhost '/'" % exchange, channel.exchange_declare, exchange, passive=True)


@case
def every_vhost_has_the_exchanges_of_the_standard(b):
    for vhost in ("/", "other"):
        channel = b.channel(vhost=vhost)
        for name in ("direct", "fanout", "topic", "headers", "match"):
            channel.exchange_declare("amq." + name, passive=True)


@case
def another_exchange_type_is_refused(b):
    exchange = b.exchange(b.channel(), "fanout")
    refused(406, "inequivalent arg 'type' for exchange '%s' in vhost '/': received 'direct' but current is 'fanout'"
            % exchange, b.channel().exchange_declare, exchange, "direct")


@case
def another_exchange_durability_is_refused(b):
    exchange = b.exchange(b.channel(), "fanout", durable=True)
    refused(406, "inequivalent arg 'durable'", b.channel().exchange_declare, exchange, "fanout")


@case
def an_unknown_exchange_type_is_refused(b):
    # Named deviation: 3.10 closes the connection, later ones the channel, which pika's own tests want.
    declare = b.channel().exchange_declare
    if TARGET == "rabbitmq":
        ended(503, "COMMAND_INVALID - unknown exchange type 'odd'", declare, b.fresh(), "odd")
    else:
        refused(406, "PRECONDITION_FAILED - unknown exchange type 'odd'", declare, b.fresh(), "odd")


@case
def the_default_exchange_is_nobodys(b):
    queue = b.queue(b.channel())
    text = "operation not permitted on the default exchange"
    refused(403, text, b.channel().exchange_delete, "")
    refused(403, text, b.channel().queue_bind, queue, "", "k")
    refused(403, "", b.channel().exchange_delete, "amq.direct")


@case
def what_is_not_there_is_not_bound(b):
    channel = b.channel()
    queue = b.queue(channel)
    refused(404, "no exchange 'cases-nothing' in vhost '/'", b.channel().queue_bind, queue, "cases-nothing", "k")
    refused(404, "no queue 'cases-nothing' in vhost '/'", b.channel().queue_bind, "cases-nothing", "amq.direct", "k")


@case
def a_direct_exchange_compares_keys(b):
    channel = b.channel()
    queue, exchange = b.queue(channel), b.exchange(channel, "direct")
    channel.queue_bind(queue, exchange, "yes")
    put(channel, "no", b"no", exchange=exchange)
    put(channel, "yes", b"yes", exchange=exchange)
    same(drain(channel, queue, 1), [b"yes"])


@case
def a_fanout_exchange_gives_each_queue_a_copy(b):
    channel = b.channel()
    exchange, queues = b.exchange(channel), [b.queue(channel) for _ in range(3)]
    for queue in queues:
        channel.queue_bind(queue, exchange, "ignored")
    put(channel, "any", b"x", exchange=exchange)
    same([drain(channel, queue, 1) for queue in queues], [[b"x"]] * 3)


@case
def a_topic_exchange_knows_star_and_hash(b):
    channel = b.channel()
    exchange = b.exchange(channel, "topic")
    wanted = {"a.*": ["a.b"], "a.#": ["a", "a.b", "a.b.c"], "#": ["a", "a.b", "a.b.c", "", "x.a"], "*.a": ["x.a"],
              "#.c": ["a.b.c"], "a.#.c": ["a.b.c"], "*": ["a", ""], "a.*.*": ["a.b.c"]}
    queues = {pattern: b.queue(channel) for pattern in wanted}
    for pattern, queue in queues.items():
        channel.queue_bind(queue, exchange, pattern)
    for key in ("a", "a.b", "a.b.c", "", "x.a"):
        put(channel, key, key.encode(), exchange=exchange)
    for pattern, keys in wanted.items():
        # Whether `*` takes an empty key is nobody's promise.
        got = [body.decode() for body in drain_all(channel, queues[pattern])]
        same((pattern, [key for key in got if key]), (pattern, [key for key in keys if key]))


def drain_all(channel, queue):
    bodies = []
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return bodies
        bodies.append(body)


@case
def a_headers_exchange_compares_all_or_any(b):
    channel = b.channel()
    exchange, all_of, any_of = b.exchange(channel, "headers"), b.queue(channel), b.queue(channel)
    channel.queue_bind(all_of, exchange, arguments={"x-match": "all", "colour": "red", "size": 3})
    channel.queue_bind(any_of, exchange, arguments={"x-match": "any", "colour": "red", "size": 3})
    put(channel, "", b"both", exchange=exchange, headers={"colour": "red", "size": 3, "more": 1})
    put(channel, "", b"one", exchange=exchange, headers={"colour": "red"})
    put(channel, "", b"none", exchange=exchange, headers={"colour": "blue"})
    same(drain(channel, all_of, 1), [b"both"])
    same(drain(channel, any_of, 2), [b"both", b"one"])


@case
def the_default_exchange_knows_every_queue_by_name(b):
    channel = b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"x")
    same(drain(channel, queue, 1), [b"x"])


@case
def two_bindings_make_one_copy(b):
    channel = b.channel()
    queue, exchange = b.queue(channel), b.exchange(channel, "topic")
    channel.queue_bind(queue, exchange, "a.*")
    channel.queue_bind(queue, exchange, "#.b")
    put(channel, "a.b", b"once", exchange=exchange)
    same(drain(channel, queue, 1), [b"once"])


@case
def what_is_unbound_gets_nothing_more(b):
    channel = b.channel()
    queue, exchange = b.queue(channel), b.exchange(channel, "direct")
    channel.queue_bind(queue, exchange, "k")
    channel.queue_unbind(queue, exchange, "k")
    put(channel, "k", b"no", exchange=exchange)
    same(drain(channel, queue, 0), [])
    # To unbind what is not bound is no error.
    channel.queue_unbind(queue, exchange, "k")


@case
def exchanges_are_bound_to_exchanges(b):
    channel = b.channel()
    source, middle, queue = b.exchange(channel, "direct"), b.exchange(channel), b.queue(channel)
    channel.exchange_bind(middle, source, "k")
    channel.queue_bind(queue, middle)
    put(channel, "k", b"through", exchange=source)
    same(drain(channel, queue, 1), [b"through"])
    channel.exchange_unbind(middle, source, "k")
    put(channel, "k", b"no", exchange=source)
    same(drain(channel, queue, 0), [])


@case
def a_circle_of_exchanges_ends(b):
    channel = b.channel()
    one, two, queue = b.exchange(channel), b.exchange(channel), b.queue(channel)
    channel.exchange_bind(one, two)
    channel.exchange_bind(two, one)
    channel.queue_bind(queue, two)
    put(channel, "", b"once", exchange=one)
    same(drain(channel, queue, 1), [b"once"])


@case
def what_finds_no_queue_goes_to_the_alternate(b):
    channel = b.channel()
    lost, queue = b.exchange(channel), b.queue(channel)
    exchange = b.exchange(channel, "direct", arguments={"alternate-exchange": lost})
    channel.queue_bind(queue, lost)
    channel.confirm_delivery()
    channel.basic_publish(exchange, "nobody", b"found", mandatory=True)
    same(drain(channel, queue, 1), [b"found"])


@case
def an_auto_delete_exchange_goes_with_its_last_binding(b):
    channel = b.channel()
    queue, exchange = b.queue(channel), b.exchange(channel, "direct", auto_delete=True)
    channel.queue_bind(queue, exchange, "k")
    channel.queue_delete(queue)
    refused(404, "", channel.exchange_declare, exchange, passive=True)


@case
def an_exchange_in_use_is_not_deleted_if_unused(b):
    channel = b.channel()
    queue, exchange = b.queue(channel), b.exchange(channel)
    channel.queue_bind(queue, exchange)
    refused(406, "in use", b.channel().exchange_delete, exchange, if_unused=True)
    channel.queue_unbind(queue, exchange)
    channel.exchange_delete(exchange, if_unused=True)


@case
def nobody_publishes_to_an_internal_exchange(b):
    channel = b.channel()
    exchange = b.exchange(channel, internal=True)
    channel.confirm_delivery()
    refused(403, "cannot publish to internal exchange '%s' in vhost '/'" % exchange, channel.basic_publish, exchange, "", b"x")


@case
def cc_and_bcc_name_more_queues(b):
    channel = b.channel()
    to, cc, bcc = b.queue(channel), b.queue(channel), b.queue(channel)
    put(channel, to, b"x", headers={"CC": [cc], "BCC": [bcc]})
    for queue in (to, cc, bcc):
        headers = take(channel, queue)[2].headers
        same((headers.get("CC"), "BCC" in headers), ([cc], False))
