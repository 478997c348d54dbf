// BullMQ: jobs with priorities, delays and failures, and their events.

import assert from 'node:assert';
import { Queue, QueueEvents, Worker } from 'bullmq';

const [host, port] = [process.argv[2], Number(process.argv[3])];
const connection = { host, port, maxRetriesPerRequest: null };

const queue = new Queue('numbers', { connection });
const events = new QueueEvents('numbers', { connection });
await events.waitUntilReady();
const worker = new Worker('numbers', async (job) => {
  if (job.name === 'fail') throw new Error('expected to fail');
  return job.data.n + 1;
}, { connection, concurrency: 4 });

const jobs = await queue.addBulk(
  Array.from({ length: 20 }, (_, n) => ({ name: 'add', data: { n }, opts: { priority: 1 + (n % 3) } })));
const delayed = await queue.add('add', { n: 99 }, { delay: 200 });
const failing = await queue.add('fail', {}, { attempts: 2, backoff: 50 });

for (const [n, job] of jobs.entries()) {
  assert.strictEqual(await job.waitUntilFinished(events, 30000), n + 1);
}
assert.strictEqual(await delayed.waitUntilFinished(events, 30000), 100);
await assert.rejects(failing.waitUntilFinished(events, 30000), /expected to fail/);
const counts = await queue.getJobCounts('completed', 'failed', 'delayed');
assert.deepStrictEqual(counts, { completed: 21, failed: 1, delayed: 0 });

await worker.close();
await events.close();
await queue.close();
console.log('20 jobs by priority, a delay, a retry and a failure done');
