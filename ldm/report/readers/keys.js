// What the keys do; the page lists them, too. The actions are in page.js.

const keys = (pairs) => [
  ...(pairs ? [] : [["R", "real", () => choose("real")], ["F", "fake", () => choose("fake")],
    ["U", "unsure", () => choose("unsure")]]),
  ["1 2 3 4 5", pairs ? "the score" : "how sure", (key) => rate(Number(key))],
  ["Enter", "next image", () => next()],
  ["M", "remarks; Escape leaves them", () => one("#remark").focus()],
  ["+ -", "zoom", (key) => viewer.zoom(key === "+" ? 1.25 : 1 / 1.25)],
  ["← ↑ → ↓", "move the zoomed image", (key) => {
    const step = 0.1 / viewer.view.zoom;
    const [x, y] = { "←": [-1, 0], "→": [1, 0], "↑": [0, -1], "↓": [0, 1] }[key];
    viewer.look(viewer.view.x + x * step, viewer.view.y + y * step);
  }],
  ["B D", "brighter, darker", (key) => expose(0, key === "B" ? -8 : 8)],
  ["C V", "more, less contrast", (key) => expose(key === "C" ? -16 : 16, 0)],
  ["X", "invert", () => viewer.invert()],
  ["0", "reset the view", () => viewer.reset()],
  ["E", "save the answers so far", () => save()],
  ["H", "these keys", () => (one("#help").open = !one("#help").open)],
];
const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", "=": "+" };

/** actions: {name of a key: function} */
function onKey(event, actions) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("textarea, input")) {
    if (event.key === "Escape") one("#stage").focus();
    return;
  }
  // a button that has the focus answers to Enter itself
  if (event.key === "Enter" && event.target.matches("button, summary")) return;
  const name = NAMES[event.key] || (event.key.length === 1 ? event.key.toUpperCase() : event.key);
  const action = actions.get(name);
  if (!action || (event.repeat && !"+-←↑→↓BDCV".includes(name))) return;
  event.preventDefault();
  action(name);
}

const expose = (window, level) =>
  viewer.expose(viewer.view.window + window, viewer.view.level + level);
