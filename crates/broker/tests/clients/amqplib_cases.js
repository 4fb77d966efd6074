'use strict';
// What a broker owes a program that uses amqplib: each case is one thing, tried through the package itself.
//
//     NODE_PATH=.../node_modules node amqplib_cases.js 127.0.0.1:5672 mainstay|rabbitmq [PART OF A NAME]
//
// Prints `ok NAME` or `failed NAME: why` for each, then how many. The broker has the users and vhosts of `definitions.json`.

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { setTimeout: later } = require('node:timers/promises');
const amqp = require('amqplib');
const { credentials } = amqp;

const [address, , only = ''] = process.argv.slice(2); // no case differs between the targets
const PATIENCE_MS = 10000; // for what must come
const QUIET_MS = 80; // in which what must not come would have come
const cases = [];
const test = (name, body) => cases.push([name, body]);

/** The connections of one case, and what it has to take away afterwards. */
class Broker {
  constructor(number) {
    Object.assign(this, { number, count: 0, connections: [], queues: [], exchanges: [] });
  }

  fresh() {
    this.count += 1;
    return `cases-js-${this.number}-${this.count}`;
  }

  async connection({ host = address, user = 'guest', password = 'guest', vhost = '/', heartbeat = 0, agree = '', ...options } = {}) {
    const url = `amqp://${user}:${password}@${host}/${encodeURIComponent(vhost)}?heartbeat=${heartbeat}${agree}`;
    const connection = await amqp.connect(url, { noDelay: true, ...options });
    connection.on('error', () => {}); // what matters is told by what was asked for
    this.connections.push(connection);
    return connection;
  }

  async channel(options) {
    const channel = await (await this.connection(options)).createChannel();
    channel.on('error', () => {});
    return channel;
  }

  async confirming() {
    const channel = await (await this.connection()).createConfirmChannel();
    channel.on('error', () => {});
    return channel;
  }

  async queue(channel, options, name = this.fresh()) {
    const { queue } = await channel.assertQueue(name, { durable: false, ...options });
    this.queues.push(queue);
    return queue;
  }

  async exchange(channel, type = 'fanout', options = {}) {
    const { exchange } = await channel.assertExchange(this.fresh(), type, { durable: false, ...options });
    this.exchanges.push(exchange);
    return exchange;
  }

  async clean() {
    for (const connection of this.connections) await connection.close().catch(() => {});
    const connection = await amqp.connect(`amqp://${address}`);
    for (const queue of this.queues) {
      const channel = await connection.createChannel();
      channel.on('error', () => {});
      await channel.deleteQueue(queue).then(() => channel.close(), () => {});
    }
    const channel = await connection.createChannel();
    for (const exchange of this.exchanges) await channel.deleteExchange(exchange);
    await connection.close();
  }
}

/** Fails if this takes too long. */
async function within(promise, what) {
  const stop = new AbortController();
  const late = later(PATIENCE_MS, undefined, { signal: stop.signal }).then(() => {
    throw new Error(`${what} did not come`);
  });
  late.catch(() => {});
  try {
    return await Promise.race([promise, late]);
  } finally {
    stop.abort();
  }
}

/** The channel is closed with this code; both what was asked for and the channel's event say so. */
async function refused(code, text, channel, call) {
  const event = once(channel, 'error');
  event.catch(() => {});
  await assert.rejects(call, (error) => error.message.includes(String(code)) && error.message.includes(text));
  const [error] = await within(event, 'the error');
  assert.equal(error.code, code);
}

async function take(channel, queue, options = { noAck: true }) {
  for (const end = Date.now() + PATIENCE_MS; Date.now() < end; await later(10)) {
    const message = await channel.get(queue, options);
    if (message) return message;
  }
  throw new Error(`no message came in ${queue}`);
}

const text = (message) => message.content.toString();

async function drain(channel, queue, count) {
  const bodies = [];
  while (bodies.length < count) bodies.push(text(await take(channel, queue)));
  assert.equal(await channel.get(queue), false);
  return bodies;
}

