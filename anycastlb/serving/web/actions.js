// What can be done, each as one value: what to read first, what to ask, which catalog keys it would set, how to do it.
//
// { title, read() -> base, fields?(base), name?, propose(base, values) -> {key: document | null} or null, words?(base),
//   apply(base, values), verb, danger? }. The dialog shows the plan of what `propose` says before `apply` may run.

import { call, get, maybe } from "./api.js";
import { path } from "./words.js";

const services = (name) => `/v1/services/${path(name)}`;
const backends = (service, name) => `/v1/services/${path(service)}/backends/${path(name)}`;
const match = (etag) => (etag ? { "If-Match": etag } : {});
const FRESH = { "If-None-Match": "*" };
const FORWARDS = ["tunnel", "dr", "nat", "gue", "gre"];

const CHECK = [
  { name: "check.type", label: "Check", hint: "tcp", list: ["tcp", "http", "https", "dns", "udp", "grpc", "icmp", "syslog", "agent", "none"] },
  { name: "check.path", label: "Check path", hint: "/" },
  { name: "check.interval", label: "Check interval", hint: "2s" },
  { name: "check.timeout", label: "Check time-out", hint: "1s" },
  { name: "check.rise", label: "Rise", hint: "2", kind: "number" },
  { name: "check.fall", label: "Fall", hint: "3", kind: "number" },
];
const SERVICE = [
  { name: "vip", label: "VIPs", hint: "192.0.2.10 2001:db8::10", kind: "list", required: true },
  { name: "protocol", label: "Protocol", hint: "tcp", options: ["tcp", "udp", "sctp"] },
  { name: "port", label: "Port", hint: "80", kind: "number" },
  { name: "scheduler", label: "Scheduler", hint: "mh", list: ["mh", "wrr", "rr", "wlc", "lc", "sh", "sed"] },
  { name: "forward", label: "Forwarding", hint: "tunnel", options: FORWARDS },
  ...CHECK,
  { name: "announce.min_backends", label: "Announce while at least", hint: "1, or 50%" },
  { name: "slow_start", label: "Slow start", hint: "0s" },
  { name: "drain", label: "Drain time", hint: "30s" },
];
const BACKEND = [
  { name: "address", label: "Address", hint: "10.1.0.1", required: true },
  { name: "port", label: "Port", hint: "the service's", kind: "number" },
  { name: "weight", label: "Weight", hint: "100", kind: "number" },
  { name: "forward", label: "Forwarding", hint: "the service's", options: FORWARDS },
  { name: "max_connections", label: "Most connections", hint: "0: no limit", kind: "number" },
];

const kept = async () => (await get("/v1/export")).catalog;

// The document as stored, with its ETag, beside the whole catalog by key.
async function stored(url) {
  const [catalog, found] = await Promise.all([kept(), call("GET", url)]);
  return { catalog, etag: found.etag, document: found.body?.document ?? found.body };
}

function without(document, name) {
  const { [name]: gone, ...rest } = document;
  return rest;
}

// Where a backend is stored (its own key, or inline), and the edit that makes it so. null deletes it.
function place({ catalog }, service, name, document) {
  const own = `services/${service}/backends/${name}`, whole = catalog[`services/${service}`];
  if (own in catalog || !whole?.backends || !(name in whole.backends)) return { [own]: document };
  const rest = without(whole.backends, name);
  return { [`services/${service}`]: { ...whole, backends: document ? { ...whole.backends, [name]: document } : rest } };
}

