// Owns: the list of events, settings and versions of each run. Must not know: curves.

function drawSettings(data) {
  put(
    byId("settings"),
    element("h2", {}, "Events and settings"),
    ...data.runs.map((run, index) => element(
      "div", {},
      data.runs.length > 1 && element("h3", {}, run.name),
      lateFoldable(`events-${index}`, [element("h3", {}, "Events"), element("span", { class: "dim" }, ` ${run.events.length}`)], { class: "group" }, () => eventTable(data, run)),
      run.adjustments.length > 0 && lateFoldable(`adjustments-${index}`, [element("h3", {}, "Adjustments"), element("span", { class: "dim" }, " settings that changed while the run went on")], { class: "group" }, () => adjustmentTable(run)),
      lateFoldable(`config-${index}`, [element("h3", {}, "Settings"), element("span", { class: "dim" }, " the whole configuration, as the run was begun")], { class: "group" }, () => pairTable(run.config)),
      lateFoldable(`versions-${index}`, [element("h3", {}, "Versions"), element("span", { class: "dim" }, " packages, Python, machine")], { class: "group" }, () => pairTable(run.versions)),
    )),
  );
  byId("foot").replaceChildren("Written by t2po. The page is complete in itself: it loads nothing and sends nothing.");
}

function eventTable(data, run) {
  if (!run.events.length) return element("p", { class: "dim" }, "None.");
  return element("table", {}, element("thead", {}, element("tr", {}, ["step", "kind", "what"].map((name) => element("th", { scope: "col" }, name)))), element("tbody", {}, run.events.map(([kind, step, text]) => element("tr", {}, element("td", {}, String(step)), element("td", {}, chart.sign(kind), data.event_kinds[kind]), element("td", { class: "wrap" }, text)))));
}

function adjustmentTable(run) {
  return element("table", {}, element("thead", {}, element("tr", {}, ["after step", "setting", "old", "new", "cause"].map((name) => element("th", { scope: "col" }, name)))), element("tbody", {}, run.adjustments.map(([step, knob, before, after, cause]) => element("tr", {}, element("td", {}, String(step)), element("td", {}, element("code", {}, knob)), element("td", {}, before), element("td", {}, after), element("td", { class: "wrap" }, cause)))));
}

function pairTable(pairs) {
  return element("table", {}, element("tbody", {}, Object.entries(pairs).map(([name, value]) => element("tr", {}, element("th", { scope: "row" }, element("code", {}, name)), element("td", { class: "wrap" }, element("code", {}, String(value)))))));
}
