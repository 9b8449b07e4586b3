// Owns: reading the data that the page holds, and drawing all of it.

function draw(data) {
  const news = byId("news");
  drawHead(data);
  if (news) byId("news").replaceWith(news);
  const parts = [["comparison", "Comparison"], ["curves", "Curves"], ["kinds", "Task kinds"], ["trajectories", "Trajectories"], ["settings", "Events and settings"]];
  byId("sections").replaceChildren(...parts.filter(([id]) => id !== "comparison" || data.runs.length > 1).map(([id, name]) => element("a", { href: `#${id}` }, name)));
  drawComparison(data);
  drawCurves(data);
  drawKinds(data);
  drawBrowser(data);
  drawSettings(data);
}

const pointed = place.read(location.hash);
const data = JSON.parse(byId("data").textContent);
draw(data);
if (pointed) byId("trajectories").scrollIntoView();
if (document.documentElement.dataset.live === "yes") live.start(data, draw);
