/** The Node client of a Tandem speech recognition server. See README.md. */

export { TandemClient, deadline } from './client.js';
export { TandemError } from './errors.js';
export { LiveStream } from './stream.js';
