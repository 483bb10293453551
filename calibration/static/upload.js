// A file to the car in pieces. After a lost connection it goes on where the car has it up to; after some failures in a
// row it gives up, and sending the same file again goes on all the same.

import { ApiError, ask, get, post } from "./api.js";
import { hashOf } from "./sha256.js";

const PIECE = 256 * 1024;
const TRIES = 6;
const VERDICT_MS = 120000; // the car runs the model a hundred times before it takes it

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/**
 * @param told called with (phase, share): "reading", "sending", "checking"
 * @param signal AbortSignal of the Pause button
 * @returns the car's verdict: {sha256, new, report, ...}
 * @throws {ApiError}
 */
export async function upload(file, { activate, told, signal }) {
  told("reading", 0);
  let sha256;
  try {
    sha256 = await hashOf(file, (share) => told("reading", share));
  } catch {
    throw new ApiError({
      what: "The file cannot be read.",
      cause: "It was moved or changed.",
      next: "Choose it again.",
    });
  }
  const begun = await post("/api/v1/uploads", { size: file.size, sha256, name: file.name }, { signal });
  const path = `/api/v1/uploads/${encodeURIComponent(begun.upload)}`;
  await send(file, path, begun.offset ?? 0, told, signal);
  told("checking", 1);
  const name = file.name.replace(/\.(tar\.gz|tgz|gz)$/, "").slice(0, 64) || "model";
  return post(`${path}/install`, { activate, name }, { timeoutMs: VERDICT_MS });
}

async function send(file, path, begin, told, signal) {
  let offset = begin;
  let failures = 0;
  told("sending", offset / file.size);
  while (offset < file.size) {
    try {
      const answer = await ask("PATCH", path, {
        raw: file.slice(offset, offset + PIECE),
        headers: { "Content-Type": "application/octet-stream", "Upload-Offset": String(offset) },
        timeoutMs: 20000,
        signal,
      });
      offset = answer.offset;
      failures = 0;
    } catch (error) {
      failures += 1;
      const passes = error.status === 0 || error.status === 409 || error.status >= 500;
      if (error.reason === "cancelled" || !passes || failures >= TRIES) {
        throw error;
      }
      await wait(Math.min(4000, 250 * 2 ** failures));
      offset = (await get(path, { signal }).catch(() => ({ offset }))).offset;
    }
    told("sending", offset / file.size);
  }
}
