// Owns: the curves of all metrics, their controls, one curve in large. Must not know: trajectories.

const TITLES = { outcome: "Outcome", health: "Health", exploration: "Exploration", update: "Update", flow: "Flow", cluster: "Cluster", other: "Other columns" };
const WORDS = {
  outcome: "What the policy achieves.",
  health: "What the detectors see, and what was done about it.",
  exploration: "The signal M, and what TTI and TDS did.",
  update: "What the learner reports.",
  flow: "Where time and data went.",
  cluster: "What the processes of the run use: sums by role.",
  other: "Columns without a definition, as the parts reported them.",
};
const SHOWN_MARKS = ["evaluation", "resume", "restart", "health", "action", "failure"];

function drawCurves(data) {
  const longest = Math.max(0, ...data.runs.map((run) => run.steps.length));
  if (place.smoothing === null) place.smoothing = longest < 8 ? 1 : Math.min(9, 2 * Math.round(longest / 16) + 1);
  const section = byId("curves");
  const body = element("div", { id: "curve-groups" });
  put(section, element("h2", {}, "Curves"), longest ? curveControls(data) : element("p", { class: "note" }, "No step is done yet: there are no curves."), body);
  if (longest) drawGroups(data);
}

function curveControls(data) {
  const again = () => drawGroups(data);
  const set = (name) => (value) => {
    place[name] = value;
    again();
  };
  const kinds = Object.keys(data.event_kinds).filter((kind) => data.runs.some((run) => run.events.some((event) => event[0] === kind)));
  const search = element("input", { id: "search", type: "search", placeholder: "name or word", value: place.search, oninput: () => set("search")(search.value) });
  return element(
    "div", { class: "controls" },
    choice("smoothing", "Smoothing", [1, 3, 5, 7, 9, 15, 25, 51].map((width) => [width, width === 1 ? "none" : `mean of ${width} steps`]), place.smoothing, (value) => set("smoothing")(Number(value))),
    choice("scale", "Scale", [["linear", "linear"], ["log", "logarithmic"]], place.scale, set("scale")),
    element("label", { class: "control" }, element("span", {}, "Find"), search),
    data.sets.some((one) => one.band) && tick("each", "Single runs", place.each, set("each")),
    data.runs.length > 1 && kinds.length > 0 && choice("marked", "Events of", data.runs.map((run, index) => [index, run.name]), place.marked, (value) => set("marked")(Number(value))),
    element("span", { class: "marks", role: "group", "aria-label": "Events that are marked" }, kinds.map((kind) => {
      const box = tick(`mark-${kind}`, "", isMarked(kind), (value) => {
        place.marks[kind] = value;
        again();
      });
      box.append(chart.sign(kind), data.event_kinds[kind]);
      return box;
    })),
  );
}

function isMarked(kind) {
  return place.marks[kind] ?? SHOWN_MARKS.includes(kind);
}

function marksOf(data) {
  const run = data.runs[place.marked] || data.runs[0];
  return run.events.filter(([kind]) => isMarked(kind)).map(([kind, step, text]) => ({ kind, step, text }));
}

function drawGroups(data) {
  chart.all = [];
  const wanted = place.search.trim().toLowerCase();
  const fits = (metric) => !wanted || `${metric.name} ${metric.sentence}`.toLowerCase().includes(wanted);
  const groups = Object.keys(TITLES).map((group) => [group, data.metrics.filter((metric) => metric.group === group && fits(metric))]);
  put(
    byId("curve-groups"),
    legend(data),
    ...groups.filter(([, metrics]) => metrics.length).map(([group, metrics]) => drawGroup(data, group, metrics, Boolean(wanted))),
    groups.every(([, metrics]) => !metrics.length) ? element("p", { class: "note" }, "No metric has this in its name or sentence.") : "",
  );
}

function legend(data) {
  if (data.sets.length < 2 && !data.sets[0].band) return "";
  const band = data.sets.some((set) => set.band) ? " Line: mean of a set's runs; band: from the smallest to the largest run." : "";
  return element("p", { class: "legend" }, data.sets.map((set, index) => element("span", {}, lineKey(index), `${set.label} (${seeds(data, set)})`)), element("span", { class: "dim" }, band));
}

