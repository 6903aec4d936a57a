/** Leaves recordings with the server and prints their results as they come: node batch.js meeting.flac call.wav */

import { createReadStream } from 'node:fs';
import { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { connect, json, parse } from './arguments.js';

const CHUNK_BYTES = 512 * 1024;

const flags = parse(process.argv.slice(2));
const client = connect(flags);

async function* messages(files) {
  yield { start: {} };
  for (const file of files) {
    yield { recording: { key: file } };
    for await (const chunk of createReadStream(file, { highWaterMark: CHUNK_BYTES })) yield { chunk };
  }
}

function upload(files) {
  return new Promise((resolve, reject) => {
    const call = client.batches.BatchRecognize((error, answer) => (error ? reject(error) : resolve(answer.batch.batchId)));
    const source = Readable.from(messages(files));
    source.on('error', (error) => {
      reject(error); // a file that cannot be read
      call.cancel();
    });
    source.pipe(call);
  });
}

try {
  const batchId = await upload(flags.files);
  // From here on the server works by itself: any process that knows the id can ask.
  for await (const { result } of client.batches.WatchBatch({ batchId })) {
    if (!result) continue;
    console.log(flags.json ? json(result) : `${result.key}: ${result.error?.message ?? result.response.text}`);
  }
  await promisify(client.batches.DeleteBatch).call(client.batches, { batchId });
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  client.close();
}