/** Consumes, and keeps what comes. */
async function consume(channel, queue, options = {}) {
  const got = [];
  let wake = () => {};
  const { consumerTag } = await channel.consume(queue, (message) => {
    got.push(message);
    wake();
  }, options);
  const bodies = async (count) => {
    while (got.length < count) await within(new Promise((resolve) => { wake = resolve; }), `delivery ${got.length + 1}`);
    await later(QUIET_MS);
    assert.equal(got.length, count);
    return got.map((message) => message && text(message));
  };
  return { got, bodies, consumerTag };
}

function put(channel, queue, ...bodies) {
  for (const body of bodies) channel.sendToQueue(queue, Buffer.from(body));
}

// Connections

test('a connection opens and closes', async (b) => {
  const connection = await b.connection();
  const closed = once(connection, 'close');
  await connection.close();
  await within(closed, 'the event');
});

test('the server says who it is', async (b) => {
  const { serverProperties } = (await b.connection()).connection;
  // Some clients choose their ways by these two.
  assert.equal(serverProperties.product, 'RabbitMQ');
  assert.match(serverProperties.version, /^3\.\d+\.\d+/);
  assert.equal(Object.values(serverProperties.capabilities).filter((value) => value === true).length, 9);
});

test('IPv6 is served, too', async (b) => {
  await b.connection({ host: `[::1]:${address.split(':').at(-1)}` });
});

test('AMQPLAIN is understood', async (b) => {
  await b.connection({ credentials: credentials.amqplain('guest', 'guest') });
});

test('a wrong password is refused by either mechanism', async (b) => {
  await assert.rejects(b.connection({ password: 'wrong' }), /403.*ACCESS_REFUSED/);
  await assert.rejects(b.connection({ credentials: credentials.amqplain('guest', 'wrong') }), /403.*ACCESS_REFUSED/);
});

test('an unknown mechanism is refused', async (b) => {
  const odd = { mechanism: 'ODD', response: () => Buffer.alloc(0) };
  await assert.rejects(b.connection({ credentials: odd }), /./);
});

test('an unknown vhost is refused', async (b) => {
  await assert.rejects(b.connection({ vhost: 'nothing' }), /ConnectionClose/);
});

test('a heartbeat may be agreed', async (b) => {
  const { connection } = await b.connection({ heartbeat: 5 });
  assert.equal(connection.heartbeat, 5);
});

test('a channel maximum may be agreed', async (b) => {
  const connection = await b.connection({ agree: '&channelMax=2' });
  await connection.createChannel();
  await connection.createChannel();
  await assert.rejects(() => connection.createChannel(), /No channels left/);
});

test('a secret is updated', async (b) => {
  await (await b.connection()).updateSecret(Buffer.from('new'), 'because');
});

test('one connection opens and closes many channels at once', async (b) => {
  const connection = await b.connection();
  const channels = await Promise.all(Array.from({ length: 50 }, () => connection.createChannel()));
  await Promise.all(channels.map((channel) => channel.close()));
});

// Queues and exchanges

test('a queue is asserted, checked and deleted', async (b) => {
  const channel = await b.channel();
  const queue = await b.queue(channel);
  assert.deepEqual(await channel.checkQueue(queue), { queue, messageCount: 0, consumerCount: 0 });
  assert.deepEqual(await channel.deleteQueue(queue), { messageCount: 0 });
});

test('a queue asserted with other options is refused', async (b) => {
  const channel = await b.channel();
  const queue = await b.queue(channel, { durable: true });
  await refused(406, 'PRECONDITION-FAILED', channel, channel.assertQueue(queue, { durable: false }));
});

test('a queue that is not there is refused', async (b) => {
  const channel = await b.channel();
  await refused(404, 'NOT-FOUND', channel, channel.checkQueue('cases-nothing'));
});

test('an exchange that is not there is refused', async (b) => {
  const channel = await b.channel();
  await refused(404, 'NOT-FOUND', channel, channel.checkExchange('cases-nothing'));
});

test('an exchange asserted with another type is refused', async (b) => {
  const channel = await b.channel();
  const exchange = await b.exchange(channel, 'direct');
  await refused(406, 'PRECONDITION-FAILED', channel, channel.assertExchange(exchange, 'fanout', { durable: false }));
});

