/**
 * Streams samples as a microphone would and prints what is heard, across lost connections:
 * arecord -f S16_LE -r 16000 -c 1 -t raw | node live.js -target localhost:50051 -
 */

import { createReadStream } from 'node:fs';
import { connect, json, parse } from './arguments.js';

const flags = parse(process.argv.slice(2));
const client = connect(flags);
const live = client.stream({ config: { recognition: { language: flags.language } } });

async function send() {
  let rest = Buffer.alloc(0);
  for await (const chunk of flags.files[0] === '-' ? process.stdin : createReadStream(flags.files[0])) {
    const data = Buffer.concat([rest, chunk]);
    const whole = data.length - (data.length % 2);
    rest = data.subarray(whole);
    await live.send(data.subarray(0, whole));
  }
  live.end();
}

try {
  const sending = send();
  for await (const event of live) {
    if (flags.json) console.log(json(event));
    else if (event.result?.isFinal) console.log(`\r${event.result.segment.text}`);
    else if (event.result) process.stdout.write(`\r${event.result.fixedText}${event.result.unfixedText}`);
  }
  await sending;
  console.error(`reconnects: ${live.reconnects}`);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  client.close();
}
