// Owns: the trajectory browser: filters, the list, one trajectory turn by turn. Must not know: curves.
//
// `browser.texts` belong to the tree that the shown trajectory came from: after a refresh it may not be in the new one,
// and stays on the page until another is chosen.

const browser = { data: null, shown: null, texts: [] };

function drawBrowser(data) {
  browser.data = data;
  const section = byId("trajectories");
  const any = data.runs.some((run) => run.excerpt.steps.some((step) => step.shown.length));
  if (!any) {
    put(section, element("h2", {}, "Trajectories"), element("p", { class: "note" }, "No trajectories are written yet, or none was asked for."));
    return;
  }
  if (!byId("browse")) {
    put(
      section,
      element("h2", {}, "Trajectories"), element("p", { id: "left-out", class: "dim" }), element("div", { class: "controls", id: "filters" }), drawScale(),
      element("div", { id: "browse" }, element("div", { id: "list", role: "group", "aria-label": "Trajectories" }), element("div", { id: "detail" })),
    );
  }
  fillFilters();
}

function chosenRun() {
  if (!browser.data.runs[place.run]) place.run = 0;
  return browser.data.runs[place.run];
}

function chosenStep(run) {
  const steps = run.excerpt.steps;
  return steps.find((one) => one.step === place.step) || steps[steps.length - 1];
}

function fillFilters() {
  const run = chosenRun();
  const step = chosenStep(run);
  const all = step ? step.shown : [];
  const groups = [...new Set(all.map((one) => one.group))];
  const kinds = [...new Set(all.map((one) => one.kind))].sort();
  if (place.group !== "all" && !groups.includes(place.group)) place.group = "all";
  if (place.kind !== "all" && !kinds.includes(place.kind)) place.kind = "all";
  const set = (name, more) => (value) => {
    place[name] = value;
    if (more) more();
    fillFilters();
  };
  const fits = all.filter((one) => (place.group === "all" || one.group === place.group) && (place.kind === "all" || one.kind === place.kind) && (place.outcome === "all" || one.won === (place.outcome === "won")) && (!place.touched || touches(one) > 0));
  const focused = document.activeElement && document.activeElement.id;
  put(
    byId("filters"),
    browser.data.runs.length > 1 ? choice("run", "Run", browser.data.runs.map((one, index) => [index, one.name]), place.run, (value) => set("run", () => { place.step = null; })(Number(value))) : "",
    choice("step", "Step", run.excerpt.steps.map((one) => [one.step, one.step]), step && step.step, (value) => set("step")(Number(value))),
    choice("group", "Group", [["all", `all ${groups.length}`], ...groups.map((group) => [group, groupName(group, all)])], place.group, set("group")),
    choice("kind", "Task kind", [["all", "all"], ...kinds.map((kind) => [kind, kind || "without a kind"])], place.kind, set("kind")),
    choice("outcome", "Outcome", [["all", "won or lost"], ["won", "won"], ["lost", "lost"]], place.outcome, set("outcome")),
    tick("touched", "With interventions", place.touched, set("touched")),
    tick("as-numbers", "M as numbers", place.numbers, (value) => {
      place.numbers = value;
      byId("detail").classList.toggle("numbers", value);
    }),
  );
  if (focused && byId("filters").contains(byId(focused))) byId(focused).focus();
  put(byId("left-out"), leftOut(run, step));
  fillList(fits, all.length);
}

function groupName(group, all) {
  const members = all.filter((one) => one.group === group);
  return `${group.split("-").pop()} · ${members[0].kind} · ${members.filter((one) => one.won).length}/${members.length} won`;
}

function touches(trajectory) {
  return Object.values(trajectory.interventions).reduce((sum, count) => sum + count, 0);
}

function leftOut(run, step) {
  const { steps, steps_written: written, notes: said } = run.excerpt;
  const found = steps.length < written ? [`Shown are ${steps.length} of ${written} steps, evenly spaced, the last one always (more: --trajectories N).`] : [];
  if (step && step.shown.length < step.trajectories) found.push(`Of step ${step.step}, ${step.shown.length} of ${step.trajectories} trajectories are in this page; the others would make it too large.`);
  const without = step ? step.shown.filter((one) => one.turns.some((turn) => !turn.reply.pieces)).length : 0;
  if (without && without === step.shown.length && !said.length) found.push("No trajectory of this step was written with its tokens (metrics.token_groups, or an older version of t2po): replies are shown as text.");
  else if (without && !said.length) found.push(`${without} of ${step.shown.length} have no tokens: they are written for the first groups of a step alone (metrics.token_groups); their replies are shown as text.`);
  return [...found, ...said].join(" ");
}

function fillList(fits, total) {
  const list = byId("list");
  const scrolled = list.scrollTop;
  put(
    list,
    element("p", { class: "dim", id: "count" }, `${fits.length} of ${counted(total, "trajectory", "trajectories")}`),
    ...fits.map((one) => listItem(one)),
  );
  list.scrollTop = scrolled;
  const chosen = fits.find((one) => one.id === place.trajectory);
  if (chosen) show(chosen);
  else if (!browser.shown && fits.length) show(telling(fits));
}