test('publishing to no exchange closes the channel', async (b) => {
  const channel = await b.channel();
  const closed = once(channel, 'error');
  channel.on('close', () => {});
  channel.publish('cases-nothing', '', Buffer.from('x'));
  await assert.rejects(within(closed.then(([error]) => { throw error; }), 'the error'), { code: 404 });
});

test('requests that are sent together are answered in order', async (b) => {
  const channel = await b.channel();
  const names = Array.from({ length: 30 }, () => b.fresh());
  b.queues.push(...names);
  const answers = await Promise.all(names.map((name) => channel.assertQueue(name, { durable: false })));
  assert.deepEqual(answers.map(({ queue }) => queue), names);
});

test('a purge tells how many went', async (b) => {
  const channel = await b.confirming();
  const queue = await b.queue(channel);
  put(channel, queue, '1', '2');
  await channel.waitForConfirms();
  assert.deepEqual(await channel.purgeQueue(queue), { messageCount: 2 });
});

test('a queue is bound and unbound', async (b) => {
  const channel = await b.channel();
  const [exchange, queue] = [await b.exchange(channel, 'direct'), await b.queue(channel)];
  await channel.bindQueue(queue, exchange, 'k');
  channel.publish(exchange, 'k', Buffer.from('yes'));
  assert.deepEqual(await drain(channel, queue, 1), ['yes']);
  await channel.unbindQueue(queue, exchange, 'k');
  channel.publish(exchange, 'k', Buffer.from('no'));
  assert.deepEqual(await drain(channel, queue, 0), []);
});

test('an exchange is bound to an exchange and unbound', async (b) => {
  const channel = await b.channel();
  const [source, middle, queue] = [await b.exchange(channel, 'topic'), await b.exchange(channel), await b.queue(channel)];
  await channel.bindExchange(middle, source, 'a.#');
  await channel.bindQueue(queue, middle, '');
  channel.publish(source, 'a.b.c', Buffer.from('yes'));
  assert.deepEqual(await drain(channel, queue, 1), ['yes']);
  await channel.unbindExchange(middle, source, 'a.#');
  channel.publish(source, 'a.b.c', Buffer.from('no'));
  assert.deepEqual(await drain(channel, queue, 0), []);
});

// Publishing and confirms

test('a message and an empty one are sent and got', async (b) => {
  const channel = await b.channel();
  const queue = await b.queue(channel);
  put(channel, queue, 'x', '');
  assert.deepEqual(await drain(channel, queue, 2), ['x', '']);
});

test('properties and headers come through', async (b) => {
  const channel = await b.channel();
  const queue = await b.queue(channel);
  const sent = { contentType: 'text/plain', contentEncoding: 'utf-8', deliveryMode: 2, priority: 4, correlationId: 'c',
    replyTo: 'r', messageId: 'm', timestamp: 1700000000, type: 't', appId: 'a', expiration: '60000' };
  const headers = { text: 'grüße', int: 7, float: 0.5, big: 2 ** 40, list: [1, 'two', { three: 3 }], yes: true, no: false,
    nothing: null, nested: { deep: { deeper: [null] } }, bytes: Buffer.from([0, 255]),
    decimal: { '!': 'decimal', value: { digits: 314, places: 2 } }, when: { '!': 'timestamp', value: 1700000000 },
    byte: { '!': 'byte', value: -8 }, short: { '!': 'short', value: -300 }, single: { '!': 'float', value: 1.5 } };
  channel.sendToQueue(queue, Buffer.from('x'), { ...sent, headers });
  const { properties } = await take(channel, queue);
  for (const [name, value] of Object.entries(sent)) assert.deepEqual(properties[name], value, name);
  const got = properties.headers;
  assert.deepEqual([got.byte, got.short, got.single], [-8, -300, 1.5]);
  for (const name of ['text', 'int', 'float', 'big', 'list', 'yes', 'no', 'nothing', 'nested', 'bytes', 'decimal', 'when']) {
    assert.deepEqual(got[name], headers[name], name);
  }
});

