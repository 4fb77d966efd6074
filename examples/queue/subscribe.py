"""Prints what is published. As `durable` its queue outlives it, and what came meanwhile is printed when it comes back."""
import os
import sys

import pika

durable = sys.argv[1:] == ["durable"]
url = os.environ.get("AMQP_URL", "amqp://127.0.0.1:5672/%2f")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.exchange_declare("news", "fanout", durable=True)
declared = channel.queue_declare("news.python" if durable else "", durable=durable, exclusive=not durable)
queue = declared.method.queue
channel.queue_bind(queue, "news")
print("subscribed", flush=True)


def take(channel, method, properties, body):
    print(body.decode(), flush=True)
    channel.basic_ack(method.delivery_tag)


channel.basic_consume(queue, take)
channel.start_consuming()
