// Elements from values, and patching what is on the page into what it should be. Text is only ever text: nothing here
// or anywhere else parses markup, so a name in the catalog can say what it likes.

const SVG = "http://www.w3.org/2000/svg";

function build(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

export const h = (name, props, ...children) => build(document.createElement(name), props, children);
export const s = (name, props, ...children) => build(document.createElementNS(SVG, name), props, children);

const key = (node) => (node.nodeType === 1 ? node.getAttribute("data-key") : null);

// Make `old` look like `fresh` with as few changes as possible: focus, selection and scrolling stay.
export function patch(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || key(old) !== key(fresh)) {
    old.replaceWith(fresh);
  } else if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
  } else if (old.nodeType === Node.ELEMENT_NODE && !old.hasAttribute("data-own")) {
    attributes(old, fresh);
    patchChildren(old, [...fresh.childNodes]);
  }
}

function attributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

export function patchChildren(parent, wanted) {
  const keyed = new Map();
  for (const child of parent.childNodes) if (key(child)) keyed.set(key(child), child);
  let at = parent.firstChild;
  for (const fresh of wanted) {
    const name = key(fresh);
    const match = name ? keyed.get(name) : at && !key(at) ? at : null;
    if (!match) {
      parent.insertBefore(fresh, at);
    } else {
      if (match === at) at = at.nextSibling;
      else parent.insertBefore(match, at);
      patch(match, fresh);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

export const show = (parent, ...children) =>
  patchChildren(parent, children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false)
    .map((c) => (c instanceof Node ? c : document.createTextNode(String(c)))));
