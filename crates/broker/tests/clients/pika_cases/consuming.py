"""Getting, consuming, acknowledging."""
import pika

from broker import case, Consumer, drain, ended, eventually, put, refused, same, take, waits


@case
def get_tells_what_is_left(b):
    channel = b.channel()
    queue = b.queue(channel)
    same(channel.basic_get(queue)[0], None)
    put(channel, queue, b"1", b"2", b"3")
    waits(channel, queue, 3)
    method = channel.basic_get(queue)[0]
    same((method.delivery_tag, method.redelivered, method.exchange, method.routing_key, method.message_count),
         (1, False, "", queue, 2))


@case
def messages_come_in_the_order_of_publishing(b):
    channel = b.channel()
    queue = b.queue(channel)
    sent = [b"%d" % number for number in range(500)]
    put(channel, queue, *sent)
    same(Consumer(channel, queue, auto_ack=True).bodies(500), sent)


@case
def consumers_take_turns(b):
    channel = b.channel()
    queue = b.queue(channel)
    consumers = [Consumer(channel, queue, auto_ack=True) for _ in range(3)]
    put(channel, queue, *[b"%d" % number for number in range(9)])
    for consumer in consumers:
        consumer.bodies(3)


@case
def a_consumer_without_a_tag_gets_one(b):
    channel = b.channel()
    queue = b.queue(channel)
    # pika gives tags itself, so the method is sent below it.
    tags = []
    channel._impl.basic_consume(queue, lambda *_: None, consumer_tag="",
                                callback=lambda frame: tags.append(frame.method.consumer_tag))
    eventually(lambda: tags, channel, "consume-ok")
    assert tags[0], tags


@case
def consuming_nothing_is_refused(b):
    refused(404, "no queue 'cases-nothing'", b.channel().basic_consume, "cases-nothing", print)
    refused(404, "no queue 'cases-nothing'", b.channel().basic_get, "cases-nothing")
    refused(404, "no queue 'cases-nothing'", b.channel().queue_purge, "cases-nothing")


@case
def a_consumer_gets_no_more_than_its_prefetch(b):
    channel = b.channel()
    queue = b.queue(channel)
    channel.basic_qos(prefetch_count=2)
    consumer = Consumer(channel, queue)
    put(channel, queue, b"1", b"2", b"3", b"4")
    same(consumer.bodies(2), [b"1", b"2"])
    channel.basic_ack(1)
    same(consumer.bodies(3), [b"1", b"2", b"3"])
    channel.basic_ack(3, multiple=True)
    same(consumer.bodies(4), [b"1", b"2", b"3", b"4"])


@case
def each_consumer_has_a_prefetch_of_its_own(b):
    channel = b.channel()
    one, two = b.queue(channel), b.queue(channel)
    channel.basic_qos(prefetch_count=1)
    first = Consumer(channel, one)
    second = Consumer(channel, two)
    put(channel, one, b"1", b"2")
    put(channel, two, b"3", b"4")
    same((first.bodies(1), second.bodies(1)), ([b"1"], [b"3"]))


@case
def a_global_prefetch_counts_over_the_channel(b):
    channel = b.channel()
    one, two = b.queue(channel), b.queue(channel)
    channel.basic_qos(prefetch_count=2, global_qos=True)
    first, second = Consumer(channel, one), Consumer(channel, two)
    put(channel, one, b"1")
    put(channel, two, b"2")
    first.bodies(1), second.bodies(1)
    put(channel, one, b"3")
    same(first.bodies(1), [b"1"])
    channel.basic_ack(second.got[0][1].delivery_tag)
    same(first.bodies(2), [b"1", b"3"])


@case
def no_prefetch_is_no_limit(b):
    channel = b.channel()
    queue = b.queue(channel)
    channel.basic_qos(prefetch_count=0)
    put(channel, queue, *[b"x"] * 300)
    Consumer(channel, queue).bodies(300)


@case
def a_prefetch_in_bytes_is_not_implemented(b):
    ended(540, "NOT_IMPLEMENTED - prefetch_size!=0", b.channel().basic_qos, prefetch_size=5)


@case
def what_is_given_back_comes_to_its_place(b):
    channel = b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"1", b"2", b"3")
    waits(channel, queue, 3)
    first, second = take(channel, queue, False)[1], take(channel, queue, False)[1]
    channel.basic_reject(second.delivery_tag, requeue=True)
    channel.basic_nack(first.delivery_tag, requeue=True)
    got = [take(channel, queue) for _ in range(3)]
    same([(body, method.redelivered) for body, method, _ in got], [(b"1", True), (b"2", True), (b"3", False)])


@case
def what_is_thrown_away_is_gone(b):
    channel = b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"1", b"2")
    channel.basic_reject(take(channel, queue, False)[1].delivery_tag, requeue=False)
    channel.basic_nack(take(channel, queue, False)[1].delivery_tag, requeue=False)
    channel.connection.close()
    same(drain(b.channel(), queue, 0), [])


@case
def a_nack_of_several_gives_all_back_in_order(b):
    channel = b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"1", b"2", b"3", b"4")
    tags = [take(channel, queue, False)[1].delivery_tag for _ in range(3)]
    channel.basic_nack(tags[1], multiple=True)
    same(drain(channel, queue, 3), [b"1", b"2", b"4"])
    # The third is still held.
    channel.basic_ack(tags[2])


@case
def an_ack_of_several_takes_all_before_it(b):
    channel = b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"1", b"2", b"3")
    tags = [take(channel, queue, False)[1].delivery_tag for _ in range(3)]
    channel.basic_ack(tags[1], multiple=True)
    channel.close()
    same(drain(b.channel(), queue, 1), [b"3"])


