// node-redis: commands, pipelining, transactions, pub/sub, blocking, scanning.

import assert from 'node:assert';
import { commandOptions, createClient, WatchError } from 'redis';

const url = `redis://${process.argv[2]}:${process.argv[3]}`;
const client = await createClient({ url }).connect();

await client.set('a', '1', { EX: 100, NX: true });
assert.strictEqual(await client.get('a'), '1');
assert.strictEqual(await client.incrBy('a', 41), 42);
assert.ok(await client.ttl('a') > 90);

await client.hSet('h', { f: 'v', n: 3 });
assert.deepStrictEqual({ ...(await client.hGetAll('h')) }, { f: 'v', n: '3' });
await client.rPush('l', ['a', 'b', 'c']);
assert.deepStrictEqual(await client.lRange('l', 0, -1), ['a', 'b', 'c']);
await client.sAdd('s', ['x', 'y']);
assert.deepStrictEqual((await client.sMembers('s')).sort(), ['x', 'y']);
await client.zAdd('z', [{ score: 1.5, value: 'm' }, { score: 2, value: 'n' }]);
assert.deepStrictEqual(await client.zRangeWithScores('z', 0, -1),
  [{ score: 1.5, value: 'm' }, { score: 2, value: 'n' }]);

const many = await Promise.all(Array.from({ length: 1000 }, (_, n) => client.set(`k:${n}`, String(n))));
assert.ok(many.every((reply) => reply === 'OK'));
let scanned = 0;
for await (const _ of client.scanIterator({ MATCH: 'k:*', COUNT: 50 })) scanned += 1;
assert.strictEqual(scanned, 1000);

assert.deepStrictEqual(await client.multi().set('t', '1').incr('t').get('t').exec(), ['OK', 2, '2']);
await client.executeIsolated(async (isolated) => {
  await isolated.watch('t');
  await client.set('t', 'changed');
  await assert.rejects(isolated.multi().set('t', 'lost').exec(), WatchError);
});
assert.strictEqual(await client.get('t'), 'changed');

const popped = client.blPop(commandOptions({ isolated: true }), 'queue', 10);
await client.rPush('queue', 'job');
assert.deepStrictEqual({ ...(await popped) }, { key: 'queue', element: 'job' });

const subscriber = await client.duplicate().connect();
const heard = new Promise((resolve) => {
  subscriber.pSubscribe('news.*', (message, channel) => resolve([channel, message]));
});
while (await client.publish('news.now', 'hello') === 0);
assert.deepStrictEqual(await heard, ['news.now', 'hello']);
await subscriber.pUnsubscribe();

await assert.rejects(client.lPush('a', 'x'), /WRONGTYPE/);
const bytes = Buffer.from([0, 255, 13, 10]);
await client.set('bytes', bytes);
assert.deepStrictEqual(await client.get(commandOptions({ returnBuffers: true }), 'bytes'), bytes);

await subscriber.quit();
await client.quit();
console.log('strings, collections, 1000 pipelined, transactions, blocking and pub/sub done');
