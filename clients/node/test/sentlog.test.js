import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SentLog } from '../lib/sentlog.js';

const OPEN = new AbortController().signal;

function filled(rate, ...sizes) {
  const log = new SentLog(rate, 2);
  for (const size of sizes) log.add({ audio: Buffer.alloc(size) });
  log.close();
  return log;
}

async function sentFrom(log, position) {
  let total = 0;
  for await (const { audio } of log.from(position, OPEN)) total += audio.length;
  return total;
}

test('everything is sent again from the position on', async () => {
  const log = filled(32_000, 3200, 3200, 3200);
  assert.equal(await sentFrom(log, 0), 9600);
  assert.equal(await sentFrom(log, 50), 8000);
  assert.equal(await sentFrom(log, 150), 4800);
  assert.equal(await sentFrom(log, 300), 0);
});

test('confirmed audio is forgotten', async () => {
  const log = filled(32_000, 3200, 3200, 3200);
  log.confirm(250);
  assert.equal(log.kept, 1);
  assert.equal(await sentFrom(log, 250), 1600);
});

test('silence is cut too', async () => {
  const log = new SentLog(32_000, 2);
  log.add({ silence: { seconds: 1, nanos: 0 } });
  const { value } = await log.from(400, OPEN).next();
  assert.deepEqual(value.silence, { seconds: 0, nanos: 600_000_000 });
});

test('containers are sent once and not kept', async () => {
  const log = filled(0, 5000);
  assert.equal(await sentFrom(log, 0), 5000);
  assert.equal(log.kept, 0);
});

test('a sender waits for a server that is far behind', async () => {
  const log = filled(32_000, 61 * 32_000);
  let waited = false;
  const room = log.room(OPEN).then(() => {
    waited = true;
  });
  await new Promise(setImmediate);
  assert.equal(waited, false);
  log.confirm(30_000);
  await room;
});
