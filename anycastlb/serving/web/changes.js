// What a plan says, as lists: edits of documents field by field, and changes of the machine in their order.

import { h } from "./dom.js";
import { plural, sign } from "./words.js";

const SIGNS = { create: ["good", "+", "create"], update: ["warn", "~", "update"], delete: ["bad", "−", "delete"], move: ["calm", "↕", "move"] };
const MOST = 200;

function flat(value, at = "", into = new Map()) {
  if (value !== null && typeof value === "object" && Object.keys(value).length && !Array.isArray(value)) {
    for (const [name, inner] of Object.entries(value)) flat(inner, at ? `${at}.${name}` : name, into);
  } else if (value !== undefined && !(value === null && at === "")) {
    into.set(at, typeof value === "string" ? value : JSON.stringify(value));
  }
  return into;
}

function fields(before, after) {
  const was = flat(before ?? null), is = flat(after ?? null);
  const names = [...new Set([...was.keys(), ...is.keys()])].filter((name) => was.get(name) !== is.get(name));
  if (!names.length) return null;
  return h("dl", { class: "fields" }, names.slice(0, 60).map((name) => h("div", null, h("dt", null, name || "value"), h("dd", null,
    was.has(name) ? h("del", null, was.get(name)) : null, was.has(name) && is.has(name) ? " → " : null, is.has(name) ? h("ins", null, is.get(name)) : null))));
}

const flows = (told) => (typeof told === "number" ? `touches ${plural(told, "flow")}` : typeof told === "string" ? told : told ? JSON.stringify(told) : "");

const more = (items) => (items.length > MOST ? h("p", { class: "dim" }, `… and ${items.length - MOST} more`) : null);

export const edits = (items) => [h("ul", { class: "changes", id: "plan-edits" }, items.slice(0, MOST).map((one) => h("li", null,
  sign(...(SIGNS[one.verb] ?? SIGNS.update)), " ", h("b", null, one.key), fields(one.before, one.after)))), more(items)];

export const diff = (items) => [h("ol", { class: "changes", id: "plan-changes" }, items.slice(0, MOST).map((one) => h("li", null,
  sign(...(SIGNS[one.verb] ?? SIGNS.update)), " ", h("b", null, one.object), one.verb === "create" || one.verb === "delete" ? null : fields(one.before, one.after),
  h("div", { class: "dim" }, [one.why, flows(one.flows)].filter(Boolean).join(" · ")), one.refused && h("div", { class: "bad" }, `refused: ${one.refused}`)))), more(items)];
