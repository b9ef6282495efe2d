// Asks the server, and shows what went wrong.

export async function get(path, parameters = {}) {
  const query = new URLSearchParams(parameters).toString();
  let answer;
  try {
    answer = await fetch(query ? `${path}?${query}` : path, { headers: { Accept: "application/json" } });
  } catch {
    throw new Error("the server does not answer: has `triptych view` ended?");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error ?? `${path}: ${answer.status}`);
  return body;
}

export const run = (id) => `api/run/${encodeURIComponent(id)}`;

// One line at the top; `null` takes it away.
export function fail(error) {
  const line = document.getElementById("error");
  line.hidden = !error;
  line.textContent = error ? error.message : "";
}

// An element with text or children; attributes by name, listeners as functions.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((c) => c !== null && c !== undefined));
  return made;
}

// A colour that styles cannot know beforehand; an inline style attribute would be against the page's own policy.
export function swatch(colour) {
  const made = document.createElement("i");
  made.style.background = colour;
  return made;
}
