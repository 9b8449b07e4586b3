// Owns: success by task kind over the steps, with the evaluations beside it. Must not know: other metrics.

function drawKinds(data) {
  const names = [...new Set(data.runs.flatMap((run) => [...Object.keys(run.kinds.table), ...run.evaluations.flatMap((row) => Object.keys(row.by_kind || {}))]))].sort();
  const section = byId("kinds");
  put(
    section,
    element("h2", {}, "Success by task kind"),
    element("p", { class: "dim" }, names.length ? "Lines: trajectories that were trained on. Dots: evaluations, with their 95% interval." : "No trajectories are written yet."),
    data.sets.length > 1 ? legend(data) : "",
    element("div", { class: "grid-of-charts" }, names.map((name) => kindCard(data, name))),
  );
}

function kindCard(data, name) {
  const lines = data.sets.map((set, index) => kindLine(data, set, index, name)).filter((line) => line !== null);
  const dots = data.sets.flatMap((set, index) => set.members.flatMap((member) => kindDots(data.runs[member], index, name, data.sets.length)));
  const played = data.runs.reduce((sum, run) => sum + (run.kinds.table[name]?.played || []).reduce((a, b) => a + b, 0), 0);
  if (!lines.length && !dots.length) return null;
  return element(
    "figure", { class: "card", "data-kind": name },
    element("figcaption", {}, element("span", { class: "name" }, breakable(name || "without a kind")), element("span", { class: "dim count" }, played ? `${played} played` : "evaluated only")),
    chart.draw({ lines, dots, unit: "share", name: `success of ${name}`, width: 340, height: 150 }),
  );
}

// The share of a set's trajectories of a kind that were won at each step.
function kindLine(data, set, index, name) {
  const steps = [...new Set(set.members.flatMap((member) => data.runs[member].kinds.steps))].sort((a, b) => a - b);
  const raw = steps.map((step) => {
    let won = 0;
    let played = 0;
    for (const member of set.members) {
      const { steps: own, table } = data.runs[member].kinds;
      const at = own.indexOf(step);
      if (at >= 0 && table[name]) {
        won += table[name].won[at];
        played += table[name].played[at];
      }
    }
    return played ? won / played : null;
  });
  if (raw.every((value) => value === null)) return null;
  const width = Math.max(place.smoothing, steps.length > 20 ? 5 : 1); // a step has few trajectories of a kind
  return { label: set.label, colour: index % COLOURS, steps, raw, smooth: bridged(raw, width) };
}

// Smoothed over steps at which no trajectory of the kind was played, too.
function bridged(values, width) {
  const there = values.map((_, at) => at).filter((at) => values[at] !== null);
  const even = smoothed(there.map((at) => values[at]), width);
  const found = values.map(() => null);
  there.forEach((at, number) => {
    found[at] = even[number];
    const next = there[number + 1];
    for (let gap = at + 1; next !== undefined && gap < next; gap += 1) found[gap] = even[number] + ((even[number + 1] - even[number]) * (gap - at)) / (next - at);
  });
  return found;
}

// Dots of several sets at one step stand beside each other.
function kindDots(run, index, name, count) {
  return run.evaluations.filter((row) => row.by_kind && row.by_kind[name] && row.by_kind[name][1] > 0 && typeof row.version === "number").map((row) => {
    const [won, played] = row.by_kind[name];
    const [low, high] = wilson(won, played);
    const value = won / played;
    return { step: row.version, aside: 5 * (index - (count - 1) / 2), value, low, high, colour: index % COLOURS, title: `${run.name}, ${row.label} on ${row.panel}: ${percent(value)} [${percent(low)}, ${percent(high)}] (${won}/${played})` };
  });
}

// The 95% Wilson score interval, as controller/interval.py has it.
function wilson(won, played, z = 1.959963984540054) {
  const share = won / played;
  const shrink = 1 + (z * z) / played;
  const middle = (share + (z * z) / (2 * played)) / shrink;
  const half = (z / shrink) * Math.sqrt((share * (1 - share)) / played + (z * z) / (4 * played * played));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}
