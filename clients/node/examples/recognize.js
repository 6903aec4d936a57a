/** Transcribes recordings, each in one call: node recognize.js -target localhost:50051 meeting.flac */

import { readFile } from 'node:fs/promises';
import { connect, json, milliseconds, parse } from './arguments.js';

const flags = parse(process.argv.slice(2));
const client = connect(flags);
try {
  const config = { language: flags.language, hotwords: flags.hotwords?.split(',') };
  const options = flags.timeout ? { timeoutMs: milliseconds(flags.timeout) } : {};
  for (const file of flags.files) {
    const answer = await client.recognize(await readFile(file), config, options);
    console.log(flags.json ? json(answer) : answer.text);
  }
} catch (error) {
  console.error(error.message);
  console.error(`reason: ${error.reason}`);
  for (const { field, description } of error.violations ?? []) console.error(`field ${field}: ${description}`);
  if (error.retryAfterMs) console.error(`try again after ${error.retryAfterMs} ms`);
  process.exitCode = 1;
} finally {
  client.close();
}
