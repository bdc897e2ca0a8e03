// The journal, newest first.

import { h } from "./dom.js";
import { clock, sign } from "./words.js";

const SIGNS = { info: ["dim", "·", "info"], warning: ["warn", "△", "warning"], error: ["bad", "✕", "error"] };

export function entries(items) {
  if (!items.length) return h("p", { class: "dim" }, "Nothing has happened yet.");
  return h("ol", { class: "events" }, items.map((item) => h("li", { "data-key": `${item.at} ${item.id}` },
    h("time", { datetime: item.at, title: item.at }, clock(item.at)), sign(...(SIGNS[item.level] ?? SIGNS.info)),
    h("span", { class: "kind" }, item.kind), h("span", { class: "what" }, h("b", null, item.subject), " ",
      item.before && item.after ? `${item.before} → ${item.after}` : item.after || item.before,
      item.reason && h("span", { class: "dim" }, item.before || item.after ? `: ${item.reason}` : item.reason)))));
}

export function feed(state) {
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const told = (item) => `${item.level} ${item.kind} ${item.subject} ${item.before} ${item.after} ${item.reason}`.toLowerCase();
  const items = state.events.filter((item) => words.every((word) => told(item).includes(word))).reverse();
  return [h("div", { class: "head", "data-key": "title" }, h("h1", null, "Events"), h("span", { class: "gap" }),
    h("label", { for: "filter" }, "Filter"), h("input", { id: "filter", type: "search", "data-own": true, autocomplete: "off", spellcheck: "false" })),
  h("p", { class: "dim", "data-key": "count" }, `${items.length} of the last ${state.events.length}`),
  h("div", { "data-key": "list" }, entries(items.slice(0, 300)))];
}
