// The one dialog: an action is asked for, planned, seen, and only then applied. A <dialog> keeps the focus inside.

import { call, Refused } from "./api.js";
import { diff, edits } from "./changes.js";
import { h } from "./dom.js";
import { inputs, read, tell } from "./forms.js";

const box = () => document.getElementById("dialog");
const title = (text) => h("h2", { id: "dialog-title" }, text);
const cancel = (text = "Cancel") => h("button", { type: "button", value: "cancel", "data-close": true }, text);

function put(...content) {
  box().replaceChildren(...content.flat(Infinity).filter(Boolean));
  if (!box().open) box().showModal();
}

export const close = () => box().open && box().close();
export const isOpen = () => box().open;

const told = (error) => (error instanceof Refused
  ? [error.where && !error.message.includes(error.where) ? `${error.message} (${error.where})` : error.message, error.expected && `expected ${error.expected.replace(/^expected /, "")}`, error.mend].filter(Boolean).join("; ")
  : error.name === "TimeoutError" ? "the node did not answer in time" : `the node does not answer (${error.message})`);

const problems = (error) => (error.problems?.length ? error.problems.map((one) => [one.path, one.expected])
  : [[error.status === 422 || error.status === 400 ? error.where : "", told(error)]]);

export async function perform(action, done) {
  let base;
  put(title(action.title), h("p", { class: "dim" }, "Reading …"), h("div", { class: "buttons" }, cancel()));
  try {
    base = await action.read();
  } catch (error) {
    put(title(action.title), h("p", { class: "notice bad", role: "alert" }, told(error)), h("div", { class: "buttons" }, cancel("Close")));
    return;
  }
  if (!box().open) return; // closed while it was read
  if (action.fields) ask(action, base, done);
  else await plan(action, base, {}, null, done);
}

function ask(action, base, done) {
  const alert = h("p", { class: "notice bad", role: "alert", hidden: true });
  const form = h("form", { novalidate: true }, title(action.title), alert, inputs(action, base),
    h("div", { class: "buttons" }, cancel(), h("button", { type: "submit", class: "primary" }, action.propose ? "Show the plan" : "Go on")));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const values = read(action, base, form);
    alert.hidden = true;
    if (values.errors) tell(form, values.errors);
    else await plan(action, base, values, { form, alert }, done);
  });
  put(form);
  form.querySelector("input, select, textarea")?.focus();
}

// Back at the form with what is wrong, or, without a form, just what is wrong.
function refuse(action, form, found) {
  if (!form) {
    put(title(action.title), h("div", { class: "notice bad", role: "alert" }, found.map(([where, text]) => h("div", null, where ? `${where}: ${text}` : text))), h("div", { class: "buttons" }, cancel("Close")));
    box().querySelector("button").focus();
    return;
  }
  put(form.form);
  const left = tell(form.form, found);
  form.alert.textContent = left.join("; ");
  form.alert.hidden = !left.length;
}

async function plan(action, base, values, form, done) {
  let found = null;
  if (action.propose) {
    try {
      found = (await call("POST", "/v1/plan?mode=merge", { catalog: action.propose(base, values) })).body;
    } catch (error) {
      refuse(action, form, problems(error));
      return;
    }
    if (found.problems?.length) {
      refuse(action, form, found.problems.map((one) => [one.path, one.expected]));
      return;
    }
    if (!box().open) return;
  }
  const same = found && !found.edits?.length;
  const alert = h("p", { class: "notice bad", role: "alert", hidden: true });
  const apply = same ? null : h("button", { type: "button", class: action.danger ? "danger" : "primary", id: "apply" }, action.verb);
  const back = form && h("button", { type: "button" }, "Back");
  put(title(`${action.title}: the plan`), alert,
    found ? [h("h3", null, "In the catalog"), same ? h("p", { class: "dim" }, "Nothing changes.") : edits(found.edits),
      h("h3", null, "On this node"), found.changes?.length ? diff(found.changes) : h("p", { class: "dim" }, "Nothing changes."),
      (found.moves ?? []).map((one) => h("p", { class: "notice" }, `${one.service} ${one.key}: ${(100 * one.share).toFixed(1)} % of its flows would go to another backend`)),
      found.held && h("p", { class: "notice warn" }, found.held),
      found.assumed_up?.length ? h("p", { class: "dim" }, `Not checked yet, taken to be up: ${found.assumed_up.slice(0, 20).join(", ")}`) : null]
      : h("ul", { class: "changes", id: "plan-words" }, (action.words?.(base) ?? []).map((line) => h("li", null, line))),
    h("div", { class: "buttons" }, cancel(same ? "Close" : "Cancel"), back, apply));
  back?.addEventListener("click", () => { put(form.form); form.form.querySelector("input, select, textarea")?.focus(); });
  apply?.addEventListener("click", async () => {
    apply.disabled = true;
    try {
      await action.apply(base, values);
    } catch (error) {
      const raced = error.status === 409 || error.status === 412;
      alert.textContent = told(error) + (raced && action.propose ? " (somebody else was faster: close this, and begin again)" : "");
      alert.hidden = false;
      apply.disabled = raced;
      box().querySelector("[data-close]").focus();
      return;
    }
    close();
    done(`${action.title}: done`);
  });
  (apply ?? box().querySelector("[data-close]")).focus();
}

// Ask for a token after a 401.
export function login(refused, keep) {
  if (box().open && box().querySelector("#token")) return;
  const form = h("form", { novalidate: true }, title("This node wants a token"), h("p", { class: "dim", id: "token-why" }, told(refused)),
    h("div", { class: "field" }, h("label", { for: "token" }, "Token"), h("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", "aria-describedby": "token-why" }),
      h("p", { class: "dim" }, "Kept until this tab is closed, and sent to this node only.")),
    h("div", { class: "buttons" }, cancel(), h("button", { type: "submit", class: "primary" }, "Use it")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = form.querySelector("#token").value.trim();
    if (!text) return;
    close();
    keep(text);
  });
  put(form);
  form.querySelector("#token").focus();
}

export function help(keys, toggle) {
  put(title("Keyboard"), h("table", { class: "keys" }, h("tbody", null, keys.map(([name, what]) => h("tr", null, h("th", { scope: "row" }, h("kbd", null, name)), h("td", null, what))))),
    h("label", { class: "check" }, h("input", { type: "checkbox", id: "keys-on", checked: toggle.on }), " Single keys do something"),
    h("p", { class: "dim" }, "Tab and Shift+Tab reach everything; Enter or Space does it; Escape closes a dialog."), h("div", { class: "buttons" }, cancel("Close")));
  box().querySelector("#keys-on").addEventListener("change", (event) => toggle.set(event.target.checked));
  box().querySelector("[data-close]").focus();
}

export function begin() {
  box().addEventListener("click", (event) => {
    if (event.target === box() || event.target.closest("[data-close]")) close();
  });
}
