/** The pictures of Example Scene and Load Image: seen before a run, with the words that fit a scene or a way to load one's own. */
import { api } from "../../scripts/api.js";
import { assign, value } from "./graph.js";
import { sceneNamed, shown } from "./pictures.js";
import { button, follow, html, mount, set } from "./shared.js";
import { t } from "./text.js";

/** @typedef {import("./types").GraphNode} GraphNode */

const SCENE_HEIGHT = 235; // pixels of the graph
const PICTURE_HEIGHT = 220;
const WORDS = ["object", "car", "question", "description", "removal", "recolouring"]; // names of outputs

/** @param {GraphNode} node */
export function sceneView(node) {
  const pictures = html("div", { class: "joyimage-scenes" });
  const words = html("dl", { class: "joyimage-words" });
  const element = html("div", { class: "joyimage-scene" }, pictures, words);
  const read = () => ({ addresses: shown(node), scene: sceneNamed(value(node, "scene")) });
  follow(node, read, ({ addresses, scene }) => {
    pictures.replaceChildren(...addresses.map((src) => html("img", { alt: "", draggable: "false", src })));
    pictures.classList.toggle("joyimage-all", addresses.length > 1);
    words.replaceChildren(
      ...WORDS.flatMap((name) => (scene?.[name] ? [html("dt", {}, shownName(node, name)), html("dd", {}, scene[name])] : [])),
    );
  });
  return mount(node, "scene_view", element, SCENE_HEIGHT);
}

/** An output's name in the user's language. @param {GraphNode} node @param {string} name */
const shownName = (node, name) => node.outputs.find((output) => output.name === name)?.localized_name ?? name;

/** @param {GraphNode} node */
export function loadView(node) {
  const image = html("img", { alt: "", draggable: "false" });
  const stage = html("div", { class: "joyimage-stage" }, image);
  const file = html("input", { type: "file", accept: "image/*", hidden: true });
  const choose = button(t("choose"), () => file.click());
  const status = html("span", { class: "joyimage-status", "aria-live": "polite" }, t("drop"));
  const element = html("div", {}, stage, html("div", { class: "joyimage-bar" }, status, choose, file));

  /** @param {Iterable<File>} files */
  function take(files) {
    const [picture] = [...files].filter(({ type }) => type.startsWith("image/"));
    if (!picture) return false;
    upload(node, picture).catch((error) => (status.textContent = `${t("upload_failed")} ${error.message}`));
    return true;
  }
  file.addEventListener("change", () => take(file.files ?? []));
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation(); // the page would open the picture's graph
    take(event.dataTransfer?.files ?? []);
  });
  node.onDragOver = (event) => [...(event.dataTransfer?.items ?? [])].some(({ kind }) => kind === "file");
  node.onDragDrop = (event) => take(event.dataTransfer?.files ?? []);
  node.pasteFiles = take;

  image.addEventListener("load", () => (status.textContent = `${image.naturalWidth} × ${image.naturalHeight}`));
  image.addEventListener("error", () => (status.textContent = t("drop")));
  follow(node, () => shown(node)[0], (address) => set(image, { src: address }));
  return mount(node, "picture", element, PICTURE_HEIGHT);
}

/** Send a picture to ComfyUI's input folder, and choose it. @param {GraphNode} node @param {File} picture */
async function upload(node, picture) {
  const body = new window.FormData();
  body.append("image", picture);
  const reply = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!reply.ok) throw new Error(`${reply.status} ${reply.statusText}`);
  const { name, subfolder } = await reply.json();
  const path = subfolder ? `${subfolder}/${name}` : name;
  const options = node.widgets?.find((widget) => widget.name === "image")?.options.values;
  if (Array.isArray(options) && !options.includes(path)) options.push(path);
  assign(node, "image", path);
}
