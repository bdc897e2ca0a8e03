// A document as a form: the usual fields by name, everything else as JSON, errors at the field they belong to.

import { h } from "./dom.js";

const MORE = "more";

export function at(document, name) {
  return name.split(".").reduce((value, part) => value?.[part], document);
}

function put(document, name, value) {
  const parts = name.split("."), last = parts.pop();
  let where = document;
  for (const part of parts) {
    if (typeof where[part] !== "object" || where[part] === null || Array.isArray(where[part])) where[part] = {};
    where = where[part];
  }
  where[last] = value;
}

function drop(document, name) {
  const parts = name.split("."), last = parts.pop();
  const where = at(document, parts.join(".")) ?? (parts.length ? undefined : document);
  if (!where || typeof where !== "object") return;
  delete where[last];
  if (parts.length && !Object.keys(where).length) drop(document, parts.join("."));
}

const shown = (value) => (value === undefined || value === null ? "" : Array.isArray(value) ? value.join(" ") : typeof value === "object" ? JSON.stringify(value) : String(value));

// The fields of a form; `plain` forms have no JSON part.
export function inputs(action, base) {
  const rest = structuredClone(base.document ?? {});
  for (const field of action.fields) drop(rest, field.name);
  const all = [...(action.name ? [{ name: "name", required: true, ...action.name }] : []), ...action.fields];
  return [h("div", { class: "grid" }, all.map((field) => input(field, field.name === "name" && action.name ? "" : shown(at(base.document, field.name))))),
    action.plain ? null : h("details", { class: "field", open: Object.keys(rest).length > 0 }, h("summary", null, "Everything else, as JSON"),
      h("label", { for: "f-more", class: "hidden" }, "Everything else, as JSON"),
      h("textarea", { id: "f-more", name: MORE, rows: 6, spellcheck: "false", "aria-describedby": "e-more" }, Object.keys(rest).length ? JSON.stringify(rest, null, 2) : ""),
      h("p", { class: "error", id: "e-more" }))];
}

function input(field, value) {
  const id = `f-${field.name}`, error = `e-${field.name}`;
  const props = { id, name: field.name, "aria-describedby": error, autocomplete: "off", spellcheck: "false", "aria-required": field.required ? "true" : null };
  let box;
  if (field.options) {
    const known = value && !field.options.includes(value) ? [...field.options, value] : field.options;
    box = h("select", props, h("option", { value: "", selected: !value }, `– (${field.hint})`), known.map((option) => h("option", { value: option, selected: option === value }, option)));
  } else {
    box = h("input", { ...props, value, placeholder: field.hint, inputmode: field.kind === "number" ? "numeric" : null, list: field.list ? `l-${field.name}` : null });
  }
  return h("div", { class: "field" }, h("label", { for: id }, field.label, field.required && h("span", { class: "dim" }, " required")), box,
    field.list && h("datalist", { id: `l-${field.name}` }, field.list.map((option) => h("option", { value: option }))), h("p", { class: "error", id: error }));
}

// What the form says: { name, document }, or { errors: [[field, text]] } for what cannot even be sent.
export function read(action, base, form) {
  const data = new FormData(form), errors = [];
  let document = {};
  if (action.plain) {
    document = structuredClone(base.document ?? {});
  } else {
    const text = String(data.get(MORE) ?? "").trim();
    try {
      document = text ? JSON.parse(text) : {};
      if (document === null || typeof document !== "object" || Array.isArray(document)) throw new SyntaxError("expected an object: { … }");
    } catch (error) {
      errors.push([MORE, `this is no JSON object: ${error.message}`]);
      document = {};
    }
  }
  for (const field of action.fields) {
    const text = String(data.get(field.name) ?? "").trim();
    if (!text) {
      drop(document, field.name);
      if (field.required) errors.push([field.name, "needed"]);
    } else if (field.kind === "list") {
      const parts = text.split(/[\s,]+/).filter(Boolean);
      put(document, field.name, parts.length === 1 ? parts[0] : parts);
    } else {
      put(document, field.name, field.kind === "number" && /^\d{1,9}$/.test(text) ? Number(text) : text);
    }
  }
  const name = String(data.get("name") ?? "").trim();
  if (action.name && !name) errors.push(["name", "needed"]);
  return errors.length ? { errors } : { name, document };
}

// Put each problem at its field; what has none is returned as text. The first bad field gets the focus.
export function tell(form, problems) {
  for (const box of form.querySelectorAll("[aria-invalid]")) box.removeAttribute("aria-invalid");
  for (const error of form.querySelectorAll(".error")) error.textContent = "";
  const left = [];
  let first = null;
  for (const [where, text] of problems) {
    const box = nearest(form, where);
    if (!box) {
      left.push(where ? `${where}: ${text}` : text);
      continue;
    }
    const line = form.querySelector(`#${CSS.escape(`e-${box.name}`)}`);
    const inside = box.name === MORE && where !== MORE ? `${where}: ` : "";
    line.textContent += (line.textContent ? "; " : "") + inside + text;
    box.setAttribute("aria-invalid", "true");
    box.closest("details")?.setAttribute("open", "");
    first ??= box;
  }
  first?.focus();
  return left;
}

function nearest(form, where) {
  const parts = where.replace(/^backends\.[^.]+\./, "").split(".");
  for (let length = parts.length; length; length -= 1) {
    const box = form.elements.namedItem(parts.slice(0, length).join("."));
    if (box) return box;
  }
  return where ? form.elements.namedItem(MORE) : null;
}
