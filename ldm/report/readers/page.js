// One reader's way through the study: answers, keys, time, and how it all outlives the page.

const FORMAT = "ldm reader study 1";
const SCALE = {
  5: "Very good: no worse for a diagnosis than the original",
  4: "Good: errors can be seen, none that harms the diagnosis",
  3: "Moderate: errors that may harm the diagnosis",
  2: "Severe errors, or any error that looks like a lesion",
  1: "Severe errors: no diagnosis can be made",
};
const study = JSON.parse(document.getElementById("study").textContent);
const pairs = study.mode === "pairs";
const place = `ldm reader study ${study.study}`; // in localStorage
const one = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];

// what is exported: answers to the first images of the study, and what is known of the next
let session = null;
let since = null; // when the open image was last seen to be on the screen
let viewer = null;

// --- answers ---

function choose(answer) {
  session.open.answer = answer;
  if (answer === "unsure") session.open.confidence = null; // unsure is the middle of the scale
  update();
}

function rate(number) {
  if (pairs) session.open.answer = number;
  else if (session.open.answer !== "unsure") session.open.confidence = number;
  update();
}

function complete() {
  const { answer, confidence } = session.open;
  return answer !== null && (pairs || answer === "unsure" || confidence !== null);
}

function next() {
  if (!complete()) {
    const missing = session.open.answer === null ? "an answer" : "how sure you are";
    one("#status").textContent = `${title()}: ${missing} is missing`;
    return;
  }
  clock();
  const { answer, confidence, remark, seconds } = session.open;
  const id = study.trials[session.answers.length].id;
  const given = pairs ? { answer } : { answer, confidence };
  session.answers.push({ id, ...given, remark, seconds: Math.round(seconds * 10) / 10 });
  session.open = fresh();
  keep();
  show();
}

const fresh = () => ({ answer: null, confidence: null, remark: "", seconds: 0 });
const title = () =>
  `${pairs ? "Pair" : "Image"} ${session.answers.length + 1} of ${study.trials.length}`;

/** Adds the time that the open image was visible; breaks, when it is not, do not count. */
function clock() {
  const now = performance.now();
  if (since !== null) session.open.seconds += (now - since) / 1000;
  since = document.hidden || one("#reading").hidden ? null : now;
}

// --- screens ---

function screen(name) {
  for (const main of all("main")) main.hidden = main.id !== name;
}

function show() {
  since = null;
  if (session.answers.length === study.trials.length) {
    screen("done");
    one("#done").focus();
    save();
    return;
  }
  screen("reading");
  const trial = study.trials[session.answers.length];
  viewer.show(pairs ? [trial.original, trial.copy] : [trial.pixels]);
  one("#remark").value = session.open.remark;
  one("#status").textContent = title();
  one("#progress").max = study.trials.length;
  one("#progress").value = session.answers.length;
  one("#stage").setAttribute("aria-label", title());
  all("canvas")[0].setAttribute("aria-label", pairs ? "Original" : "Image to be judged");
  all("canvas")[1].setAttribute("aria-label", "Copy");
  update();
  one("#stage").focus();
  clock();
}

function update() {
  const { answer, confidence } = session.open;
  for (const button of all("[data-answer]")) press(button, button.dataset.answer === answer);
  for (const button of all("#numbers button")) {
    press(button, Number(button.dataset.number) === (pairs ? answer : confidence));
    button.disabled = answer === "unsure";
  }
  one("#next").disabled = !complete();
  if (complete()) one("#next").focus(); // where Enter goes on and Tab is near
  one("#status").textContent = title();
  keep();
}

const press = (button, on) => button.setAttribute("aria-pressed", String(on));

// --- what outlives the page ---

function kept() {
  try {
    return JSON.parse(localStorage.getItem(place)) || {};
  } catch {
    return {};
  }
}

function keep() {
  try {
    localStorage.setItem(place, JSON.stringify({ ...kept(), [session.reader]: session }));
  } catch {
    one("#status").textContent = "This browser keeps nothing: save your answers with E";
  }
}

