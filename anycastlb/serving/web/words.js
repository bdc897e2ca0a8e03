// How numbers and states are told: the same words as the commands use, a symbol beside every colour.

import { h } from "./dom.js";

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "ever";
  if (seconds > 0 && seconds < 0.00095) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function count(number, unit = "") {
  if (number === null || number === undefined) return "–";
  let value = number;
  for (const prefix of ["", "k", "M", "G", "T"]) {
    if (Math.abs(value) < 1000 || prefix === "T") {
      const digits = value === 0 || Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : Math.abs(value) >= 10 ? 1 : 2;
      return `${value.toFixed(digits)}${prefix || unit ? " " : ""}${prefix}${unit}`.trimEnd();
    }
    value /= 1000;
  }
  return "";
}

export const plural = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

export function clock(moment) {
  const at = new Date(moment);
  return Number.isNaN(at.getTime()) ? "" : at.toLocaleTimeString([], { hour12: false });
}

// kind: good, bad, warn, calm, dim
export const sign = (kind, symbol, text) =>
  h("span", { class: `sign ${kind}` }, h("span", { "aria-hidden": "true", class: "symbol" }, symbol), " ", text);

export function backendSign(backend) {
  const check = backend.check ?? {};
  if (backend.drain) return sign("calm", "◇", "drained");
  if (backend.up === null || backend.up === undefined) return sign("dim", "○", "not decided");
  if (backend.up && check.up === true && check.streak) return sign("warn", "◐", "failing");
  if (backend.up && backend.weight === 0) return sign("calm", "◇", "weight 0");
  if (backend.up && backend.weight < backend.nominal_weight) return sign("warn", "◔", "partly");
  if (backend.up) return sign("good", "●", "up");
  if (check.up === null || check.up === undefined) return sign("dim", "○", "not checked");
  return sign("bad", "✕", check.streak ? "down, rising" : "down");
}

export function vipSign(vip) {
  if (vip.announced && vip.open) return sign("good", "▲", "announced");
  if (vip.announced) return sign("warn", "△", "announced, closing");
  if (vip.leaving) return sign("dim", "◌", "leaving");
  if (vip.open) return sign("warn", "△", "open, not announced");
  return sign("bad", "▽", "closed");
}

export const path = (...parts) => parts.map(encodeURIComponent).join("/");
export const link = (to, ...text) => h("a", { href: `#/${to}` }, ...text);
export const whyLink = (object, text = object) => link(`why/${object.split("/").map(encodeURIComponent).join("/")}`, text);

export const button = (label, act, data = {}, props = {}) =>
  h("button", {
    type: "button", "data-do": act, ...props,
    ...Object.fromEntries(Object.entries(data).map(([name, value]) => [`data-${name}`, value])),
  }, label);

export const table = (label, heads, rows, kind = "") =>
  h("table", { class: kind, "aria-label": label },
    h("thead", null, h("tr", null, heads.map((head) => h("th", { scope: "col", class: head.kind }, head.text ?? head)))),
    h("tbody", null, rows));

export const cell = (label, kind, ...content) => h("td", { "data-label": label, class: kind }, ...content);
