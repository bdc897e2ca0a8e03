// The page: what is known, where we are, what happens when something is clicked, typed or told by the node.

import { ACTIONS } from "./actions.js";
import { get, keepToken, maybe, Refused } from "./api.js";
import * as dialog from "./dialog.js";
import { h, show } from "./dom.js";
import { feed } from "./feed.js";
import { Live } from "./live.js";
import { overview } from "./overview.js";
import { service } from "./service.js";
import { pending, why } from "./why.js";
import { sign } from "./words.js";

const MOST_EVENTS = 1000, SPACING = 1000;
const state = { status: null, who: null, nodes: [], stats: null, history: null, plan: null, why: null, events: [], filter: "", live: "connecting", error: "", writer: false };
const VIEWS = [["", "Cluster"], ["events", "Events"], ["why", "Why"], ["plan", "Plan"]];
const KEYS = [["c", "the cluster"], ["e", "events"], ["w", "why"], ["p", "the plan of this node"], ["a", "add a service, or a backend to the one shown"],
  ["j / k", "next and previous row"], ["/", "search"], ["r", "ask again now"], ["t", "light, dark or as the system"], ["?", "this list"]];
const byId = (id) => document.getElementById(id);

// ---------------------------------------------------------------- where we are

function route() {
  const [view = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  try {
    return { view, object: rest.map(decodeURIComponent).join("/") };
  } catch {
    return { view: "", object: "" };
  }
}

// ---------------------------------------------------------------- what is known

let asking = null, again = false, asked = -Infinity;

function refresh() {
  again = true;
  if (asking) return asking;
  asking = (async () => {
    try {
      while (again && !document.hidden) {
        const wait = asked + SPACING - performance.now();
        if (wait > 0) await new Promise((done) => setTimeout(done, wait));
        again = false;
        asked = performance.now();
        await ask();
      }
    } finally {
      asking = null; // what cannot be drawn once must not end the asking
    }
  })();
  return asking;
}

async function ask() {
  const { view, object } = route();
  try {
    const [status, who, nodes, cluster, stats, plan] = await Promise.all([
      get("/v1/status"), state.who ?? maybe("/v1/whoami"), maybe("/v1/nodes"),
      view === "" ? maybe("/v1/history") : null,
      view === "service" ? maybe("/v1/stats") : null, view === "plan" ? get("/v1/plan") : null]);
    const there = view === "service" && status.vips.some((vip) => vip.services.some((one) => one.service === object));
    const history = there ? await get(`/v1/history?service=${encodeURIComponent(object)}`) : cluster;
    Object.assign(state, { status, history, stats, plan, error: "", who, writer: who === null || who.rights === "write", nodes: nodes?.nodes ?? [alone(status)] });
    state.why = view === "why" && object ? await reason(object) : null;
    live.start();
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return login(error);
    state.error = error instanceof Refused ? error.message : "It may have stopped, or the network between is gone.";
  }
  render();
}

// A node that publishes nothing of the others shows itself.
function alone({ node, catalog, vips, failures, speaker }) {
  const missing = [...(speaker.connected ? [] : ["the BGP bridge is not connected"]), ...failures.map((one) => `${one.object}: ${one.refused}`)];
  return { name: node.name, self: true, alive: true, version: node.version, drained: node.drained, stopping: node.stopping, ready: !missing.length && catalog.loaded, missing,
    catalog: { index: catalog.index, connected: catalog.connected, held: Boolean(catalog.held) }, vips: Object.fromEntries(vips.map((vip) => [vip.vip, vip])), age_seconds: node.age_seconds };
}

async function reason(object) {
  try {
    return { asked: object, ...(await get(`/v1/why/${object.split("/").map(encodeURIComponent).join("/")}`)) };
  } catch (error) {
    if (error instanceof Refused && error.status !== 401) return { asked: object, refused: error };
    throw error;
  }
}

const live = new Live({
  entry(item) {
    state.events.push(item);
    if (state.events.length > MOST_EVENTS) state.events.splice(0, state.events.length - MOST_EVENTS);
    draw();
  },
  changed: () => refresh(),
  state(now) {
    if (now === "live" && state.live === "lost") refresh();
    state.live = now;
    draw();
  },
  refused: (error) => login(error),
});

function login(refused) {
  live.stop();
  dialog.login(refused, (text) => { keepToken(text); state.error = ""; state.who = null; refresh(); });
}

// ---------------------------------------------------------------- the picture

let drawn = 0;
function draw() {
  if (!drawn) drawn = requestAnimationFrame(() => { drawn = 0; render(); });
}

function render() {
  const { view, object } = route(), main = byId("main");
  show(byId("nav"), VIEWS.map(([name, text]) => h("a", { href: `#/${name}`, "data-key": name || "cluster", "aria-current": view === name || (view === "service" && !name) ? "page" : null }, text)));
  show(byId("live"), state.live === "live" ? sign("good", "●", "live") : sign("bad", "○", state.live === "lost" ? "not live, reconnecting" : "connecting"));
  document.documentElement.classList.toggle("stale", state.live === "lost");
  if (!state.status) {
    show(main, state.error ? h("p", { class: "notice bad" }, state.error) : h("p", { class: "dim" }, "Asking the node …"));
    return;
  }
  show(byId("node"), state.status.node.name, state.status.node.drained ? [" ", sign("calm", "◇", "drained")] : null);
  document.title = `${object || VIEWS.find(([name]) => name === view)?.[1] || "Cluster"} · ${state.status.node.name} · anycastlb`;
  if (main.dataset.view !== `${view}/${object}`) {
    main.replaceChildren();
    main.dataset.view = `${view}/${object}`;
  }
  show(main, view === "service" ? service(state, object) : view === "events" ? feed(state) : view === "why" ? why(state, object) : view === "plan" ? pending(state) : overview(state));
  const box = byId("object");
  if (box && !box.dataset.filled) { box.value = object; box.dataset.filled = "yes"; }
}

let fading = 0;
function toast(text) {
  byId("toast").textContent = text;
  clearTimeout(fading);
  fading = setTimeout(() => { byId("toast").textContent = ""; }, 5000);
}

// ---------------------------------------------------------------- what one can do

const THEMES = ["auto", "light", "dark"];
function theme(step = 0) {
  const now = localStorage.getItem("theme") ?? "auto", next = THEMES[(THEMES.indexOf(now) + step) % 3];
  if (step) localStorage.setItem("theme", next);
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  byId("theme").textContent = { auto: "◑ auto", light: "○ light", dark: "● dark" }[next];
  byId("theme").title = "Light, dark or as the system (t)";
}

const keys = { get on() { return localStorage.getItem("keys") !== "off"; }, set(on) { localStorage.setItem("keys", on ? "on" : "off"); } };

function act(name, data) {
  if (name === "theme") theme(1);
  else if (name === "help") dialog.help(KEYS, keys);
  else if (ACTIONS[name] && state.writer) dialog.perform(ACTIONS[name](data, state), (text) => {
    toast(text);
    if (name === "delete-service") location.hash = "#/";
    refresh();
  });
}

document.addEventListener("click", (event) => {
  const found = event.target.closest("[data-do]");
  if (found) act(found.dataset.do, { ...found.dataset });
});

document.addEventListener("submit", (event) => {
  if (event.target.dataset.form !== "why") return;
  event.preventDefault();
  const object = byId("object").value.trim();
  location.hash = `#/why/${object.split("/").map(encodeURIComponent).join("/")}`;
});

document.addEventListener("input", (event) => {
  if (event.target.id !== "filter") return;
  state.filter = event.target.value;
  draw();
});

function step(by) {
  const rows = [...byId("main").querySelectorAll("tbody th > a:first-child")];
  if (!rows.length) return;
  const now = rows.findIndex((one) => one === document.activeElement || one.closest("tr").contains(document.activeElement));
  rows[now < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.max(0, Math.min(rows.length - 1, now + by))].focus();
}

const GO = { c: "", e: "events", w: "why", p: "plan" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || dialog.isOpen()) return;
  // A dialog that has just been closed may still have the focus, until the page is drawn again.
  if (event.target.closest("input, select, textarea") && !event.target.closest("dialog")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (!keys.on && event.key !== "?") return;
  const { view, object } = route();
  if (event.key in GO) location.hash = `#/${GO[event.key]}`;
  else if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
  else if (event.key === "a") act(view === "service" ? "add-backend" : "add-service", { service: object });
  else if (event.key === "r") refresh();
  else if (event.key === "t") theme(1);
  else if (event.key === "?") act("help");
  else if (event.key === "/") {
    if (view !== "events" && view !== "why") location.hash = "#/why";
    setTimeout(() => (byId("filter") ?? byId("object"))?.focus(), 50);
  } else return;
  event.preventDefault();
});

addEventListener("hashchange", () => {
  state.filter = "";
  state.history = state.stats = null;
  render();
  byId("main").focus({ preventScroll: true });
  scrollTo(0, 0);
  asked = -Infinity;
  refresh();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });

dialog.begin();
theme();
render();
refresh();
setInterval(refresh, 15000); // should every event be lost, the picture is still not old
