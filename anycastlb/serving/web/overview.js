// The cluster at a glance: who announces what and why not, the nodes, the services, what is wrong.

import { h } from "./dom.js";
import { bar, slots, spark, sum } from "./plots.js";
import { entries } from "./feed.js";
import { tier } from "./gateways.js";
import { button, cell, count, link, path, plural, sign, span, table, vipSign, whyLink } from "./words.js";

export function overview(state) {
  return [h("h1", { class: "hidden", "data-key": "title" }, "Cluster"), notices(state), announcements(state), services(state), ...tier(state), nodes(state), sessions(state), problems(state),
    h("section", { "data-key": "recent" }, h("h2", null, "Recent events"), entries(state.events.slice(-12).reverse()),
      h("p", null, link("events", "All events")))];
}

const notice = (kind, key, ...content) => h("div", { class: `notice ${kind}`, "data-key": key }, ...content);

export function notices({ status, writer, error }) {
  const { node, catalog, failures, pending, speaker } = status, found = [], held = catalog.held;
  if (error) found.push(notice("bad", "error", h("b", null, "The node does not answer. "), error));
  if (held) {
    const wait = held.believed_in_seconds === null ? "until somebody confirms it" : `for another ${span(held.believed_in_seconds)}`;
    found.push(notice("warn", "held", h("div", null, h("b", null, "A catalog is held back. "),
      `It has lost ${held.lost.length} of ${held.of} VIPs (${held.lost.join(", ")}) and waits ${wait}.`),
    writer && button("Let it through …", "confirm", {}, { class: "primary" })));
  }
  if (!catalog.loaded) found.push(notice("bad", "loaded", `No catalog is loaded from ${catalog.source}. ${catalog.error}`));
  else if (!catalog.connected) found.push(notice("warn", "away", `The catalog source has been away for ${span(catalog.since_seconds)}: ${catalog.error}`, catalog.cached && " The catalog in force is the one kept on disk."));
  if (!speaker.connected) found.push(notice("bad", "bridge", "The BGP bridge is not connected: nothing is announced by this node. Is ExaBGP running?"));
  if (node.stopping) found.push(notice("warn", "stopping", "This node is stopping: routes withdrawn, flows drain."));
  const budget = status.cluster?.budget;
  if (budget?.exceeded) found.push(notice("warn", "budget", `${budget.drained.join(", ")} are drained at once, and at most ${budget.max_drained} may be.`));
  if (failures.length) found.push(notice("bad", "failures", h("div", null, h("b", null, `The machine refused ${plural(failures.length, "change")}. `),
    failures.slice(0, 5).map((one) => h("div", null, `${one.verb} ${one.object}: ${one.refused}`)))));
  if (pending) found.push(notice("calm", "pending", h("span", null, `${plural(pending, "change")} still to be made on ${node.name}. `, link("plan", "See the plan"))));
  return found.length ? h("div", { "data-key": "notices", class: "notices" }, found) : null;
}

function announcements({ status, nodes }) {
  const own = new Map(status.vips.map((vip) => [vip.vip, vip]));
  const all = new Set([...own.keys(), ...nodes.flatMap((node) => Object.keys(node.vips ?? {}))]);
  const rows = [...all].map((name) => {
    const vip = own.get(name), places = nodes.map((node) => place(node, name, vip));
    const by = nodes.filter((node) => node.alive && node.vips?.[name]?.announced).length;
    return h("tr", { "data-key": name },
      h("th", { scope: "row" }, whyLink(name), h("div", { class: "dim" }, (vip?.services ?? []).map((service, at) => [at ? ", " : "", link(`service/${path(service.service)}`, `${service.service} ${service.protocol === "fwmark" ? "fwmark " : ""}${service.port}`)]),
        (vip?.gateways ?? []).map((gateway, at) => [at || vip.services.length ? ", " : "", whyLink(`gateways/${gateway}`, `gateway ${gateway}`)]))),
      h("td", { class: "number" }, by ? `${by}/${nodes.length}` : sign("bad", "▽", "nobody")), places);
  });
  return h("section", { "data-key": "vips" }, h("h2", null, "Who announces what"),
    rows.length ? h("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "VIPs by nodes" },
      table("VIPs by nodes", ["VIP", { text: "By", kind: "number" }, ...nodes.map((node) => ({ text: node.name }))], rows, "matrix"))
      : h("p", { class: "dim" }, "No VIP yet: the catalog has no service."));
}

function place(node, name, own) {
  const vip = node.vips?.[name];
  if (!node.alive) return h("td", null, sign("dim", "✕", "node gone"));
  if (!vip) return h("td", null, sign("dim", "–", "not known there"));
  const full = node.self && own ? own : vip;
  return h("td", null, vipSign(full), vip.announced && vip.open && !full.kept ? null : h("div", { class: "dim reason" }, full.rejected || vip.reason));
}