function save() {
  clock();
  const content = JSON.stringify(session, null, 1);
  const address = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  const name = `answers-${session.reader}-${study.study}.json`;
  Object.assign(document.createElement("a"), { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function open(reader, found) {
  const { study: id, mode } = study;
  const trials = study.trials.length;
  session = found || { format: FORMAT, study: id, mode, reader, trials, answers: [], open: fresh() };
  show();
}

/** Why this is not a session of this study; "" if it is one. */
function fault(found) {
  if (!found || found.format !== FORMAT || !Array.isArray(found.answers) || !found.open) {
    return "This file holds no answers of a reader study.";
  }
  if (found.study !== study.study) return "These are answers to another study.";
  const same = found.answers.every((answer, i) => answer.id === study.trials[i]?.id);
  return same ? "" : "The answers in this file do not fit the images: it was changed.";
}

async function read(file) {
  let found = null;
  try {
    found = JSON.parse(await file.text());
  } catch {
    found = null;
  }
  one("#trouble").textContent = fault(found);
  if (!fault(found)) open(found.reader, found);
}

// --- the beginning ---

function begin() {
  document.body.className = study.mode;
  for (const part of all("[data-mode]")) part.hidden = part.dataset.mode !== study.mode;
  for (const count of all(".count")) count.textContent = study.trials.length;
  const numbers = pairs ? [5, 4, 3, 2, 1] : [1, 2, 3, 4, 5];
  for (const number of numbers) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", innerHTML: pairs ? `<kbd>${number}</kbd>` : number });
    button.append(pairs ? ` ${SCALE[number]}` : "");
    button.dataset.number = number;
    button.setAttribute("aria-keyshortcuts", number);
    if (!pairs) button.setAttribute("aria-label", `How sure: ${number} of 5`);
    button.addEventListener("click", () => rate(number));
    one("#numbers").append(button);
    one(".scale").append(element("dt", number), element("dd", SCALE[number]));
  }
  const rows = keys(pairs);
  for (const list of all(".keys")) {
    for (const [names, what] of rows) {
      const caps = element("span");
      caps.append(...names.split(" ").map((name) => element("kbd", name)));
      list.append(caps, element("span", what));
    }
  }
  for (const [reader, found] of Object.entries(kept())) {
    const done = found.answers.length;
    const button = element("button", `${reader}: ${done} of ${study.trials.length} answered`);
    button.addEventListener("click", () => open(reader, found));
    one("#kept").append(button);
    one("#kept").hidden = false;
  }
  const shown = all("canvas").slice(0, pairs ? 2 : 1);
  viewer = new Viewer(shown, study.size, ({ window, level, zoom }) => {
    const text = `zoom ${zoom.toFixed(1)}, window ${Math.round(window)}, level ${Math.round(level)}`;
    one("#view").textContent = text;
  });
  one("#begin").addEventListener("submit", (event) => {
    event.preventDefault();
    const reader = one("#reader").value;
    open(reader, kept()[reader]);
  });
  one("#file").addEventListener("change", (event) => read(event.target.files[0]));
  one("#remark").addEventListener("input", (event) => (session.open.remark = event.target.value));
  one("#next").addEventListener("click", next);
  one("#reset").addEventListener("click", () => viewer.reset());
  for (const button of all("[data-answer]")) {
    button.addEventListener("click", () => choose(button.dataset.answer));
  }
  for (const button of all(".export")) button.addEventListener("click", save);
  const actions = new Map(
    rows.flatMap(([names, , action]) => names.split(" ").map((name) => [name, action])),
  );
  const saving = new Map([["E", save]]);
  document.addEventListener("keydown", (event) => {
    if (!one("#reading").hidden) onKey(event, actions);
    else if (!one("#done").hidden) onKey(event, saving);
  });
  const stop = () => session && !one("#reading").hidden && (clock(), keep());
  document.addEventListener("visibilitychange", stop);
  window.addEventListener("pagehide", stop);
  setInterval(stop, 1000); // a browser that is killed loses a second at most
  screen("start");
  one("#reader").focus();
}

function element(tag, text = "") {
  return Object.assign(document.createElement(tag), { textContent: text });
}

begin();