test('a body of two megabytes comes in pieces and whole', async (b) => {
  const channel = await b.channel({ agree: '&frameMax=8192' });
  const queue = await b.queue(channel);
  const body = Buffer.alloc(2 << 20, 'abcdefg');
  channel.sendToQueue(queue, body);
  assert.ok((await take(channel, queue)).content.equals(body));
});

test('each publish is confirmed to its own callback', async (b) => {
  const channel = await b.confirming();
  const queue = await b.queue(channel);
  const confirmed = Array.from({ length: 100 }, (_, number) => new Promise((resolve, reject) => {
    channel.sendToQueue(queue, Buffer.from(`${number}`), {}, (error) => (error ? reject(error) : resolve(number)));
  }));
  assert.equal((await within(Promise.all(confirmed), 'confirms')).length, 100);
  assert.equal((await channel.checkQueue(queue)).messageCount, 100);
});

test('persistent messages are confirmed', async (b) => {
  const channel = await b.confirming();
  const queue = await b.queue(channel, { durable: true });
  for (let number = 0; number < 50; number += 1) channel.sendToQueue(queue, Buffer.from('x'), { persistent: true });
  await within(channel.waitForConfirms(), 'confirms');
  assert.equal((await take(channel, queue)).properties.deliveryMode, 2);
});

test('a refused publish is told to its callback', async (b) => {
  const channel = await b.confirming();
  const queue = await b.queue(channel, { maxLength: 1, arguments: { 'x-overflow': 'reject-publish' } });
  put(channel, queue, '1');
  await channel.waitForConfirms();
  const refusal = new Promise((resolve) => { channel.sendToQueue(queue, Buffer.from('2'), {}, resolve); });
  assert.match((await within(refusal, 'the nack')).message, /nack/);
});

test('a mandatory message comes back before its confirm', async (b) => {
  const channel = await b.confirming();
  const heard = [];
  channel.on('return', (message) => heard.push([message.fields.replyCode, text(message)]));
  channel.publish('', 'cases-nothing', Buffer.from('back'), { mandatory: true }, () => heard.push('confirm'));
  await within(channel.waitForConfirms(), 'the confirm');
  assert.deepEqual(heard, [[312, 'back'], 'confirm']);
});

test('publishing and closing at once loses nothing', async (b) => {
  const channel = await b.channel();
  const queue = await b.queue(channel);
  const other = await b.channel();
  put(other, queue, ...Array.from({ length: 200 }, () => 'x'));
  await other.close();
  // Without confirms nobody says when the last of them has arrived.
  assert.equal((await drain(channel, queue, 200)).length, 200);
});

// Consuming

test('what is consumed is acknowledged', async (b) => {
  const channel = await b.channel();
  const queue = await b.queue(channel);
  const { got, bodies } = await consume(channel, queue);
  put(channel, queue, '1', '2');
  await bodies(2);
  channel.ackAll();
  await channel.close();
  assert.deepEqual(got.map((message) => message.fields.redelivered), [false, false]);
  assert.deepEqual(await drain(await b.channel(), queue, 0), []);
});

test('nack gives back, and the next one sees redelivered', async (b) => {
  const channel = await b.channel();
  const queue = await b.queue(channel);
  put(channel, queue, 'x');
  channel.nack(await take(channel, queue, {}));
  const again = await take(channel, queue, {});
  assert.equal(again.fields.redelivered, true);
  channel.reject(again, false);
  assert.deepEqual(await drain(channel, queue, 0), []);
});

test('nackAll gives all back', async (b) => {
  const channel = await b.channel();
  const queue = await b.queue(channel);
  put(channel, queue, '1', '2', '3');
  for (let number = 0; number < 3; number += 1) await take(channel, queue, {});
  channel.nackAll();
  assert.deepEqual(await drain(channel, queue, 3), ['1', '2', '3']);
});

test('recover gives all back', async (b) => {
  const channel = await b.channel();
  const queue = await b.queue(channel);
  put(channel, queue, '1');
  await take(channel, queue, {});
  await channel.recover();
  assert.equal((await take(channel, queue)).fields.redelivered, true);
});