// What to begin with: tokens, a thought that was ended, a candidate that was thrown away; as much of it as there is.
function telling(fits) {
  const worth = (one) => 4 * one.turns.some((turn) => turn.reply.pieces) + 2 * Boolean(one.interventions.rejected) + Boolean(one.interventions.uncertainty);
  return fits.reduce((best, one) => (worth(one) > worth(best) ? one : best));
}

function listItem(one) {
  const { uncertainty = 0, cap = 0, rejected } = one.interventions;
  const told = [uncertainty && `${uncertainty} TTI`, cap && `${cap} cap`, rejected && `${rejected} thrown away`].filter(Boolean).join(" · ");
  return element(
    "button", { class: "item", "data-id": one.id, "data-won": String(one.won), "data-touched": String(touches(one)), "data-kind": one.kind, onclick: () => choose(one) },
    element("span", { class: one.won ? "outcome won" : "outcome lost" }, one.won ? "won" : "lost"),
    element("span", { class: "what" }, one.kind || one.task, element("span", { class: "dim" }, ` ${one.group.split("-").pop()}/${one.sibling}`)),
    element("span", { class: "dim" }, `${counted(one.turns.length, "turn")} · reward ${worded(one.reward)}${told ? ` · ${told}` : ""}`),
  );
}

function choose(one) {
  place.trajectory = one.id;
  place.step = chosenStep(chosenRun()).step;
  place.write();
  show(one);
  const detail = byId("detail");
  if (detail.getBoundingClientRect().top > innerHeight * 0.6) detail.scrollIntoView({ block: "start" }); // below the list on a narrow screen
}

function show(one) {
  for (const item of byId("list").querySelectorAll(".item")) item.setAttribute("aria-pressed", String(item.dataset.id === one.id));
  if (browser.shown && browser.shown.id === one.id && byId("detail").childElementCount) return; // the reader is in it
  browser.shown = one;
  browser.texts = browser.data.strings;
  const facts_ = [one.task && one.task !== one.kind && one.task, `sibling ${one.sibling}`, one.attempt > 0 && `attempt ${one.attempt + 1}`, one.seconds !== null && lasting(one.seconds), one.score !== null && one.score !== Number(one.won) && `score ${worded(one.score)}`];
  const jump = (number) => byId(`turn-${number}`).scrollIntoView({ block: "start", behavior: "smooth" });
  const detail = byId("detail");
  detail.classList.toggle("numbers", place.numbers);
  put(
    detail,
    element("h3", {}, element("span", { class: one.won ? "outcome won" : "outcome lost" }, one.won ? "won" : "lost"), ` ${one.kind || "trajectory"}`),
    element("p", { class: "dim path" }, facts_.filter(Boolean).join(" · ")),
    one.turns.length > 0 ? element("div", { class: "scroll" }, drawCourse(one, jump, Math.max(320, byId("detail").clientWidth - 36))) : "",
    element("p", { class: "dim" }, one.turns.every((turn) => turn.reply.m) ? "Thin: M of each sampled token. Thick: Φ of each turn. Upright: where a thought was ended. *: candidates were thrown away." : "Thick: Φ of each turn. *: candidates were thrown away."),
    ...one.turns.map((turn, number) => drawTurn(turn, number, browser.texts)),
    one.end !== null && browser.texts[one.end] ? element("div", { class: "turn end" }, element("h4", {}, "The environment's last answer"), element("div", { class: "observation" }, browser.texts[one.end])) : "",
  );
}

function drawTurn(turn, number, texts) {
  const { reply, rejected } = turn;
  return element(
    "article", { class: "turn", id: `turn-${number}` },
    element("h4", {}, `Turn ${number + 1}`, measures(reply), reply.fired && element("span", { class: "badge" }, reply.fired === "cap" ? "thought ended at the cap" : "thought ended by TTI"), rejected.length > 0 && element("span", { class: "badge" }, `${rejected.length} thrown away`)),
    element("div", { class: "observation" }, texts[turn.saw]),
    rejected.length > 0 && rejected.map((one, index) => lateFoldable(`${browser.shown.id}/${number}/${index}`, [`Candidate ${index + 1}, thrown away`, measures(one)], { class: "rejected" }, () => drawReply(one, texts))),
    drawReply(reply, texts),
    element("p", { class: "deed" }, element("span", { class: "dim" }, "action "), texts[turn.did] ? element("code", {}, texts[turn.did]) : element("em", {}, "none"), validity(turn), turn.reward ? element("span", { class: "badge reward" }, `reward ${worded(turn.reward)}`) : element("span", { class: "dim" }, ` reward ${worded(turn.reward)}`)),
  );
}

function measures(reply) {
  const parts = [`Φ ${worded(reply.phi)}`, `Γ ${worded(reply.gamma)}`, counted(reply.tokens, "token"), reply.finish === "length" && "cut at the length limit"];
  return element("span", { class: "measures" }, parts.filter(Boolean).join(" · "));
}

function validity(turn) {
  if (turn.format_valid === false) return element("span", { class: "badge bad" }, "badly formed");
  if (turn.valid === false) return element("span", { class: "badge bad" }, "not admissible");
  return turn.valid === true ? element("span", { class: "badge good" }, "valid") : null;
}