function seeds(data, set) {
  const found = set.members.map((index) => data.runs[index].seed ?? "?");
  return `${found.length === 1 ? "seed" : "seeds"} ${found.join(", ")}`;
}

function drawGroup(data, group, metrics, open) {
  const parts = metrics.map((metric) => [metric, linesOf(data, metric.name)]);
  const flat = parts.filter(([, lines]) => isFlat(lines));
  const moving = parts.filter(([, lines]) => !isFlat(lines));
  const content = () => element(
    "div", {},
    element("div", { class: "grid-of-charts" }, moving.map(([metric, lines]) => chartCard(data, metric, lines))),
    flat.length > 0 && element("p", { class: "flat" }, "Never changed: ", flat.map(([metric, lines], index) => [index > 0 && ", ", element("span", { title: metric.sentence }, `${metric.name} `, element("b", {}, withUnit(lines[0].raw.find((value) => value !== null), metric.unit)))])),
  );
  const title = [element("h3", {}, TITLES[group]), element("span", { class: "dim" }, ` ${WORDS[group]} ${counted(metrics.length, "metric")}`)];
  return lateFoldable(`group-${group}`, title, { class: "group", id: `group-${group}`, open: open || group === "outcome" || group === "exploration" || (group !== "other" && innerWidth > 760) }, content);
}

function isFlat(lines) {
  const values = lines.flatMap((line) => line.raw).filter((value) => value !== null);
  return values.length > 1 && values.every((value) => value === values[0]);
}

// One line a set: the run's own, or mean and band of the set's runs.
function linesOf(data, name) {
  return data.sets.map((set, index) => {
    const base = { label: set.label, colour: index % COLOURS };
    if (!set.band) {
      const run = data.runs[set.members[0]];
      return name in run.columns ? { ...base, steps: run.steps, raw: run.columns[name], smooth: smoothed(run.columns[name], place.smoothing) } : null;
    }
    const column = set.band.columns[name];
    if (!column) return null;
    const single = (index_) => ({ steps: data.runs[index_].steps, raw: smoothed(data.runs[index_].columns[name] || [], place.smoothing) });
    return {
      ...base,
      steps: set.band.steps,
      raw: column.mean,
      smooth: smoothed(column.mean, place.smoothing),
      low: smoothed(column.low, place.smoothing),
      high: smoothed(column.high, place.smoothing),
      runs: column.runs,
      thin: place.each ? set.members.map(single) : null,
    };
  }).filter((line) => line !== null);
}

function chartCard(data, metric, lines) {
  const options = { lines, unit: metric.unit, name: metric.name, log: place.scale === "log", marks: marksOf(data), width: 340, height: 150 };
  const said = lines.length === 1 ? lines[0].smooth.filter((value) => value !== null).pop() : null;
  return element(
    "figure", { class: "card", "data-metric": metric.name },
    element("figcaption", {}, element("button", { class: "name", title: `${metric.sentence}${metric.formula ? `\n${metric.formula}` : ""}`, "aria-label": `${metric.name}: ${metric.sentence} Show it large.`, onclick: () => enlarge(data, metric) }, breakable(metric.name)), element("span", { class: "dim" }, metric.unit === "share" ? "" : metric.unit), said !== null && element("b", {}, worded(said, metric.unit))),
    chart.draw(options),
  );
}

function enlarge(data, metric) {
  const dialog = byId("large");
  const lines = linesOf(data, metric.name);
  const options = { lines, unit: metric.unit, name: metric.name, log: place.scale === "log", marks: marksOf(data), width: Math.max(360, Math.min(1100, innerWidth - 60)), height: Math.max(240, Math.min(480, innerHeight - 260)) };
  put(
    dialog,
    element("form", { method: "dialog" }, element("h2", {}, metric.name, element("span", { class: "dim" }, metric.unit && ` [${metric.unit}]`)), element("button", { id: "close", "aria-label": "Close" }, "Close")),
    element("p", {}, metric.sentence),
    metric.formula ? element("p", { class: "formula" }, metric.formula) : "",
    legend(data),
    chart.draw(options),
  );
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close(), { once: true });
  if (!dialog.open) dialog.showModal();
}
