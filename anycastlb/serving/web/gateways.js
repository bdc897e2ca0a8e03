// The HTTP tier at a glance: gateways, routes and pools; nothing where there is none.

import { h } from "./dom.js";
import { bar, slots, spark } from "./plots.js";
import { cell, count, sign, table, whyLink } from "./words.js";

const MOST_HOSTS = 5;
const state = (ok, some) => (ok ? sign("good", "●", "open") : some ? sign("warn", "◐", "in part") : sign("bad", "✕", "closed"));

export function tier({ status: { http }, history }) {
  if (!http) return [];
  const head = h("div", { class: "head", "data-key": "http" }, h("h2", null, "Gateways"),
    http.haproxy.ok ? sign("good", "●", "HAProxy runs") : h("span", { class: "reason" }, sign(http.served ? "bad" : "dim", "✕", http.haproxy.reason)));
  if (!http.served) return [h("section", { "data-key": "gateways" }, head)];
  return [h("section", { "data-key": "gateways" }, head, gateways(http, history)), routes(http), pools(http, history)];
}

// How fast requests came in the last ten minutes: `past` is an entry of /v1/history.
function requests(history, past, name) {
  const values = past?.rates.requests ?? [];
  return cell("Requests/s", "number wide", spark(values, { label: `${name} requests`, slots: slots(history), width: 120, height: 22 }), h("span", null, count(values.at(-1))));
}

function gateways({ gateways: all }, history) {
  const past = new Map((history?.gateways ?? []).map((one) => [one.gateway, one]));
  const rows = all.map((one) => h("tr", { "data-key": one.gateway },
    h("th", { scope: "row" }, whyLink(`gateways/${one.gateway}`, one.gateway), h("div", { class: "dim" }, `${one.protocol} ${one.port} · ${one.vips.join(", ")}`)),
    cell("State", "", state(one.open, one.up), h("div", { class: "dim reason" }, one.reason)),
    cell("Routes", "number", `${one.up ?? "–"}/${one.total ?? "–"}`, bar(one.up ?? 0, one.total ?? 0, one.up === one.total ? "good" : one.up ? "warn" : "bad")),
    requests(history, past.get(one.gateway), one.gateway),
    cell("Errors/s", "number", count(past.get(one.gateway)?.rates.responses_5xx.at(-1))),
    cell("Certificates", "", one.certificates.length ? one.certificates.map((each) => h("div", null, each.served ? sign("good", "●", each.certificate) : sign("bad", "✕", each.certificate), each.refused && h("div", { class: "dim reason" }, each.refused))) : "–")));
  return rows.length ? table("Gateways", ["Gateway", "State", { text: "Routes served", kind: "number" }, { text: "Requests/s", kind: "number" }, { text: "Errors/s", kind: "number" }, "Certificates"], rows, "cards")
    : h("p", { class: "dim" }, "The catalog has no gateway.");
}

function routes({ routes: all }) {
  if (!all.length) return null;
  const rows = all.map((one) => h("tr", { "data-key": one.route },
    h("th", { scope: "row" }, whyLink(`routes/${one.route}`, one.route), h("div", { class: "dim" }, one.gateways.join(", "))),
    cell("State", "", one.open && one.current ? state(true) : one.open ? sign("warn", "◐", "not in force yet") : state(false),
      h("div", { class: "dim reason" }, one.refused || one.reason)),
    cell("Hostnames", "", one.hostnames.slice(0, MOST_HOSTS).join(", "), one.hostnames.length > MOST_HOSTS && ` and ${one.hostnames.length - MOST_HOSTS} more`),
    cell("Pools", "", one.pools.length ? one.pools.map((name, at) => [at ? ", " : "", whyLink(name)]) : "–")));
  return h("section", { "data-key": "routes" }, h("h2", null, "Routes"), table("Routes", ["Route", "State", "Hostnames", "Pools"], rows, "cards"));
}

function pools({ pools: all }, history) {
  if (!all.length) return null;
  const past = new Map((history?.pools ?? []).map((one) => [one.pool, one]));
  const rows = all.map((one) => h("tr", { "data-key": one.pool },
    h("th", { scope: "row" }, whyLink(one.pool), h("div", { class: "dim" }, one.balance)),
    cell("State", "", state(one.serves), h("div", { class: "dim reason" }, one.reason)),
    cell("Backends", "number", `${one.up ?? "–"}/${one.total ?? "–"}`, bar(one.up ?? 0, one.total ?? 0, one.up === one.total ? "good" : one.up ? "warn" : "bad")),
    requests(history, past.get(one.pool), one.pool),
    cell("Down", "", one.backends.filter((each) => each.up === false).map((each, at) => [at ? ", " : "", whyLink(`${one.pool}/${each.backend}`, each.backend)]))));
  return h("section", { "data-key": "pools" }, h("h2", null, "Pools"),
    table("Pools", ["Pool", "State", { text: "Backends up", kind: "number" }, { text: "Requests/s", kind: "number" }, "Down"], rows, "cards"));
}
