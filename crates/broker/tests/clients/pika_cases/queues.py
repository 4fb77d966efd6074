"""Declaring and deleting queues."""
from broker import case, Consumer, drain, put, refused, same, take, TARGET, waits


@case
def a_queue_is_declared_found_and_deleted(b):
    channel = b.channel()
    queue = b.queue(channel)
    ok = channel.queue_declare(queue, passive=True).method
    same((ok.queue, ok.message_count, ok.consumer_count), (queue, 0, 0))
    same(channel.queue_delete(queue).method.message_count, 0)
    refused(404, "NOT_FOUND - no queue '%s' in vhost '/'" % queue, channel.queue_declare, queue, passive=True)


@case
def a_queue_without_a_name_gets_one(b):
    channel = b.channel()
    queue = b.queue(channel, "", exclusive=True)
    assert queue.startswith("amq.gen-"), queue
    put(channel, queue, b"x")
    same(drain(channel, queue, 1), [b"x"])


@case
def no_name_means_the_queue_declared_last(b):
    channel = b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"x")
    same(take(channel, "")[0], b"x")
    refused(404, "", b.channel().basic_get, "")


@case
def declaring_the_same_again_is_no_error(b):
    channel = b.channel()
    queue = b.queue(channel, durable=True, arguments={"x-max-length": 5})
    same(channel.queue_declare(queue, durable=True, arguments={"x-max-length": 5}).method.queue, queue)


@case
def another_durability_is_refused(b):
    queue = b.queue(b.channel())
    refused(406, "inequivalent arg 'durable' for queue '%s' in vhost '/': received 'true' but current is 'false'" % queue,
            b.channel().queue_declare, queue, durable=True)


@case
def another_auto_delete_is_refused(b):
    queue = b.queue(b.channel())
    refused(406, "inequivalent arg 'auto_delete'", b.channel().queue_declare, queue, auto_delete=True)


@case
def another_argument_is_refused(b):
    queue = b.queue(b.channel(), arguments={"x-message-ttl": 1000})
    refused(406, "inequivalent arg 'x-message-ttl' for queue '%s' in vhost '/': received '2000' but current is '1000'"
            % queue, b.channel().queue_declare, queue, arguments={"x-message-ttl": 2000})
    refused(406, "inequivalent arg 'x-message-ttl'", b.channel().queue_declare, queue)


@case
def arguments_without_sense_are_refused(b):
    for name, value in (("x-message-ttl", -1), ("x-message-ttl", "soon"), ("x-expires", 0), ("x-max-length", -1),
                        ("x-max-priority", 256), ("x-overflow", "odd"), ("x-queue-type", "odd")):
        refused(406, "PRECONDITION_FAILED", b.channel().queue_declare, b.fresh(), arguments={name: value})


@case
def names_of_the_server_are_refused(b):
    refused(403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
            b.channel().queue_declare, "amq.mine")
    refused(403, "ACCESS_REFUSED", b.channel().exchange_declare, "amq.mine", "direct")


@case
def an_exclusive_queue_is_locked_to_others(b):
    queue = b.queue(b.channel(), exclusive=True)
    text = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost '/'" % queue
    for call in ("queue_declare", "basic_get", "queue_purge", "queue_delete"):
        refused(405, text, getattr(b.channel(), call), queue)


@case
def an_exclusive_queue_goes_with_its_connection(b):
    channel = b.channel()
    queue = b.queue(channel, exclusive=True)
    channel.connection.close()
    refused(404, "", b.channel().queue_declare, queue, passive=True)


@case
def an_auto_delete_queue_goes_with_its_last_consumer(b):
    channel, other = b.channel(), b.channel()
    queue = b.queue(channel, auto_delete=True)
    one, two = Consumer(channel, queue), Consumer(other, queue)
    channel.basic_cancel(one.tag)
    channel.queue_declare(queue, passive=True)
    other.basic_cancel(two.tag)
    refused(404, "", channel.queue_declare, queue, passive=True)


@case
def an_auto_delete_queue_without_consumers_stays(b):
    channel = b.channel()
    queue = b.queue(channel, auto_delete=True)
    b.channel().queue_declare(queue, passive=True)


@case
def counts_of_messages_and_consumers_are_told(b):
    channel, consuming = b.channel(), b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"1", b"2", b"3")
    waits(channel, queue, 3)
    consuming.basic_qos(prefetch_count=1)
    Consumer(consuming, queue).bodies(1)
    ok = channel.queue_declare(queue, passive=True).method
    same((ok.message_count, ok.consumer_count), (2, 1))


@case
def a_purge_tells_how_many_went_and_spares_what_is_held(b):
    channel = b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"held", b"1", b"2")
    held = take(channel, queue, auto_ack=False)[1]
    same(channel.queue_purge(queue).method.message_count, 2)
    channel.basic_nack(held.delivery_tag)
    same(drain(channel, queue, 1), [b"held"])


@case
def a_deletion_tells_how_many_messages_went(b):
    channel = b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"1", b"2")
    same(channel.queue_delete(queue).method.message_count, 2)


@case
def deleting_a_queue_that_is_not_there_is_no_error(b):
    same(b.channel().queue_delete(b.fresh()).method.message_count, 0)


@case
def a_queue_in_use_is_not_deleted_if_unused(b):
    channel = b.channel()
    queue = b.queue(channel)
    Consumer(channel, queue)
    refused(406, "in use", b.channel().queue_delete, queue, if_unused=True)


@case
def a_queue_with_messages_is_not_deleted_if_empty(b):
    channel = b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"x")
    refused(406, "not empty", channel.queue_delete, queue, if_empty=True)


@case
def kinds_of_queues_of_a_cluster_are_accepted(b):
    channel = b.channel()
    quorum = b.queue(channel, durable=True, arguments={"x-queue-type": "quorum"})
    lazy = b.queue(channel, durable=True, arguments={"x-queue-mode": "lazy"})
    for queue in (quorum, lazy):
        put(channel, queue, b"x", delivery_mode=2)
        same(drain(channel, queue, 1), [b"x"])


@case
def a_quorum_queue_must_be_durable(b):
    refused(406, "invalid property 'non-durable' for queue", b.channel().queue_declare, b.fresh(),
            arguments={"x-queue-type": "quorum"})


@case
def a_stream_is_accepted_by_rabbitmq_alone(b):
    # Named deviation: there are no streams in Mainstay, and it says so.
    channel, name, arguments = b.channel(), b.fresh(), {"x-queue-type": "stream"}
    if TARGET == "rabbitmq":
        b.queue(channel, name, durable=True, arguments=arguments)
    else:
        refused(406, "streams are not served here", channel.queue_declare, name, durable=True, arguments=arguments)


@case
def names_may_have_any_letter(b):
    channel = b.channel()
    for name in ("cases-grüße", "cases-队列", "cases- with spaces ", "cases-🐇"):
        queue = b.queue(channel, name)
        same(queue, name)
        put(channel, queue, name.encode())
        same(drain(channel, queue, 1), [name.encode()])


@case
def a_name_may_have_255_bytes(b):
    channel = b.channel()
    queue = b.queue(channel, "cases-" + "n" * 249)
    channel.queue_bind(queue, "amq.direct", "k" * 255)
    put(channel, "k" * 255, b"x", exchange="amq.direct")
    same(drain(channel, queue, 1), [b"x"])
