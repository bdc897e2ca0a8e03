// One service: its rates, and each backend with its health over time, its weight, and what can be done to it.

import { h } from "./dom.js";
import { bar, plot, slots, strip, sum } from "./plots.js";
import { backendSign, button, cell, count, link, path, sign, span, table, vipSign, whyLink } from "./words.js";

export function service(state, name) {
  const places = state.status.vips.flatMap((vip) => vip.services.filter((one) => one.service === name).map((one) => ({ ...one, at: vip })));
  const problems = state.status.problems.filter((one) => one.key === `services/${name}` || one.key.startsWith(`services/${name}/`));
  const series = (state.history?.services ?? []).filter((one) => one.service === name);
  const of = (rate) => sum(series.map((one) => one.rates[rate])), all = slots(state.history);
  if (!places.length && !problems.length) {
    return [h("h1", { "data-key": "title" }, name), h("p", { "data-key": "none" }, `There is no service called ${name} in force. `, link("", "Back to the cluster"))];
  }
  return [
    h("div", { class: "head", "data-key": "title" }, h("h1", null, name),
      places.length ? h("span", { class: "dim" }, `${places[0].protocol} ${places[0].port} · ${places[0].scheduler}${places[0].flags.length ? ` (${places[0].flags.join(", ")})` : ""} · needs ${places[0].min_backends}`) : null,
      h("span", { class: "gap" }), link(`why/${path(name)}`, "Why?"),
      state.writer && [button("Edit …", "edit-service", { service: name }), button("Add backend …", "add-backend", { service: name }),
        button("Delete …", "delete-service", { service: name }, { class: "danger" })]),
    problems.map((one) => h("div", { class: "notice bad", "data-key": `problem ${one.path}` }, h("span", null, h("b", null, "Its document is wrong: "), `${one.path} ${one.expected}. The last good version is in force, if there was one.`))),
    h("div", { class: "plots", "data-key": "plots" }, plot("Connections", of("connections"), "", all), plot("Bytes in", of("bytes_in"), "B", all),
      plot("Packets in", of("packets_in"), "", all), of("bytes_out").some((value) => value) ? plot("Bytes out", of("bytes_out"), "B", all) : null),
    places.map((place) => onVip(state, name, place)),
  ];
}

function onVip(state, name, place) {
  const vip = place.at.vip;
  const history = new Map((state.history?.backends ?? []).filter((one) => one.vip === vip).map((one) => [one.backend, one]));
  const counted = (state.stats?.services ?? []).find((one) => one.service === name && one.vip === vip);
  const stats = new Map((counted?.backends ?? []).map((one) => [one.backend, one]));
  const rows = place.backends.map((one) => row(state, name, one, history.get(one.backend), stats.get(one.backend)));
  return h("section", { "data-key": vip }, h("h2", null, whyLink(vip), " ", vipSign(place.at)),
    h("p", { class: "dim" }, `${place.reason}${place.at.open ? "" : `; the VIP: ${place.at.reason}`}`, place.refused && ` · refused: ${place.refused}`),
    rows.length ? table(`Backends of ${name} on ${vip}`, ["Backend", "State", { text: "Last ten minutes" }, { text: "Weight", kind: "number" }, { text: "Conn/s", kind: "number" }, { text: "Bytes in/s", kind: "number" }, { text: "Open", kind: "number" }, ...(state.writer ? ["Actions"] : [])], rows, "cards backends")
      : h("p", { class: "dim" }, "No backend."));
}

function row(state, service, one, past, counted) {
  const data = { service, backend: one.backend }, name = one.backend;
  const last = one.check.last, of = (rate) => past?.rates[rate].at(-1) ?? null;
  const act = (label, what, kind = "") => button(label, what, data, { class: `small ${kind}`, "aria-label": `${label.replace(" …", "")} backend ${name}` });
  return h("tr", { "data-key": name },
    h("th", { scope: "row" }, whyLink(`${service}/${name}`, name), h("div", { class: "dim" }, `${one.address.includes(":") ? `[${one.address}]` : one.address}:${one.port} · ${one.forward}${one.fallback ? " · fallback" : ""}`)),
    cell("State", "", backendSign(one), h("div", { class: "dim reason" }, one.refused ? `refused: ${one.refused}` : one.reason,
      last && ` · ${span(last.duration_seconds)}`, one.leaves_in_seconds !== null && ` · leaves within ${span(one.leaves_in_seconds)}`)),
    cell("Last ten minutes", "health", strip(past?.health ?? "", slots(state.history))),
    cell("Weight", "number", h("span", null, `${one.weight ?? "–"}/${one.nominal_weight}`),
      bar(one.weight ?? 0, one.nominal_weight, one.weight ? "good" : "bad"),
      one.kernel_weight !== one.weight && !(one.drain && one.kernel_weight === null) ? h("div", null, sign("warn", "△", `kernel ${one.kernel_weight ?? "none"}`)) : null),
    cell("Connections/s", "number", count(of("connections"))), cell("Bytes in/s", "number", count(of("bytes_in"), "B")),
    cell("Open connections", "number", count(counted?.active)),
    state.writer && cell("", "actions", act("Weight …", "weight"), one.drain ? act("Undrain …", "undrain") : act("Drain …", "drain"),
      act("Edit …", "edit-backend"), act("Delete …", "delete-backend", "danger")));
}
