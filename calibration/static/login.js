// Log in, and go on to the page that was wanted.

import { ApiError, ask } from "./api.js";
import { busy, byId, showError } from "./dom.js";

const form = byId("login");
const password = byId("password");

byId("show").addEventListener("change", (event) => {
  password.type = event.target.checked ? "text" : "password";
});

/** Where to go: only to a page of this very car. */
function target() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "/";
  const url = new URL(wanted, location.origin);
  return url.origin === location.origin && url.pathname !== "/login" ? url.pathname : "/";
}

async function logIn() {
  const raw = new URLSearchParams({ password: password.value, csrf_token: form.elements.csrf_token.value });
  try {
    await ask("POST", "/login", { raw, timeoutMs: 15000 });
  } catch (error) {
    if (error.reason === "wrong_password") {
      throw new ApiError({ what: "This is not the password.", next: "Try again. Capitals and small letters differ." });
    }
    throw error;
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const done = await busy(form.querySelector("[type=submit]"), byId("login-errors"), logIn);
  password.setAttribute("aria-invalid", String(!done));
  if (done) {
    location.assign(target());
  } else {
    password.focus();
    password.select();
  }
});
