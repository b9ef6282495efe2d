// The page: header, which view, and what is new.

import { ask } from "./api.js";
import { h } from "./dom.js";
import { plural } from "./format.js";
import { matrixView } from "./matrix.js";
import { runView } from "./run.js";
import { route } from "./state.js";

/** How often the study is asked for changes. */
const POLL_MS = 2000;

const view = document.getElementById("view");
const header = document.getElementById("header");
const banner = document.getElementById("banner");
let study;
let shown;
let lastMatrix = "#/";

function progress(counts) {
  const done = counts.complete + counts.failed + counts.interrupted + counts.unreadable;
  const badges = [h("span", { class: `badge ${done === counts.planned && counts.complete === done ? "complete" : ""}` },
    `${counts.complete} of ${plural(counts.planned, "run")} complete`)];
  if (counts.running) badges.push(h("span", { class: "badge running" }, `${counts.running} under way`));
  if (counts.failed) badges.push(h("span", { class: "badge failed" }, `${counts.failed} failed`));
  if (counts.interrupted) badges.push(h("span", { class: "badge" }, `${counts.interrupted} interrupted`));
  if (counts.flagged) badges.push(h("span", { class: "badge disturbed", title: "Something outside took the machine's time, or samples are missing: the runs say what" }, `△ ${counts.flagged} disturbed`));
  if (counts.unreadable) badges.push(h("span", { class: "badge failed" }, `${counts.unreadable} unreadable`));
  return badges;
}

function drawHeader() {
  document.title = `${study.name} · Triptych`;
  header.replaceChildren(
    h("a", { class: "brand", href: "#/" }, h("img", { src: "/icon.svg", alt: "" }), "Triptych"),
    h("div", { class: "what" }, h("b", {}, study.name), study.description ? h("span", { class: "quiet" }, ` — ${study.description}`) : null),
    ...progress(study.counts));
}

function trouble(message) {
  banner.hidden = !message;
  banner.textContent = message ?? "";
}

function open() {
  const { run, query } = route();
  shown?.remove();
  view.replaceChildren();
  document.documentElement.dataset.plot = "";
  if (!run) lastMatrix = location.hash || "#/";
  shown = run ? runView(view, study, run, query, () => lastMatrix) : matrixView(view, study, query);
  scrollTo(0, 0);
}

async function poll() {
  if (!document.hidden) {
    try {
      const { version } = await ask("/study/version");
      trouble(null);
      const changed = version !== study.version;
      if (changed) {
        study = await ask("/study");
        drawHeader();
      }
      await shown?.refresh(study, changed);
    } catch (error) {
      trouble(error.status ? error.message : "The server does not answer. What is shown is what was known last; trying again.");
    }
  }
  setTimeout(poll, POLL_MS);
}

async function start() {
  try {
    study = await ask("/study");
  } catch (error) {
    view.replaceChildren(h("p", { class: "error" }, `The study cannot be shown: ${error.message}`));
    return;
  }
  drawHeader();
  open();
  addEventListener("hashchange", open);
  setTimeout(poll, POLL_MS);
}

start();