function services({ status, history, writer }) {
  const found = new Map();
  for (const vip of status.vips) {
    for (const service of vip.services) found.set(service.service, [...(found.get(service.service) ?? []), { ...service, vip: vip.vip }]);
  }
  const series = (history?.services ?? []);
  const rows = [...found].sort(([a], [b]) => a.localeCompare(b)).map(([name, places]) => {
    const up = places.reduce((n, one) => n + (one.up ?? 0), 0), total = places.reduce((n, one) => n + (one.total ?? 0), 0);
    const open = places.every((one) => one.open), some = places.some((one) => one.open);
    const values = sum(series.filter((one) => one.service === name).map((one) => one.rates.connections));
    const bytes = sum(series.filter((one) => one.service === name).map((one) => one.rates.bytes_in));
    return h("tr", { "data-key": name },
      h("th", { scope: "row" }, link(`service/${path(name)}`, name), h("div", { class: "dim" }, `${places[0].protocol} ${places[0].port} · ${places[0].scheduler}`)),
      cell("State", "", open ? sign("good", "●", "open") : some ? sign("warn", "◐", "in part") : sign("bad", "✕", "closed"),
        h("div", { class: "dim reason" }, [...new Set(places.map((one) => one.refused || one.reason))].join("; "))),
      cell("Backends", "number", `${up}/${total}`, bar(up, total, up === total ? "good" : up ? "warn" : "bad")),
      cell("Connections/s", "number wide", spark(values, { label: `${name} connections`, slots: slots(history), width: 120, height: 22 }), h("span", null, count(values.at(-1)))),
      cell("Bytes in/s", "number", count(bytes.at(-1), "B")));
  });
  return h("section", { "data-key": "services" },
    h("div", { class: "head" }, h("h2", null, "Services"), writer && button("Add service …", "add-service")),
    rows.length ? table("Services", ["Service", "State", { text: "Backends up", kind: "number" }, { text: "Connections/s", kind: "number" }, { text: "Bytes in/s", kind: "number" }], rows, "cards")
      : h("p", { class: "dim" }, "The catalog has no service."));
}

function nodes({ nodes: all, writer, status }) {
  const newest = Math.max(...all.map((node) => node.catalog?.index ?? 0));
  const rows = all.map((node) => {
    const missing = node.missing ?? [], late = node.alive && node.catalog?.index < newest;
    const what = !node.alive ? sign("bad", "✕", "gone") : node.stopping ? sign("warn", "◌", "stopping")
      : node.drained ? sign("calm", "◇", node.drain && node.drain.stage !== "drained" ? `draining: ${node.drain.stage}` : "drained") : node.ready ? sign("good", "●", "ready") : sign("bad", "✕", "not ready");
    return h("tr", { "data-key": node.name },
      h("th", { scope: "row" }, node.name, node.self && h("span", { class: "dim" }, " (this node)")),
      cell("State", "", what, node.drained && node.drain ? h("div", { class: "dim reason" }, [node.drain.reason, node.drain.why && `for: ${node.drain.why}`].filter(Boolean).join("; ")) : null, missing.length ? h("div", { class: "dim reason" }, missing.join("; ")) : null),
      cell("Announces", "number", String(Object.values(node.vips ?? {}).filter((vip) => vip.announced).length)),
      cell("Catalog", "", node.catalog ? h("span", null, `index ${node.catalog.index}`, late && h("span", { class: "dim" }, ` (newest ${newest})`), !node.catalog.connected && [" ", sign("warn", "△", "source away")], node.catalog.held && [" ", sign("warn", "△", "held back")]) : "–"),
      cell("Version", "", node.version ?? "–"),
      cell("Seen", "", node.age_seconds === null || node.age_seconds === undefined ? "–" : `${span(node.age_seconds)} ago`),
      writer && cell("", "actions", node.drained || status.catalog.drained_nodes.includes(node.name)
        ? button("Undrain …", "undrain-node", { node: node.name }, { "aria-label": `Undrain node ${node.name}` })
        : button("Drain …", "drain-node", { node: node.name }, { "aria-label": `Drain node ${node.name}` })));
  });
  return h("section", { "data-key": "nodes" }, h("h2", null, "Nodes"),
    table("Nodes", ["Node", "State", { text: "Announces", kind: "number" }, "Catalog", "Version", "Seen", ...(writer ? ["Actions"] : [])], rows, "cards"));
}

function sessions({ status: { node, speaker } }) {
  const rows = speaker.sessions.map((one) => h("tr", { "data-key": one.peer }, h("th", { scope: "row" }, one.peer),
    cell("State", "", one.state === "up" ? sign("good", "●", "up") : sign("bad", "✕", one.state), h("span", { class: "dim" }, ` for ${span(one.since_seconds)}`)),
    cell("Reason", "", one.reason || "–")));
  return h("section", { "data-key": "bgp" }, h("h2", null, `BGP sessions of ${node.name}`),
    rows.length ? table("BGP sessions", ["Peer", "State", "Reason"], rows, "cards") : h("p", { class: "dim" }, speaker.connected ? "ExaBGP has no session." : "The bridge is not connected."));
}

function problems({ status }) {
  if (!status.problems.length) return null;
  const rows = status.problems.map((one, at) => h("tr", { "data-key": `${at}` }, h("th", { scope: "row" }, one.key),
    cell("Where", "", one.path || "–"), cell("Expected", "", one.expected)));
  return h("section", { "data-key": "problems" }, h("h2", null, "Problems in the catalog"),
    h("p", { class: "dim" }, "These documents are not in force; each keeps its last good version, if it had one."),
    table("Problems", ["Document", "Where", "Expected"], rows, "cards"));
}
