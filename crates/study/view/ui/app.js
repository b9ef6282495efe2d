// Routes between the views; the address (hash) holds the whole state, so that a link shows what its sender saw.

import { fail, get } from "./api.js";
import { showFacts } from "./facts.js";
import { MatrixView } from "./matrix.js";
import { RunView } from "./run.js";

const POLL_MS = 2000;
const main = document.getElementById("main");
const shared = { study: null, runs: [], state: {}, go };
let view = null;

// #run=r0001-p00-k0&from=1.2&to=1.4  ↔  { run: "r0001-p00-k0", from: "1.2", to: "1.4" }
function read() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

// Changes some of the state; `undefined` and "" take it out. A replaced state leaves no step in the history.
function go(change, { replace = false } = {}) {
  const state = { ...read(), ...change };
  for (const key of Object.keys(state)) if (state[key] === undefined || state[key] === "") delete state[key];
  const hash = `#${new URLSearchParams(state)}`;
  if (hash === location.hash || (hash === "#" && !location.hash)) return;
  if (replace) {
    history.replaceState(null, "", hash);
    shared.state = state;
  } else {
    location.hash = hash;
  }
}

async function route() {
  shared.state = read();
  const wanted = shared.state.run ? RunView : MatrixView;
  try {
    if (!(view instanceof wanted)) {
      view?.close();
      main.replaceChildren();
      view = new wanted(main, shared);
    }
    await view.update();
    fail(null);
  } catch (error) {
    fail(error);
  }
  facts();
}

async function facts() {
  const open = shared.state.facts === "1";
  document.getElementById("facts").hidden = !open;
  document.getElementById("facts-button").setAttribute("aria-expanded", String(open));
  if (open) await showFacts(document.getElementById("facts"), shared).catch(fail);
}

function head() {
  const { study } = shared;
  const title = document.getElementById("title");
  const name = document.createElement("b");
  name.textContent = study.name;
  const about = document.createElement("span");
  about.textContent = study.description ? ` — ${study.description}` : "";
  title.replaceChildren(name, about);
  title.title = study.description;
  document.title = `${study.name} · Triptych`;
  const c = study.counts;
  const parts = [`${c.complete} of ${c.planned} runs`];
  for (const kind of ["running", "failed", "interrupted", "unreadable"]) if (c[kind]) parts.push(`${c[kind]} ${kind}`);
  document.getElementById("progress").textContent = parts.join(" · ");
}

async function load() {
  [shared.study, shared.runs] = await Promise.all([get("api/study"), get("api/runs")]);
  head();
}

// A study under way grows: the version costs the server next to nothing and tells when there is something to read.
async function poll() {
  try {
    const { study } = shared;
    const { version } = await get("api/study/version");
    if (version !== study.version) await load();
    if (version !== study.version || study.counts.running > 0) await view?.update(true);
    fail(null);
  } catch (error) {
    fail(error);
  }
  next();
}

function next() {
  const c = shared.study.counts;
  if (c.complete + c.failed + c.unreadable < c.planned) setTimeout(poll, POLL_MS);
}

document.getElementById("facts-button").addEventListener("click", () => {
  go({ facts: shared.state.facts === "1" ? undefined : "1" });
});
window.addEventListener("hashchange", route);
let width = 0;
new ResizeObserver(() => {
  if (main.clientWidth === width) return;
  width = main.clientWidth;
  view?.draw();
}).observe(main);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view?.draw());

load().then(route).then(next, fail);
