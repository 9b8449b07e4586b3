// Owns: making elements. Text becomes text nodes, never markup. Must not know: what is shown.

const SVG = "http://www.w3.org/2000/svg";

// element("p", {class: "note", onclick: f}, "text", child, [more], null)
function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function graphic(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "selected") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...present(children));
  return node;
}

// What is left of nested lists once what is absent is taken out: the second operand of `condition && node`.
function present(children) {
  return children.flat(9).filter((child) => child !== null && child !== undefined && child !== false && child !== "");
}

// Puts children in the place of those that a node has.
function put(node, ...children) {
  node.replaceChildren(...present(children));
}

// A name that may be broken at its underscores.
function breakable(name) {
  return name.split("_").flatMap((part, place_) => (place_ ? ["_", element("wbr"), part] : [part]));
}

// The line of a set of runs, as in the curves: the dashes tell sets apart where colours do not.
function lineKey(index) {
  return graphic("svg", { class: "key", viewBox: "0 0 26 6", "aria-hidden": "true" }, graphic("path", { class: `curve c${index % COLOURS}`, d: "M0 3H26" }));
}

const COLOURS = 8; // classes c0 to c7 of style.css

const byId = (id) => document.getElementById(id);

// A part that can be opened; whether it is open outlives a refresh (place.js).
function foldable(key, summary, attributes, ...children) {
  const node = element("details", { ...attributes, open: place.isOpen(key, attributes.open) }, element("summary", {}, summary), ...children);
  node.addEventListener("toggle", () => place.noteOpen(key, node.open));
  return node;
}

// The same, its content made when it is opened for the first time.
function lateFoldable(key, summary, attributes, make) {
  const node = foldable(key, summary, attributes);
  const fill = () => {
    if (node.open && node.children.length === 1) node.append(make());
  };
  node.addEventListener("toggle", fill);
  fill();
  return node;
}

function choice(id, label, options, chosen, onchange) {
  const box = element("select", { id, onchange: () => onchange(box.value) });
  box.append(...options.map(([value, text]) => element("option", { value, selected: String(value) === String(chosen) }, text)));
  return element("label", { class: "control" }, element("span", {}, label), box);
}

function tick(id, label, checked, onchange) {
  const box = element("input", { id, type: "checkbox", checked, onchange: () => onchange(box.checked) });
  return element("label", { class: "control tick" }, box, label);
}
