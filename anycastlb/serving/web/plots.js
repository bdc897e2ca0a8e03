// Small pictures of the last ten minutes, each with the same in words.

import { h, s } from "./dom.js";
import { count } from "./words.js";

const SPAN = 600; // seconds

// How many samples ten minutes are: a large table is sampled less often. `history` is the answer of /v1/history.
export function slots(history) {
  return Math.max(2, Math.round(SPAN / (history?.interval_seconds ?? 5)));
}

const HEALTH = {
  "-": ["none", 2, "not checked"], u: ["up", 5, "up"], f: ["failing", 9, "up, but failing"],
  d: ["down", 14, "down"], r: ["rising", 11, "down, but answering"],
};

// A line over an area; gaps where nothing is known. `values` are oldest first; `slots` of them fill the width.
export function spark(values, { label, slots, unit = "", width = 240, height = 44 }) {
  const known = values.filter((value) => value !== null);
  const most = Math.max(...known, 0);
  const now = values.length ? values[values.length - 1] : null;
  const all = Math.max(slots, values.length);
  const step = width / (all - 1), from = all - values.length, scale = most || 1;
  const pieces = [];
  let piece = [];
  values.forEach((value, slot) => {
    if (value === null) { if (piece.length) pieces.push(piece); piece = []; return; }
    piece.push([((from + slot) * step).toFixed(1), (height - 2 - (value / scale) * (height - 6)).toFixed(1)]);
  });
  if (piece.length) pieces.push(piece);
  const told = known.length
    ? `${label} per second: now ${count(now, unit)}, at most ${count(most, unit)} in ten minutes`
    : `${label} per second: not known yet`;
  return s("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": told, preserveAspectRatio: "none" },
    s("line", { class: "base", x1: 0, x2: width, y1: height - 1.5, y2: height - 1.5 }),
    pieces.map((points) => [
      s("polygon", { class: "area", points: `${points[0][0]},${height - 2} ${points.map((p) => p.join(",")).join(" ")} ${points.at(-1)[0]},${height - 2}` }),
      s("polyline", { class: "line", points: (points.length > 1 ? points : [points[0], points[0]]).map((p) => p.join(",")).join(" ") }),
    ]));
}

export function plot(title, values, unit, slots) {
  const known = values.filter((value) => value !== null);
  const now = values.length ? values[values.length - 1] : null;
  return h("figure", { class: "plot" },
    h("figcaption", null, h("span", null, `${title}/s`), h("b", null, count(now, unit)),
      h("span", { class: "dim" }, known.length ? `max ${count(Math.max(...known), unit)}` : "no sample yet")),
    spark(values, { label: title, unit, slots }));
}

// Check results slot by slot: the height tells what the colour tells.
export function strip(health, slots) {
  const all = Math.max(slots, health.length), width = all * 2, runs = [];
  [...health].forEach((letter, slot) => {
    const last = runs.at(-1);
    if (last && last.letter === letter) last.length += 1;
    else runs.push({ letter, slot, length: 1 });
  });
  const from = all - health.length;
  const share = (letter) => Math.round(([...health].filter((l) => l === letter).length / (health.length || 1)) * 100);
  const told = Object.keys(HEALTH).filter((l) => share(l)).map((l) => `${HEALTH[l][2]} ${share(l)} %`).join(", ");
  return s("svg", { class: "strip", viewBox: `0 0 ${width} 14`, role: "img", preserveAspectRatio: "none",
    "aria-label": health ? `last ten minutes: ${told}` : "no check result yet" },
    s("rect", { class: "bed", x: 0, y: 0, width, height: 14 }),
    runs.map(({ letter, slot, length }) => {
      const [kind, height] = HEALTH[letter] ?? HEALTH["-"];
      return s("rect", { class: `slot ${kind}`, x: (from + slot) * 2, y: 14 - height, width: length * 2, height });
    }));
}

export function bar(part, whole, kind = "") {
  const share = whole ? Math.max(0, Math.min(1, part / whole)) : 0;
  return s("svg", { class: `bar ${kind}`, viewBox: "0 0 60 6", "aria-hidden": "true", preserveAspectRatio: "none" },
    s("rect", { class: "bed", x: 0, y: 0, width: 60, height: 6, rx: 1 }),
    s("rect", { class: "fill", x: 0, y: 0, width: (60 * share).toFixed(1), height: 6, rx: 1 }));
}

// Several series as one, place by place; unknown only where all are.
export function sum(series) {
  const length = Math.max(0, ...series.map((one) => one.length));
  return Array.from({ length }, (_, place) => {
    const known = series.map((one) => one[place]).filter((value) => value !== null && value !== undefined);
    return known.length ? known.reduce((a, b) => a + b, 0) : null;
  });
}
