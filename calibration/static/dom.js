// Small helpers to build and fill the page. Text is always set as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** el("p", {class: "hint", onclick: f}, "text", node, ...); null and false children are left out. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) {
      node.addEventListener(key.slice(2), value);
    } else if (value === true) {
      node.setAttribute(key, "");
    } else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(key, String(value));
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `/static/icons.svg#${name}` }));
}

/** Set the text only where it changed: screen readers read a live region again for every change. */
export function text(node, value) {
  if (node.textContent !== value) {
    node.textContent = value;
  }
}

/** Show an error (what, cause, next) in a box, in place of what was there; null clears it. */
export function showError(box, error) {
  box.replaceChildren();
  if (!error || error.reason === "cancelled") {
    return;
  }
  const lines = [el("p", { class: "what" }, error.what ?? String(error))];
  if (error.cause) {
    lines.push(el("p", {}, `Likely cause: ${error.cause}`));
  }
  if (error.reason === "logged_out") {
    lines.push(el("p", {}, el("a", { href: `/login?next=${encodeURIComponent(location.pathname)}` }, "Log in again")));
  } else if (error.next) {
    lines.push(el("p", {}, `What to do: ${error.next}`));
  }
  const close = el("button", { type: "button", class: "close", "aria-label": "Close this message" }, "×");
  close.addEventListener("click", () => box.replaceChildren());
  const notice = el(
    "div",
    { class: "notice bad", role: "alert" },
    el("div", { class: "notice-row" }, el("div", {}, ...lines), close),
  );
  box.append(notice);
  notice.scrollIntoView({ block: "nearest" });
}

/** Run what a button does: it is disabled meanwhile, and an error is shown in the box. False where it failed. */
export async function busy(button, box, work) {
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  showError(box, null);
  try {
    await work();
    return true;
  } catch (error) {
    showError(box, error);
    return false;
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}