@case
def tag_zero_means_all(b):
    channel = b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"1", b"2")
    for _ in range(2):
        take(channel, queue, False)
    channel.basic_ack(0, multiple=True)
    channel.close()
    same(drain(b.channel(), queue, 0), [])


@case
def an_unknown_tag_closes_the_channel(b):
    for method in ("basic_ack", "basic_nack", "basic_reject"):
        channel = b.channel()
        getattr(channel, method)(7)
        refused(406, "PRECONDITION_FAILED - unknown delivery tag 7", channel.basic_qos, prefetch_count=1)


@case
def a_tag_is_acknowledged_once(b):
    channel = b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"x")
    tag = take(channel, queue, False)[1].delivery_tag
    channel.basic_ack(tag)
    channel.basic_ack(tag)
    refused(406, "unknown delivery tag %d" % tag, channel.basic_qos, prefetch_count=1)


@case
def a_tag_belongs_to_its_channel(b):
    connection = b.connection()
    one, other = connection.channel(), connection.channel()
    queue = b.queue(one)
    put(one, queue, b"x")
    tag = take(one, queue, False)[1].delivery_tag
    other.basic_ack(tag)
    refused(406, "unknown delivery tag", other.basic_qos, prefetch_count=1)


@case
def recover_gives_everything_back(b):
    channel = b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"1", b"2")
    for _ in range(2):
        take(channel, queue, False)
    channel.basic_recover(requeue=True)
    got = [take(channel, queue) for _ in range(2)]
    same([(body, method.redelivered) for body, method, _ in got], [(b"1", True), (b"2", True)])


@case
def recover_without_requeue_is_not_implemented(b):
    ended(540, "NOT_IMPLEMENTED", b.channel().basic_recover, requeue=False)


@case
def a_closed_channel_gives_back_in_order(b):
    channel, other = b.channel(), b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"1", b"2", b"3")
    for _ in range(2):
        take(channel, queue, False)
    channel.close()
    waits(other, queue, 3)
    got = [take(other, queue) for _ in range(3)]
    same([(body, method.redelivered) for body, method, _ in got], [(b"1", True), (b"2", True), (b"3", False)])


@case
def what_needed_no_ack_does_not_come_back(b):
    channel = b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"1")
    Consumer(channel, queue, auto_ack=True).bodies(1)
    channel.connection.close()
    same(drain(b.channel(), queue, 0), [])


@case
def a_cancelled_consumer_gets_nothing_more_and_may_still_ack(b):
    channel = b.channel()
    queue = b.queue(channel)
    consumer = Consumer(channel, queue)
    put(channel, queue, b"1")
    consumer.bodies(1)
    channel.basic_cancel(consumer.tag)
    put(channel, queue, b"2")
    consumer.bodies(1)
    channel.basic_ack(1)
    same(drain(channel, queue, 1), [b"2"])


@case
def a_consumer_is_told_when_its_queue_is_deleted(b):
    channel = b.channel()
    queue = b.queue(channel)
    consumer = Consumer(channel, queue)
    b.channel().queue_delete(queue)
    eventually(lambda: consumer.cancelled, channel, "the cancel")
    same(consumer.cancelled[0].method.consumer_tag, consumer.tag)
    assert channel.is_open


@case
def an_exclusive_consumer_is_alone(b):
    channel, other = b.channel(), b.channel()
    queue = b.queue(channel)
    Consumer(channel, queue, exclusive=True)
    refused(403, "ACCESS_REFUSED - queue '%s' in vhost '/' in exclusive use" % queue, other.basic_consume, queue, print)
    refused(403, "in exclusive use", b.channel().basic_consume, queue, print, exclusive=True)


@case
def the_consumer_of_higher_priority_comes_first(b):
    channel = b.channel()
    queue = b.queue(channel)
    channel.basic_qos(prefetch_count=2)
    low, high = Consumer(channel, queue), Consumer(channel, queue, arguments={"x-priority": 10})
    put(channel, queue, b"1", b"2", b"3")
    same(high.bodies(2), [b"1", b"2"])
    same(low.bodies(1), [b"3"])


@case
def one_consumer_is_active_and_the_next_takes_over(b):
    channel, other = b.channel(), b.channel()
    queue = b.queue(channel, arguments={"x-single-active-consumer": True})
    first, second = Consumer(channel, queue), Consumer(other, queue)
    put(channel, queue, b"1", b"2")
    first.bodies(2), second.bodies(0)
    channel.basic_ack(1)
    channel.close()
    same(second.bodies(1), [b"2"])
    assert second.got[0][1].redelivered


@case
def a_held_message_is_given_to_the_next_consumer(b):
    channel, other = b.channel(), b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"1")
    Consumer(channel, queue).bodies(1)
    channel.connection.close()
    second = Consumer(other, queue)
    same(second.bodies(1), [b"1"])
    assert second.got[0][1].redelivered


@case
def an_answer_comes_directly(b):
    client, server = b.channel(), b.channel()
    queue = b.queue(server)
    answers = Consumer(client, "amq.rabbitmq.reply-to", auto_ack=True)
    client.basic_publish("", queue, b"ask", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="7"))
    properties = take(server, queue)[2]
    assert properties.reply_to.startswith("amq.rabbitmq.reply-to."), properties.reply_to
    put(server, properties.reply_to, b"answer", correlation_id=properties.correlation_id)
    same(answers.bodies(1), [b"answer"])
    same(answers.got[0][2].correlation_id, "7")


@case
def a_direct_answer_needs_its_consumer_first(b):
    channel = b.channel()
    channel.confirm_delivery()
    refused(406, "fast reply consumer does not exist", channel.basic_publish, "", b.fresh(), b"x",
            pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
    refused(406, "reply consumer cannot acknowledge", b.channel().basic_consume, "amq.rabbitmq.reply-to", print)