export const ACTIONS = {
  "add-service": () => ({
    title: "Add a service", verb: "Add", name: { label: "Name", hint: "web" }, document: {}, read: async () => ({ document: {} }), fields: SERVICE,
    propose: (_, { name, document }) => ({ [`services/${name}`]: document }),
    apply: (_, { name, document }) => call("PUT", services(name), document, FRESH),
  }),
  "edit-service": ({ service }) => ({
    title: `Edit ${service}`, verb: "Apply", fields: SERVICE,
    read: async () => {
      const base = await stored(services(service));
      return { ...base, document: without(base.document, "backends") };
    },
    propose: ({ catalog }, { document }) => {
      const inline = catalog[`services/${service}`]?.backends;
      return { [`services/${service}`]: inline ? { ...document, backends: inline } : document };
    },
    apply: ({ etag }, { document }) => call("PUT", services(service), document, match(etag)),
  }),
  "delete-service": ({ service }) => ({
    title: `Delete ${service}`, verb: "Delete", danger: true, read: () => stored(services(service)),
    propose: ({ catalog }) => Object.fromEntries(Object.keys(catalog)
      .filter((key) => key === `services/${service}` || key.startsWith(`services/${service}/backends/`)).map((key) => [key, null])),
    apply: ({ etag }) => call("DELETE", services(service), undefined, match(etag)),
  }),
  "add-backend": ({ service }) => ({
    title: `Add a backend to ${service}`, verb: "Add", name: { label: "Name", hint: "web1" }, fields: BACKEND,
    read: async () => ({ catalog: await kept(), document: {} }),
    propose: (base, { name, document }) => place(base, service, name, document),
    apply: (_, { name, document }) => call("PUT", backends(service, name), document, FRESH),
  }),
  "edit-backend": ({ service, backend }) => ({
    title: `Edit ${service}/${backend}`, verb: "Apply", fields: BACKEND, read: () => stored(backends(service, backend)),
    propose: (base, { document }) => place(base, service, backend, document),
    apply: ({ etag }, { document }) => call("PUT", backends(service, backend), document, match(etag)),
  }),
  weight: ({ service, backend }) => ({
    title: `Weight of ${service}/${backend}`, verb: "Apply", plain: true, read: () => stored(backends(service, backend)),
    fields: [{ name: "weight", label: "Weight", hint: "100", kind: "number" }],
    propose: (base, { document }) => place(base, service, backend, document),
    apply: ({ etag }, { document }) => call("PATCH", backends(service, backend), { weight: document.weight ?? null }, match(etag)),
  }),
  drain: ({ service, backend }) => turn(service, backend, true),
  undrain: ({ service, backend }) => turn(service, backend, false),
  "delete-backend": ({ service, backend }) => ({
    title: `Delete ${service}/${backend}`, verb: "Delete", danger: true, read: () => stored(backends(service, backend)),
    propose: (base) => place(base, service, backend, null),
    apply: ({ etag }) => call("DELETE", backends(service, backend), undefined, match(etag)),
  }),
  "drain-node": ({ node }, state) => ({
    title: `Drain node ${node}`, verb: "Drain", read: async () => ({}),
    fields: [{ name: "reason", label: "Reason", hint: "for the next person" }], plain: true,
    words: () => {
      const own = Object.entries(state.nodes.find((one) => one.name === node)?.vips ?? {}).filter(([, vip]) => vip.announced).map(([vip]) => vip);
      return own.length ? [`${node} withdraws its routes:`, ...own.map((vip) => `− route ${vip}${others(state, node, vip)}`)]
        : [`${node} announces nothing now, and will not until it is undrained.`];
    },
    apply: (_, { document }) => call("POST", `/v1/nodes/${path(node)}/drain`, document),
  }),
  "undrain-node": ({ node }, state) => ({
    title: `Undrain node ${node}`, verb: "Undrain", read: async () => ({}),
    words: () => {
      const own = Object.entries(state.nodes.find((one) => one.name === node)?.vips ?? {}).filter(([, vip]) => vip.open || !vip.announced).map(([vip]) => vip);
      return [`${node} announces every VIP that it can serve again${own.length ? ", of these:" : "."}`, ...own.map((vip) => `+ route ${vip}`)];
    },
    apply: () => call("POST", `/v1/nodes/${path(node)}/undrain`),
  }),
  confirm: (_, state) => ({
    title: "Let the held catalog through", verb: "Let it through", danger: true, read: async () => ({ plan: await maybe("/v1/plan") }),
    words: () => {
      const held = state.status.catalog.held;
      return held ? [`${held.lost.length} of ${held.of} VIPs are gone from the catalog. They will be withdrawn and drained:`, ...held.lost.map((vip) => `− VIP ${vip}`)]
        : ["No catalog is held any more."];
    },
    apply: () => call("POST", "/v1/confirm"),
  }),
};

function turn(service, backend, drain) {
  const word = drain ? "drain" : "undrain";
  return {
    title: `${drain ? "Drain" : "Undrain"} ${service}/${backend}`, verb: drain ? "Drain" : "Undrain", read: () => stored(backends(service, backend)),
    propose: (base) => place(base, service, backend, drain ? { ...base.document, drain: true } : without(base.document, "drain")),
    apply: ({ etag }) => call("POST", `${backends(service, backend)}/${word}`, undefined, match(etag)),
  };
}

function others(state, node, vip) {
  const left = state.nodes.filter((one) => one.name !== node && one.alive && one.vips?.[vip]?.announced).map((one) => one.name);
  return left.length ? ` (still announced by ${left.join(", ")})` : " (announced by nobody else!)";
}
