// SHA-256 (FIPS 180-4), piece by piece. crypto.subtle wants the whole file at once, and is missing where a browser does
// not trust the connection, which is the usual case with a car's own certificate on some phones.

const primes = [];
for (let n = 2; primes.length < 64; n += 1) {
  if (primes.every((p) => n % p)) {
    primes.push(n);
  }
}
const fraction = (x) => Math.floor((x - Math.floor(x)) * 2 ** 32) | 0;
const K = Int32Array.from(primes, (p) => fraction(Math.cbrt(p)));
const START = Int32Array.from(primes.slice(0, 8), (p) => fraction(Math.sqrt(p)));

export class Sha256 {
  constructor() {
    this.h = START.slice();
    this.w = new Int32Array(64);
    this.rest = new Uint8Array(64);
    this.filled = 0;
    this.bytes = 0;
  }

  update(data) {
    this.bytes += data.length;
    let at = 0;
    if (this.filled) {
      at = Math.min(64 - this.filled, data.length);
      this.rest.set(data.subarray(0, at), this.filled);
      this.filled += at;
      if (this.filled < 64) {
        return this;
      }
      this.block(this.rest, 0);
      this.filled = 0;
    }
    for (; at + 64 <= data.length; at += 64) {
      this.block(data, at);
    }
    this.rest.set(data.subarray(at));
    this.filled = data.length - at;
    return this;
  }

  block(data, at) {
    const { h, w } = this;
    for (let i = 0; i < 16; i += 1) {
      const j = at + 4 * i;
      w[i] = (data[j] << 24) | (data[j + 1] << 16) | (data[j + 2] << 8) | data[j + 3];
    }
    for (let i = 16; i < 64; i += 1) {
      const x = w[i - 15];
      const y = w[i - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
    }
    let [a, b, c, d, e, f, g, k] = h;
    for (let i = 0; i < 64; i += 1) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (k + s1 + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [k, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
    }
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
    h[4] += e;
    h[5] += f;
    h[6] += g;
    h[7] += k;
  }

  hex() {
    const tail = new Uint8Array(this.filled < 56 ? 64 - this.filled : 128 - this.filled);
    tail[0] = 0x80;
    const view = new DataView(tail.buffer);
    view.setUint32(tail.length - 8, Math.floor(this.bytes / 2 ** 29));
    view.setUint32(tail.length - 4, (this.bytes * 8) >>> 0);
    this.update(tail);
    return Array.from(this.h, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }
}

/** The hash of a File or Blob as hex; told(share) after every piece. */
export async function hashOf(file, told = () => {}) {
  const hash = new Sha256();
  const piece = 1 << 20;
  for (let at = 0; at < file.size; at += piece) {
    hash.update(new Uint8Array(await file.slice(at, at + piece).arrayBuffer()));
    told(Math.min(1, (at + piece) / file.size));
    await new Promise((done) => setTimeout(done)); // the page stays alive, the stop button above all
  }
  return hash.hex();
}
