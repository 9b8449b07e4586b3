// Owns: the head of the page: what was trained and what came of it, in ten seconds. Must not know: curves.

function drawHead(data) {
  const alone = data.runs.length === 1 ? data.runs[0] : null;
  put(
    byId("head"),
    element("div", { class: "brand" }, element("span", {}, "t2po report"), element("span", { id: "news", role: "status" }), element("span", { class: "dim" }, `made ${clock(data.made)}`)),
    element("h1", {}, alone ? alone.name : `${counted(data.runs.length, "run")} compared`),
    alone ? headOfRun(alone, data) : headOfRuns(data),
  );
}

function headOfRun(run, data) {
  return [
    element("p", { class: "summary" }, run.sentences.join(" ")),
    element("div", { class: "facts" }, facts(run, data)),
    run.evaluations.length > 0 && evaluationBars(run.evaluations),
    notes(run),
  ];
}

function headOfRuns(data) {
  const runs = element("div", { class: "runs" }, data.runs.map((run, index) => element(
    "article", { class: "card" },
    element("h2", {}, lineKey(setOf(data, index)), run.name),
    element("p", {}, run.sentences.join(" ")),
    element("p", { class: "dim" }, [run.recipe, run.algorithm, run.method, `seed ${run.seed}`, state(run, data)].filter(Boolean).join(" · ")),
    notes(run),
  )));
  return [element("p", { class: "summary" }, comparedInWords(data)), runs];
}

// Each set's success in one line: evaluated after training where all were on one panel, else in training.
function comparedInWords(data) {
  const known = Object.keys(data.runs[0].final).filter((one) => one.startsWith("evaluated after"));
  const common = known.find((one) => data.runs.every((run) => typeof run.final[one] === "number"));
  const name = common || "success";
  const said = data.sets.map((set) => {
    const values = set.members.map((member) => data.runs[member].final[name]).filter((value) => value !== null && value !== undefined);
    const mean = values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
    return `${set.label} ${percent(mean)} (${seeds(data, set)})`;
  });
  return `${common ? `Success ${common.replace("after", "after training")}` : "Success in training, last 10 steps"}: ${said.join("; ")}.`;
}

function setOf(data, index) {
  return data.sets.findIndex((set) => set.members.includes(index));
}

function facts(run, data) {
  const took = run.last && run.created ? run.last - run.created : null;
  const rows = [
    ["recipe", run.recipe || "unknown"],
    ["algorithm", run.algorithm],
    ["exploration", run.method],
    ["seed", run.seed ?? "unknown"],
    ["model", run.model.split("/").filter(Boolean).pop() || "unknown", run.model],
    ["steps", run.total === null ? String(run.done) : `${run.done} of ${run.total}`],
    ["state", state(run, data)],
    ["began", clock(run.created)],
    ["took", lasting(took), "From the run's creation to its last step."],
    ["t2po", run.versions.t2po || "unknown", Object.entries(run.versions).map(([name, version]) => `${name} ${version}`).join("\n")],
  ];
  return rows.map(([name, value, title]) => element("div", { class: "fact", title }, element("span", {}, name), element("b", {}, String(value))));
}

function state(run, data) {
  if (run.ended) return "done";
  if (run.last === null) return "no step yet";
  if (run.done === run.total) return "all steps done";
  return `last step ${lasting(data.made - run.last)} before this page`;
}

function evaluationBars(evaluations) {
  const rows = evaluations.filter((row) => Array.isArray(row.interval) && typeof row.success === "number");
  return rows.length > 0 && element(
    "div", { class: "bars", role: "table", "aria-label": "Evaluations" },
    rows.map((row) => {
      const [low, high] = row.interval;
      const bar = element("div", { class: "bar", role: "cell" }, element("i", { class: "fill" }), element("i", { class: "range" }));
      bar.firstChild.style.width = `${100 * row.success}%`;
      bar.lastChild.style.left = `${100 * low}%`;
      bar.lastChild.style.width = `${100 * (high - low)}%`;
      const name = `${row.label} · step ${row.version} · ${row.panel}${row.interventions ? " · with TTI and TDS" : ""}`;
      return element("div", { role: "row", class: "evaluation" }, element("span", { role: "cell" }, name), bar, element("span", { role: "cell", title: `${row.won} of ${row.played} tasks; 95% Wilson interval` }, element("b", {}, percent(row.success)), ` [${percent(low)}, ${percent(high)}]`));
    }),
  );
}

function notes(run) {
  return run.notes.length > 0 && element("ul", { class: "note" }, run.notes.map((text) => element("li", {}, text)));
}
