'use strict';
// Publishes a message and gets it back, over TLS: node tls.js PORT CA [CERTIFICATE KEY]

const assert = require('node:assert/strict');
const fs = require('node:fs');
const amqp = require('amqplib');

const [port, ca, cert, key] = process.argv.slice(2);

async function main() {
  const options = { ca: [fs.readFileSync(ca)] };
  if (cert) Object.assign(options, { cert: fs.readFileSync(cert), key: fs.readFileSync(key) });
  const connection = await amqp.connect(`amqps://127.0.0.1:${port}`, options);
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue('tls-node', { durable: true });
  const body = Buffer.alloc(1000000, 'x');
  channel.sendToQueue('tls-node', body, { persistent: true });
  await channel.waitForConfirms();
  const got = await channel.get('tls-node', { noAck: true });
  assert(got && got.content.equals(body));
  await connection.close();
  console.log('done');
}

main().catch((error) => {
  console.log(`failed: ${error.message}`);
  process.exitCode = 1;
});
