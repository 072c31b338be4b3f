/** Registers the pack's widgets with ComfyUI's frontend. */
import { app } from "../../scripts/app.js";
import { answerView, listen, remember } from "./answer.js";
import { boxWidget } from "./box.js";
import { cameraView } from "./camera.js";
import { compareView } from "./compare.js";
import { dialView } from "./dial.js";
import { orbitView } from "./orbit.js";

/** @typedef {import("./types").GraphNode} GraphNode */

/** @type {Record<string, (node: GraphNode) => unknown>} */
const VIEWS = {
  JoyImageAsk: answerView,
  JoyImageCamera: cameraView,
  JoyImageCompare: compareView,
  JoyImageEncodePrompt: answerView,
  JoyImageLocate: answerView,
  JoyImageOrbit: orbitView,
  JoyImageRewritePrompt: answerView,
  JoyImageRotateObject: dialView,
};
const WIDTH = 340; // pixels of the graph, for a new node

app.registerExtension({
  name: "JoyImage.Widgets",
  setup() {
    const link = document.createElement("link");
    Object.assign(link, { rel: "stylesheet", href: new URL("./joyimage.css", import.meta.url).href });
    document.head.append(link);
    listen();
    remember().catch((error) => window.console.warn("JoyImage: the history is not to be had", error));
  },
  getCustomWidgets: () => ({
    JOYIMAGE_BOX: (/** @type {GraphNode} */ node, /** @type {string} */ name) => ({ widget: boxWidget(node, name) }),
  }),
  nodeCreated(/** @type {GraphNode & {comfyClass: string}} */ node) {
    const view = VIEWS[node.comfyClass];
    if (!view) return;
    view(node);
    node.setSize([Math.max(WIDTH, node.size[0]), node.computeSize()[1]]);
  },
});
