// Owns: several runs side by side: sets, what differs between them, final numbers. Must not know: curves.

const UNITS = {
  success: "share", "best moving success": "share",
  "invalid turns": "share", "thoughts cut": "share", "turns sampled again": "share",
};

function drawComparison(data) {
  const section = byId("comparison");
  section.hidden = data.runs.length < 2;
  if (section.hidden) return put(section);
  const keys = Object.keys(data.sets[0].differs);
  const common = data.sets.length === 1;
  return put(
    section,
    element("h2", {}, "Comparison"),
    element("p", { class: "dim" }, common ? "These runs differ in the seed alone." : data.sets.length === data.runs.length ? "Each of these runs has settings of its own." : `${counted(data.sets.length, "set")} of runs; the runs of a set differ in the seed alone.`, data.sets.length === data.runs.length ? " Numbers are means of the last 10 steps unless the name says otherwise." : " Numbers: mean ± standard deviation over a set's runs, of the last 10 steps unless the name says otherwise; the single values are in the tooltip."),
    element("div", { class: "scroll" }, numbersTable(data)),
    keys.length > 0 && foldable("differs", [element("h3", {}, "What differs"), element("span", { class: "dim" }, ` ${counted(keys.length, "setting")}`)], { id: "differs", open: keys.length <= 12, class: "group" }, element("div", { class: "scroll" }, differenceTable(data, keys))),
  );
}

function setHead(set, index, data) {
  return element("th", { scope: "col" }, lineKey(index), set.label, element("span", { class: "dim" }, seeds(data, set)));
}

function numbersTable(data) {
  const names = [...new Set(data.runs.flatMap((run) => Object.keys(run.final)))].filter((name) => data.runs.some((run) => typeof run.final[name] === "number"));
  const done = element("tr", {}, element("th", { scope: "row" }, "steps done"), data.sets.map((set) => element("td", {}, set.members.map((member) => data.runs[member].done).join(", "))));
  return element(
    "table", { id: "numbers" },
    element("thead", {}, element("tr", {}, element("td", {}), data.sets.map((set, index) => setHead(set, index, data)))),
    element("tbody", {}, done, names.map((name) => element("tr", {}, element("th", { scope: "row" }, name), data.sets.map((set) => numberCell(data, set, name))))),
  );
}

function numberCell(data, set, name) {
  const values = set.members.map((member) => data.runs[member].final[name]).filter((value) => value !== null && value !== undefined);
  if (!values.length) return element("td", { class: "dim" }, "–");
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const unit = name.startsWith("evaluated") ? "share" : UNITS[name] || "";
  const deviation = values.length > 1 ? Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1)) : null;
  const title = set.members.map((member) => `${data.runs[member].name}: ${worded(data.runs[member].final[name], unit)}`).join("\n");
  return element("td", { title }, element("b", {}, worded(mean, unit)), deviation !== null && ` ± ${worded(deviation, unit)}`);
}

function differenceTable(data, keys) {
  return element(
    "table", {},
    element("thead", {}, element("tr", {}, element("td", {}), data.sets.map((set, index) => setHead(set, index, data)))),
    element("tbody", {}, keys.map((key) => element("tr", {}, element("th", { scope: "row" }, element("code", {}, key)), data.sets.map((set) => element("td", {}, element("code", {}, set.differs[key])))))),
  );
}
