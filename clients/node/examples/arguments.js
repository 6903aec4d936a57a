/** The command line of the examples: -name value, and -json alone. */

import { TandemClient } from '../lib/index.js';

const UNITS = { ms: 1, s: 1000, m: 60_000 };

export function parse(argv) {
  const flags = { files: [] };
  for (let i = 0; i < argv.length; i += 1) {
    if (!argv[i].startsWith('-') || argv[i] === '-') flags.files.push(argv[i]);
    else if (argv[i] === '-json') flags.json = true;
    else flags[argv[i].slice(1)] = argv[(i += 1)];
  }
  return flags;
}

/** A time such as 5ms, 30s or 10m, in milliseconds. */
export function milliseconds(text) {
  const [, number, unit] = /^(\d+)(ms|s|m)$/.exec(text);
  return Number(number) * UNITS[unit];
}

/** The client that -target, -api-key, -ca, -cert and -key ask for. */
export function connect(flags) {
  const { ca, cert, key } = flags;
  return new TandemClient(flags.target, { ca, cert, key, apiKey: flags['api-key'] ?? process.env.TANDEM_API_KEY });
}

/** A message as protobuf's JSON writes it: durations like "1.500s", what is unset left out. */
export function json(message) {
  return JSON.stringify(message, (name, value) => {
    if (value === null) return undefined;
    if (value && typeof value === 'object' && 'seconds' in value && 'nanos' in value) {
      return `${value.seconds}.${String(value.nanos).padStart(9, '0')}s`;
    }
    return value;
  });
}
