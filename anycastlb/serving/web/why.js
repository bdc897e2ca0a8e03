// The chain from evidence to route, and what is about to change.

import { h } from "./dom.js";
import { diff } from "./changes.js";
import { link, path, sign } from "./words.js";

const mark = (ok) => (ok === true ? sign("good", "✓", "") : ok === false ? sign("bad", "✗", "") : sign("dim", "·", ""));
const said = { true: "holds", false: "does not hold", null: "for information" };

const chain = (links) => h("ul", { class: "chain" }, links.map((one, at) => h("li", { "data-key": `${at} ${one.what} ${one.object}` },
  mark(one.ok), h("span", { class: "hidden" }, said[one.ok]), h("span", { class: "kind" }, one.what),
  h("span", { class: "what" }, one.object && h("b", null, one.object), one.object && one.text && " ", one.text),
  one.links?.length ? chain(one.links) : null)));

export function why(state, object) {
  const found = state.why, box = h("form", { class: "head", "data-key": "title", "data-form": "why", "data-own": true },
    h("h1", null, h("label", { for: "object" }, "Why")), h("input", { id: "object", name: "object", list: "objects", autocomplete: "off", spellcheck: "false", placeholder: "VIP, SERVICE or SERVICE/BACKEND" }),
    h("button", { type: "submit" }, "Explain"));
  const names = h("datalist", { id: "objects", "data-key": "names" }, objects(state).map((name) => h("option", { value: name })));
  if (!object) return [box, names, h("p", { class: "dim", "data-key": "hint" }, "Name a VIP, a service or a backend to see why it is as it is.")];
  if (!found || found.asked !== object) return [box, names, h("p", { class: "dim", "data-key": "hint" }, "Asking …")];
  if (found.refused) return [box, names, h("p", { class: "notice bad", "data-key": "hint" }, `${found.refused.message}. ${found.refused.mend}`)];
  return [box, names, h("p", { class: "answer", "data-key": "answer" }, h("span", null, found.ok ? sign("good", "✓", "") : sign("bad", "✗", "")), h("b", null, found.object), ` ${found.answer}`,
    found.kind !== "vip" && [" ", link(`service/${path(found.object.split("/")[0])}`, "Open the service")]),
  h("div", { "data-key": "chain" }, chain(found.chain))];
}

const objects = ({ status }) => [...new Set(status.vips.flatMap((vip) => [vip.vip, ...vip.services.flatMap((one) =>
  [one.service, ...one.backends.map((backend) => `${one.service}/${backend.backend}`)])]))].slice(0, 2000);

export function pending(state) {
  const changes = state.plan?.changes ?? [];
  return [h("h1", { "data-key": "title" }, `Plan of ${state.status.node.name}`),
    h("p", { class: "dim", "data-key": "hint" }, changes.length ? "What is still to be changed, in the order of the doing." : "Nothing is to be changed: the machine is as the catalog wants it."),
    h("div", { "data-key": "changes" }, changes.length ? diff(changes) : null)];
}