test('prefetch limits what is under way', async (b) => {
  const channel = await b.channel();
  const queue = await b.queue(channel);
  await channel.prefetch(1);
  const { got, bodies } = await consume(channel, queue);
  put(channel, queue, '1', '2');
  await bodies(1);
  channel.ack(got[0]);
  assert.deepEqual(await bodies(2), ['1', '2']);
});

test('a cancelled consumer hears no more', async (b) => {
  const channel = await b.channel();
  const queue = await b.queue(channel);
  const { bodies, consumerTag } = await consume(channel, queue, { noAck: true });
  put(channel, queue, '1');
  await bodies(1);
  await channel.cancel(consumerTag);
  put(channel, queue, '2');
  await bodies(1);
  assert.deepEqual(await drain(channel, queue, 1), ['2']);
});

test('a consumer hears that its queue was deleted', async (b) => {
  const [channel, other] = [await b.channel(), await b.channel()];
  const queue = await b.queue(channel);
  const { bodies } = await consume(channel, queue);
  await other.deleteQueue(queue);
  assert.deepEqual(await bodies(1), [null]);
});

test('a tag may be chosen, and only once', async (b) => {
  const connection = await b.connection();
  const channel = await connection.createChannel();
  const queue = await b.queue(channel);
  const { consumerTag } = await consume(channel, queue, { consumerTag: 'mine' });
  assert.equal(consumerTag, 'mine');
  const event = once(connection, 'error');
  await assert.rejects(channel.consume(queue, () => {}, { consumerTag: 'mine' }), /./);
  assert.equal((await within(event, 'the error'))[0].code, 530);
});

test('a priority of consumers is heeded', async (b) => {
  const channel = await b.channel();
  const queue = await b.queue(channel);
  const low = await consume(channel, queue, { noAck: true });
  const high = await consume(channel, queue, { noAck: true, priority: 5 });
  put(channel, queue, '1', '2');
  await high.bodies(2);
  await low.bodies(0);
});

test('options of queues are known by their names', async (b) => {
  const channel = await b.channel();
  const dead = await b.queue(channel);
  const queue = await b.queue(channel, { messageTtl: 100, deadLetterExchange: '', deadLetterRoutingKey: dead, maxLength: 5,
    maxPriority: 3, expires: 60000 });
  put(channel, queue, 'x');
  const { properties } = await take(channel, dead);
  assert.equal(properties.headers['x-death'][0].reason, 'expired');
});

test('answers come directly', async (b) => {
  const [client, server] = [await b.channel(), await b.channel()];
  const queue = await b.queue(server);
  const answers = await consume(client, 'amq.rabbitmq.reply-to', { noAck: true });
  client.sendToQueue(queue, Buffer.from('ask'), { replyTo: 'amq.rabbitmq.reply-to', correlationId: '1' });
  const { properties } = await take(server, queue);
  server.sendToQueue(properties.replyTo, Buffer.from('answer'), { correlationId: properties.correlationId });
  assert.deepEqual(await answers.bodies(1), ['answer']);
});

test('three who subscribe get everything, each for himself', async (b) => {
  const publisher = await b.confirming();
  const exchange = await b.exchange(publisher);
  const consumers = [];
  for (let number = 0; number < 3; number += 1) {
    const channel = await b.channel();
    const queue = await b.queue(channel, { exclusive: true }, '');
    await channel.bindQueue(queue, exchange, '');
    consumers.push(await consume(channel, queue, { noAck: true }));
  }
  for (let number = 0; number < 20; number += 1) publisher.publish(exchange, '', Buffer.from(`${number}`));
  const wanted = Array.from({ length: 20 }, (_, number) => `${number}`);
  for (const consumer of consumers) assert.deepEqual(await consumer.bodies(20), wanted);
});

async function main() {
  let [passed, failed] = [0, 0];
  for (const [number, [name, body]] of cases.entries()) {
    if (!name.includes(only)) continue;
    const broker = new Broker(number);
    try {
      await within(body(broker), 'the end of the case');
      await within(broker.clean(), 'the end of cleaning');
      passed += 1;
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`failed ${name}: ${error.stack.split('\n').slice(0, 4).join(' | ')}`);
      await broker.clean().catch(() => {});
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed > 0 ? 1 : 0);
}

main();
