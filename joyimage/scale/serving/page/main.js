/** The page for trying the server: a picture, a task, a run, and the result beside what went in. */
import { board } from "./board.js";
import { Refusal, address, call, dataUrl, words } from "./calls.js";
import { compare } from "./compare.js";
import { html, the } from "./elements.js";

const CORNERS = ["left", "top", "right", "bottom"];
const ASKED = /** @type {Record<string, string>} */ ({ generate: "What to make", ask: "Question" });
const EVERY = 5000; // milliseconds between two looks at the server's health

const picture = board(the("stage"), (box) => CORNERS.forEach((name, i) => (the(name).value = box ? box[i] : "")));
/** @type {File[]} */
let files = [];
/** @type {AbortController | null} */
let running = null;

const task = () => new window.FormData(the("form")).get("task");
const value = (/** @type {string} */ id) => the(id).value.trim();

/** Show the fields of a task, and no others. */
function choose() {
  const now = String(task());
  document.querySelectorAll("[data-tasks]").forEach((part) => {
    /** @type {HTMLElement} */ (part).hidden = !part.getAttribute("data-tasks")?.split(" ").includes(now);
  });
  the("asked").textContent = ASKED[now] ?? "What to change";
  the("several").hidden = now !== "edit" && now !== "ask";
  picture.draw(now === "move");
}

/** @param {File[]} chosen */
function take(chosen) {
  files = chosen;
  URL.revokeObjectURL(picture.image.src);
  the("stage").hidden = !files.length;
  if (files.length) picture.image.src = URL.createObjectURL(/** @type {File} */ (files.at(-1)));
}

picture.image.addEventListener("load", () => picture.put(null));
picture.image.addEventListener("error", () => files.length && say("this file is no picture that the page can show"));
the("files").addEventListener("change", () => take([...the("files").files]));
the("form").addEventListener("change", choose);
for (const name of CORNERS) {
  the(name).addEventListener("change", () => {
    const corners = CORNERS.map(value);
    if (!corners.includes("")) picture.put(/** @type {import("./board.js").Box} */ (corners.map(Number)));
  });
}
for (const kind of ["dragover", "drop"]) {
  window.addEventListener(kind, (event) => {
    const dropped = /** @type {DragEvent} */ (event).dataTransfer;
    event.preventDefault();
    if (kind === "drop" && dropped?.files.length) take([...dropped.files]);
  });
}

/** Say what is wrong; nothing takes it away. @param {string} [text] */
function say(text = "") {
  the("wrong").textContent = text;
  the("wrong").hidden = !text;
}

/** @param {string} what to fill in first @param {unknown} there */
function need(what, there) {
  if (!there) throw new Error(`${what} is missing`);
}

/** The form of an edit, or of a picture from text as JSON. @param {string} now */
function fields(now) {
  /** @type {Record<string, string>} */
  const given = { seed: value("seed"), steps: value("steps"), guidance_scale: value("guidance_scale"), size: value("size") };
  if (now === "edit" || now === "generate") given.prompt = value("prompt");
  if (now === "move") Object.assign(given, { move: value("object"), box: picture.box()?.join(",") ?? "" });
  if (now === "rotate") Object.assign(given, { rotate: value("object"), view: value("view") });
  if (now === "camera") {
    Object.assign(given, { "camera[yaw]": value("yaw"), "camera[pitch]": value("pitch"), "camera[zoom]": value("zoom") });
  }
  return Object.fromEntries(Object.entries(given).filter(([, text]) => text !== ""));
}

/** @param {string} now @param {{key: string, signal: AbortSignal}} options */
async function make(now, options) {
  const given = fields(now);
  if (now === "generate") {
    const numbers = ["seed", "steps", "guidance_scale"].filter((name) => name in given);
    const json = { ...given, ...Object.fromEntries(numbers.map((name) => [name, Number(given[name])])) };
    return show(await (await call("/v1/images/generations", { ...options, json })).json());
  }
  if (now === "move") need("the red box, which is drawn on the picture,", given.box);
  const form = new window.FormData();
  const sent = now === "edit" ? files : files.slice(-1);
  sent.forEach((file) => form.append(sent.length > 1 ? "image[]" : "image", file));
  for (const [name, text] of Object.entries(given)) form.append(name, text);
  show(await (await call("/v1/images/edits", { ...options, form })).json(), picture.image.src);
}

/** @param {{data: {b64_json: string}[]}} answer @param {string} [before] */
function show(answer, before) {
  const made = answer.data.map(({ b64_json }) => address(b64_json));
  const views = made.map((after) => (before ? compare(before, after) : html("img", { src: after, alt: "The picture" })));
  const saves = made.map((href) => html("a", { href, download: "joyimage.png" }, "Save the picture"));
  the("result").replaceChildren(...views.flatMap((view, i) => [view, saves[i]]));
  the("result").hidden = false;
}

/** @param {{key: string, signal: AbortSignal}} options */
async function ask(options) {
  const pictures = await Promise.all(files.map(dataUrl));
  const content = [
    ...pictures.map((url) => ({ type: "image_url", image_url: { url } })),
    { type: "text", text: value("prompt") },
  ];
  const json = { messages: [{ role: "user", content }], stream: true };
  const answer = await call("/v1/chat/completions", { ...options, json });
  the("said").hidden = false;
  for await (const word of words(answer)) the("said").textContent += word;
}

/** @param {{key: string, signal: AbortSignal}} options */
async function find(options) {
  const form = new window.FormData();
  form.append("image", /** @type {File} */ (files.at(-1)));
  form.append("object", value("object"));
  const { boxes } = await (await call("/v1/locate", { ...options, form })).json();
  picture.mark(boxes);
  the("said").hidden = false;
  the("said").textContent = boxes.map((/** @type {number[]} */ box) => `${value("object")}: ${box.join(", ")}`).join("\n");
}

async function run() {
  const now = String(task());
  running = new AbortController();
  const options = { key: value("key"), signal: running.signal };
  say();
  the("said").textContent = "";
  the("said").hidden = the("result").hidden = true;
  the("run").disabled = true;
  the("stop").disabled = false;
  try {
    if (now !== "generate" && now !== "ask") need("the picture", files.length);
    await (now === "ask" ? ask(options) : now === "locate" ? find(options) : make(now, options));
  } catch (error) {
    if (/** @type {Error} */ (error).name !== "AbortError") say(/** @type {Error} */ (error).message);
    if (error instanceof Refusal && error.status === 401) the("locked").open = true;
  } finally {
    running = null;
    the("run").disabled = false;
    the("stop").disabled = true;
  }
}

async function look() {
  const told = await window.fetch("/health").then((answer) => answer.json(), () => ({ status: "not reached" }));
  const counts = told.running === undefined ? "" : `, ${told.running} at work, ${told.waiting} waiting`;
  the("state").textContent = `${told.status}${counts}`;
}

the("form").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  void run();
});
the("stop").addEventListener("click", () => running?.abort());
choose();
void look();
window.setInterval(look, EVERY);
