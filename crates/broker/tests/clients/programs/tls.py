"""Publishes a message and gets it back, over TLS: tls.py PORT CA [CERTIFICATE KEY]"""
import ssl
import sys

import pika

port, ca = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=ca)
if len(sys.argv) > 3:
    context.load_cert_chain(sys.argv[3], sys.argv[4])
options = pika.SSLOptions(context, 'localhost')
connection = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', port, ssl_options=options))
channel = connection.channel()
channel.confirm_delivery()
channel.queue_declare('tls-python', durable=True)
body = b'x' * 1000000
channel.basic_publish('', 'tls-python', body, pika.BasicProperties(delivery_mode=2), mandatory=True)
method, _, got = channel.basic_get('tls-python', auto_ack=True)
assert method is not None and got == body
connection.close()
print('done')
