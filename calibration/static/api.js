// Requests to the car. Every one has a time limit, and every failure becomes an ApiError that says what happened, the
// likely cause and what to do.

const TIMEOUT_MS = 5000;
let token = document.querySelector('meta[name="csrf-token"]')?.content ?? "";

export class ApiError extends Error {
  constructor({ what, cause = "", next = "", reason = "", blocked = [], status = 0 }) {
    super(what);
    Object.assign(this, { what, cause, next, reason, blocked, status });
  }
}

const OFFLINE = {
  what: "The car did not answer.",
  cause: "It is off, out of reach of the Wi-Fi, or busy.",
  next: "Check that this phone is in the car's Wi-Fi, then try again.",
  reason: "no_answer",
};

async function refusal(answer) {
  const found = await answer.json().catch(() => null);
  const error = found?.error;
  if (answer.status === 401) {
    document.dispatchEvent(new CustomEvent("hotlap:loggedout"));
    return new ApiError({
      what: "You are logged out.",
      cause: "The session has ended, or the car was started anew.",
      next: "Log in again.",
      reason: "logged_out",
      status: 401,
    });
  }
  if (error && typeof error === "object") {
    return new ApiError({ ...error, what: error.what || error.reason || "The car refused.", status: answer.status });
  }
  return new ApiError({
    what: `The car answered with error ${answer.status}.`,
    cause: answer.status === 413 ? "The file is too large." : "Something in the car's program went wrong.",
    next: "Try again. If it stays, look at the log on the Health page.",
    reason: `http_${answer.status}`,
    status: answer.status,
  });
}

async function once(method, path, options, signal) {
  const headers = { Accept: "application/json", ...options.headers };
  if (method !== "GET") {
    headers["X-CSRFToken"] = token;
  }
  let body = options.raw;
  if (options.body !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(options.body);
  }
  const { keepalive = false } = options;
  return fetch(path, { method, headers, body, keepalive, signal, credentials: "same-origin", cache: "no-store" });
}

async function renewToken(signal) {
  const page = await fetch("/", { credentials: "same-origin", cache: "no-store", signal });
  token = /name="csrf-token" content="([^"]*)"/.exec(await page.text())?.[1] ?? token;
}

/**
 * Ask the car. `options`: body (sent as JSON) or raw (sent as it is), headers, timeoutMs, keepalive, signal, and
 * text: true for an answer that is no JSON.
 * @throws {ApiError}
 */
export async function ask(method, path, options = {}) {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), options.timeoutMs ?? TIMEOUT_MS);
  const cancel = () => abort.abort();
  options.signal?.addEventListener("abort", cancel);
  try {
    let answer = await once(method, path, options, abort.signal);
    if ((answer.status === 403 || answer.status === 400) && (await wantsToken(answer))) {
      await renewToken(abort.signal);
      answer = await once(method, path, options, abort.signal);
    }
    if (!answer.ok) {
      throw await refusal(answer);
    }
    if (options.text) {
      return await answer.text();
    }
    return answer.status === 204 ? {} : await answer.json();
  } catch (error) {
    if (error instanceof ApiError) {
      throw error;
    }
    if (options.signal?.aborted) {
      throw new ApiError({ what: "Stopped on your wish.", reason: "cancelled" });
    }
    throw new ApiError(OFFLINE);
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", cancel);
  }
}

// A token goes out of date when the console is started anew; the page itself brings a fresh one.
async function wantsToken(answer) {
  const found = await answer
    .clone()
    .json()
    .catch(() => null);
  return !found?.error || found.error.reason === "csrf";
}

export const get = (path, options) => ask("GET", path, options);
export const post = (path, body = {}, options = {}) => ask("POST", path, { ...options, body });
export const put = (path, body = {}, options = {}) => ask("PUT", path, { ...options, body });

/** A request that outlives the page and whose answer nobody waits for. */
export function parting(path, body) {
  fetch(path, {
    method: "POST",
    keepalive: true,
    credentials: "same-origin",
    headers: { "Content-Type": "application/json", "X-CSRFToken": token },
    body: JSON.stringify(body),
  }).catch(() => {});
}
